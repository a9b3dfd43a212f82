"""Training by several processes: a step is the mean over its parts, whoever computes them.

    torchrun --nproc-per-node 4 -m LNHGTrainingLib train segmenter --device cuda --resume ...

A step has as many batches as the configuration's `parts` says. Part p of step s is drawn from seed, s and p alone, and
process r of n computes parts r, r + n, ... one after the other, so that the number of processes changes nothing but the
order of additions; more parts than processes is gradient accumulation. Batch normalisation sees its part alone (as
under plain DDP, not SyncBatchNorm); the running statistics after a step are the mean over its parts.

Gradients are summed explicitly, in one message a step, instead of by DDP: the critic's gradient penalty differentiates
twice through `autograd.grad`, which DDP's hooks do not support, and the critic passes three times before one backward.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
from LNHGLib.errors import InputError
from LNHGLib.segmentation.pipeline import choose_device
from torch import Tensor, distributed, nn

from LNHGTrainingLib.training.sigterm import BrokenOff, StopSignal

T = TypeVar("T")
R = TypeVar("R")
Parts = list[tuple[int, T]]
"""Numbers and batches of the parts that this process computes."""

PATIENCE = timedelta(hours=2)
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
    distributed.init_process_group("cpu:gloo,cuda:nccl" if here.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield here
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """Number of this process; process 0 writes files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


@contextmanager
def first_on_node() -> Iterator[None]:
    """Let one process of each node run the block before the others, which then find its cache filled."""
    if world() == 1:
        yield
        return
    first = os.environ["LOCAL_RANK"] == "0"
    if not first:
        distributed.barrier()
    yield
    if first:
        distributed.barrier()


def own_micro_batches(count: int) -> range:
    """The parts of a step that this process computes.

    Raises:
        InputError: there are more processes than parts.
    """
    if count < world():
        raise InputError(f"A step has {count} parts for {world()} processes, expected one each or more: set parts.")
    return range(rank(), count, world())


def each(function: Callable[[T], R], items: Sequence[T], stop: StopSignal) -> list[R]:
    """`function` of every item, in order; the processes share the work, and all get all results.

    Raises:
        BrokenOff: in all processes, as SIGTERM came to one of them meanwhile.
    """
    shares = [stop.unless_given(lambda: [function(item) for item in items[rank() :: world()]])]
    if world() > 1:
        own, shares = shares[0], [None] * world()
        distributed.all_gather_object(shares, own)
    if None in shares:
        raise BrokenOff
    return [shares[i % world()][i // world()] for i in range(len(items))]


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether any process says so."""
    if world() == 1:
        return flag
    flags = torch.tensor(float(flag), device=device)
    distributed.all_reduce(flags)
    return bool(flags)


def mean_gradients(
    network: nn.Module, parts: Parts, count: int, loss: Callable[[T], tuple[Tensor, dict[str, Tensor]]], seed: list[int]
) -> dict[str, float]:
    """Leave in `network` the gradients and running statistics of a step: their mean over all its parts.

    Args:
        network: trained by the loss; what its gradients held is dropped.
        parts: this process's.
        count: parts of all processes.
        loss: gives, for the batch of a part, what to minimise and the values to report.
        seed: names the random numbers that the loss draws.

    Returns:
        The values, as means over all parts.
    """
    network.zero_grad()
    buffers = list(network.buffers())
    before = [buffer.clone() for buffer in buffers]
    sums = [torch.zeros_like(buffer) for buffer in buffers]
    reports = []
    for number, batch in parts:
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
    _add_up([*gradients, *(sums[i] for i in floating), values])
    _copy([buffers[i] for i in floating], [sums[i] / count for i in floating])
    return dict(zip(report, (values / count).tolist(), strict=True))


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


def _add_up(tensors: list[Tensor]) -> None:
    """Replace each float32 tensor by its sum over the processes, in one message for all of them."""
    if world() == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(flat)
    sums = flat.split([tensor.numel() for tensor in tensors])
    _copy(tensors, [part.view(tensor.shape) for part, tensor in zip(sums, tensors, strict=True)])


@contextmanager
def _random_numbers(part: int, seed: list[int]) -> Iterator[None]:
    """Torch's random numbers for a part: part 0 goes on with the run's, which checkpoints keep; others start from seed.

    Part 0 is always process 0's, so that a checkpoint of process 0 holds all random state there is.
    """
    if part == 0:
        yield
        return
    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_initialized() else []):
        torch.manual_seed(int(np.random.SeedSequence([*seed, part]).generate_state(1)[0]))
        yield
