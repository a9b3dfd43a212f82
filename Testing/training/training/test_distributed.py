"""Several processes, micro-batches and workers compute what one process computes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import small_data
import torch
import train_recorded
from LNHGLib.errors import InputError
from LNHGTrainingLib.data.loading import load_steps
from LNHGTrainingLib.data.segmenter_batches import SegmenterPatches
from LNHGTrainingLib.training import checkpoint, distributed
from LNHGTrainingLib.training.sigterm import BrokenOff, StopSignal
from torch import nn

pytestmark = pytest.mark.slow


BRANCHES = {"segmenter": ("generator", "ema", "critic"), "detector": ("detector", "ema")}
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    small_data.write_crops(path, count=8)
    for branch in BRANCHES:
        config = small_data.training_config(branch, path) | {"micro_batches": 2, "validate_crops": 2, "epoch_steps": 4}
        (path / f"{branch}.json").write_text(json.dumps(config))
    return path


@pytest.fixture(scope="module", params=BRANCHES)
def two_processes(request, folder, tmp_path_factory):
    """A branch, and the run of two gloo processes that torchrun starts."""
    out = tmp_path_factory.mktemp("two") / request.param
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    paths = [str(ROOT / "LNHGSegmentation"), str(ROOT / "LNHGTraining"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [*command, train_recorded.__file__, request.param, folder / f"{request.param}.json", out],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return request.param, out


def test_two_processes_give_the_losses_and_weights_of_one_with_the_summed_batch(folder, two_processes, tmp_path):
    branch, out = two_processes
    losses = train_recorded.train(branch, folder / f"{branch}.json", tmp_path)
    of_two = json.loads((out / "losses.json").read_text())
    assert len(losses) == len(of_two) == 4
    for one, two in zip(losses, of_two, strict=True):
        assert two == pytest.approx(one, rel=1e-5)
    one, two = (checkpoint.load(path / "last.pt") for path in (tmp_path, out))
    for part in BRANCHES[branch]:
        for name, value in one[part].items():
            torch.testing.assert_close(two[part][name], value, rtol=1e-5, atol=1e-6, msg=f"{part} {name}")
    assert two["best"] == pytest.approx(one["best"])


def test_two_processes_write_an_epoch_once(two_processes):
    rows = (two_processes[1] / "epochs.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "4"]


def normalized_sum() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))


def test_a_step_is_the_mean_over_its_micro_batches():
    batches = torch.randn(2, 5, 3)
    both = normalized_sum()
    values = distributed.mean_gradients(
        both, [(0, batches[0]), (1, batches[1])], 2, lambda x: ((y := both(x).square().mean()), {"loss": y}), [1]
    )
    alone = [normalized_sum(), normalized_sum()]
    losses = [network(batch).square().mean() for network, batch in zip(alone, batches, strict=True)]
    sum(losses).backward()
    assert values["loss"] == pytest.approx(sum(loss.item() for loss in losses) / 2)
    torch.testing.assert_close(both[1].weight.grad, (alone[0][1].weight.grad + alone[1][1].weight.grad) / 2)
    torch.testing.assert_close(both[0].running_var, (alone[0][0].running_var + alone[1][0].running_var) / 2)
    assert both[0].num_batches_tracked == 1


def test_random_numbers_of_a_micro_batch_do_not_depend_on_those_before_it():
    network = nn.Linear(1, 1)

    def taken(*numbered: int) -> list[float]:
        numbers = []

        def loss(_: None) -> tuple[torch.Tensor, dict]:
            numbers.append(torch.rand(()).item())
            return network.weight.sum(), {"loss": network.weight.sum()}

        distributed.mean_gradients(network, [(number, None) for number in numbered], 4, loss, [7, 3])
        return numbers

    torch.manual_seed(0)
    first = taken(0, 1, 2, 3)
    torch.manual_seed(0)
    assert taken(0, 2) == [first[0], first[2]]
    assert taken(1, 3) == [first[1], first[3]]
    assert len(set(first)) == 4


def patches(folder) -> SegmenterPatches:
    sampling = small_data.training_config("segmenter", folder)["sampling"]
    return small_data.segmenter_patches(small_data.load(folder), [], sampling)


def test_workers_sample_what_the_process_itself_samples(folder):
    plain = list(load_steps(patches(folder), range(2, 5), size=2, micro_batches=3))
    ahead = list(load_steps(patches(folder), range(2, 5), size=2, micro_batches=3, workers=2))
    assert len(plain) == len(ahead) == 3
    for one, two in zip(plain, ahead, strict=True):
        assert [number for number, _ in one] == [number for number, _ in two] == [0, 1, 2]
        assert all(torch.equal(a.image, b.image) for (_, a), (_, b) in zip(one, two, strict=True))


def test_micro_batches_of_a_step_differ_and_the_first_is_the_old_batch(folder):
    source = patches(folder)
    images = [source.batch(4, 2, number).image for number in range(3)]
    assert torch.equal(images[0], source.batch(4, 2).image)
    assert not torch.equal(images[0], images[1])
    assert not torch.equal(images[1], images[2])


def test_loading_leaves_the_random_numbers_of_training_alone(folder):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    next(iter(load_steps(patches(folder), range(1), size=1, micro_batches=1)))
    assert torch.equal(torch.rand(3), expected)


def test_more_processes_than_micro_batches_are_refused(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 4)
    with pytest.raises(InputError, match=r"3 micro-batches for 4 processes.*set micro_batches"):
        distributed.own_micro_batches(3)


def test_work_shared_by_processes_comes_back_in_order(monkeypatch):
    """Process 1 of 3: the others' shares come from the exchange."""

    def exchange(shares: list, own: list) -> None:
        assert own == [10, 40]
        shares[:] = [[0, 30, 60], own, [20, 50]]

    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    monkeypatch.setattr(distributed.distributed, "all_gather_object", exchange)
    with StopSignal() as stop:
        assert distributed.map_over_ranks(lambda x: 10 * x, list(range(7)), stop) == [0, 10, 20, 30, 40, 50, 60]


def test_work_is_broken_off_in_all_processes_when_one_was_told_to_stop(monkeypatch):
    """Process 1 of 2 has done its share; process 0 says that it was broken off."""
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    exchange = lambda shares, own: shares.__setitem__(slice(None), [None, own])  # noqa: E731
    monkeypatch.setattr(distributed.distributed, "all_gather_object", exchange)
    with StopSignal() as stop, pytest.raises(BrokenOff):
        distributed.map_over_ranks(lambda x: x, [1, 2, 3], stop)
