"""What a reader does at the desktop, done with real mouse and key events; a process of its own, as a fault may kill it.

    reader_actions.py FOLDER ACTION ...

does the actions one after the other, each with an empty scene and a new panel, and prints a line of JSON at the end of
each: [action, what went wrong or ""].
"""

import json
import sys
import traceback
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), *(str(Path(__file__).parents[2] / each) for each in ("LNHGSegmentation",))]

import slicer_host

slicer_host.start()

import fakes
import mouse
import numpy as np
import panel_host
import qt
import slicer
from LNHGSegmentationLib.Scene import SceneResults
from LNHGSegmentationLib.Scene.Geometry import ijkToRAS
from PySide6 import QtTest

ABSENT = 2  # number of the nodule that a reader adds
POINTS = "vtkMRMLMarkupsFiducialNode"


class Desk:
    """The panel after a run, and an axial view of the nodule that the reader is going to add."""

    def __init__(self, folder: Path) -> None:
        slicer.mrmlScene.Clear()
        folder.mkdir()
        self.folder, self.core = folder, fakes.FakeCore(folder / "core")
        self.panel = panel_host.make_panel(self.core)
        self.panel.uiWidget.resize(400, 1400)
        self.panel.uiWidget.show()
        self.panel.uiWidget.activateWindow()
        self.ui, self.logic = self.panel.ui, self.panel.logic
        self.ct = fakes.make_ct_node()
        self.segment()
        self.findings.segments.put(f"Nodule_{ABSENT}", None)
        fakes.run_events(lambda: not self.findings.row(ABSENT)["kept"])
        self.place = (ijkToRAS(self.ct) @ [*fakes.NODULES[ABSENT - 1][0][::-1], 1.0])[:3]
        VIEW.show(self.ct, self.place)

    @property
    def findings(self):
        return self.panel.sections[1].findings

    def segment(self) -> None:
        self.ui.applyButton.click()
        fakes.run_events(lambda: not self.logic.isRunning)

    def start_long_run(self) -> None:
        self.core.mode = "slow"
        self.ui.applyButton.click()
        fakes.run_events(lambda: self.ui.statusLabel.text.startswith("working, "))

    def place_mode(self) -> None:
        """Press "Add missed nodule" and bring the mouse into the view."""
        QtTest.QTest.mouseClick(self.ui.addButton, qt.Qt.LeftButton)
        assert self.ui.addButton.checked
        VIEW.enter(100, 100)

    def click_nodule(self) -> None:
        VIEW.click(*VIEW.pixel(self.place))

    def expect_no_placing(self) -> None:
        """Nothing of the place mode is left."""
        fakes.run_events(lambda: not self.ui.addButton.checked, limit_s=5)
        interaction = slicer.app.applicationLogic().GetInteractionNode()
        assert interaction.GetCurrentInteractionMode() == interaction.ViewTransform
        assert not slicer.util.getNodesByClass(POINTS)
        VIEW.click(150, 150)  # the view still works
        VIEW.render()

    def close(self) -> None:
        self.panel.cleanup()
        self.panel.uiWidget.hide()


def place(desk: Desk) -> None:
    desk.place_mode()
    desk.click_nodule()
    fakes.run_events(lambda: 3 in [row["number"] for row in desk.findings.rows()], limit_s=30)
    crop, expected = desk.findings.crop(3), fakes.make_labels() == ABSENT
    assert crop.array.sum() == expected.sum()
    assert (expected[crop.box] == crop.array).all()
    desk.expect_no_placing()


def place_twice(desk: Desk) -> None:
    place(desk)
    desk.place_mode()
    desk.click_nodule()
    fakes.run_events(lambda: "already in the table" in desk.ui.findingsLabel.text, limit_s=30)
    desk.expect_no_placing()


def right_click(desk: Desk) -> None:
    desk.place_mode()
    VIEW.click(120, 120, button="Right")
    desk.expect_no_placing()
    assert len(desk.findings.rows()) == 2


