"""Full disks: one sentence, nothing half-written, and no temporary folder that stays for ever."""

import errno
import gzip
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from LNHGLib.errors import DiskError, InputError
from LNHGLib.figures import preview
from LNHGLib.files import atomic
from LNHGLib.image.volume import Grid, Source, Volume
from LNHGLib.results import writer

CORE = Path(atomic.__file__).parents[2]
NEEDS_LIMITS = pytest.mark.skipif(os.name == "nt", reason="Windows has no limit of file sizes")


def no_nodules() -> SimpleNamespace:
    """A result without findings whose images are noise: their files are large."""
    grid = Grid.aligned((24, 90, 100), (2.0, 0.8, 0.8), (0, 0, 0))
    noise = np.random.default_rng(0).integers(0, 60_000, grid.shape)
    report = {"model": {"name": "made-up"}, "options": {"threshold": 0.5}, "warnings": []}
    return SimpleNamespace(
        volume=Volume(noise.astype(np.float32), grid, Source("made-up")),
        labels=noise.astype(np.uint16),
        heterogeneity=noise.astype(np.float32),
        patches=(),
        nodules=[],
        report=report,
    )


@pytest.fixture
def no_picture(monkeypatch):
    monkeypatch.setattr(preview, "write_preview", lambda _, path: path.touch() or {})


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_sentence_with_the_room_left_and_nothing_stays(tmp_path, monkeypatch, no_picture, number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("LNHGLib.results.writer.write_json", fail)
    with pytest.raises(DiskError, match=r"cannot be written in .* \(the disk is full; \d+ MB are free there\); make"):
        writer.write_result(no_nodules(), tmp_path / "deep" / "OUT")
    assert not list(tmp_path.iterdir())


def test_another_failure_of_the_disk_is_told_by_its_own_name(tmp_path, monkeypatch, no_picture):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("LNHGLib.results.writer.write_json", fail)
    with pytest.raises(DiskError, match=r"\(Input/output error; \d+ MB"):
        writer.write_result(no_nodules(), tmp_path / "OUT")


def test_a_failure_that_is_none_of_the_disk_keeps_its_kind(tmp_path):
    with pytest.raises(RuntimeError, match="wrong shape"), atomic.explain_disk_errors(tmp_path):
        raise RuntimeError("wrong shape")


@NEEDS_LIMITS
@pytest.mark.parametrize("kilobytes", [1, 100, 400])
def test_files_that_the_system_cuts_short_are_noticed_whatever_library_writes_them(tmp_path, kilobytes):
    code = f"""
        import resource, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_atomic
        from LNHGLib.figures import preview; from LNHGLib.results import writer as results
        from pathlib import Path
        preview.write_preview = lambda _, path: path.touch() or {{}}
        resource.setrlimit(resource.RLIMIT_FSIZE, ({kilobytes} * 1024, resource.RLIM_INFINITY))
        try:
            results.write_result(test_atomic.no_nodules(), Path({str(tmp_path / "OUT")!r}))
        except test_atomic.DiskError as error:
            print("told:", error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=CORE, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("told: The results cannot be written in"), done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("keep", [0, 3, -1])
def test_a_compressed_file_without_its_end_is_refused(tmp_path, keep):
    path = tmp_path / "a.nii.gz"
    content = os.urandom(5000)
    path.write_bytes(gzip.compress(content))
    atomic.require_whole_gzip(path, len(content))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(OSError, match="cut short"):
        atomic.require_whole_gzip(path, len(content))


def test_a_batch_takes_the_sentence_for_a_full_disk_and_not_for_a_fault_of_the_case():
    from LNHGLib.batch.case import Case  # here, as a process of its own imports this file
    from LNHGLib.batch.worker import Stages

    stages = Stages(Case("a", "a.nii.gz", Path("a.nii.gz")), 1)
    stages.run("write", lambda: (_ for _ in ()).throw(DiskError("The disk is full; make room.")))
    assert (stages.record.kind, stages.record.reason) == ("disk", "The disk is full; make room.")


def test_folders_of_killed_processes_go_with_the_next_work_and_others_stay(tmp_path):
    for name in (".lnhg-tmp-dead", ".lnhg-tmp-alive", ".lnhg-batch", "thesis"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ct.nrrd").write_text("voxels")
    long_ago = time.time() - atomic.MAX_AGE_S - 60
    for name in (".lnhg-tmp-dead", ".lnhg-batch", "thesis"):
        os.utime(tmp_path / name, (long_ago, long_ago))
    others = {".lnhg-batch", ".lnhg-tmp-alive", "thesis"}
    with atomic.temporary_folder(tmp_path) as folder:
        assert {path.name for path in tmp_path.iterdir()} == others | {folder.name}
    assert {path.name for path in tmp_path.iterdir()} == others


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot say whether a process lives without ending it")
def test_scan_that_a_killed_process_unpacked_goes_with_the_next_work_and_that_of_a_living_one_stays(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(atomic.tempfile, "tempdir", str(tmp_path))
    unpack = "import sys; from LNHGLib.files import atomic; print(atomic.task_folder(), flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", unpack]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=CORE, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with atomic.temporary_folder() as folder:
            assert len(list(tmp_path.iterdir())) == 2
        assert not folder.exists()
        other.kill()
    with atomic.temporary_folder() as folder:
        assert list(tmp_path.iterdir()) == [folder]


def test_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("earlier")

    def write_half():
        with atomic.atomic_file(path) as part:
            part.write_text("half")
            raise RuntimeError("broken off")

    with pytest.raises(RuntimeError, match="broken off"):
        write_half()
    assert path.read_text() == "earlier"
    with atomic.atomic_file(path) as part:
        part.write_text("whole")
        assert path.read_text() == "earlier"
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.csv", "whole")]


def test_empty_folder_is_free_and_one_of_other_files_is_not(tmp_path):
    atomic.require_free(tmp_path)
    (tmp_path / "report.json").touch()
    with pytest.raises(InputError, match="already exists"):
        atomic.require_free(tmp_path, names=("report.json",))
    atomic.require_free(tmp_path, overwrite=True, names=("*.json",))
    with pytest.raises(InputError, match=r"'report\.json', which this command does not write"):
        atomic.require_free(tmp_path, overwrite=True, names=("*.csv",))
