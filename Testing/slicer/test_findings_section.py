"""The findings section, driven by clicks and keys on the Qt stand-in and real MRML."""

import slicer_host

slicer_host.start()

import json

import fakes
import numpy as np
import pytest
import qt
import slicer
import vtk
from LNHGLib.figures.segment_style import SCALE_TAG
from LNHGSegmentationLib.Core.SegmentationLogic import SegmentationLogic
from LNHGSegmentationLib.Findings import FindingMeasures
from LNHGSegmentationLib.Findings.Findings import Findings
from LNHGSegmentationLib.Panel import RunTexts
from LNHGSegmentationLib.Panel.FindingsSection import FindingsSection
from LNHGSegmentationLib.Scene import Geometry, ModelOutput, SceneResults
from panel_host import LNHGSegmentationLogic
from PySide6 import QtCore, QtTest

COLUMNS_SETTING = "LNHG/FindingsColumns"


@pytest.fixture
def section(a_ct, core, tmp_path):
    """The section on the two findings of the fake core, scores 0.9 and 0.8."""
    slicer.app.userSettings().remove(COLUMNS_SETTING)
    result = measured(fakes.make_result_nodes(a_ct, tmp_path))
    section = FindingsSection(SegmentationLogic(python=str(core.python)))
    section.core = core
    parameter = LNHGSegmentationLogic().getParameterNode()
    parameter.inputVolume = a_ct
    SceneResults.choose(parameter, result.segmentation)
    section.uiWidget.resize(620, 520)
    section.uiWidget.show()
    section.setParameter(parameter)
    section.parameter = parameter
    yield section
    section.setParameter(None)
    section.cleanup()
    section.uiWidget.hide()


def measured(result):
    """Let the rows hold the measurements that the fake core leaves out, as the core's do."""
    findings = Findings(result.segmentation)
    rows = [
        {**row, **FindingMeasures.measure(result.segmentation, findings.crop(row["number"]))} for row in findings.rows()
    ]
    rows = [{**row, "side": "left", "slice": 10 * row["number"]} for row in rows]
    for node in (result.segmentation, result.segmentation.GetNodeReference(ModelOutput.ROLE)):
        node.SetAttribute(SceneResults.NODULES_ATTRIBUTE, json.dumps(rows))
    return result


def texts(section, column: int) -> list[str]:
    table = section.ui.findingsTable
    return [table.item(row, column).text() for row in range(table.rowCount())]


def click_cell(section, row: int, column: int = 2, keys=QtCore.Qt.NoModifier) -> None:
    table = section.ui.findingsTable
    place = table.visualItemRect(table.item(row, column)).center()
    QtTest.QTest.mouseClick(table.viewport(), QtCore.Qt.LeftButton, keys, place)


def column_action(section, name: str):
    return next(action for action in section.table.columnMenu.actions() if action.text == name)


def visible(section) -> list[str]:
    display = section.findings.segmentation.GetDisplayNode()
    return [each for each in section.findings.segments.ids() if display.GetSegmentVisibility(each)]


def map_voxels(section) -> np.ndarray:
    return slicer.util.arrayFromVolume(SceneResults.heterogeneityOf(section.findings.segmentation))


def test_table_shows_a_row_a_finding_with_its_measures(section):
    assert texts(section, 0) == ["1", "2"]
    assert texts(section, 2) == ["0.90", "0.80"]
    assert texts(section, 3) == ["fused", "fused"]


def test_slider_filters_table_and_segments_at_once(section):
    section.ui.thresholdSlider.setValue(0.85)
    assert texts(section, 0) == ["1"]
    assert visible(section) == ["Nodule_1"]
    assert section.ui.shownLabel.text == "1 of 2"
    section.ui.thresholdSlider.setValue(0.6)
    assert visible(section) == ["Nodule_1", "Nodule_2"]


def test_click_goes_to_the_finding_in_all_views_and_zooms(section):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode", "Test")
    node.SetFieldOfView(400, 300, 1)
    click_cell(section, 1)
    low, high = np.array(section.findings.row(2)["box_lps_mm"])
    position = (low + high) / 2 * [-1, -1, 1]
    matrix = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
    np.testing.assert_allclose(matrix[:3, 3], position, atol=1e-6)
    assert node.GetFieldOfView()[1] == pytest.approx(4 * 22.5)  # four times the nodule's height
    assert section.table.current() == 2
    slicer.mrmlScene.RemoveNode(node)