def escape(desk: Desk) -> None:
    desk.place_mode()
    QtTest.QTest.keyClick(desk.panel.uiWidget, qt.Qt.Key_Escape)
    desk.expect_no_placing()


def another_point(desk: Desk) -> None:
    """Place a point of another module meanwhile."""
    desk.place_mode()
    other = slicer.mrmlScene.AddNewNodeByClass(POINTS, "other")
    other.CreateDefaultDisplayNodes()
    slicer.app.applicationLogic().GetSelectionNode().SetActivePlaceNodeID(other.GetID())
    fakes.run_events(lambda: not desk.ui.addButton.checked, limit_s=5)
    desk.click_nodule()
    assert slicer.util.getNodesByClass(POINTS) == [other]
    assert other.GetNumberOfDefinedControlPoints() == 1
    slicer.mrmlScene.RemoveNode(other)
    desk.expect_no_placing()


def drag_sensitivity_slider(desk: Desk) -> None:
    desk.findings.undo()
    slider = desk.ui.thresholdSlider.findChild(qt.QSlider)
    y, width = slider.height() // 2, slider.width()
    handle = round(width * (slider.value() - slider.minimum()) / (slider.maximum() - slider.minimum()))
    QtTest.QTest.mousePress(slider, qt.Qt.LeftButton, qt.Qt.NoModifier, qt.QPoint(handle, y))
    for share in (0.6, 0.7, 0.8, 0.9, 0.97):
        QtTest.QTest.mouseMove(slider, qt.QPoint(round(share * width), y))
        QtTest.QTest.qWait(1)
    QtTest.QTest.mouseRelease(slider, qt.Qt.LeftButton, qt.Qt.NoModifier, qt.QPoint(round(0.97 * width), y))
    display = desk.findings.segmentation.GetDisplayNode()
    least = desk.ui.thresholdSlider.value
    assert least > 0.85
    for row in desk.findings.rows():
        if row["segment_id"]:
            assert display.GetSegmentVisibility(row["segment_id"]) == (row["score"] >= least)


def scroll_and_zoom_views(desk: Desk) -> None:
    before, field = VIEW.node.GetSliceOffset(), VIEW.node.GetFieldOfView()[0]
    VIEW.wheel(150, 150)
    assert VIEW.node.GetSliceOffset() != before
    VIEW.drag((150, 150), (150, 190), button="Right")
    assert VIEW.node.GetFieldOfView()[0] != field
    VIEW.render()


def close_scene_while_placing(desk: Desk) -> None:
    desk.place_mode()
    slicer.mrmlScene.Clear(0)
    desk.expect_no_placing()
    assert not desk.ui.addButton.enabled


def remove_point_while_placing(desk: Desk) -> None:
    desk.place_mode()
    slicer.mrmlScene.RemoveNode(slicer.util.getNodesByClass(POINTS)[0])
    desk.expect_no_placing()


def delete_ct_while_placing(desk: Desk) -> None:
    desk.place_mode()
    pixel = VIEW.pixel(desk.place)
    slicer.mrmlScene.RemoveNode(desk.ct)
    VIEW.click(*pixel)
    desk.expect_no_placing()


def delete_ct_during_search(desk: Desk) -> None:
    desk.place_mode()
    desk.click_nodule()
    fakes.run_events(lambda: desk.logic.isSearching, limit_s=5)
    slicer.mrmlScene.RemoveNode(desk.ct)
    desk.expect_no_placing()
    assert not desk.logic.isSearching


def delete_ct_during_run(desk: Desk) -> None:
    desk.core.mode = "segment"
    desk.ui.applyButton.click()
    slicer.mrmlScene.RemoveNode(desk.ct)
    fakes.run_events(lambda: not desk.logic.isRunning)
    assert "removed from the scene" in desk.ui.statusLabel.text
    assert not desk.ui.applyButton.enabled
    VIEW.render()


