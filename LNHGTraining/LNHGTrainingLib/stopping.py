"""Stops a training when the system asks for it: SIGTERM, as schedulers send before they kill."""

import signal
import threading
from types import FrameType, TracebackType

from LNHGLib.errors import Cancelled

STATUS = 128 + signal.SIGTERM
"""Exit status of `lnhg-train train` after a stop: not 0, since the model is not done, and not that of a failure."""


class Stopped(Cancelled):
    """The training wrote a checkpoint and stopped because it was told to."""


class StopSignal:
    """Context manager; `given` becomes True on SIGTERM instead of the process ending."""

    def __enter__(self) -> "StopSignal":
        self.given = False
        self._main = threading.current_thread() is threading.main_thread()  # Python handles signals there alone
        if self._main:
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._main:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.given = True
