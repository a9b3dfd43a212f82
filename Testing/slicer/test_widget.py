"""The real panel on the Qt stand-in and real MRML, driven by clicks."""

import slicer_host

slicer_host.start()

import fakes
import pytest
import qt
import slicer
from LNHGSegmentationLib.Scene import SceneResults


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
    assert segmented.ui.statusLabel.text == "2 nodules with a score of at least 0.50."
    assert segmented._parameter.segmentation.GetSegmentation().GetNumberOfSegments() == 2
    assert segmented.install.asked == 1


def test_progress_stage_and_time_left_are_shown_while_running(working):
    working.uiWidget.show()
    assert working.ui.statusLabel.text.startswith("working, ")
    assert working.ui.statusLabel.text.endswith(" left")
    assert working.ui.progressBar.value == 21
    assert working.ui.progressBar.visible
    for choice in ("inputSelector", "modelSelector", "deviceSelector", "addModelButton"):
        assert not getattr(working.ui, choice).enabled


def test_segment_button_turns_into_cancel_while_running(working, run_events):
    button = working.ui.applyButton
    assert (button.text, button.enabled) == ("Cancel", True)
    assert "nothing is changed" in button.toolTip
    button.click()
    assert (button.enabled, working.ui.statusLabel.text) == (False, "Cancelling...")
    assert run_events(lambda: not working.logic.isRunning) < 2.0
    assert (button.text, button.enabled) == ("Segment nodules", True)
    assert working.ui.statusLabel.text == "Cancelled; nothing was changed."
    assert not working.ui.progressBar.visible
    assert working._parameter.segmentation is None


def test_space_bar_starts_and_cancels_a_run(panel, run_events):
    panel.core.mode = "slow"
    fakes.make_ct_node()
    panel.uiWidget.show()
    press_space(panel.ui.applyButton)
    run_events(lambda: "working" in panel.ui.statusLabel.text)
    press_space(panel.ui.applyButton)
    run_events(lambda: not panel.logic.isRunning)
    assert panel.ui.statusLabel.text == "Cancelled; nothing was changed."


def press_space(widget):
    for kind in (qt.QEvent.KeyPress, qt.QEvent.KeyRelease):
        qt.QApplication.sendEvent(widget, qt.QKeyEvent(kind, qt.Qt.Key_Space, qt.Qt.NoModifier))


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


def test_model_choice_reaches_the_child_process(panel, run_events):
    fakes.make_ct_node()
    assert panel.ui.modelSelector.currentText == "lnhg-1mm (default)"
    panel.ui.modelSelector.setCurrentIndex(1)
    panel.ui.applyButton.click()
    run_events(lambda: not panel.logic.isRunning)
    assert panel.core.arguments[-4:] == ["--model", "paper", "--threshold", "0.1500"]


def test_model_of_a_loaded_scene_is_shown_even_if_it_is_not_bundled(panel):
    panel._parameter.model = "my-model"
    assert panel.ui.modelSelector.currentText == "my-model (not on this computer)"
    assert panel._parameter.model == "my-model"


def test_second_run_hides_the_first_result_and_keeps_it(segmented, run_events):
    first = segmented._parameter.segmentation
    segmented.ui.applyButton.click()
    run_events(lambda: not segmented.logic.isRunning)
    assert segmented._parameter.segmentation is not first
    run_events(lambda: not first.GetDisplayVisibility())
    assert SceneResults.results() == [first, segmented._parameter.segmentation]


def test_a_map_is_never_taken_for_a_ct(segmented):
    parameter = segmented._parameter
    slicer.mrmlScene.RemoveNode(parameter.inputVolume)
    assert slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    assert SceneResults.firstVolume() is None


def test_closing_the_scene_during_a_run_stops_it_and_resets_the_panel(working):
    slicer.mrmlScene.Clear()
    assert not working.logic.isRunning
    assert working.ui.statusLabel.text == ""
    assert not working.ui.applyButton.enabled
    fakes.make_ct_node()
    assert working.ui.applyButton.enabled


def test_saved_scene_restores_settings_result_and_summary(segmented, tmp_path):
    segmented.ui.opacitySlider.setValue(0.35)
    segmented.ui.colorMapSelector.setCurrentIndex(1)
    assert slicer.mrmlScene.WriteToMRB(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    assert segmented.ui.statusLabel.text == ""
    assert slicer.mrmlScene.ReadFromMRB(str(tmp_path / "scene.mrb"), True)
    assert segmented.ui.statusLabel.text == "2 nodules with a score of at least 0.50."
    assert segmented._parameter.overlayOpacity == pytest.approx(0.35)
    assert segmented.ui.colorMapSelector.currentText == "Jet (publication)"
