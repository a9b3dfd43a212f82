"""The devices that the networks can run on, asked of the core in the background: Slicer itself never loads torch."""

import json
import logging
from collections.abc import Callable

from slicer.i18n import tr as _

from LNHGSegmentationLib.Core.ChildProcess import ChildProcess
from LNHGSegmentationLib.Paths import MODULE_FOLDER

AUTO, CPU = "auto", "cpu"


class Devices:
    """Finds the devices once; use `all` at any time.

    :ivar trouble: one sentence on why the devices are not known; empty unless the core was asked in vain.
    """

    def __init__(self, findPython: Callable[[], str], launcher: Callable | None = None) -> None:
        """Make an empty list.

        :param findPython: returns the Python interpreter for the core.
        :param launcher: stands in for ``slicer.util.launchConsoleProcess``.
        """
        self._findPython, self._launcher = findPython, launcher
        self._child: ChildProcess | None = None
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

        :param onAnswer: called when the devices are known, or cannot be known for the reason in `trouble`.
        """
        if self._child is not None or self.areKnown:
            return
        self.trouble = ""

        def failed(reason: str) -> None:
            self.trouble = _("The devices of this computer are not known: {reason}").format(reason=reason)
            logging.info("LNHG: %s", self.trouble)
            onAnswer()

        def ended(status: int, lastLine: str) -> None:
            self._child = None
            try:
                self._found = json.loads(lastLine)["devices"]
            except (ValueError, KeyError, TypeError):
                silence = _("the program that lists them ended without a word (status {status}).")
                failed(lastLine or silence.format(status=status))
            else:
                onAnswer()

        try:
            child = ChildProcess(lambda *_: None, ended, launcher=self._launcher)
            child.start([self._findPython(), "-m", "LNHGLib", "devices", "--json"], cwd=MODULE_FOLDER)
        except (OSError, RuntimeError) as error:
            failed(str(error))
            return
        self._child = child

    def taken(self, device: str) -> dict | None:
        """Return the device that a choice stands for, None while it is not known."""
        found = self.all()
        if device == AUTO:
            return found[0] if found else None
        return next((each for each in found if each["id"] == device), None)

    def stop(self) -> None:
        """End the question."""
        if self._child is not None:
            self._child.kill()
            self._child = None