def test_first_finding_of_a_new_result_is_shown_at_once(section, a_ct, tmp_path):
    assert section.table.current() == 1
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode", "Test")
    (tmp_path / "second").mkdir()
    SceneResults.choose(section.parameter, measured(fakes.make_result_nodes(a_ct, tmp_path / "second")).segmentation)
    low, high = np.array(section.findings.row(1)["box_lps_mm"])
    np.testing.assert_allclose(node.GetSliceToRAS().GetElement(2, 3), ((low + high) / 2)[2], atol=1e-6)
    slicer.mrmlScene.RemoveNode(node)


def test_views_stay_where_they_are_when_a_result_is_shown_again(section):
    shown = section.findings.segmentation
    SceneResults.choose(section.parameter, None)
    SceneResults.choose(section.parameter, shown)
    assert section.table.current() is None


def test_views_keep_their_zoom_when_asked_to(section):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode", "Test")
    node.SetFieldOfView(400, 300, 1)
    section.actions["zoom"].trigger()
    click_cell(section, 0)
    assert node.GetFieldOfView()[0] == 400
    slicer.mrmlScene.RemoveNode(node)


def test_camera_of_the_3d_view_turns_to_the_finding(section):
    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLViewNode", "Test")
    view.SetLayoutName("Test")
    camera = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLCameraNode")
    camera.SetLayoutName("Test")
    click_cell(section, 0)
    low, high = np.array(section.findings.row(1)["box_lps_mm"])
    np.testing.assert_allclose(camera.GetFocalPoint(), (low + high) / 2 * [-1, -1, 1], atol=1e-6)
    assert np.linalg.norm(np.subtract(camera.GetPosition(), camera.GetFocalPoint())) == pytest.approx(3 * 4 * 17.5)
    for node in (camera, view):
        slicer.mrmlScene.RemoveNode(node)


def test_arrow_keys_go_on_from_where_a_button_went(section):
    section.ui.nextButton.click()
    assert section.table.current() == 2
    QtTest.QTest.keyClick(section.ui.findingsTable, QtCore.Qt.Key_Up)
    assert section.table.current() == 1


def test_arrow_keys_and_buttons_walk_through_the_findings(section):
    click_cell(section, 0)
    QtTest.QTest.keyClick(section.ui.findingsTable, QtCore.Qt.Key_Down)
    assert section.table.current() == 2
    QtTest.QTest.keyClick(section.ui.findingsTable, QtCore.Qt.Key_Up)
    assert section.table.current() == 1
    section.ui.previousButton.click()  # goes round
    assert section.table.current() == 2
    section.ui.nextButton.click()
    assert section.table.current() == 1


def test_header_click_sorts_both_ways_and_keeps_the_selection(section):
    click_cell(section, 0)
    header = section.ui.findingsTable.horizontalHeader()
    place = QtCore.QPoint(header.sectionViewportPosition(2) + 5, 5)
    QtTest.QTest.mouseClick(header.viewport(), QtCore.Qt.LeftButton, QtCore.Qt.NoModifier, place)
    assert texts(section, 0) == ["1", "2"]  # the highest score first
    QtTest.QTest.mouseClick(header.viewport(), QtCore.Qt.LeftButton, QtCore.Qt.NoModifier, place)
    assert texts(section, 0) == ["2", "1"]
    assert section.table.current() == 1
    assert section.table.selected() == [1]


def test_reject_hides_the_finding_goes_on_to_the_next_and_is_undone(section):
    click_cell(section, 0)
    section.ui.rejectButton.click()
    assert visible(section) == ["Nodule_2"]
    assert section.table.current() == 2
    assert not section.findings.row(1)["kept"]
    assert "reject Nodule 1" in section.ui.undoButton.toolTip
    section.ui.undoButton.click()
    assert visible(section) == ["Nodule_1", "Nodule_2"]
    section.actions["redo"].trigger()
    assert visible(section) == ["Nodule_2"]


