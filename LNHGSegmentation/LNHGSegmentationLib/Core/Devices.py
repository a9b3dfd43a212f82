"""The devices that the networks can run on, asked of the core in the background: Slicer itself never loads torch."""

import json
import logging
from collections.abc import Callable

from slicer.i18n import tr as _

from LNHGSegmentationLib.Core.CoreTask import CoreTask, TaskOutcome

AUTO, OPENVINO, CPU = "auto", "openvino", "cpu"


class DeviceQuestion(CoreTask):
    """The question to the core; its result is what ``lnhg devices --json`` prints."""

    def read(self, status: int, lastLine: str) -> dict:
        """Return what the core answers, with ``devices``, ``runtimes`` and ``models``.

        Args:
            status: Exit status of the child.
            lastLine: Its last line, JSON where all is well.

        Raises:
            RuntimeError: It gave no answer.
        """
        try:
            answer = json.loads(lastLine)
            return {"devices": list(answer["devices"]), "runtimes": [], "models": {}} | answer
        except (ValueError, KeyError, TypeError) as error:
            silence = _("the program that lists them ended without a word (status {status}).")
            raise RuntimeError(lastLine or silence.format(status=status)) from error


class Devices:
    """Finds the devices and what computes on them once; use `all` at any time.

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
        self._found: dict | None = None
        self.trouble = ""

    @property
    def areKnown(self) -> bool:
        """Whether the core has answered."""
        return bool(self._found)

    def all(self) -> list[dict]:
        """Return the devices as `LNHGLib.segmentation.devices` describes them, the one that "auto" takes first."""
        return self._found["devices"] if self._found else []

    def runtimes(self) -> list[str]:
        """Return what is installed here to compute the networks, "openvino" or "torch", best first for a CPU."""
        return self._found["runtimes"] if self._found else []

    def forget(self) -> None:
        """Take nothing for known any more: packages were installed."""
        self.stop()
        self._found = None

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

    def taken(self, device: str, runtime: str = AUTO) -> dict | None:
        """Return the device that a choice stands for, None while it is not known.

        Args:
            device: "auto", "cpu" or "cuda:N".
            runtime: "auto", "openvino", which needs no GPU, or "torch".
        """
        found = self.all()
        if device == AUTO:
            device = CPU if runtime == OPENVINO or not found else found[0]["id"]
        return next((each for each in found if each["id"] == device), None)

    def computing(self, device: str, runtime: str, model: str) -> str:
        """Return what computes a run, "openvino" or "torch"; empty where nothing can, or while it is not known.

        Args:
            device: "auto", "cpu" or "cuda:N".
            runtime: "auto", "openvino" or "torch".
            model: Name of the model.
        """
        taken = self.taken(device, runtime)
        if taken is None:
            return ""
        here = self._found["models"].get(model, self._found["runtimes"])
        if taken["id"] != CPU:
            here = [each for each in here if each != OPENVINO]
        return next((each for each in here if runtime in (AUTO, each)), "")

    def stop(self) -> None:
        """End the question."""
        if self._question is not None:
            self._question.stop()
            self._question = None
