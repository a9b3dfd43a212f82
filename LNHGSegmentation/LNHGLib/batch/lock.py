"""One writer a folder: a lock that the system itself drops when its process dies, however it dies."""

import json
import os
import socket
import tempfile
import time
from pathlib import Path

from LNHGLib.errors import InputError

HEARTBEAT_S = 20.0
SILENT_S = 120.0
"""A run on another computer that has shown no sign of life for so long is taken for dead."""
LOCK_BYTE = 2**30  # far behind the content, which stays readable: Windows locks bytes against reading


class RunLock:
    """The lock of a folder.

    Where the folder's file system knows locks and the other run is on this computer, a dead run is seen at once. On
    another computer, or without locks, the age of its last sign of life decides.
    """

    def __init__(self, path: Path) -> None:
        """Name the lock's file; nothing is locked yet."""
        self._path = path
        self._beaten = 0.0

    def __enter__(self) -> "RunLock":
        """Take the lock.

        Raises:
            InputError: another run holds it.
        """
        self._file = self._path.open("a+", encoding="utf-8")
        try:
            self.took_over = self._take()
        except BaseException:
            self._file.close()
            raise
        self._file.truncate(0)
        self._file.write(json.dumps({"process": os.getpid(), "host": socket.gethostname()}))
        self._file.flush()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.truncate(0)
        self._file.close()

    def beat(self) -> None:
        """Show a sign of life; call it often."""
        if time.monotonic() - self._beaten > HEARTBEAT_S:
            self._beaten = time.monotonic()
            os.utime(self._path)

    def _take(self) -> bool:
        """Lock, or refuse; returns whether an earlier run ended without giving the lock back."""
        free = _lock(self._file.fileno())
        self._file.seek(0)
        holder = _holder(self._file.read())
        if free is False:
            raise self._refusal(holder)
        sure = free and holder.get("host") == socket.gethostname()
        if holder and not sure and self._silence_s() < SILENT_S:
            raise self._refusal(holder)
        return bool(holder)

    def _silence_s(self) -> float:
        """Seconds since the last sign of life, by the clock of the file system."""
        with tempfile.NamedTemporaryFile(dir=self._path.parent, prefix=".clock-") as now:
            return Path(now.name).stat().st_mtime - self._path.stat().st_mtime

    def _refusal(self, holder: dict) -> InputError:
        who = f"process {holder.get('process', 'unknown')} on {holder.get('host', 'an unknown computer')}"
        return InputError(
            f"{self._path.parents[1]} is being written by another run ({who}), expected one run a folder; "
            "wait for its end, or give another OUT."
        )


def _holder(text: str) -> dict:
    try:
        holder = json.loads(text or "{}")
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _lock(descriptor: int) -> bool | None:
    """Lock the file without waiting: whether it was free, None where the file system knows no locks."""
    if os.name == "nt":
        import msvcrt

        os.lseek(descriptor, LOCK_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
