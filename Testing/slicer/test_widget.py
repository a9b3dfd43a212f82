"""The real panel on the Qt stand-in and real MRML, driven by clicks."""

import slicer_host

slicer_host.start()

import fakes
import pytest
import slicer
from LNHGSegmentationLib.Parameter import Parameter
from LNHGSegmentationLib.RunSection import summary
from LNHGSegmentationLib.SegmentationLogic import SegmentationLogic
from LNHGSegmentationLib.Widget import Widget
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic


class InstallNothing:
    """Plays InstallLogic: everything is there, or the user declines."""

    def __init__(self) -> None:
        self.asked, self.refusal = 0, None

    def ensure(self) -> None:
        self.asked += 1
        if self.refusal:
            raise RuntimeError(self.refusal)


class LNHGSegmentationLogic(ScriptedLoadableModuleLogic):
    def getParameterNode(self):
        return Parameter(super().getParameterNode())


@pytest.fixture
def panel(scene, core):
    """The panel in an empty scene; its child process is the fake core."""
    logic = SegmentationLogic(python=str(core.python))
    logic.models = lambda: ["lnhg-1mm", "paper"]
    install = InstallNothing()
    panel = Widget(logic, install, LNHGSegmentationLogic().getParameterNode)
    panel.core, panel.logic, panel.install = core, logic, install
    yield panel
    panel.cleanup()


@pytest.fixture
def segmented(panel, run_events):
    """The panel after a run on a CT."""
    fakes.make_ct_node()
    panel.ui.applyButton.click()
    run_events(lambda: not panel.logic.isRunning)
    return panel


def add_slice_view():
    composite = slicer.vtkMRMLSliceCompositeNode()
    composite.SetLayoutName("Red")
    return slicer.mrmlScene.AddNode(composite)


def test_without_a_ct_the_button_is_off_and_says_why(panel):
    assert not panel.ui.applyButton.enabled
    assert "Select a chest CT" in panel.ui.applyButton.toolTip


def test_first_loaded_ct_is_selected_and_the_button_comes_on(panel):
    ct = fakes.make_ct_node()
    assert panel._parameter.inputVolume is ct
    assert panel.ui.applyButton.enabled
    assert "outline" in panel.ui.applyButton.toolTip


def test_ct_without_voxels_is_refused_in_the_tooltip(panel, scene):
    scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    assert not panel.ui.applyButton.enabled
    assert "empty" in panel.ui.applyButton.toolTip


def test_click_segments_and_says_what_was_found(segmented):
    assert segmented.ui.statusLabel.text == "2 nodules, highest score 0.90"
    assert segmented._parameter.segmentation.GetSegmentation().GetNumberOfSegments() == 2
    assert segmented.install.asked == 1


def test_progress_and_stage_are_shown_while_running(panel, run_events):
    panel.core.mode = "slow"
    fakes.make_ct_node()
    panel.uiWidget.show()
    panel.ui.applyButton.click()
    run_events(lambda: panel.ui.statusLabel.text == "working")
    assert panel.ui.progressBar.value == 20
    assert panel.ui.progressBar.visible
    assert not panel.ui.applyButton.enabled
    assert "running" in panel.ui.applyButton.toolTip
    assert not panel.ui.inputSelector.enabled


def test_cancel_returns_the_panel_to_rest_within_two_seconds(panel, run_events):
    panel.core.mode = "slow"
    fakes.make_ct_node()
    panel.ui.applyButton.click()
    run_events(lambda: panel.ui.statusLabel.text == "working")
    panel.ui.cancelButton.click()
    assert run_events(lambda: not panel.logic.isRunning) < 2.0
    assert panel.ui.statusLabel.text == "Cancelled; nothing was changed."
    assert panel.ui.applyButton.enabled
    assert not panel.ui.cancelButton.enabled
    assert panel._parameter.segmentation is None


def test_failure_shows_the_cores_sentence(panel, run_events):
    panel.core.mode = "refuse"
    fakes.make_ct_node()
    panel.ui.applyButton.click()
    run_events(lambda: not panel.logic.isRunning)
    assert panel.ui.statusLabel.text.startswith("ct.nrrd holds values from 0 to 255")


def test_declined_installation_starts_nothing(panel):
    panel.install.refusal = "declined"
    fakes.make_ct_node()
    with pytest.raises(RuntimeError, match="declined"):
        panel.sections[0].onApply()
    assert not panel.logic.isRunning
    assert panel.ui.applyButton.enabled