def test_tick_keeps_and_rejects(section, run_events):
    table = section.ui.findingsTable
    table.item(0, 0).setCheckState(QtCore.Qt.Unchecked)
    run_events(lambda: not section.findings.row(1)["kept"])
    click_cell(section, 0)
    assert section.ui.rejectButton.text == "Keep"
    table.item(0, 0).setCheckState(QtCore.Qt.Checked)
    run_events(lambda: section.findings.row(1)["kept"])


def test_a_tick_fills_the_table_again_only_when_its_signal_is_over(section, run_events, monkeypatch):
    filled, show = [], section.table.show
    monkeypatch.setattr(section.table, "show", lambda rows: (filled.append(1), show(rows)))
    section.ui.findingsTable.item(0, 0).setCheckState(QtCore.Qt.Unchecked)
    assert filled == []
    run_events(lambda: filled)
    assert texts(section, 0)[0] == "1"


def test_a_tick_of_findings_that_are_gone_when_its_signal_is_over_does_nothing(section, run_events):
    findings = section.findings
    section.ui.findingsTable.item(0, 0).setCheckState(QtCore.Qt.Unchecked)
    section.setParameter(None)
    ended = []
    qt.QTimer.singleShot(0, lambda: ended.append(1))
    run_events(lambda: ended)
    assert findings.row(1)["kept"]


def test_name_is_typed_in_the_table(section, run_events):
    column_action(section, "Name").trigger()
    click_cell(section, 0)
    section.actions["rename"].trigger()
    editor = section.ui.findingsTable.findChild(qt.QLineEdit)
    QtTest.QTest.keyClicks(editor, "hilar")
    QtTest.QTest.keyClick(editor, QtCore.Qt.Key_Return)
    run_events(lambda: section.findings.row(1)["name"] == "hilar", limit_s=5)
    assert section.findings.segmentation.GetSegmentation().GetSegment("Nodule_1").GetName() == "hilar"


def test_name_is_asked_for_where_its_column_is_not_shown(section, monkeypatch):
    asked = []
    monkeypatch.setattr(qt.QInputDialog, "getText", lambda *args: asked.append(args[-1]) or "hilar")
    click_cell(section, 0)
    section.actions["rename"].trigger()
    assert asked == ["Nodule 1"]
    assert section.findings.row(1)["name"] == "hilar"
    assert section.ui.findingsTable.item(0, 2).toolTip().startswith("hilar")
    monkeypatch.setattr(qt.QInputDialog, "getText", lambda *_args: "")  # as PythonQt's on Cancel
    section.actions["rename"].trigger()
    assert section.findings.row(1)["name"] == "hilar"


def test_columns_are_chosen_in_a_menu_of_the_header_and_remembered(section):
    header = section.ui.findingsTable.horizontalHeader()
    assert section.table.shownColumns() == ["number", "score", "place", "size", "volume"]
    right_click = qt.QContextMenuEvent(qt.QContextMenuEvent.Mouse, QtCore.QPoint(5, 5), QtCore.QPoint(5, 5))
    qt.QApplication.sendEvent(header.viewport(), right_click)
    assert section.table.columnMenu.isVisible()
    section.table.columnMenu.hide()
    column_action(section, "Type").trigger()
    column_action(section, "Place").trigger()
    chosen = ["number", "score", "size", "volume", "type"]
    assert section.table.shownColumns() == chosen
    again = FindingsSection(SegmentationLogic(python=str(section.core.python)))
    assert again.table.shownColumns() == chosen
    assert column_action(again, "Type").checked
    again.cleanup()


def test_selection_outlasts_the_hiding_of_its_column(section):
    column_action(section, "Name").trigger()
    section.table.select(2)
    column_action(section, "Name").trigger()
    assert section.table.selected() == [2]
    QtTest.QTest.keyClick(section.ui.findingsTable, QtCore.Qt.Key_Up)
    assert section.table.current() == 1


def test_damaged_setting_shows_the_columns_of_the_start(section):
    slicer.app.userSettings().setValue(COLUMNS_SETTING, "{broken")
    again = FindingsSection(SegmentationLogic(python=str(section.core.python)))
    assert again.table.shownColumns() == ["number", "score", "place", "size", "volume"]
    again.cleanup()


