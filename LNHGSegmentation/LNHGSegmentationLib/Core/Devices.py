"""The devices that the networks can run on, asked of the core in the background: Slicer itself never loads torch."""

import json
import logging
from collections.abc import Callable

from slicer.i18n import tr as _

from LNHGSegmentationLib.Core.CoreTask import CoreTask, TaskOutcome

AUTO = "auto"


class DeviceQuestion(CoreTask):
    """The question to the core; its result is the list of devices."""

    def read(self, status: int, lastLine: str) -> list[dict]:
        """Return what the core answers.

        Args:
            status: Exit status of the child.
            lastLine: Its last line, JSON where all is well.

        Raises:
            RuntimeError: It gave no answer.
        """
        try:
            return json.loads(lastLine)["devices"]
        except (ValueError, KeyError, TypeError) as error:
            silence = _("the program that lists them ended without a word (status {status}).")
            raise RuntimeError(lastLine or silence.format(status=status)) from error


class Devices:
    """Finds the devices once; use `all` at any time.

    Attributes:
        trouble: One sentence on why the devices are not known; empty unless the core was asked in vain.
    """

    def __init__(self, python: str | None = None, launcher: Callable | None = None) -> None:
        """Make an empty list.

        Args:
            python: Python interpreter for the core; by default PythonSlicer.
            launcher: Stands in for ``slicer.util.launchConsoleProcess``.
        """
        self._python, self._launcher = python, launcher
        self._question: DeviceQuestion | None = None
        self._found: list[dict] | None = None
        self.trouble = ""

    @property
    def areKnown(self) -> bool:
        """Whether the core has answered."""
        return bool(self._found)

    def all(self) -> list[dict]:
        """Return the devices as `LNHGLib.segmentation.devices` describes them, the one that "auto" takes first."""
        return self._found or []

    def find(self, onAnswer: Callable[[], None]) -> None:
        """Ask the core; returns at once. Nothing happens where the question is under way or answered.

        Args:
            onAnswer: Called when the devices are known, or cannot be known for the reason in `trouble`.
        """
        if self._question is not None or self.areKnown:
            return
        self.trouble = ""

        def ended(outcome: TaskOutcome) -> None:
            self._question, self._found = None, outcome.result
            if outcome.state == "failed":
                self.trouble = _("The devices of this computer are not known: {reason}").format(reason=outcome.message)
                logging.info("LNHG: %s", self.trouble)
            onAnswer()

        try:
            self._question = DeviceQuestion(ended, python=self._python, launcher=self._launcher)
            self._question.start(["devices", "--json"])
        except (OSError, RuntimeError) as error:
            ended(TaskOutcome("failed", str(error)))

    def taken(self, device: str) -> dict | None:
        """Return the device that a choice stands for, None while it is not known."""
        found = self.all()
        if device == AUTO:
            return found[0] if found else None
        return next((each for each in found if each["id"] == device), None)

    def stop(self) -> None:
        """End the question."""
        if self._question is not None:
            self._question.stop()
            self._question = None
