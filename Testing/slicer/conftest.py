"""Fixtures of the Slicer tests: an empty scene, a CT, a result folder and a child process that plays the core."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import slicer_host


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("slicer")


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
