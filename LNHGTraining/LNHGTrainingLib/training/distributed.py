"""Training by several processes: a step is the mean over its micro-batches, whoever computes them.

    torchrun --nproc-per-node 4 -m LNHGTrainingLib train segmenter --device cuda --resume ...

A step has as many micro-batches as the configuration says. Micro-batch m of step s is sampled from seed, s and m alone,
and process r of n computes r, r + n, ... one after the other, so that the number of processes changes nothing but the
order of additions; more micro-batches than processes is gradient accumulation. Batch normalization sees its micro-batch
alone (as under plain DDP, not SyncBatchNorm); the running statistics after a step are the mean over all.

Gradients are summed explicitly, in one message for each step, instead of by DDP: the critic's gradient penalty
differentiates twice through `autograd.grad`, which DDP's hooks do not support, and the critic passes three times before
one backward.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
from LNHGLib.errors import InputError
from LNHGLib.segmentation.devices import choose_device
from torch import Tensor, distributed, nn

from LNHGTrainingLib.training.sigterm import BrokenOff, StopSignal

T = TypeVar("T")
R = TypeVar("R")
MicroBatches = list[tuple[int, T]]
"""Numbers and batches of the micro-batches that this process computes."""

TIMEOUT = timedelta(hours=2)
"""How long a process waits for the others: the first one on a node may be preparing data."""


@contextmanager
def without_subnormals() -> Iterator[None]:
    """Take numbers too small to be normal for 0: gradients far from a mask are such, and CPUs take twice the time."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def processes(device: str) -> Iterator[torch.device]:
    """Join the processes that torchrun started, if it did; gives this process's device.

    Once a process: joining again would find the others' former addresses in torchrun's store.

    Raises:
        InputError: there is no such device.
    """
    several = distributed.is_torchelastic_launched()
    here = choose_device(f"cuda:{os.environ['LOCAL_RANK']}" if several and device == "cuda" else device)
    if here.type == "cuda":
        torch.cuda.set_device(here)
    if not several:
        yield here
        return
    distributed.init_process_group("cpu:gloo,cuda:nccl" if here.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield here
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """Return the number of this process; process 0 writes files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Return how many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


@contextmanager
def first_on_node() -> Iterator[None]:
    """Let one process of each node run the block before the others, which then find its cache filled."""
    if world_size() == 1:
        yield
        return
    first = os.environ["LOCAL_RANK"] == "0"
    if not first:
        distributed.barrier()
    yield
    if first:
        distributed.barrier()


def own_micro_batches(count: int) -> range:
    """Return the numbers of a step's micro-batches that this process computes.

    Raises:
        InputError: there are more processes than micro-batches.
    """
    if count < world_size():
        raise InputError(
            f"A step has {count} micro-batches for {world_size()} processes, expected one each or more; "
            "set micro_batches."
        )
    return range(rank(), count, world_size())


def map_over_ranks(function: Callable[[T], R], items: Sequence[T], stop: StopSignal) -> list[R]:
    """Return `function` of every item, in order; the processes share the work, and all get all results.

    Args:
        function: gives None for no item.
        items: the same in all processes.
        stop: tells whether SIGTERM came.

    Raises:
        BrokenOff: in all processes, as SIGTERM came to one of them meanwhile.
    """
    shares = [stop.unless_given(lambda: [function(item) for item in items[rank() :: world_size()]])]
    if world_size() > 1:
        own, shares = shares[0], [None] * world_size()
        distributed.all_gather_object(shares, own)
    if None in shares:
        raise BrokenOff
    return [shares[i % world_size()][i // world_size()] for i in range(len(items))]


def any_rank(flag: bool, device: torch.device) -> bool:
    """Return whether the flag of any process is set.

    Args:
        flag: of this process.
        device: where to exchange.
    """
    if world_size() == 1:
        return flag
    flags = torch.tensor(float(flag), device=device)
    distributed.all_reduce(flags)
    return bool(flags)


def mean_gradients(
    network: nn.Module,
    batches: MicroBatches,
    count: int,
    loss: Callable[[T], tuple[Tensor, dict[str, Tensor]]],
    seed: list[int],
) -> dict[str, float]:
    """Leave in `network` the gradients and running statistics of a step: their mean over all its micro-batches.

    Args:
        network: trained by the loss; what its gradients held is dropped.
        batches: this process's micro-batches.
        count: micro-batches of all processes.
        loss: gives, for a micro-batch, what to minimize and the values to report.
        seed: names the random numbers that the loss takes.

    Returns:
        The values, as means over all micro-batches.
    """
    network.zero_grad()
    buffers = list(network.buffers())
    before = [buffer.clone() for buffer in buffers]
    sums = [torch.zeros_like(buffer) for buffer in buffers]
    reports = []
    for number, batch in batches:
        _copy(buffers, before)
        with _random_numbers(number, seed):
            total, report = loss(batch)
            (total / count).backward()
        for summed, buffer in zip(sums, buffers, strict=True):
            summed += buffer
        reports.append(torch.stack([value.detach().float() for value in report.values()]))
    values = torch.stack(reports).sum(0)
    floating = [i for i, buffer in enumerate(buffers) if buffer.is_floating_point()]
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    if world_size() > 1:  # one message for all
        tensors = [*gradients, *(sums[i] for i in floating), values]
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        _copy(tensors, [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)])
    _copy([buffers[i] for i in floating], [sums[i] / count for i in floating])
    return dict(zip(report, (values / count).tolist(), strict=True))


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


@contextmanager
def _random_numbers(number: int, seed: list[int]) -> Iterator[None]:
    """Give torch the random numbers of a micro-batch in the block.

    Micro-batch 0 goes on with the run's, which checkpoints keep; the others start from the seed. It is always process
    0's, so that a checkpoint of process 0 holds all random state there is.

    Args:
        number: of the micro-batch.
        seed: of the step.
    """
    if number == 0:
        yield
        return
    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_initialized() else []):
        torch.manual_seed(int(np.random.SeedSequence([*seed, number]).generate_state(1)[0]))
        yield
