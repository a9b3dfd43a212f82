"""SegmentationLogic on real MRML with a real child process."""

import slicer_host

slicer_host.start()

import errno
import shutil
import tempfile
import threading
import time
from pathlib import Path

import fakes
import numpy as np
import psutil
import pytest
import slicer
from LNHGSegmentationLib.Core import SegmentationRun as run_module
from LNHGSegmentationLib.Core.PointPrompt import PointPrompt
from LNHGSegmentationLib.Core.SegmentationLogic import SegmentationLogic
from LNHGSegmentationLib.Scene import SceneResults


class Run:
    """A run of a logic and what it reported."""

    def __init__(self, core, ct, models=None, **options) -> None:
        self.core, self.progress, self.outcomes = core, [], []
        self.logic = SegmentationLogic(python=str(core.python))
        if models is not None:
            self.logic.models = lambda: models
        self.logic.start(ct, lambda *report: self.progress.append(report), self.outcomes.append, **options)
        self.folder = self.logic._run.folder

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
    assert SceneResults.results() == [outcome.result.segmentation]
    assert SceneResults.heterogeneityOf(outcome.result.segmentation) is outcome.result.heterogeneity
    assert [nodule["number"] for nodule in outcome.result.nodules] == [1, 2]
    assert not run.logic.isRunning
    assert run.is_gone()


def test_segments_cover_the_nodules_exactly(a_ct, core, run_events):
    segmentation = Run(core, a_ct).wait_for_end(run_events).result.segmentation
    labels = fakes.make_labels()
    for number in (1, 2):
        voxels = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, f"Nodule_{number}", a_ct)
        np.testing.assert_array_equal(voxels > 0, labels == number)


@pytest.mark.parametrize(
    ("card", "lowest"),
    [
        ({"threshold": 0.6}, 0.3),
        ({"threshold": 0.6, "probability": {}}, 0.05),
        ({"threshold": 0.03, "probability": {}}, 0.03),
    ],
)
def test_run_keeps_half_of_the_models_score_or_one_probability_in_twenty(a_ct, core, run_events, card, lowest):
    run = Run(core, a_ct, models={"a": card}, model="a")
    run.wait_for_end(run_events)
    assert core.arguments[-2:] == ["--threshold", f"{lowest:.4f}"]


def test_child_is_called_as_the_command_line_contract_says(a_ct, core, run_events):
    run = Run(core, a_ct, model="lnhg-1mm", device="cpu", runtime="torch")
    run.wait_for_end(run_events)
    lowest = min(0.05, run.logic.models()["lnhg-1mm"]["threshold"])  # its scores are probabilities
    dash_m, package, verb, ct, out, *options = core.arguments
    assert (dash_m, package, verb) == ("-m", "LNHGLib", "segment")
    assert Path(ct).parent == Path(out).parent == run.folder
    where = ["--device", "cpu", "--runtime", "torch"]
    assert options == ["--json", *where, "--model", "lnhg-1mm", "--threshold", f"{lowest:.4f}"]
    cwd = next(line[4:] for line in core.log.read_text().splitlines() if line.startswith("cwd"))
    assert (Path(cwd) / "LNHGLib").is_dir()


def test_progress_is_reported_with_stage_and_rising_fraction(a_ct, core, run_events):
    run = Run(core, a_ct)
    run.wait_for_end(run_events)
    fractions, stages = zip(*run.progress, strict=True)
    assert list(fractions) == sorted(fractions)
    assert fractions[0] == 0
    assert stages == ("Handing over the CT", "Starting", "reading the CT", "segmenting", "done", "Loading the result")


def test_result_says_how_it_was_made(a_ct, core, run_events):
    segmentation = Run(core, a_ct).wait_for_end(run_events).result.segmentation
    run = SceneResults.runOf(segmentation)
    assert (run["model"], run["threshold"], run["lowest"], run["highest"]) == ("lnhg-1mm", 0.5, 0.25, 0.9)
    assert run["device"]["id"] == "cpu"


@pytest.mark.parametrize("stage", ["Handing over the CT", "Loading the result"])
def test_cancel_before_and_after_the_childs_work_leaves_nothing(a_ct, core, run_events, stage, monkeypatch):
    slow_down(monkeypatch, stage)
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    run = Run(core, a_ct)
    run_events(lambda: run.progress[-1][1] == stage)
    run.logic.cancel()
    assert run.outcomes[0].state == "cancelled"
    assert run_events(lambda: not run.folder.exists()) < 2.0
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes


