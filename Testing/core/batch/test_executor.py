"""Cases go to the workers that can do them; the cluster is a stand-in whose futures are done at once."""

from concurrent.futures import Future
from pathlib import Path

import pytest
from LNHGLib.batch import worker
from LNHGLib.batch.case import Case
from LNHGLib.batch.executor import Executor
from LNHGLib.batch.store import Record, Store
from LNHGLib.errors import InputError
from stand_in_work import StandIn


class Cluster:
    """Workers by name: what is told instead of being ready, None for one that works."""

    name, local, max_attempts, max_cases = "stand-in", False, 2, 1

    def __init__(self, **workers):
        self.workers, self.fractions, self.did = workers, {}, []

    def alive(self, needed):
        return {name: (0, len(self.workers)) for name in self.workers}

    def submit(self, address, function, *arguments):
        future, fault = Future(), self.workers[address]
        if function is worker.do_case:
            self.did.append(address)
            future.set_result(Record.of(arguments[2], "done"))
        elif fault:
            future.set_exception(fault)
        else:
            future.set_result("ready")
        return future

    def wait(self, futures):
        pass

    def end(self, futures):
        pass


def run(tmp_path, cluster) -> list[str]:
    cases = [Case(name, f"{name}.nii", Path(f"{name}.nii")) for name in "abc"]
    records = Executor(StandIn(tmp_path / "log"), Store(tmp_path), cluster).run(cases)
    return [record.case for record in records if record]


def test_a_worker_that_cannot_do_the_cases_is_left_out_with_a_note(tmp_path, caplog):
    cluster = Cluster(one=RuntimeError("its GPU is full"), two=None)
    assert sorted(run(tmp_path, cluster)) == ["a", "b", "c"]
    assert set(cluster.did) == {"two"}
    assert "A stand-in is left out: its GPU is full" in caplog.text


def test_the_run_ends_when_no_worker_can_do_the_cases(tmp_path):
    with pytest.raises(InputError, match="no such device"):
        run(tmp_path, Cluster(one=InputError("no such device"), two=InputError("no such device")))


def test_no_lease_is_left_behind(tmp_path):
    run(tmp_path, Cluster(one=None))
    assert not list(Store(tmp_path).memory.glob("scratch/*"))
