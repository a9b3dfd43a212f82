"""SegmentationLogic on real MRML with a real child process."""

import slicer_host

slicer_host.start()

import time
from pathlib import Path

import fakes
import numpy as np
import psutil
import pytest
import slicer
from LNHGSegmentationLib import ResultNodes
from LNHGSegmentationLib import SegmentationLogic as module
from LNHGSegmentationLib.SegmentationLogic import SegmentationLogic


class Run:
    """A run of a logic and what it reported."""

    def __init__(self, core, ct, **options) -> None:
        self.core, self.progress, self.outcomes = core, [], []
        self.logic = SegmentationLogic(python=str(core.python))
        self.logic.start(ct, lambda *report: self.progress.append(report), self.outcomes.append, **options)
        self.folder = self.logic._folder

    def wait_until_working(self, run_events) -> None:
        run_events(lambda: any(stage == "working" for _fraction, stage in self.progress))

    def wait_for_end(self, run_events):
        run_events(lambda: self.outcomes)
        return self.outcomes[0]

    def is_gone(self) -> bool:
        return not any(psutil.pid_exists(pid) and alive(pid) for pid in self.core.pids) and not self.folder.exists()


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def count(class_name: str) -> int:
    return slicer.mrmlScene.GetNumberOfNodesByClass(class_name)


def test_run_puts_one_segmentation_and_one_map_into_the_scene(a_ct, core, run_events):
    run = Run(core, a_ct)
    outcome = run.wait_for_end(run_events)
    assert outcome.state == "done"
    assert count("vtkMRMLSegmentationNode") == 1
    assert count("vtkMRMLScalarVolumeNode") == 2
    assert [nodule["number"] for nodule in outcome.result.nodules] == [1, 2]
    assert not run.logic.isRunning
    assert run.is_gone()


def test_segments_cover_the_nodules_exactly(a_ct, core, run_events):
    segmentation = Run(core, a_ct).wait_for_end(run_events).result.segmentation
    labels = fakes.make_labels()
    for number in (1, 2):
        voxels = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, f"Nodule_{number}", a_ct)
        np.testing.assert_array_equal(voxels > 0, labels == number)


def test_child_is_called_as_the_command_line_contract_says(a_ct, core, run_events):
    run = Run(core, a_ct, model="lnhg-1mm")
    run.wait_for_end(run_events)
    dash_m, package, verb, ct, out, *options = core.arguments
    assert (dash_m, package, verb) == ("-m", "LNHGLib", "segment")
    assert Path(ct).parent == Path(out).parent == run.folder
    assert options == ["--json", "--model", "lnhg-1mm"]
    cwd = next(line[4:] for line in core.log.read_text().splitlines() if line.startswith("cwd"))
    assert (Path(cwd) / "LNHGLib").is_dir()


def test_progress_is_reported_with_stage_and_rising_fraction(a_ct, core, run_events):
    run = Run(core, a_ct)
    run.wait_for_end(run_events)
    assert run.progress == [(0.1, "reading the CT"), (0.5, "segmenting"), (1.0, "done")]


def test_no_nodule_is_a_result_without_segments(a_ct, core, run_events):
    core.mode = "nothing"
    outcome = Run(core, a_ct).wait_for_end(run_events)
    assert outcome.state == "done"
    assert outcome.result.nodules == []
    assert outcome.result.segmentation.GetSegmentation().GetNumberOfSegments() == 0


def test_failure_shows_the_childs_own_sentence(a_ct, core, run_events):
    core.mode = "refuse"
    run = Run(core, a_ct)
    outcome = run.wait_for_end(run_events)
    assert outcome.state == "failed"
    assert outcome.message == "ct.nrrd holds values from 0 to 255, a CT in HU was expected: load a chest CT."
    assert run.is_gone()


def test_killed_child_is_explained(a_ct, core, run_events):
    core.mode = "crash"
    core.python.write_text(core.python.read_text().replace('\n"', '\nexec "'))
    outcome = Run(core, a_ct).wait_for_end(run_events)
    assert outcome.state == "failed"
    assert "status -9" in outcome.message


def test_incomplete_result_leaves_the_scene_as_it_was(a_ct, core, run_events):
    core.mode = "incomplete"
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    run = Run(core, a_ct)
    assert run.wait_for_end(run_events).state == "failed"
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes
    assert run.is_gone()


@pytest.mark.parametrize("mode", ["slow", "deaf"])
def test_cancel_leaves_no_process_and_no_half_result_within_two_seconds(a_ct, core, run_events, mode):
    core.mode = mode
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    run = Run(core, a_ct)
    run.wait_until_working(run_events)
    run.logic.cancel()
    assert run_events(lambda: run.outcomes and run.is_gone()) < 2.0
    assert run.outcomes[0].state == "cancelled"
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes


def test_closing_the_scene_stops_the_child(a_ct, core, run_events):
    core.mode = "deaf"
    run = Run(core, a_ct)
    run.wait_until_working(run_events)
    slicer.mrmlScene.Clear()
    assert run_events(run.is_gone) < 2.0
    assert not run.logic.isRunning
    run_events_for(run_events, 0.3)
    assert run.outcomes == []


def test_cleanup_as_on_module_reload_stops_the_child(a_ct, core, run_events):
    core.mode = "deaf"
    run = Run(core, a_ct)
    run.wait_until_working(run_events)
    run.logic.cleanup()
    assert run_events(run.is_gone) < 2.0


def test_ct_removed_during_the_run_is_explained(a_ct, core, run_events):
    run = Run(core, a_ct)
    slicer.mrmlScene.RemoveNode(a_ct)
    outcome = run.wait_for_end(run_events)
    assert outcome.state == "failed"
    assert "removed from the scene" in outcome.message


def test_second_start_during_a_run_is_refused(a_ct, core, run_events):
    core.mode = "slow"
    run = Run(core, a_ct)
    with pytest.raises(RuntimeError, match="running already"):
        run.logic.start(a_ct, print, print)
    run.logic.stop()


def test_missing_pythonslicer_is_explained_and_nothing_is_left_behind(a_ct, monkeypatch, tmp_path):
    monkeypatch.setattr(module.shutil, "which", lambda _name: None)
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    with pytest.raises(RuntimeError, match="PythonSlicer"):
        SegmentationLogic().start(a_ct, print, print)
    assert list(tmp_path.iterdir()) == []


def test_failed_launch_leaves_nothing_behind(a_ct, core, monkeypatch, tmp_path):
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))

    def no_process(*_args, **_options):
        raise OSError("no process")

    logic = SegmentationLogic(launcher=no_process, python=str(core.python))
    with pytest.raises(OSError, match="no process"):
        logic.start(a_ct, print, print)
    assert not logic.isRunning
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("LNHG-")] == []


def test_nodules_survive_in_the_saved_scene(a_ct, core, run_events):
    nodules = Run(core, a_ct).wait_for_end(run_events).result.nodules
    node = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    assert ResultNodes.nodulesOf(node) == nodules


def run_events_for(run_events, seconds: float) -> None:
    end = time.monotonic() + seconds
    run_events(lambda: time.monotonic() > end)