def test_menu_holds_what_is_done_less_often_and_says_what_it_does(section):
    menu = section.ui.moreButton.menu()
    assert menu.toolTipsVisible
    entries = [action for action in menu.actions() if not action.isSeparator()]
    names = ["Redo", "Rename...", "Merge", "Split", "Restore", "Copy table", "Zoom to the finding", "Columns"]
    assert [action.text for action in entries] == names
    assert all(len(section.actions[key].toolTip) > 20 for key in section.actions)
    assert section.actions["rename"].enabled
    assert not section.actions["redo"].enabled
    click_cell(section, 0)
    section.ui.rejectButton.click()
    section.ui.undoButton.click()
    assert "reject Nodule 1" in section.actions["redo"].toolTip


def test_least_score_is_the_models_own_number_in_box_table_and_text(section):
    give_scores(section, threshold=0.611, lowest=0.3055, scores=(0.611, 0.3055))
    box = section.ui.thresholdSlider.findChild(qt.QDoubleSpinBox)
    assert box.text() == "0.611"
    assert texts(section, 2) == ["0.611"]
    assert RunTexts.summary(section.findings.segmentation, 0.611).startswith("1 nodule with a score of at least 0.611,")
    box.stepDown()
    box.stepUp()
    assert section.parameter.threshold == pytest.approx(0.611)
    assert texts(section, 0) == ["1"]


def test_lowest_score_that_a_run_has_kept_can_be_reached(section):
    give_scores(section, threshold=0.611, lowest=0.3055, scores=(0.611, 0.3055))
    box = section.ui.thresholdSlider.findChild(qt.QDoubleSpinBox)
    box.setValue(box.minimum)
    assert texts(section, 0) == ["1", "2"]


def test_highest_score_that_is_told_is_below_the_least_one(section):
    give_scores(section, threshold=0.611, lowest=0.3055, scores=(0.6106, 0.3055))
    text = RunTexts.summary(section.findings.segmentation, 0.611)
    assert text == "No nodule with a score of at least 0.611; the highest score seen is 0.610."


FROC = {
    "thresholds": [0.9, 0.5, 0.2],
    "found": [3, 9, 11],
    "false_per_scan": [0.0, 0.3, 0.84],
    "nodules": 12,
    "scans": 7,
    "rests_on": "seven scans, each by networks that did not see its patient",
}


def give_probabilities(section, froc: dict | None = None) -> None:
    """Show the result as one of a model whose scores are probabilities."""
    give_scores(section, 0.5, 0.05, (0.83, 0.05), score_scale="probability", froc=froc)


def test_slider_says_at_every_position_what_to_expect_and_on_what_it_rests(section):
    give_probabilities(section, FROC)
    label, slider = section.ui.expectationLabel, section.ui.thresholdSlider
    assert label.isVisible()
    assert label.text == "About 9 of 12 nodules found, 0.3 false per scan (7\N{NO-BREAK SPACE}scans)"
    for position, text in (
        (0.95, "About 0 of 12 nodules found, 0.0 false per scan (7\N{NO-BREAK SPACE}scans)"),
        (0.9, "About 3 of 12 nodules found, 0.0 false per scan (7\N{NO-BREAK SPACE}scans)"),
        (0.51, "About 3 of 12 nodules found, 0.0 false per scan (7\N{NO-BREAK SPACE}scans)"),
        (0.2, "About 11 of 12 nodules found, 0.8 false per scan (7\N{NO-BREAK SPACE}scans)"),
        (0.19, "About 11 of 12 nodules found, 0.8 or more false per scan (7\N{NO-BREAK SPACE}scans)"),
    ):
        slider.setValue(position)
        assert label.text == text
    assert "seven scans, each by networks that did not see its patient" in label.toolTip


def test_slider_of_a_model_that_does_not_say_what_to_expect_says_nothing(section):
    assert not section.ui.expectationLabel.isVisible()
    give_probabilities(section, FROC)
    give_probabilities(section, None)
    assert not section.ui.expectationLabel.isVisible()