@pytest.mark.parametrize("stage", ["Handing over the CT", "Loading the result"])
def test_scene_closed_before_and_after_the_childs_work_is_harmless(a_ct, core, run_events, stage, monkeypatch):
    slow_down(monkeypatch, stage)
    run = Run(core, a_ct)
    run_events(lambda: run.progress[-1][1] == stage)
    slicer.mrmlScene.Clear()
    run_events(lambda: not run.folder.exists())
    run_events_for(run_events, 0.2)
    assert run.outcomes == []
    assert count("vtkMRMLSegmentationNode") == 0


def slow_down(monkeypatch, stage: str) -> None:
    name = "write" if stage.startswith("Handing") else "read"
    method = getattr(run_module.VolumeExchange, name)

    def slow(*arguments):
        time.sleep(0.5)
        return method(*arguments)

    monkeypatch.setattr(run_module.VolumeExchange, name, slow)


def test_full_disk_is_told_before_anything_is_written(a_ct, core, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=10_000))
    logic = SegmentationLogic(python=str(core.python))
    with pytest.raises(OSError, match="0 MB free"):
        logic.start(a_ct, print, print)
    assert not logic.isRunning
    assert list((tmp_path / "t").iterdir()) == []


def test_disk_that_fills_up_while_the_ct_is_handed_over_is_told_in_one_sentence(a_ct, core, run_events, monkeypatch):
    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_module.VolumeExchange, "write", full)
    outcome = Run(core, a_ct).wait_for_end(run_events)
    assert outcome.state == "failed"
    assert outcome.message.endswith("is full: free some space and try again.")


def test_childs_sentence_names_the_ct_as_the_user_knows_it(a_ct, core, run_events):
    core.mode = "two slices"
    assert Run(core, a_ct).wait_for_end(run_events).message == "CT has 2 slices, expected at least 10."


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
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(RuntimeError, match="PythonSlicer"):
        SegmentationLogic().start(a_ct, print, print)
    assert list(tmp_path.iterdir()) == []


def test_failed_launch_is_told_and_leaves_nothing_behind(a_ct, core, monkeypatch, tmp_path, run_events):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def no_process(*_args, **_options):
        raise OSError("no process")

    logic = SegmentationLogic(launcher=no_process, python=str(core.python))
    outcomes = []
    logic.start(a_ct, lambda *_: None, outcomes.append)
    run_events(lambda: outcomes)
    assert (outcomes[0].state, outcomes[0].message) == ("failed", "no process")
    assert not logic.isRunning
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("LNHG-")] == []


def place_of_a_nodule() -> np.ndarray:
    return (fakes.IJK_TO_RAS @ [*fakes.NODULES[0][0][::-1], 1.0])[:3]


def test_search_that_is_stopped_while_the_ct_goes_out_starts_nothing_and_leaves_nothing(
    a_ct, tmp_path, run_events, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gate, started = threading.Event(), []

    def write_late(search):
        gate.wait()
        search.folder.mkdir(exist_ok=True)
        (search.folder / "ct.nrrd").touch()

    monkeypatch.setattr(PointPrompt, "handOver", write_late)
    logic = SegmentationLogic(launcher=lambda *command, **_options: started.append(command), python="python")
    logic.outlineAt(a_ct, place_of_a_nodule(), print)
    logic.stopSearch()
    gate.set()
    run_events_for(run_events, 0.3)
    assert started == []
    assert list(tmp_path.iterdir()) == []


def test_search_whose_child_cannot_be_launched_ends_with_a_sentence_and_leaves_nothing(
    a_ct, tmp_path, run_events, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def no_process(*_args, **_options):
        raise OSError("no process")

    ended = []
    SegmentationLogic(launcher=no_process, python="python").outlineAt(a_ct, place_of_a_nodule(), ended.append)
    run_events(lambda: ended, limit_s=10.0)
    assert [outcome.message for outcome in ended] == ["The CT cannot be handed over: no process"]
    assert [path.name for path in tmp_path.iterdir()] == []


def test_search_without_a_python_leaves_nothing(a_ct, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(RuntimeError, match="PythonSlicer is not on the PATH"):
        SegmentationLogic().outlineAt(a_ct, place_of_a_nodule(), print)
    assert list(tmp_path.iterdir()) == []


def test_nodules_survive_in_the_saved_scene(a_ct, core, run_events):
    nodules = Run(core, a_ct).wait_for_end(run_events).result.nodules
    node = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    assert SceneResults.rowsOf(node) == nodules


def run_events_for(run_events, seconds: float) -> None:
    end = time.monotonic() + seconds
    run_events(lambda: time.monotonic() > end)
