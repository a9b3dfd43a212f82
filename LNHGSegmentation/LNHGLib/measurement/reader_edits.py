"""What a reader did to a finding, by its history: mappings with `action`, `by` and `time`, oldest first."""

from collections.abc import Mapping, Sequence
from typing import Any

CHANGES = ("merged", "split", "edited")
"""Actions that make the voxels of a finding others than the model's."""


def changes(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what was done to the voxels as they are now, each once: "restored" takes back what came before it."""
    actions = [entry["action"] for entry in history]
    since = len(actions) - actions[::-1].index("restored") if "restored" in actions else 0
    return [action for action in dict.fromkeys(actions[since:]) if action in CHANGES]
