"""A scene saved as .mrb and loaded again: the same overlay, legend, parameters and findings."""

import slicer_host

slicer_host.start()

from pathlib import Path

import fakes
import numpy as np
import pytest
import slicer
import views
import vtk
from LNHGLib.figures.segment_style import segment_color
from LNHGSegmentationLib.Findings.Findings import Findings
from LNHGSegmentationLib.Scene import ModelOutput, SceneResults

# Saved by commit b361d9c after a run of the fake core: the model output has no display node.
OLD_SCENE = Path(__file__).parents[1] / "data" / "scene_of_b361d9c.mrb"

SETTINGS = {
    "overlayOpacity": 0.35,
    "colorMap": "jet",
    "scaleMode": "nodule",
    "rangeLow": 0.1,
    "rangeHigh": 0.8,
    "segmentStyle": "fill",
    "device": "cpu",
    "runtime": "torch",
    "model": "paper",
}


@pytest.fixture
def view(scene):
    """What the red slice view shows; made anew after the scene is closed, as in Slicer."""

    def make():
        nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        if nodes:
            return nodes[0]
        node = slicer.vtkMRMLSliceCompositeNode()
        node.SetLayoutName("Red")
        return slicer.mrmlScene.AddNode(node)

    return make


def look(panel, view) -> dict:
    """Return all that makes the picture and the panel."""
    parameter = panel._parameter
    shown = parameter.segmentation.GetNodeReference(SceneResults.SHOWN_ROLE)
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(shown.GetDisplayNode())
    display, segments = shown.GetDisplayNode(), parameter.segmentation.GetDisplayNode()
    ct = parameter.inputVolume.GetDisplayNode()
    return {
        "settings": {name: getattr(parameter, name) for name in (*SETTINGS, "threshold", "overlayVisible")},
        "findings": SceneResults.rowsOf(parameter.segmentation),
        "run": SceneResults.runOf(parameter.segmentation),
        "status": panel.ui.statusLabel.text,
        "ct": parameter.inputVolume.GetName(),
        "window": (ct.GetWindow(), ct.GetLevel()),
        "colors": display.GetColorNode().GetName(),
        "range": (display.GetWindowLevelMin(), display.GetWindowLevelMax()),
        "legend": (
            legend.GetTitleText(),
            legend.GetLabelFormat(),
            legend.GetVisibility(),
            legend.GetColorNode().GetName(),
        ),
        "outline and fill": (segments.GetVisibility2DOutline(), segments.GetVisibility2DFill()),
        "opacity": view.GetForegroundOpacity(),
        "front": view.GetForegroundVolumeID() == shown.GetID(),
        "behind": view.GetBackgroundVolumeID() == parameter.inputVolume.GetID(),
        "shown": slicer.util.arrayFromVolume(shown).copy(),
        "signal": slicer.util.arrayFromVolume(parameter.heterogeneity).copy(),
    }


def add_ct() -> None:
    """Add a right-handed CT, as scanners make them: Slicer keeps the order of its voxels in a saved scene."""
    slicer.util.addVolumeFromArray(fakes.make_ct_array(), fakes.IJK_TO_RAS * [1, -1, 1, 1], "CT")


