"""The first look at side by side: Slicer sets up a new view late, and linked views follow each other."""

import slicer_host

slicer_host.start()

import pytest
import qt
import slicer
import vtk
from LNHGSegmentationLib.Scene import Layouts

OFFSET_MM, PAN_MM, FIELD_MM = -169.0, 12.0, 82.0


def composite(name: str):
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return next((node for node in nodes if node.GetLayoutName() == name), None)


def slice_node(name: str):
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceNode")
    return next(node for node in nodes if node.GetLayoutName() == name)


class SliceController:
    """Sets up a slice view that is shown for the first time, as Slicer does: to offset 0, once events run."""

    def __init__(self, node) -> None:
        self.logic, self.isReady = slicer.vtkMRMLSliceLogic(), False
        self.logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        slicer.app.applicationLogic().GetSliceLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(slicer.mrmlScene)
        self.logic.SetSliceNode(node)
        qt.QTimer.singleShot(0, self._setUp)

    def _setUp(self) -> None:
        self.logic.StartSliceNodeInteraction(slicer.vtkMRMLSliceNode.SliceToRASFlag)
        self.logic.SetSliceOffset(0)
        self.logic.EndSliceNodeInteraction()
        self.isReady = True

    def remove(self) -> None:
        slicer.app.applicationLogic().GetSliceLogics().RemoveItem(self.logic)
        self.logic.SetMRMLScene(None)


@pytest.fixture
def controllers(scene, links):
    """The slice controllers of the views that are added, by name."""
    made = {}

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAdded(_scene, _event, node):
        if node.IsA("vtkMRMLSliceNode"):
            made[node.GetLayoutName()] = SliceController(node)

    tag = scene.AddObserver(scene.NodeAddedEvent, onNodeAdded)
    yield made
    scene.RemoveObserver(tag)
    for name, controller in made.items():
        controller.remove()
        scene.RemoveNode(composite(name))


@pytest.fixture
def map_alone(controllers, layout, run_events, monkeypatch):
    """The view of the map, far from the scene's origin; the plain CT was never shown."""
    monkeypatch.setattr(Layouts, "DESCRIPTION", Layouts.DESCRIPTION.replace("LNHGPlain", "NewPlain"))
    monkeypatch.setattr(Layouts, "PLAIN_VIEW", "NewPlain")
    layout.SetLayoutDescription(Layouts.SIDE_BY_SIDE, Layouts.DESCRIPTION)
    run_events(lambda: all(each.isReady for each in controllers.values()))
    for each in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        each.SetLinkedControl(False)
        each.SetHotLinkedControl(False)
    node = slice_node(Layouts.MAP_VIEW)
    node.SetSliceOffset(OFFSET_MM)
    node.SetFieldOfView(FIELD_MM, FIELD_MM, 1.0)
    node.SetXYZOrigin(PAN_MM, 0.0, 0.0)
    return node


def check_sight_of_both_views() -> None:
    for node in (slice_node(Layouts.MAP_VIEW), slice_node(Layouts.PLAIN_VIEW)):
        assert node.GetSliceOffset() == pytest.approx(OFFSET_MM)
        assert min(node.GetFieldOfView()[:2]) == pytest.approx(FIELD_MM)
        assert node.GetXYZOrigin()[0] == pytest.approx(PAN_MM)


def test_first_side_by_side_keeps_slice_pan_and_field(map_alone, controllers, panel, run_events):
    panel.ui.sideBySideButton.click()
    run_events(lambda: controllers["NewPlain"].isReady and composite("NewPlain").GetHotLinkedControl())
    slicer.app.processEvents()
    check_sight_of_both_views()
    assert composite(Layouts.MAP_VIEW).GetHotLinkedControl()


def test_side_by_side_keeps_slice_where_the_user_links_all_new_views(map_alone, controllers, panel, run_events):
    panel.ui.sideBySideButton.click()
    composite("NewPlain").SetLinkedControl(True)
    composite("NewPlain").SetHotLinkedControl(True)
    run_events(lambda: controllers["NewPlain"].isReady)
    slicer.app.processEvents()
    check_sight_of_both_views()


@pytest.mark.parametrize("leave", ["sideBySideButton", "scene"])
def test_side_by_side_that_is_left_at_once_links_nothing(map_alone, controllers, panel, run_events, leave):
    panel.ui.sideBySideButton.click()
    if leave == "scene":
        slicer.mrmlScene.Clear()
    else:
        panel.ui.sideBySideButton.click()
    run_events(lambda: controllers["NewPlain"].isReady)
    slicer.app.processEvents()
    assert not any(node.GetLinkedControl() for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"))


def test_scene_saved_side_by_side_keeps_its_slice_in_a_new_slicer(
    map_alone, controllers, panel, run_events, layout, tmp_path
):
    panel.ui.sideBySideButton.click()
    run_events(lambda: composite("NewPlain").GetHotLinkedControl())
    slicer.mrmlScene.WriteToMRB(str(tmp_path / "scene.mrb"))
    layout.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    slicer.mrmlScene.Clear()
    controllers.pop("NewPlain").remove()
    for node in (composite("NewPlain"), slice_node("NewPlain")):
        slicer.mrmlScene.RemoveNode(node)
    slicer.mrmlScene.ReadFromMRB(str(tmp_path / "scene.mrb"), True)
    run_events(lambda: controllers["NewPlain"].isReady)
    slicer.app.processEvents()
    assert layout.GetViewArrangement() == Layouts.SIDE_BY_SIDE
    check_sight_of_both_views()
