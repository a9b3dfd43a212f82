"""A cohort on a Dask cluster ends as on one computer, whatever becomes of its workers; the work is a stand-in."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import Future
from types import SimpleNamespace

import batch_process
import pytest
from batch_content import content, make_scans, rows, states, wait_for
from batch_process import PYTHONPATH
from dask_cluster import dask_cluster
from LNHGLib import __main__ as cli
from LNHGLib import slurm
from LNHGLib.batch import executor, worker
from LNHGLib.batch import run as batch
from LNHGLib.batch.case import Case
from LNHGLib.batch.store import Lease, Record, Store, Withdrawn
from LNHGLib.errors import Cancelled, InputError, WorkError
from stand_in_work import StandIn, computed, noted
from tiny_model import write_model

pytestmark = pytest.mark.slow


pytest.importorskip("distributed", reason="needs the package distributed (the extra cluster)")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny").folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with dask_cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def lnhg(tmp_path, model, log, cluster, monkeypatch):
    """Run `lnhg batch` in this process, on the cluster or on this computer."""
    monkeypatch.setattr(batch, "SegmentationSpec", lambda *_: StandIn(log))

    def run(*options, out="out", on_cluster=True):
        place = ["--scheduler", cluster[0]] if on_cluster else []
        arguments = ["batch", tmp_path / "in", tmp_path / out, "--model", model, *place, *options]
        return cli.main([str(argument) for argument in arguments])

    return run


@pytest.fixture
def started(tmp_path, model, log, cluster):
    """Start `lnhg batch` on the cluster in a process of its own."""
    with batch_process.starter(log, tmp_path, model, "--scheduler", cluster[0]) as start:
        yield start


def test_run_with_a_killed_worker_gives_what_the_local_run_gives(tmp_path, started, lnhg, cluster, log):
    scans = {f"c{index:02}": "wrong" if index == 5 else f"scan {index}" for index in range(40)}
    make_scans(tmp_path / "in", **scans)
    process = started()  # before there is any worker
    workers = cluster[1](2)
    wait_for(lambda: sum(note["step"] == "write" for note in noted(log)) >= 3)
    os.kill(noted(log)[-1]["process"], signal.SIGKILL)
    out, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert "40 cases: 39 done, 1 failed;" in out
    assert {note["process"] for note in noted(log)} == {worker.pid for worker in workers}
    assert sorted(worker.poll() is None for worker in workers) == [False, True]
    again = {case for case, times in computed(log).items() if times > 1}
    assert len(again) <= 2
    assert lnhg("--jobs", "2", out="local", on_cluster=False) == 0
    assert without_attempts(content(tmp_path / "out")) == without_attempts(content(tmp_path / "local"))
    assert not list((tmp_path / "out" / ".lnhg-batch").glob("scratch/*"))


def without_attempts(files: dict) -> dict:
    """A case that was lost with its worker was begun twice, which is no other result."""
    files["cases.csv"] = [{**row, "attempts": ""} for row in files["cases.csv"]]
    files["overview.html"] = re.sub(r'<td class="attempts[^>]*>[^<]*</td>', "", files["overview.html"])
    return files


def test_case_that_kills_every_worker_fails_alone_and_the_others_are_done(tmp_path, lnhg, cluster, log):
    make_scans(tmp_path / "in", a="one", b="kill", c="two", d="three", e="wrong")
    cluster[1](4)
    assert lnhg() == 0
    assert states(tmp_path / "out") == {"a": "done", "b": "failed", "c": "done", "d": "done", "e": "failed"}
    killer = next(row for row in rows(tmp_path / "out") if row["case"] == "b")
    assert killer["attempts"] == "3"
    assert killer["reason"].startswith("The Dask worker was lost")
    assert computed(log)["b"] == 3


def test_steps_overlap_in_a_worker_that_prepared_once(tmp_path, lnhg, cluster, log):
    make_scans(tmp_path / "in", **{f"c{index}": "one" for index in range(10)})
    workers = cluster[1](1)
    assert lnhg() == 0
    notes = noted(log)
    assert Counter(note["step"] for note in notes)["prepare"] == len(workers)
    spans = [note for note in notes if note["step"] in ("read", "compute", "write")]
    together = Counter(
        (one["step"], other["step"])
        for one in spans
        for other in spans
        if one["process"] == other["process"] and one["case"] != other["case"]
        if one["begin"] < other["end"] and other["begin"] < one["end"]
    )
    assert together["compute", "read"] + together["compute", "write"] >= 2
    assert together["compute", "compute"] == 0


def test_unfit_workers_end_the_run_before_any_case(tmp_path, lnhg, cluster, log, capsys):
    make_scans(tmp_path / "in", a="one")
    (log.parent / "unfit").touch()
    cluster[1](1)
    assert lnhg() == 2
    assert "lnhg: The device is not there; choose another." in capsys.readouterr().err
    assert not computed(log)


def test_ctrl_c_ends_the_run_and_its_cases_and_resume_goes_on(tmp_path, started, lnhg, cluster, log):
    make_scans(tmp_path / "in", a="one", b="two", c="long")
    workers = cluster[1](1)
    process = started()
    wait_for(lambda: "c" in computed(log) and sum(note["step"] == "write" for note in noted(log)) == 2)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "2 of 3 cases are finished and kept, add --resume to go on." in told
    assert "Traceback" not in told
    assert states(tmp_path / "out") == {"a": "done", "b": "done", "c": "pending"}
    (tmp_path / "in" / "c.nii").write_text("okay")
    for process in workers:  # it still sleeps in the case
        process.kill()
    assert lnhg("--resume", on_cluster=False) == 0
    assert states(tmp_path / "out") == {"a": "done", "b": "done", "c": "done"}


def test_slurm_example_starts_jobs_and_runs_the_batch_on_them(tmp_path, model, log, cluster, monkeypatch, capsys):
    made = {}

    class SLURMCluster:
        """Stands in for Slurm only: its jobs are the workers that run already."""

        scheduler_address = json.loads(cluster[0].read_text())["address"]

        def __init__(self, **arguments):
            made.update(arguments)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            made["closed"] = True

        def adapt(self, minimum_jobs, maximum_jobs):
            made["jobs"] = (minimum_jobs, maximum_jobs)
            cluster[1](1)

    monkeypatch.setitem(sys.modules, "dask_jobqueue", SimpleNamespace(SLURMCluster=SLURMCluster))
    monkeypatch.setattr(batch, "SegmentationSpec", lambda *_: StandIn(log))
    make_scans(tmp_path / "in", a="one", b="two")
    options = ["--workers", "3", "--cpus", "8", "--gpus", "1", "--partition", "long"]
    assert slurm.main([*options, str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(model)]) == 0
    assert capsys.readouterr().out.startswith("2 cases: 2 done;")
    assert made["jobs"] == (3, 3)
    assert (made["queue"], made["job_cpu"], made["job_extra_directives"]) == ("long", 8, ["--gres=gpu:1"])
    assert made["closed"]


def test_slurm_example_fits_dask_jobqueue():
    jobqueue = pytest.importorskip("dask_jobqueue", reason="needs the package dask-jobqueue")
    options, rest = slurm.parse(["--cpus", "8", "--gpus", "1", "--partition", "long", "IN", "OUT", "--resume"])
    assert rest == ["IN", "OUT", "--resume"]
    with jobqueue.SLURMCluster(**slurm.cluster_arguments(options)) as made:
        script = made.job_script()
    for line in ("#SBATCH -p long", "#SBATCH --cpus-per-task=8", "#SBATCH -t 08:00:00", "#SBATCH --gres=gpu:1"):
        assert line in script
    assert "--nthreads 2" in script


def test_wrong_address_and_jobs_beside_a_scheduler_are_refused(tmp_path, lnhg, model, capsys, monkeypatch):
    make_scans(tmp_path / "in", a="one")
    monkeypatch.setattr("LNHGLib.batch.executor.CONNECT_S", 1)
    arguments = ["batch", tmp_path / "in", tmp_path / "out", "--model", model, "--scheduler", "tcp://127.0.0.1:1"]
    assert cli.main([str(argument) for argument in arguments]) == 2
    assert "No Dask scheduler answers at tcp://127.0.0.1:1" in capsys.readouterr().err
    assert lnhg("--jobs", "2") == 2
    assert "expected only one of them" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_missing_dask_is_told_in_one_sentence(tmp_path, lnhg, capsys, monkeypatch):
    make_scans(tmp_path / "in", a="one")
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert lnhg() == 2
    told = capsys.readouterr().err
    assert "--scheduler needs the package distributed, which is not installed" in told
    assert "Traceback" not in told


def test_dask_is_loaded_only_for_a_scheduler(model, tmp_path):
    code = (
        "import sys; from LNHGLib import __main__ as cli, batch; cli.parse(['batch', 'a', 'b']); "
        "assert not {'distributed', 'dask'} & set(sys.modules), 'loaded'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": PYTHONPATH})


@pytest.fixture
def lease(tmp_path):
    store = Store(tmp_path)
    (store.memory / "records").mkdir(parents=True)
    return Lease(tmp_path, "a.v2-1").make()


def test_worker_that_was_taken_for_dead_can_write_nothing_any_more(tmp_path, lease):
    result = lease.lease_folder / "result"
    result.mkdir()
    (result / "report.json").write_text("late")
    lease.withdraw()
    record = Record.of(Case("a", "a.nii", tmp_path / "a.nii"), "done")
    with pytest.raises(Withdrawn):
        lease.save(record)
    with pytest.raises(Withdrawn):
        lease.finish(record, result)
    assert not lease.folder("a").exists()
    assert not list(tmp_path.rglob("a.json"))


def test_computation_that_nobody_waits_for_ends(lease, monkeypatch):
    monkeypatch.setattr(worker, "REPORT_S", 0.0)
    progress = worker.report_progress(lease, "a")
    progress(0.1, "")
    lease.withdraw()
    with pytest.raises(Withdrawn):
        progress(0.2, "")


@pytest.mark.parametrize(("error", "told"), [(Cancelled("stop"), Cancelled), (OSError("gone"), WorkError)])
def test_wish_to_stop_is_no_lost_scheduler(lease, log, error, told):
    def nthreads():
        raise error

    cluster = executor.DaskCluster(SimpleNamespace(nthreads=nthreads))
    with pytest.raises(told):
        next(executor.Executor(StandIn(log), Store(lease.out), cluster).run([Case("a", "a.nii", lease.out)]))


def test_workers_that_never_get_ready_end_the_run(lease, log, monkeypatch):
    names = iter(range(9))
    nthreads = lambda: {f"tcp://10.0.0.{next(names)}:1": 2}  # noqa: E731 - each time another worker, the last is gone
    client = SimpleNamespace(
        nthreads=nthreads, submit=lambda *_, **__: Future(), cancel=lambda *_, **__: None, status="running"
    )
    monkeypatch.setattr(executor, "TICK_S", 0.0)
    events = executor.Executor(StandIn(log), Store(lease.out), executor.DaskCluster(client)).run(
        [Case("a", "a.nii", lease.out)]
    )
    assert [next(events) for _ in range(3)] == [None, None, None]
    with pytest.raises(WorkError, match="end before they are ready"):
        next(events)


def test_worker_of_another_version_or_without_the_files_says_so(tmp_path, log):
    with pytest.raises(InputError, match=r"has LNHG .*, expected 0\.0 as here"):
        worker.prepare(StandIn(log), 0, 1, "0.0", [])
    with pytest.raises(InputError, match="expected the same files on all computers"):
        worker.prepare(StandIn(log), 0, 1, batch.__version__, [tmp_path / "elsewhere"])


def test_result_that_went_with_its_worker_is_not_waited_for_for_ever():
    """Dask calls such a task finished, and would wait for a worker that may take it."""

    class Gone:
        def result(self, timeout):
            raise TimeoutError

    assert isinstance(executor.result_or_error(Gone()), TimeoutError)


def test_wish_to_stop_is_no_error_of_a_case():
    stopped = SimpleNamespace(result=lambda timeout: (_ for _ in ()).throw(Cancelled("stop")))
    with pytest.raises(Cancelled):
        executor.result_or_error(stopped)