def test_probabilities_are_called_so_and_shown_from_the_lowest_that_was_kept(section):
    assert section.ui.thresholdLabel.text == "Least score:"
    give_probabilities(section, FROC)
    assert section.ui.thresholdLabel.text == "Least prob.:"
    assert header(section).text().startswith("Prob.")
    assert header(section).toolTip().startswith("Probability that the finding is a nodule")
    assert column_action(section, "Probability").checked
    assert section.ui.thresholdSlider.minimum == pytest.approx(0.05)
    section.ui.thresholdSlider.setValue(0.05)
    assert texts(section, 2) == ["0.83", "0.05"]
    segmentation = section.findings.segmentation
    assert RunTexts.summary(segmentation, 0.5).startswith("1 nodule with a probability of at least 0.50, 1 more below")
    assert "probability seen is 0.83" in RunTexts.summary(segmentation, 0.9)
    section.actions["copy"].trigger()
    assert qt.QApplication.clipboard().text().split("\t")[3] == "Probability"


def test_scores_of_an_older_model_are_said_to_be_no_probabilities(section):
    give_probabilities(section, FROC)
    give_scores(section, threshold=0.611, lowest=0.3055, scores=(0.7, 0.65), score_scale=None, froc=None)
    assert section.ui.thresholdLabel.text == "Least score:"
    assert "not a probability" in section.ui.thresholdLabel.toolTip
    assert header(section).text().startswith("Score")
    assert "not a probability" in header(section).toolTip()
    assert column_action(section, "Score").checked


def test_tooltip_says_the_score_of_each_part(section):
    give_scores(section, 0.5, 0.25, (0.9, 0.8))
    rows = section.findings.rows()
    rows[0] |= {"segmenter_score": 0.9123, "detector_score": None, "classifier_score": 0.77}
    section.findings.segmentation.SetAttribute(SceneResults.NODULES_ATTRIBUTE, json.dumps(rows))
    section.ui.thresholdSlider.setValue(0.6)
    table = section.ui.findingsTable
    assert "scores: segmenter 0.91, classifier 0.77" in table.item(0, 2).toolTip()
    assert "scores:" not in table.item(1, 2).toolTip()


@pytest.mark.parametrize("scale", ["model", "probability"])
def test_segments_say_what_their_score_means(section, scale):
    give_scores(section, 0.5, 0.05, (0.83, 0.6), score_scale=scale)
    number = section.findings.add(section.findings.crop(2), {"score": 0.7, "provenance": "segmenter"})
    tag = vtk.mutable("")
    segment = section.findings.segmentation.GetSegmentation().GetSegment(f"Nodule_{number}")
    segment.GetTag(SCALE_TAG, tag)
    assert str(tag) == scale


def header(section):
    return section.ui.findingsTable.horizontalHeaderItem(2)


def give_scores(section, threshold: float, lowest: float, scores: tuple[float, float], **more) -> None:
    """Show the result as one of a model with this threshold, for the first time; `more` is said of the run, too."""
    segmentation = section.findings.segmentation
    rows = [{**row, "score": score} for row, score in zip(section.findings.rows(), scores, strict=True)]
    run = {**SceneResults.runOf(segmentation), "threshold": threshold, "lowest": lowest, **more}
    SceneResults.choose(section.parameter, None)
    segmentation.SetAttribute(SceneResults.NODULES_ATTRIBUTE, json.dumps(rows))
    segmentation.SetAttribute(SceneResults.RUN_ATTRIBUTE, json.dumps(run))
    segmentation.RemoveAttribute(SceneResults.THRESHOLD_ATTRIBUTE)
    SceneResults.choose(section.parameter, segmentation)


def test_merge_split_and_restore_by_the_menu(section):
    labels = fakes.make_labels()
    click_cell(section, 0)
    assert not section.actions["merge"].enabled
    click_cell(section, 1, keys=QtCore.Qt.ControlModifier)
    section.actions["merge"].trigger()
    assert texts(section, 3) == ["fused, edited"]
    assert (map_voxels(section)[labels > 0] > 0).all()
    section.actions["split"].trigger()
    assert texts(section, 0) == ["1", "3"]
    section.actions["restore"].trigger()
    assert texts(section, 0) == ["1", "2"]
    assert texts(section, 3) == ["fused", "fused"]
    np.testing.assert_array_equal(map_voxels(section) > 0, labels > 0)


def test_what_cannot_be_done_is_said_in_the_panel(section):
    click_cell(section, 0)
    section.actions["split"].trigger()
    assert "without a waist" in section.ui.findingsLabel.text


