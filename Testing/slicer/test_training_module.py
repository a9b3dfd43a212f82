"""The hidden training module: its command, its environment and its own self test."""

import os
import sys
import types
from pathlib import Path

import pytest
from LNHGLib.setup import package_list


@pytest.fixture
def module(scene):
    """The module file; it can be imported only once there is a Slicer."""
    import LNHGTraining

    return LNHGTraining


def test_module_is_hidden_and_stands_on_segmentation(module):
    parent = types.SimpleNamespace()
    module.LNHGTraining(parent)
    assert parent.hidden
    assert parent.dependencies == ["LNHGSegmentation"]


def test_command_runs_the_training_package(module):
    command = module.LNHGTrainingLogic(python="PythonSlicer").command(["evaluate", "--help"])
    assert command == ["PythonSlicer", "-m", "LNHGTrainingLib", "evaluate", "--help"]


def test_missing_pythonslicer_is_said(module, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="PythonSlicer is not on the PATH"):
        module.LNHGTrainingLogic().command([])


def test_environment_keeps_the_inherited_path(module, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "inherited")
    folders = module.LNHGTrainingLogic().environment()["PYTHONPATH"].split(os.pathsep)
    assert [Path(folder).name for folder in folders] == ["LNHGSegmentation", "LNHGTraining", "inherited"]


def test_child_reports_its_lines_and_its_end(module, run_events):
    lines, statuses = [], []
    logic = module.LNHGTrainingLogic(python=sys.executable)
    code = "import LNHGTrainingLib; print('here'); raise SystemExit(3)"
    logic.command = lambda _arguments: [sys.executable, "-c", code]
    logic.start([], lines.append, statuses.append)
    run_events(lambda: bool(statuses), 60)
    assert lines == ["here"]
    assert statuses == [3]


@pytest.mark.slow
def test_self_test_trains_a_step(module, monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda _name: sys.executable)
    module.LNHGTrainingTest().runTest()


def test_self_test_fails_where_training_does(module, monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda _name: sys.executable)
    monkeypatch.setattr(module, "TINY_TRAINING", ("steps=none",))
    with pytest.raises(AssertionError, match="steps"):
        module.LNHGTrainingTest().runTest()


def test_self_test_is_skipped_where_packages_are_missing_and_names_the_call_that_brings_them(
    module, monkeypatch, caplog
):
    h5py = next(package for package in package_list.needed(["training"]) if package.name == "h5py")
    monkeypatch.setattr(package_list, "missing", lambda _packages: [h5py])
    module.LNHGTrainingTest().runTest()
    assert "h5py not installed yet: run PythonSlicer -m LNHGLib.packages install training" in caplog.text
