"""How long a run takes: expected before it starts from earlier runs on this computer, and what is left meanwhile."""

import time

import slicer

PANEL_S = 3.0  # to hand the CT over to the core, and to load the result
SURE_FRACTION = 0.25  # from here on the time a run has taken tells more than earlier runs


class RunTime:
    """What the core has noted of this computer's runs, for the CTs of a scene."""

    def __init__(self) -> None:
        self._liters: tuple[tuple[str, int], float] = (("", 0), 0.0)  # of the CT that was asked for last

    def expected(
        self, volumeNode: slicer.vtkMRMLScalarVolumeNode, model: str, runtime: str, device: dict
    ) -> float | None:
        """Return the seconds from the click to the findings, None where no earlier run tells.

        Args:
            volumeNode: The CT.
            model: Name of the model.
            runtime: What computes it, "openvino" or "torch".
            device: As `Devices.taken` returns it.
        """
        from LNHGLib.results import run_times  # here, as it would slow down Slicer's start

        if not runtime:
            return None
        key = volumeNode.GetID(), volumeNode.GetImageData().GetMTime()
        if self._liters[0] != key:
            array, spacing = slicer.util.arrayFromVolume(volumeNode), volumeNode.GetSpacing()[::-1]
            self._liters = key, run_times.lung_liters(array, spacing)
        name = "cpu" if device["id"] == "cpu" else device["name"]
        seconds = run_times.expected_s(model, runtime, name, self._liters[1])
        return None if seconds is None else PANEL_S + seconds


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