def test_saved_scene_comes_back_as_it_was(panel, view, run_events, tmp_path):
    view()
    add_ct()
    panel.ui.applyButton.click()
    run_events(lambda: not panel.logic.isRunning)
    for name, value in SETTINGS.items():
        setattr(panel._parameter, name, value)
    run_events(lambda: view().GetForegroundVolumeID())
    before = look(panel, view())
    assert slicer.mrmlScene.WriteToMRB(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    assert panel.ui.statusLabel.text == ""
    view()
    slicer.mrmlScene.ReadFromMRB(str(tmp_path / "scene.mrb"), True)
    run_events(lambda: view().GetForegroundVolumeID())
    after = look(panel, view())
    for name in ("shown", "signal"):
        np.testing.assert_allclose(after.pop(name), before.pop(name), atol=1e-5)
    assert after == before
    assert panel.ui.colorMapSelector.currentText.startswith("Jet")
    assert panel.ui.deviceSelector.itemData(panel.ui.deviceSelector.currentIndex) == "cpu"


def test_saved_scene_keeps_the_results_of_several_cts_apart(panel, run_events, tmp_path):
    fakes.make_ct_node("second")
    fakes.make_ct_node("first")
    for _ in range(2):
        panel.ui.applyButton.click()
        run_events(lambda: not panel.logic.isRunning)
        panel.ui.inputSelector.setCurrentNode(slicer.util.getNode("first"))
    assert slicer.mrmlScene.WriteToMRB(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    slicer.mrmlScene.ReadFromMRB(str(tmp_path / "scene.mrb"), True)
    volumes = {SceneResults.volumeOf(node).GetName() for node in SceneResults.results()}
    assert volumes == {"first", "second"}
    for name in volumes:
        panel._parameter.inputVolume = slicer.util.getNode(name)
        assert SceneResults.volumeOf(panel._parameter.segmentation).GetName() == name


def test_map_of_a_ct_that_slicer_turns_on_loading_has_no_leftovers(panel, run_events, tmp_path):
    fakes.make_ct_node()
    panel.ui.applyButton.click()
    run_events(
        lambda: (
            panel._parameter.segmentation and panel._parameter.segmentation.GetNodeReference(SceneResults.SHOWN_ROLE)
        )
    )
    slicer.mrmlScene.WriteToMRB(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    slicer.mrmlScene.ReadFromMRB(str(tmp_path / "scene.mrb"), True)
    segmentation = panel._parameter.segmentation
    shown = segmentation.GetNodeReference(SceneResults.SHOWN_ROLE)
    run_events(lambda: np.count_nonzero(slicer.util.arrayFromVolume(shown)) == np.count_nonzero(fakes.make_labels()))
    for each in segmentation.GetSegmentation().GetSegmentIDs():
        segmentation.GetDisplayNode().SetSegmentVisibility(each, False)
    run_events(lambda: not slicer.util.arrayFromVolume(shown).any())


@pytest.fixture(scope="module")
def window():
    """A real slice view."""
    return views.SliceView("Saved", "Axial", (400, 400))


@pytest.fixture
def warnings():
    """What Slicer writes to its log."""
    before, log = vtk.vtkOutputWindow.GetInstance(), vtk.vtkStringOutputWindow()
    vtk.vtkOutputWindow.SetInstance(log)
    vtk.vtkObject.GlobalWarningDisplayOn()
    yield log
    vtk.vtkObject.GlobalWarningDisplayOff()
    vtk.vtkOutputWindow.SetInstance(before)


def around_nodule(window, segmentation, number: int) -> np.ndarray:
    """Return the middle of the picture when a slice view looks at a nodule."""
    window.look_at(tuple(segmentation.GetSegmentCenterRAS(f"Nodule_{number}")), 60.0)
    return window.render()[150:250, 150:250].astype(int)


def test_loaded_scene_shows_nothing_of_a_rejected_nodule(panel, window, run_events, tmp_path, warnings):
    add_ct()
    panel.ui.applyButton.click()
    run_events(
        lambda: not panel.logic.isRunning and panel._parameter.segmentation.GetNodeReference(SceneResults.SHOWN_ROLE)
    )
    Findings(panel._parameter.segmentation).reject(2)
    slicer.mrmlScene.WriteToMRB(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    slicer.mrmlScene.ReadFromMRB(str(tmp_path / "scene.mrb"), True)
    shown = panel._parameter.segmentation.GetNodeReference(SceneResults.SHOWN_ROLE)
    run_events(lambda: not slicer.util.arrayFromVolume(shown)[fakes.make_labels() == 2].any())
    picture = around_nodule(window, panel._parameter.segmentation, 2)
    assert picture.max() > 150, "the CT is shown"
    assert np.ptp(picture, axis=-1).max() == 0, "the model's outline lies over the CT"
    assert "no display properties" not in warnings.GetOutput()


def test_scene_of_an_older_version_shows_the_outlines_and_not_the_model_output(panel, window, run_events):
    slicer.mrmlScene.ReadFromMRB(str(OLD_SCENE), True)
    segmentation = panel._parameter.segmentation
    assert not segmentation.GetNodeReference(ModelOutput.ROLE).GetDisplayNode().GetVisibility()
    run_events(lambda: window.logic.GetSliceCompositeNode().GetForegroundVolumeID())
    distance = np.abs(around_nodule(window, segmentation, 1) - 255 * np.array(segment_color(1))).max(-1)
    assert (distance < 30).sum() > 100


def test_scene_of_an_older_version_keeps_its_own_scale_and_says_so(panel):
    slicer.mrmlScene.ReadFromMRB(str(OLD_SCENE), True)
    assert "score_scale" not in SceneResults.runOf(panel._parameter.segmentation)
    assert panel.ui.thresholdLabel.text == "Least score:"
    assert "not a probability" in panel.ui.thresholdLabel.toolTip
    assert "with a score of at least" in panel.ui.statusLabel.text
    assert not panel.ui.expectationLabel.isVisibleTo(panel.uiWidget)


def test_scene_of_an_older_version_takes_what_computes_by_itself_and_runs(panel, run_events):
    panel._parameter.runtime = "torch"
    slicer.mrmlScene.Clear()
    slicer.mrmlScene.ReadFromMRB(str(OLD_SCENE), True)
    assert panel._parameter.runtime == "auto"
    assert panel.ui.runtimeSelector.currentText == "Automatic"
    panel.ui.applyButton.click()
    run_events(lambda: not panel.logic.isRunning)
    assert panel.core.arguments[8:10] == ["--runtime", "auto"]
    assert SceneResults.runOf(panel._parameter.segmentation)["runtime"] == "openvino"


def test_scene_of_probabilities_is_loaded_with_what_to_expect(panel, run_events, tmp_path):
    add_ct()
    panel.core.mode = "probability"
    panel.ui.applyButton.click()
    run_events(lambda: not panel.logic.isRunning)
    slicer.mrmlScene.WriteToMRB(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    slicer.mrmlScene.ReadFromMRB(str(tmp_path / "scene.mrb"), True)
    assert panel.ui.thresholdLabel.text == "Least prob.:"
    assert panel.ui.statusLabel.text.startswith("2 nodules with a probability of at least 0.50")
    assert panel.ui.expectationLabel.text.startswith("About 9 of 12 nodules found, 0.3 false per scan (7")


def test_scene_of_an_older_version_is_mended_when_the_panel_is_opened_later(core, scene):
    import panel_host

    slicer.mrmlScene.ReadFromMRB(str(OLD_SCENE), True)
    original = SceneResults.results()[0].GetNodeReference(ModelOutput.ROLE).GetDisplayNode()
    assert original.GetVisibility()
    panel = panel_host.make_panel(core)
    assert not original.GetVisibility()
    panel.cleanup()
