"""Complete checkpoints: everything a run needs to go on as if it had never stopped."""

from pathlib import Path

import torch
from LNHGLib.errors import InputError
from LNHGLib.files.atomic import atomic_file
from LNHGLib.files.checksum import file_sha256

from LNHGTrainingLib.config import renamed

OLD_KEYS = {"average": "ema", "stale": "epochs_without_improvement", "judged": "validated_step"}
"""Keys of older checkpoints, and what they are called today."""


def save(path: Path, state: dict) -> None:
    """Write a checkpoint in one step.

    Args:
        path: file to write.
        state: tensors and plain values.
    """
    with atomic_file(path) as part:
        torch.save(state, part)


def load(path: Path) -> dict:
    """Read a checkpoint without executing anything it holds; older ones get the words of today.

    Raises:
        InputError: there is none.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected a checkpoint there: train first, or start without --resume.")
    state = torch.load(path, map_location="cpu", weights_only=True)
    state = {OLD_KEYS.get(key, key): value for key, value in state.items()}
    return state | {"config": renamed(state["config"])}


def identity(state: dict, path: Path) -> str:
    """Return what identifies a loaded checkpoint in a report.

    Args:
        state: as from `load`.
        path: where it was loaded from.
    """
    return f"step {state['step']}, seed {state['config']['seed']}, SHA-256 {file_sha256(path)}"


def require_segmenter(state: dict, path: Path) -> None:
    """Refuse a loaded checkpoint that holds no generator.

    Args:
        state: as from `load`.
        path: where it was loaded from.

    Raises:
        InputError: so it is.
    """
    if "generator" not in state["config"] or "ema" not in state:
        raise InputError(f"{path} holds no generator, expected a checkpoint of the segmenter; give another.")
