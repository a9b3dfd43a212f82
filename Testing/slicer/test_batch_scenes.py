"""A cohort through the real core, and a scene a case that the real Slicer libraries write and read."""

import slicer_host

slicer_host.start()

import csv
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import slicer
from cohort_data import write_dicom, write_file, zip_folder
from LNHGLib.image.volume import LOWEST_HU
from LNHGSegmentationLib import BatchScenes
from LNHGSegmentationLib.Scene import SceneResults
from tiny_model import tiny_chest, write_model

pytestmark = pytest.mark.slow


AS_SLICER_RUNS_IT = """
import os, runpy, sys, traceback
sys.path[:0] = {path!r}
import slicer_host
slicer_host.start()
import slicer
asked = []
slicer.util.exit = asked.append
sys.argv = {arguments!r}
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except BaseException:
    traceback.print_exc()
os._exit(asked[-1] if asked else 99)  # Slicer goes on for ever where it is not asked to exit
"""


@pytest.fixture(scope="module")
def chest():
    return tiny_chest(spacing_mm=(8.0, 5.0, 5.0))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    return write_model(folder, grid={"kind": "spacing", "spacing_mm": [8.0, 6.0, 6.0]}, threshold=0.2).folder


@pytest.fixture(scope="module")
def done(chest, model, tmp_path_factory) -> Path:
    """A folder with the input `in` and the output `out` of a batch of three that is done; no scene is made."""
    folder = tmp_path_factory.mktemp("done")
    for name in ("P01", "P02", "P03"):
        write_file(folder / "in" / f"{name}.nii.gz", chest)
    command = [sys.executable, "-m", "LNHGLib", "batch", folder / "in", folder / "out", "--model", model]
    subprocess.run(command, check=True, cwd=BatchScenes.MODULE_FOLDER)
    return folder


@pytest.fixture
def batch(done, tmp_path) -> list[str]:
    """The arguments of a batch of three that is done."""
    for name in ("in", "out"):
        shutil.copytree(done / name, tmp_path / name)
    return [str(tmp_path / "in"), str(tmp_path / "out")]


@pytest.fixture
def a_core_that_ends(tmp_path):
    """Return a Python interpreter that only ends with a status."""

    def write(status: int) -> str:
        path = tmp_path / "PythonSlicer"
        path.write_text(f"#!/bin/sh\nexit {status}\n")
        path.chmod(0o755)
        return str(path)

    return write


def scenes(batch) -> list[str]:
    return sorted(path.name for path in Path(batch[1], "scenes").glob("*"))


def failed(batch) -> list[list[str]]:
    with Path(batch[1], "scenes", "failed.csv").open(newline="") as file:
        return list(csv.reader(file))


