"""Progress, cancelling, warnings and timings of a run: what the pipeline and its caller tell each other."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from LNHGLib.errors import Cancelled

logger = logging.getLogger(__name__)


@dataclass
class Monitor:
    """Passes progress on, asks whether to stop, and collects warnings and seconds.

    Attributes:
        progress: called with the fraction done in 0..1, never falling, and what is being done.
        cancelled: asked at every piece of work; true stops the run.
        warnings: sentences for the user.
        seconds: time by stage.
    """

    progress: Callable[[float, str], None] | None = None
    cancelled: Callable[[], bool] | None = None
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    _span: tuple[float, float] = (0.0, 1.0)
    _text: str = ""
    _remark: str = ""
    _last: float = 0.0

    def check(self) -> None:
        """Stop here if the user wants it.

        Raises:
            Cancelled: the user cancelled.
        """
        if self.cancelled and self.cancelled():
            raise Cancelled("cancelled by the user.")

    def report(self, fraction: float) -> None:
        """Say how much of the present stage is done, 0..1, and stop here if the user wants it."""
        self.check()
        start, end = self._span
        self._last = max(self._last, start + (end - start) * min(max(fraction, 0.0), 1.0))
        if self.progress:
            self.progress(self._last, f"{self._text}{self._remark}")

    def warn(self, sentence: str, remark: str = "") -> None:
        """Keep a sentence for the user, once; the remark stands behind the progress text until the stage ends."""
        self._remark = f" ({remark})" if remark else self._remark
        if sentence not in self.warnings:
            logger.warning(sentence)
            self.warnings.append(sentence)

    @contextmanager
    def stage(self, name: str, text: str, start: float, end: float) -> Iterator[None]:
        """Do one stage of the work, which takes the progress from `start` to `end`."""
        self._span, self._text, self._remark = (start, end), text, ""
        self.report(0.0)
        began = time.perf_counter()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - began, 3)
        self.report(1.0)
