"""Cases go to the workers that can do them; the cluster is a stand-in whose futures are done at once."""

from pathlib import Path

import pytest
from LNHGLib.batch.case import Case
from LNHGLib.batch.executor import Executor
from LNHGLib.batch.store import Store
from LNHGLib.errors import InputError
from stand_in_cluster import Cluster
from stand_in_work import StandIn


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
