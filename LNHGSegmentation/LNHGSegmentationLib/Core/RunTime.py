"""How long a run takes: expected before it starts from earlier runs on this computer, and what is left meanwhile.

A run takes a fixed time to start and a time in proportion to the volume that the CT covers, as the networks see the
lungs on a grid of their own. Each run tells how many seconds a liter took on its device; the median of the last ones
counts.
"""

import json
import statistics
import time

import numpy as np
import slicer

SETTING = "LNHG/SecondsPerLiter"
KEPT_RUNS = 5
START_S = 8.0  # to load the packages and the networks
CPU_SECONDS_PER_LITER = 1.1  # of the whole scans in the README's table, on two cores; before the first run
SURE_FRACTION = 0.25  # from here on the time a run has taken tells more than earlier runs
LITER_MM3 = 1e6


def liters(volumeNode: slicer.vtkMRMLScalarVolumeNode) -> float:
    """Return the volume that a CT covers."""
    return float(np.prod(volumeNode.GetImageData().GetDimensions()) * np.prod(volumeNode.GetSpacing())) / LITER_MM3


class RunTime:
    """What is known about this computer, kept in the application's settings."""

    def __init__(self, settings=None) -> None:
        """Read the settings.

        Args:
            settings: A ``QSettings``; by default the user's.
        """
        self._settings = settings or slicer.app.userSettings()

    def expected(self, volumeNode: slicer.vtkMRMLScalarVolumeNode, model: str, device: dict) -> float | None:
        """Return the seconds that a run will take, None where this cannot be known before the first run on a GPU."""
        rates = self._rates().get(_key(model, device))
        if rates:
            return START_S + statistics.median(rates) * liters(volumeNode)
        return START_S + CPU_SECONDS_PER_LITER * liters(volumeNode) if device["id"] == "cpu" else None

    def learn(self, volumeNode: slicer.vtkMRMLScalarVolumeNode, model: str, device: dict, seconds: float) -> None:
        """Remember how long a run took."""
        rates, key = self._rates(), _key(model, device)
        rate = max(seconds - START_S, 0.1 * seconds) / liters(volumeNode)
        rates[key] = [*rates.get(key, []), round(rate, 4)][-KEPT_RUNS:]
        self._settings.setValue(SETTING, json.dumps(rates))

    def _rates(self) -> dict[str, list[float]]:
        try:
            return json.loads(self._settings.value(SETTING) or "{}")
        except (TypeError, ValueError):
            return {}


class Clock:
    """The time that is left in a run.

    Attributes:
        expected_s: Seconds that the whole run will take, None while this is not known.
    """

    def __init__(self, expected_s: float | None, now=time.monotonic) -> None:
        self.expected_s, self._now = expected_s, now
        self._began = now()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self._now() - self._began

    def left(self, fraction: float) -> float | None:
        """Return the seconds that are left when a fraction is done, None while this cannot be known."""
        by_progress = self.seconds * (1 - fraction) / fraction if fraction > 0 else None
        by_experience = None if self.expected_s is None else max(self.expected_s - self.seconds, 0.0)
        if by_experience is None or by_progress is None:
            return by_progress if fraction >= SURE_FRACTION else by_experience
        trust = min(fraction / SURE_FRACTION, 1.0)
        return trust * by_progress + (1 - trust) * by_experience


def _key(model: str, device: dict) -> str:
    return f"{model} on {'cpu' if device['id'] == 'cpu' else device['name']}"
