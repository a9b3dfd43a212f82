"""Work in another thread, so that the user interface goes on; for what touches neither the scene nor Qt."""

import threading
from collections.abc import Callable

import qt

POLL_MS = 20
POLL_RUN_S = 0.002  # at each look the thread may run this long, whoever else holds Python's lock

_underWay: set["Worker"] = set()  # nobody else may hold a worker, and a timer alone does not keep it alive


class Worker:
    """One function call in a thread; use a new object for each."""

    def __init__(self, work: Callable[[], object], onDone: Callable[[object, Exception | None], None]) -> None:
        """Start the work.

        Args:
            work: What is done in the thread.
            onDone: Called in the event loop with the result, or with None and the exception.
        """
        self._work, self._onDone = work, onDone
        _underWay.add(self)
        self._result: object = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        qt.QTimer.singleShot(0, self._look)

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the work; returns whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._result = self._work()
        except Exception as error:
            self._error = error

    def _look(self) -> None:
        if self.wait(POLL_RUN_S):
            _underWay.discard(self)
            self._onDone(self._result, self._error)
        else:
            qt.QTimer.singleShot(POLL_MS, self._look)
