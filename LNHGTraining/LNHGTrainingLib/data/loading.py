"""Brings the batches of a run's steps, drawn in this process or by workers; what is drawn is the same."""

import signal
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from LNHGTrainingLib.training.distributed import Parts, own_micro_batches


class Source(Protocol):
    """Draws the batch of a part of a step from its seed and these numbers alone."""

    def batch(self, step: int, size: int, part: int = 0) -> Any:
        """A batch of `size` samples."""


class _Steps(Dataset):
    def __init__(self, source: Source, size: int, parts: range) -> None:
        self.source, self.size, self.parts = source, size, parts

    def __getitem__(self, step: int) -> Parts:
        return [(part, self.source.batch(step, self.size, part)) for part in self.parts]


def load_steps(source: Source, config: dict, first: int) -> DataLoader:
    """The parts of this process for every step from `first` on.

    Args:
        source: draws them.
        config: `steps`, `batch`, `parts` and optional `workers`, the number of processes that draw ahead.
        first: the run's step.

    Raises:
        InputError: there are more training processes than parts.
    """
    return DataLoader(
        _Steps(source, config["batch"], own_micro_batches(config["parts"])),
        sampler=range(first, config["steps"]),
        batch_size=None,
        collate_fn=_as_drawn,
        num_workers=config.get("workers", 0),
        worker_init_fn=_leave_stopping_to_the_run,
        generator=torch.Generator(),  # else the loader takes a number from the generator that training uses
    )


def _as_drawn(parts: Parts) -> Parts:
    return parts


def _leave_stopping_to_the_run(_: int) -> None:
    """Schedulers signal whole groups of processes; the run stops its workers itself."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
