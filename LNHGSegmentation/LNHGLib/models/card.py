"""The parts of a model's card that have a type of their own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from LNHGLib.errors import InputError


@dataclass(frozen=True)
class FusionOptions:
    """The card's `fusion` part.

    Attributes:
        overlap: "touch" (faithful) or "strict".
        margin_mm: enlargement of every box to each side in the slice; the paper's 5 px of a 0.7 mm pixel.
        weight: the detector's part of a score in 0..1; the segmenter has the rest.
        floor: the score that stands for a branch that found nothing there.
        min_volume_mm3: smaller components are noise and do not take part.
        connectivity: "3d" (26 neighbors) or "slice" (8 neighbors in each slice, the paper's slice-wise filter).
    """

    overlap: str = "touch"
    margin_mm: float = 3.5
    weight: float = 0.5
    floor: float = 0.1
    min_volume_mm3: float = 0.0
    connectivity: str = "3d"

    @classmethod
    def from_card(cls, values: Mapping[str, Any]) -> "FusionOptions":
        """Check the card's `fusion` part.

        Raises:
            InputError: naming the key that is unknown or out of its range.
        """
        for key, value in values.items():
            if key not in _RANGES:
                raise InputError(
                    f"'fusion.{key}' is unknown, expected one of {', '.join(_RANGES)}; mend the model card."
                )
            if not _allows(_RANGES[key], value):
                expected = (" or " if isinstance(_RANGES[key][0], str) else " to ").join(map(str, _RANGES[key]))
                raise InputError(f"'fusion.{key}' is {value!r}, expected {expected}; mend the model card.")
        return cls(**values)


_RANGES: dict[str, tuple] = {
    "overlap": ("touch", "strict"),
    "margin_mm": (0.0, 50.0),
    "weight": (0.0, 1.0),
    "floor": (0.0, 1.0),
    "min_volume_mm3": (0.0, 1e6),
    "connectivity": ("3d", "slice"),
}


def _allows(allowed: tuple, value: Any) -> bool:
    if isinstance(allowed[0], str):
        return value in allowed
    return isinstance(value, int | float) and not isinstance(value, bool) and allowed[0] <= value <= allowed[1]