def two_scenes(desk: Desk) -> None:
    """Save the scene, open another one, and load the first one again."""
    first, rows = desk.folder / "first.mrb", desk.findings.rows()
    assert slicer.mrmlScene.WriteToMRB(str(first))
    slicer.mrmlScene.Clear(0)
    fakes.make_ct_node("second")
    desk.segment()
    assert len(desk.findings.reported()) == 2
    slicer.mrmlScene.Clear(0)
    assert desk.findings is None
    assert slicer.mrmlScene.ReadFromMRB(str(first), True)
    assert desk.findings.rows() == rows
    VIEW.render()


def undo_after_delete(desk: Desk) -> None:
    """Bring back what was deleted as a segment, as the Segment Editor and the Data module do it."""
    QtTest.QTest.mouseClick(desk.ui.undoButton, qt.Qt.LeftButton)
    assert desk.findings.row(ABSENT)["kept"]
    assert desk.findings.crop(ABSENT).array.sum() == (fakes.make_labels() == ABSENT).sum()
    VIEW.render()


def import_during_run(desk: Desk) -> None:
    scene = desk.folder / "other.mrb"
    volume = slicer.util.addVolumeFromArray(np.zeros((4, 4, 4), np.int16), name="other")
    others = [node for node in slicer.util.getNodesByClass("vtkMRMLNode") if node is not volume]
    saved = [node for node in others if node.GetSaveWithScene()]
    for node in saved:
        node.SetSaveWithScene(False)
    slicer.mrmlScene.WriteToMRB(str(scene))
    for node in saved:
        node.SetSaveWithScene(True)
    slicer.mrmlScene.RemoveNode(volume)
    desk.start_long_run()
    assert slicer.mrmlScene.ReadFromMRB(str(scene))
    assert slicer.util.getNode("other")
    assert desk.logic.isRunning
    assert desk.ui.statusLabel.text.startswith("working, ")
    assert desk.ui.applyButton.text == "Cancel"
    QtTest.QTest.mouseClick(desk.ui.applyButton, qt.Qt.LeftButton)
    fakes.run_events(lambda: not desk.logic.isRunning)
    assert desk.ui.statusLabel.text == "Cancelled; nothing was changed."


def import_results_during_run(desk: Desk) -> None:
    """Load a scene with a CT and findings of its own: both results are there in the end."""
    scene = desk.folder / "results.mrb"
    assert slicer.mrmlScene.WriteToMRB(str(scene))
    desk.core.mode = "segment"
    desk.ui.applyButton.click()
    assert slicer.mrmlScene.ReadFromMRB(str(scene))
    assert desk.logic.isRunning
    fakes.run_events(lambda: not desk.logic.isRunning)
    assert "CT is segmented: choose it" in desk.ui.statusLabel.text
    assert SceneResults.latestOf(desk.ct) is not None
    assert len({SceneResults.volumeOf(node).GetID() for node in SceneResults.results()}) == 2
    fakes.run_events(lambda: [node.GetDisplayVisibility() for node in SceneResults.results()].count(1) == 1, limit_s=5)


def quit_during_run(desk: Desk) -> None:
    """The caller looks for processes and folders that are left: the core's log holds their numbers."""
    desk.start_long_run()


def quit_during_search(desk: Desk) -> None:
    desk.core.mode = "slow"
    desk.place_mode()
    desk.click_nodule()
    fakes.run_events(lambda: "--at=" in desk.core.log.read_text().splitlines()[-3])


ACTIONS = {
    each.__name__: each
    for each in (
        *(place, place_twice, right_click, escape, another_point, drag_sensitivity_slider, scroll_and_zoom_views),
        *(close_scene_while_placing, remove_point_while_placing, delete_ct_while_placing, delete_ct_during_search),
        *(delete_ct_during_run, two_scenes, undo_after_delete, import_during_run, import_results_during_run),
        *(quit_during_run, quit_during_search),
    )
}


if __name__ == "__main__":
    VIEW = mouse.MouseView()
    qt.QApplication.instance()
    for name in sys.argv[2:]:
        desk = None
        try:
            desk = Desk(Path(sys.argv[1]) / name)
            ACTIONS[name](desk)
            fault = ""
        except BaseException:
            fault = traceback.format_exc()
        if desk is not None:
            desk.close()
        print(json.dumps([name, fault]), flush=True)
