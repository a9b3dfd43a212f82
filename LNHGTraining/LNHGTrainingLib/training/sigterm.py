"""Ends a command when the system asks for it: SIGTERM, as schedulers send before they kill."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TypeVar

from LNHGLib.errors import Cancelled

T = TypeVar("T")

STATUS = 128 + signal.SIGTERM
"""Exit status of `lnhg-train` after SIGTERM: not 0, since the work is not done, and not that of a failure."""


class Stopped(Cancelled):
    """The training wrote a checkpoint and stopped because it was told to."""


class BrokenOff(BaseException):
    """SIGTERM came in the middle of work; no handler of failures may take it for one."""


class StopSignal:
    """Context manager; `given` becomes True on SIGTERM instead of the process ending."""

    def __enter__(self) -> "StopSignal":
        self.given = self._breaks = False
        self._main = threading.current_thread() is threading.main_thread()  # Python handles signals there alone
        if self._main:
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._main:
            signal.signal(signal.SIGTERM, self._before)

    def unless_given(self, work: Callable[[], T]) -> T | None:
        """Return what `work` gives; None where SIGTERM came before or broke it off, at the latest after one operation.

        Use it for work that changes nothing and talks to no other process.
        """
        try:
            self._breaks = True
            if self.given:
                return None
            result = work()
            self._breaks = False
            return result
        except BrokenOff:
            return None
        finally:
            self._breaks = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        first, self.given = not self.given, True
        if first and self._breaks:
            raise BrokenOff


@contextmanager
def breaking_off() -> Iterator[None]:
    """Raise `BrokenOff` in the block on SIGTERM, so that it clears away what it made; a second one ends the process."""

    def note(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise BrokenOff

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, note) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
