"""How long runs took on this computer, by model and by what computed them, and from that how long the next one takes.

A run takes some seconds whatever the CT, to load packages and networks, and seconds in proportion to the volume of the
lungs, where the networks look. The medians of the last runs count, of those on lungs of about the same volume where
there are any: a part of a chest has much rim for its volume. They are kept in the user's cache folder.
"""

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from LNHGLib.models.compile_cache import cache_folder, store

KEPT_RUNS = 10
ALIKE = 1.7
"""Volumes whose ratio is at most this are about the same."""
SAMPLE_MM = 4.0
TISSUE_HU, AIR_HU = -300, -400
MIN_LITERS = 0.5
"""Less is taken for this much: a part of a chest, or no chest at all."""
START_S, CPU_SECONDS_PER_LITER = 4.0, {"openvino": 5.0, "torch": 16.0}
"""Of a run on two cores, measured on the embedded chest and real scans: they stand where there was no run yet."""


@dataclass(frozen=True)
class Run:
    """What a run took.

    Attributes:
        liters: from `lung_liters`.
        start_s: seconds before and after the stages.
        stages_s: seconds of all stages.
    """

    liters: float
    start_s: float
    stages_s: float


def path() -> Path:
    """Return the file with the runs of this computer."""
    return cache_folder() / "run_times.json"


def lung_liters(hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> float:
    """Return about how much air lies within the body, in liters; takes milliseconds.

    Args:
        hu: CT in HU (z, y, x).
        spacing_mm: zyx.
    """
    sample = hu[tuple(slice(None, None, max(1, int(SAMPLE_MM / spacing))) for spacing in spacing_mm)]
    if not sample.size:
        return MIN_LITERS
    tissue, inside = sample > TISSUE_HU, sample < AIR_HU
    for axis in (1, 2):  # between tissue at the left and the right, in front and at the back
        inside &= np.logical_or.accumulate(tissue, axis)
        inside &= np.flip(np.logical_or.accumulate(np.flip(tissue, axis), axis), axis)
    return max(float(inside.mean() * hu.size * math.prod(spacing_mm)) / 1e6, MIN_LITERS)


def expected_s(model: str, runtime: str, device: str, liters: float) -> float | None:
    """Return the seconds that a run will take; None where no earlier run tells.

    Args:
        model: its name.
        runtime: what computes it, "openvino" or "torch".
        device: the maker's name of a GPU, or "cpu".
        liters: from `lung_liters`.
    """
    runs = _read().get(_key(model, runtime, device), [])
    if not runs:
        return START_S + CPU_SECONDS_PER_LITER[runtime] * liters if device == "cpu" else None
    alike = [run for run in runs if max(run.liters / liters, liters / run.liters) <= ALIKE] or runs
    rate = statistics.median(run.stages_s / run.liters for run in alike)
    return statistics.median(run.start_s for run in alike) + rate * liters


def keep(model: str, runtime: str, device: str, run: Run) -> None:
    """Keep what a run took, in one step; without room for it nothing happens.

    Args:
        model: its name.
        runtime: what computed it, "openvino" or "torch".
        device: the maker's name of a GPU, or "cpu".
        run: what it took.
    """
    runs, key = _read(), _key(model, runtime, device)
    runs[key] = [*runs.get(key, []), run][-KEPT_RUNS:]
    rows = {name: [[one.liters, one.start_s, one.stages_s] for one in some] for name, some in runs.items()}
    store(path().name, json.dumps(rows).encode())


def _read() -> dict[str, list[Run]]:
    """Return the runs by model, runtime and device; none where the file is missing or damaged."""
    try:
        rows = json.loads(path().read_text(encoding="utf-8"))
        runs = {name: [Run(*map(float, row)) for row in some] for name, some in rows.items()}
        sound = all(
            run.liters > 0 and math.isfinite(run.start_s + run.stages_s) for some in runs.values() for run in some
        )
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return runs if sound else {}


def _key(model: str, runtime: str, device: str) -> str:
    return f"{model} by {runtime} on {device}"