def test_copy_puts_the_table_on_the_clipboard_separated_by_tabs(section):
    section.actions["copy"].trigger()
    lines = qt.QApplication.clipboard().text().splitlines()
    assert lines[0].split("\t")[:4] == ["No.", "Kept", "Name", "Score"]
    assert lines[1].split("\t")[:4] == ["1", "yes", "Nodule 1", "0.90"]


def test_edit_opens_the_segment_editor_on_the_finding(section, monkeypatch):
    opened = []
    monkeypatch.setattr(slicer.util, "selectModule", opened.append)
    click_cell(section, 1)
    section.ui.editButton.click()
    node = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
    assert opened == ["SegmentEditor"]
    assert node.GetSegmentationNode() is section.findings.segmentation
    assert node.GetSourceVolumeNode() is section.findings.volumeNode
    assert node.GetSelectedSegmentID() == "Nodule_2"


def test_without_a_result_nothing_can_be_clicked(scene, core):
    section = FindingsSection(SegmentationLogic(python=str(core.python)))
    for name in ("nextButton", "rejectButton", "undoButton", "editButton", "addButton"):
        assert not getattr(section.ui, name).enabled, name
    for name in ("redo", "rename", "merge", "split", "restore", "copy"):
        assert not section.actions[name].enabled, name
    section.cleanup()


def test_click_on_a_missed_nodule_adds_what_the_segmenter_outlines(section, run_events):
    section.findings.segments.put("Nodule_2", None)
    section._watch.follow()
    place = voxel_to_ras(section, fakes.NODULES[1][0])
    section.ui.addButton.click()
    interaction = slicer.app.applicationLogic().GetInteractionNode()
    assert interaction.GetCurrentInteractionMode() == interaction.Place
    point = slicer.mrmlScene.GetNodeByID(slicer.app.applicationLogic().GetSelectionNode().GetActivePlaceNodeID())
    point.AddControlPointWorld(*place)
    run_events(lambda: interaction.GetCurrentInteractionMode() == interaction.ViewTransform, limit_s=5)
    run_events(lambda: not section.ui.addButton.checked, limit_s=30)
    assert section.findings.row(3)["history"][0]["action"] == "added", section.ui.findingsLabel.text
    crop = section.findings.crop(3)
    expected = fakes.make_labels() == 2
    assert crop.array.sum() == expected.sum()
    np.testing.assert_array_equal(expected[crop.box], crop.array)
    assert (map_voxels(section)[expected] > 0).all()
    assert section.table.current() == 3
    section.ui.undoButton.click()
    assert 3 not in [row["number"] for row in section.findings.rows()]


def test_place_without_a_nodule_is_said(section, run_events):
    section.core.mode = "refuse"
    section.ui.addButton.click()
    slicer.mrmlScene.GetNodeByID(
        slicer.app.applicationLogic().GetSelectionNode().GetActivePlaceNodeID()
    ).AddControlPointWorld(*voxel_to_ras(section, (2, 5, 5)))
    run_events(lambda: not section.ui.addButton.checked)
    assert section.ui.findingsLabel.text.startswith("ct.nrrd holds values")
    assert len(section.findings.rows()) == 2


def test_click_on_a_finding_below_the_threshold_takes_it_in(section, run_events):
    section.ui.thresholdSlider.setValue(0.85)
    section.ui.addButton.click()
    slicer.mrmlScene.GetNodeByID(
        slicer.app.applicationLogic().GetSelectionNode().GetActivePlaceNodeID()
    ).AddControlPointWorld(*voxel_to_ras(section, fakes.NODULES[1][0]))
    run_events(lambda: texts(section, 0) == ["1", "2"], limit_s=5)
    assert section.table.current() == 2


def voxel_to_ras(section, zyx) -> np.ndarray:
    return (Geometry.ijkToRAS(section.findings.volumeNode) @ [*zyx[::-1], 1.0])[:3]


def test_scene_closing_and_another_result_are_followed(section, a_ct, tmp_path):
    folder = tmp_path / "second"
    folder.mkdir()
    second = fakes.make_result_nodes(a_ct, folder)
    SceneResults.choose(section.parameter, second.segmentation)
    assert section.findings.segmentation is second.segmentation
    SceneResults.choose(section.parameter, None)
    assert texts(section, 0) == []
