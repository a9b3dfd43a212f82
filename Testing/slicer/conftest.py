"""Fixtures of the Slicer tests: an empty scene, a CT, a result folder and a child process that plays the core."""

import sys
import traceback
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import slicer_host


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("slicer")


@pytest.fixture(autouse=True)
def nothing_is_raised_in_an_observer(monkeypatch):
    """Fail a test in which an observer or a slot ended with an error: VTK and Qt only print it and go on."""
    raised = []
    monkeypatch.setattr(sys, "excepthook", lambda *error: raised.append("".join(traceback.format_exception(*error))))
    yield
    assert not raised, "\n".join(raised)


@pytest.fixture
def scene():
    """An empty scene."""
    slicer_host.start()
    import slicer

    slicer.mrmlScene.Clear()
    yield slicer.mrmlScene
    slicer.mrmlScene.Clear()


@pytest.fixture
def run_events(scene):
    """Let the Qt event loop run until a condition holds or a limit in seconds has passed; returns the seconds."""
    import fakes

    return fakes.run_events


@pytest.fixture
def a_ct(scene):
    """A small oblique, anisotropic CT node with two bright nodules."""
    import fakes

    return fakes.make_ct_node()


@pytest.fixture
def core(tmp_path):
    """A Python interpreter that plays PythonSlicer running the core; `core.mode` says how the core behaves."""
    import fakes

    return fakes.FakeCore(tmp_path / "core")


@pytest.fixture
def panel(scene, core):
    """The panel in an empty scene; its child process is the fake core."""
    import panel_host

    panel = panel_host.make_panel(core)
    yield panel
    panel.cleanup()


@pytest.fixture
def segmented(panel, run_events):
    """The panel after a run on a CT."""
    import fakes

    fakes.make_ct_node()
    panel.ui.applyButton.click()
    run_events(lambda: not panel.logic.isRunning)
    return panel


@pytest.fixture
def working(panel, run_events):
    """The panel while a run is under way that goes on until it is cancelled."""
    import fakes

    panel.core.mode = "slow"
    fakes.make_ct_node()
    panel.ui.applyButton.click()
    run_events(lambda: panel.ui.statusLabel.text.startswith("working, "))
    return panel


@pytest.fixture
def layout(scene):
    """A layout node that makes view nodes, as in Slicer; they outlive the closing of the scene."""
    import slicer

    classes = ("vtkMRMLAbstractViewNode", "vtkMRMLLayoutNode")
    before = [node for each in classes for node in slicer.util.getNodesByClass(each)]
    logic = slicer.vtkMRMLLayoutLogic()
    logic.SetMRMLScene(slicer.mrmlScene)
    node = logic.GetLayoutNode()
    node.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    yield node
    logic.SetMRMLScene(None)
    for each in [node for name in classes for node in slicer.util.getNodesByClass(name) if node not in before]:
        slicer.mrmlScene.RemoveNode(each)


@pytest.fixture
def links(scene):
    """What makes linked slice views move together."""
    import slicer

    links = slicer.vtkMRMLSliceLinkLogic()
    links.SetMRMLApplicationLogic(slicer.app.applicationLogic())
    links.SetMRMLScene(scene)
    yield links
    links.SetMRMLScene(None)
