"""Cases go to the workers that can do them; the cluster is a stand-in whose futures are done at once."""

from concurrent.futures import Future
from pathlib import Path

import pytest
from LNHGLib.batch.case import Case
from LNHGLib.batch.executor import Executor, Worker
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


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (2, 1), (4, 2), (5, 2), (6, 3), (9, 3)])
def test_who_is_ready_first_leaves_their_share_to_the_others(count, expected, tmp_path):
    cluster = Cluster(one=None, two=None)
    cluster.local, cluster.max_cases = True, 3
    executor = Executor(StandIn(tmp_path / "log"), Store(tmp_path), cluster)
    first, second = Worker("one", None, "ready"), Worker("two", Future())
    executor._workers = [first, second]
    executor._waiting.extend(Case(str(n), f"{n}.nii", Path(f"{n}.nii")) for n in range(count))
    executor._hand_out()
    assert len(first.cases) == expected
    second.preparing, second.process = None, "ready"
    executor._hand_out()
    assert len(second.cases) == min(count - expected, expected)
