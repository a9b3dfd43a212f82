"""The highest resident memory of this process while a block of code runs."""

import os
import threading
from pathlib import Path

GIB = 2**30
_STATM = Path("/proc/self/statm")
_INTERVAL_S = 0.05


class PeakMemory:
    """Context manager; `gib` holds the peak afterwards, NaN where the system does not tell it (no /proc).

    The kernel's own peak cannot be reset without rights, so a thread samples the resident size.
    """

    def __enter__(self) -> "PeakMemory":
        self.gib = _resident_gib()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.gib = max(self.gib, _resident_gib())

    def _watch(self) -> None:
        while not self._stop.wait(_INTERVAL_S):
            self.gib = max(self.gib, _resident_gib())


def _resident_gib() -> float:
    if not _STATM.exists():
        return float("nan")
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / GIB