def test_map_comes_in_front_of_the_ct_in_the_lung_window(panel, run_events):
    view = add_slice_view()
    ct = fakes.make_ct_node()
    panel.ui.applyButton.click()
    run_events(lambda: not panel.logic.isRunning)
    assert view.GetBackgroundVolumeID() == ct.GetID()
    assert view.GetForegroundVolumeID() == panel._parameter.heterogeneity.GetID()
    assert view.GetForegroundOpacity() == pytest.approx(0.6)
    assert (ct.GetDisplayNode().GetWindow(), ct.GetDisplayNode().GetLevel()) == (1500, -600)


def test_overlay_controls_are_off_until_there_is_a_map(panel, segmented):
    controls = (segmented.ui.overlayCheckBox, segmented.ui.opacitySlider, segmented.ui.colorMapSelector)
    assert all(control.enabled for control in controls)
    slicer.mrmlScene.Clear()
    assert not any(control.enabled for control in controls)


def test_check_box_hides_the_map_and_its_legend(segmented):
    view = add_slice_view()
    segmented.ui.overlayCheckBox.click()
    display = segmented._parameter.heterogeneity.GetDisplayNode()
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(display)
    assert view.GetForegroundOpacity() == 0
    assert not legend.GetVisibility()
    segmented.ui.overlayCheckBox.click()
    assert view.GetForegroundOpacity() == pytest.approx(0.6)
    assert legend.GetVisibility()


def test_slider_sets_the_opacity(segmented):
    view = add_slice_view()
    segmented.ui.opacitySlider.setValue(0.25)
    assert view.GetForegroundOpacity() == pytest.approx(0.25)


def test_color_map_choice_changes_map_and_legend(segmented):
    display = segmented._parameter.heterogeneity.GetDisplayNode()
    assert display.GetColorNode().GetName() == "LNHG viridis"
    segmented.ui.colorMapSelector.setCurrentIndex(1)
    assert display.GetColorNode().GetName() == "LNHG jet"
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(display)
    assert legend.GetColorNode().GetName() == "LNHG jet"


def test_model_choice_reaches_the_child_process(panel, run_events):
    fakes.make_ct_node()
    assert panel.ui.modelSelector.currentText == "lnhg-1mm (default)"
    panel.ui.modelSelector.setCurrentIndex(1)
    panel.ui.applyButton.click()
    run_events(lambda: not panel.logic.isRunning)
    assert panel.core.arguments[-2:] == ["--model", "paper"]


def test_model_of_a_loaded_scene_is_shown_even_if_it_is_not_bundled(panel):
    panel._parameter.model = "my-model"
    assert panel.ui.modelSelector.currentText == "my-model"
    assert panel._parameter.model == "my-model"


def test_second_run_hides_the_first_result_and_keeps_it(segmented, run_events):
    first = segmented._parameter.segmentation
    segmented.ui.applyButton.click()
    run_events(lambda: not segmented.logic.isRunning)
    assert segmented._parameter.segmentation is not first
    assert not first.GetDisplayVisibility()
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 2


def test_closing_the_scene_during_a_run_stops_it_and_resets_the_panel(panel, run_events):
    panel.core.mode = "slow"
    fakes.make_ct_node()
    panel.ui.applyButton.click()
    run_events(lambda: panel.ui.statusLabel.text == "working")
    slicer.mrmlScene.Clear()
    assert not panel.logic.isRunning
    assert panel.ui.statusLabel.text == ""
    assert not panel.ui.applyButton.enabled
    fakes.make_ct_node()
    assert panel.ui.applyButton.enabled


def test_saved_scene_restores_settings_result_and_summary(segmented, tmp_path):
    segmented.ui.opacitySlider.setValue(0.35)
    segmented.ui.colorMapSelector.setCurrentIndex(1)
    slicer.mrmlScene.SetSaveToXMLString(1)
    slicer.mrmlScene.Commit()
    saved = slicer.mrmlScene.GetSceneXMLString()
    slicer.mrmlScene.Clear()
    assert segmented.ui.statusLabel.text == ""
    slicer.mrmlScene.SetLoadFromXMLString(1)
    slicer.mrmlScene.SetSceneXMLString(saved)
    slicer.mrmlScene.Import()
    assert segmented.ui.statusLabel.text == "2 nodules, highest score 0.90"
    assert segmented._parameter.overlayOpacity == pytest.approx(0.35)
    assert segmented.ui.colorMapSelector.currentText == "jet"


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        ([], "No nodule found."),
        ([0.5], "1 nodule, highest score 0.50"),
        ([0.2, 0.913], "2 nodules, highest score 0.91"),
    ],
)
def test_summary_counts_nodules(scores, text):
    assert summary([{"score": score} for score in scores]) == text
