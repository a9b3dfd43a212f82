"""Complete checkpoints: everything a run needs to go on as if it had never stopped."""

from pathlib import Path

import torch
from LNHGLib.errors import InputError
from torch import nn


def save(path: Path, state: dict) -> None:
    """Write `state` (tensors and plain values) in one step."""
    temporary = path.with_suffix(".part")
    torch.save(state, temporary)
    temporary.replace(path)


def load(path: Path) -> dict:
    """Read a checkpoint without executing anything it holds.

    Raises:
        InputError: there is none.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected a checkpoint there: train first, or start without --resume.")
    return torch.load(path, map_location="cpu", weights_only=True)


def follow(average: nn.Module, network: nn.Module, keep: float, step: int) -> None:
    """Move the averaged weights and statistics towards the trained ones; faster in the first steps."""
    keep = min(keep, (1 + step) / (10 + step))
    with torch.no_grad():
        for slow, fast in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
            if slow.dtype.is_floating_point:
                slow.lerp_(fast, 1 - keep)
            else:
                slow.copy_(fast)