def test_a_scene_a_case_holds_ct_nodules_and_map_and_is_not_made_twice(scene, chest, model, tmp_path):
    write_file(tmp_path / "in" / "P01.nii.gz", chest)
    zip_folder(write_dicom(tmp_path / "x", chest, "1.2.1"), tmp_path / "in" / "P02.zip")
    (tmp_path / "in" / "bad.nii.gz").touch()
    arguments = [str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(model)]
    assert BatchScenes.main(arguments, python=sys.executable) == 0
    assert scenes(arguments) == ["P01.mrb", "P02.mrb"]
    assert BatchScenes.saveScenes(arguments[:1], tmp_path / "out") == ([], {})
    for path in sorted((tmp_path / "out" / "scenes").iterdir()):
        scene.Clear(0)
        assert scene.ReadFromMRB(str(path))
        volumes = sorted(node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"))
        assert volumes == [path.stem, f"{path.stem} heterogeneity", f"{path.stem} nodules signal"]
        ct = slicer.util.arrayFromVolume(slicer.util.getNode(path.stem))
        np.testing.assert_array_equal(ct, np.maximum(chest.array, LOWEST_HU))
        segmentation = slicer.util.getNode(f"{path.stem} nodules")
        drawn = [nodule for nodule in SceneResults.rowsOf(segmentation) if nodule["provenance"] != "detector-box"]
        assert segmentation.GetSegmentation().GetNumberOfSegments() == len(drawn) > 0


def test_slicer_ends_with_status_1_and_a_list_when_a_scene_in_the_middle_cannot_be_saved(
    chest, model, tmp_path, monkeypatch
):
    for name in ("P01", "P02", "P03"):
        write_file(tmp_path / "in" / f"{name}.nii.gz", chest)
    (tmp_path / "out" / "scenes" / "P02.mrb" / "in the way").mkdir(parents=True)
    python = tmp_path / "bin" / "PythonSlicer"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("PATH", str(python.parent), prepend=":")
    batch = [str(tmp_path / "in"), str(tmp_path / "out")]
    arguments = [BatchScenes.__file__, *batch, "--model", str(model)]
    code = AS_SLICER_RUNS_IT.format(path=sys.path, arguments=arguments)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 1, ended.stderr
    assert scenes(batch) == ["P01.mrb", "P02.mrb", "P03.mrb", "failed.csv"]
    assert [Path(batch[1], "scenes", f"P0{number}.mrb").is_file() for number in (1, 2, 3)] == [True, False, True]
    (_title, (case, reason)) = failed(batch)
    assert case == "P02"
    assert reason.startswith(f"The scene cannot be written in {Path(batch[1], 'scenes')} (")
    assert f"the scene of P02 was not saved: {reason}" in ended.stderr


@pytest.mark.parametrize("error", [ValueError("voxels\nare gone"), KeyError("nodules"), SystemExit(3)])
def test_ct_that_cannot_be_read_costs_no_other_scene(scene, batch, a_core_that_ends, error, monkeypatch):
    from LNHGLib.batch import segment_case

    read = segment_case.read_case

    def read_case(case, scratch):
        if case.id == "P02":
            raise error
        return read(case, scratch)

    monkeypatch.setattr(segment_case, "read_case", read_case)
    assert BatchScenes.main(batch, a_core_that_ends(0)) == 1
    assert scenes(batch) == ["P01.mrb", "P03.mrb", "failed.csv"]
    reason = {ValueError: "voxels are gone", KeyError: "KeyError: 'nodules'", SystemExit: "SystemExit: 3"}[type(error)]
    assert failed(batch) == [["case", "reason"], ["P02", reason]]
    monkeypatch.undo()
    assert BatchScenes.main(batch, a_core_that_ends(0)) == 0
    assert scenes(batch) == ["P01.mrb", "P02.mrb", "P03.mrb"], "the list of an earlier time is gone"


def test_scene_that_slicer_cannot_write_is_told_and_leaves_no_ct_in_its_cache(
    scene, batch, a_core_that_ends, monkeypatch, tmp_path
):
    write = BatchScenes._writeBundle

    def write_over_a_folder(path):
        if path.stem == "P02":
            path.mkdir()
        write(path)

    monkeypatch.setattr(BatchScenes, "_writeBundle", write_over_a_folder)
    cache = tmp_path / "cache"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = scene.GetCacheManager().GetRemoteCacheDirectory()
    scene.GetCacheManager().SetRemoteCacheDirectory(str(cache))
    assert BatchScenes.main(batch, a_core_that_ends(0)) == 1
    assert scene.GetCacheManager().GetRemoteCacheDirectory() == str(cache)
    scene.GetCacheManager().SetRemoteCacheDirectory(before)
    assert "Slicer could not write it to its end" in failed(batch)[1][1]
    assert scenes(batch) == ["P01.mrb", "P03.mrb", "failed.csv"]
    assert list(cache.glob("_tmp*")) == list(tmp_path.glob("LNHG-*")) == []


def test_finished_cases_of_a_batch_that_failed_get_their_scenes_and_its_status_is_kept(scene, batch, a_core_that_ends):
    assert BatchScenes.main(batch, a_core_that_ends(1)) == 1
    assert scenes(batch) == ["P01.mrb", "P02.mrb", "P03.mrb"]


def test_batch_that_was_refused_keeps_its_status_and_touches_nothing(scene, batch, a_core_that_ends):
    assert BatchScenes.main(batch, a_core_that_ends(2)) == 2
    assert scenes(batch) == []
    assert BatchScenes.main(["--nonsense"], sys.executable) == 2


@pytest.mark.parametrize("error", [RuntimeError("PythonSlicer is not there"), MemoryError(), KeyboardInterrupt()])
def test_whatever_happens_before_the_scenes_ends_with_status_1_and_a_sentence(scene, error, monkeypatch, caplog):
    def run(*_args, **_options):
        raise error

    monkeypatch.setattr(BatchScenes.subprocess, "run", run)
    assert BatchScenes.main(["in", "out"], "python") == 1
    assert len(caplog.messages) == 1


def test_help_is_no_failure(scene, capsys):
    assert BatchScenes.main(["--help"], "true") == 0
