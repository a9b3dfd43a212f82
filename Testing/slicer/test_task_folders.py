"""The folders that hold a CT while the core works: swept when the Slicer that made them is dead."""

import slicer_host

slicer_host.start()

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fakes
import pytest
from LNHGLib.files import atomic
from LNHGSegmentationLib.Core.PointPrompt import PointPrompt
from LNHGSegmentationLib.Core.ReportTask import ReportRequest, ReportTask
from LNHGSegmentationLib.Core.SegmentationRun import SegmentationRun

KINDS = ("run", "search", "report")


@pytest.fixture
def begin(a_ct, tmp_path, monkeypatch):
    """Begin a task of a kind; returns its folder."""
    segmentation = fakes.make_result_nodes(a_ct, tmp_path).segmentation
    (tmp_path / "home").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "home"))
    place = (fakes.IJK_TO_RAS @ [*fakes.NODULES[0][0][::-1], 1.0])[:3]
    table = ReportRequest("csv", tmp_path / "nodules.csv")
    make = {
        "run": lambda: SegmentationRun(a_ct, print, print, "python").folder,
        "search": lambda: PointPrompt(a_ct, place, print, "python").folder,
        "report": lambda: ReportTask(segmentation, table, print, "python").folder,
    }

    def begin(kind: str) -> Path:
        folder = make[kind]()
        (folder / "ct.nrrd").write_text("voxels")
        return folder

    return begin


def end_of(process: subprocess.Popen) -> int:
    process.wait()
    return process.pid


@pytest.mark.parametrize("later", KINDS)
def test_folders_that_are_a_day_old_go_with_the_next_task_of_any_kind(begin, later):
    folders, long_ago = [begin(kind) for kind in KINDS], time.time() - atomic.MAX_AGE_S - 60
    for folder in folders:
        os.utime(folder, (long_ago, long_ago))
    begin(later)
    assert [folder.name for folder in folders if folder.exists()] == []


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot say whether a process lives without ending it")
@pytest.mark.parametrize("later", KINDS)
def test_folders_of_a_dead_slicer_go_at_once_with_the_next_task_of_any_kind(begin, later, monkeypatch):
    dead = end_of(subprocess.Popen([sys.executable, "-c", ""]))
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: dead)
        folders = [begin(kind) for kind in KINDS]
    begin(later)
    assert [folder.name for folder in folders if folder.exists()] == []


def test_folders_of_living_slicers_stay(begin, monkeypatch):
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    folders = [begin(kind) for kind in KINDS]
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: other.pid)
        folders += [begin(kind) for kind in KINDS]
    for kind in KINDS:
        begin(kind)
    assert all(folder.exists() for folder in folders)
    other.communicate(b"\n")


def test_folders_of_another_computer_that_shares_the_disk_are_left_to_their_age(begin, monkeypatch):
    dead = end_of(subprocess.Popen([sys.executable, "-c", ""]))
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: dead)
        patch.setattr(atomic.platform, "node", lambda: "other-computer")
        folder = begin("run")
    begin("run")
    assert folder.exists()


def test_room_that_a_dead_slicer_took_is_free_for_the_next_run(begin, monkeypatch):
    folder = begin("search")
    os.utime(folder, (0, 0))
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=0 if folder.exists() else 10**9))
    assert begin("run").exists()


def test_folders_that_only_begin_alike_stay(begin, tmp_path):
    strange = [
        tmp_path / "home" / name
        for name in ("LNHG-main", f"{atomic.TASK_PREFIX}-", f"{atomic.TASK_PREFIX}{atomic.platform.node()}-{10**30}-x")
    ]
    for folder in strange:
        folder.mkdir()
    begin("run")
    assert all(folder.exists() for folder in strange)
