"""Brings the batches of a run's steps, sampled in this process or by workers; what is sampled is the same."""

import signal
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from LNHGTrainingLib.training.distributed import MicroBatches, own_micro_batches


class BatchSource(Protocol):
    """Samples a micro-batch of a step from its seed and these numbers alone."""

    def batch(self, step: int, size: int, number: int = 0) -> Any:
        """Return a micro-batch.

        Args:
            step: number of the step.
            size: samples.
            number: of the micro-batch.
        """


class _Steps(Dataset):
    def __init__(self, source: BatchSource, size: int, numbers: range) -> None:
        self.source, self.size, self.numbers = source, size, numbers

    def __getitem__(self, step: int) -> MicroBatches:
        return [(number, self.source.batch(step, self.size, number)) for number in self.numbers]


def load_steps(source: BatchSource, steps: range, size: int, micro_batches: int, workers: int = 0) -> DataLoader:
    """Return the micro-batches of this process for each step.

    Args:
        source: samples them.
        steps: numbers of the steps.
        size: samples of a micro-batch.
        micro_batches: of a step over all processes.
        workers: processes that sample ahead.

    Raises:
        InputError: there are more training processes than micro-batches.
    """
    return DataLoader(
        _Steps(source, size, own_micro_batches(micro_batches)),
        sampler=steps,
        batch_size=None,
        collate_fn=list,
        num_workers=workers,
        worker_init_fn=ignore_signals,
        generator=torch.Generator(),  # else the loader takes a number from the generator that training uses
    )


def ignore_signals(_worker: int) -> None:
    """Leave stopping to the run: schedulers signal whole groups of processes, and the run stops its workers itself."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
