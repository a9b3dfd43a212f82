"""A batch ends and tells every case, whatever its scans are called and whatever cannot be written; stand-in work."""

import errno
import os

import pytest
from batch_content import rows, states
from LNHGLib import __main__ as cli
from LNHGLib.batch import run as batch
from LNHGLib.batch import worker
from LNHGLib.batch.case import FAILED, Case
from LNHGLib.batch.executor import Executor
from LNHGLib.batch.store import DISK, ERROR, Lease, Store
from stand_in_cluster import Cluster
from stand_in_work import StandIn, computed
from tiny_model import write_model

ODD = (
    "\u738b" * 80 + ".nii",
    "\u738b" * 80 + ".nrrd",
    "M\udcfcller.nii",
    "+1+1.nii",
    "\r=1+1.nii",
    "=1.nii",
    "con.nii",
)
FORMULA = tuple("=+-@\t\r")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny").folder


@pytest.fixture
def lnhg(tmp_path, model, monkeypatch):
    """Run `lnhg batch` from Mrs-Example/in in this process, its workers in processes of their own."""
    monkeypatch.setattr(batch, "SegmentationSpec", lambda *_: StandIn(tmp_path / "log"))
    (tmp_path / "Mrs-Example" / "in").mkdir(parents=True)

    def run(*options):
        arguments = ["batch", tmp_path / "Mrs-Example" / "in", tmp_path / "out", "--model", model, *options]
        return cli.main([str(argument) for argument in arguments])

    return run


def test_odd_names_are_cases_like_others_and_mended_ones_are_done_with_resume(tmp_path, lnhg):
    home, out = tmp_path / "Mrs-Example" / "in", tmp_path / "out"
    for name in (*ODD, "a  b.nii"):
        (home / name).write_text("unreadable")
    (home / "good.nii").write_text("one")
    assert lnhg() == 0
    table = rows(out)
    assert [row["status"] for row in table].count("failed") == len(ODD) + 1
    assert not [cell for row in table for cell in row.values() if cell.startswith(FORMULA)]
    told = (out / "cases.csv").read_text(encoding="utf-8") + (out / "overview.html").read_text(encoding="utf-8")
    assert "Mrs-Example" not in told
    mended = home / "con.nii"
    before = mended.stat()
    mended.write_text("xnreadable")  # of the same size, and as old as it was
    os.utime(mended, ns=(before.st_atime_ns, before.st_mtime_ns))
    (home / "a  b.nii").touch()
    assert lnhg("--resume") == 0
    assert states(out)["con_"] == "done"
    assert computed(tmp_path / "log") == {"good": 1, "con_": 1}


def test_a_disk_that_is_full_when_the_tables_are_written_is_one_sentence(tmp_path, lnhg, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "Mrs-Example" / "in" / "a.nii").write_text("one")
    monkeypatch.setattr(batch, "write_tables", full)
    assert lnhg() == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "cannot be written any more (the disk is full)" in last
    assert last.endswith("go on with --resume.")
    record = Store(tmp_path / "out").ended(Case("a", "a.nii", tmp_path / "Mrs-Example" / "in" / "a.nii", size=3))
    assert record.status == "done"


@pytest.mark.parametrize(("number", "kind"), [(errno.ENAMETOOLONG, ERROR), (errno.ENOSPC, DISK), (errno.ENOENT, ERROR)])
def test_a_case_that_cannot_be_recorded_is_told_and_not_kept(tmp_path, monkeypatch, number, kind):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Lease, "make", fail)
    cases = [Case(name, f"{name}.nii", tmp_path / f"{name}.nii") for name in "abc"]
    records = [
        each for each in Executor(StandIn(tmp_path / "log"), Store(tmp_path), Cluster(one=None)).run(cases) if each
    ]
    assert [(record.case, record.status, record.kind) for record in records] == [(c, FAILED, kind) for c in "abc"]
    assert all("go on with --resume" in record.reason for record in records)


def test_a_worker_whose_record_cannot_be_written_says_so_instead_of_ending(tmp_path, monkeypatch):
    (tmp_path / "a.nii").write_text("wrong")
    spec = StandIn(tmp_path / "log", 0.0)
    worker._jobs[spec] = spec
    lease = Lease(tmp_path, "a-1").make()
    (tmp_path / ".lnhg-batch" / "records").touch()  # a file where the folder was
    try:
        record = worker.do_case(spec, lease, Case("a", "a.nii", tmp_path / "a.nii"), 1, worker.PROCESS)
    finally:
        worker._jobs.clear()
    assert (record.status, record.kind) == (FAILED, ERROR)
