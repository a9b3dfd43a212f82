"""One writer per folder: a lock that the system itself drops when its process dies, however it dies."""

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

    def __init__(self, path: Path, folder: Path) -> None:
        """Name the lock's file, and the folder that it keeps for one run; nothing is locked yet."""
        self._path, self._folder = path, folder
        self._last_heartbeat = 0.0

    def __enter__(self) -> "RunLock":
        """Take the lock; `took_over` tells whether an earlier run ended without giving it back.

        Raises:
            InputError: Another run holds it.
        """
        self._file = self._path.open("a+", encoding="utf-8")
        try:
            free = try_lock(self._file.fileno())
            self._file.seek(0)
            try:
                holder = json.loads(self._file.read() or "{}")
            except ValueError:
                holder = {}
            holder = holder if isinstance(holder, dict) else {}
            held = free is False
            if holder and not (free and holder.get("host") == socket.gethostname()):
                with tempfile.NamedTemporaryFile(dir=self._path.parent, prefix=".clock-") as now:
                    silence_s = (
                        Path(now.name).stat().st_mtime - self._path.stat().st_mtime
                    )  # by the file system's clock
                held = held or silence_s < SILENT_S
            if held:
                who = f"process {holder.get('process', 'unknown')} on {holder.get('host', 'an unknown computer')}"
                raise InputError(
                    f"{self._folder} is being written by another run ({who}), expected one run a folder; "
                    "wait for its end, or give another OUT."
                )
        except BaseException:
            self._file.close()
            raise
        self.took_over = bool(holder)
        self._file.truncate(0)
        self._file.write(json.dumps({"process": os.getpid(), "host": socket.gethostname()}))
        self._file.flush()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.truncate(0)
        self._file.close()

    def heartbeat(self) -> None:
        """Show a sign of life; call it often."""
        if time.monotonic() - self._last_heartbeat > HEARTBEAT_S:
            self._last_heartbeat = time.monotonic()
            os.utime(self._path)


def try_lock(descriptor: int) -> bool | None:
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
