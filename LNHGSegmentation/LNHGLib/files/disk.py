"""Full and failing disks, and temporary folders on them: one sentence, nothing cut short, nothing left for ever."""

import errno
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from LNHGLib.errors import DiskError

FULL = (errno.ENOSPC, errno.EDQUOT)
PREFIX = ".lnhg-"
TASK = "LNHG-run-"
"""Of the folders that hold the CT of a task, in the computer's temporary folder."""
STALE_S = 24 * 3600.0
"""A temporary folder of that age was left by a process that was killed: no work takes so long."""


@contextmanager
def writing(folder: Path, what: str = "The results") -> Iterator[None]:
    """Say in one sentence why files cannot be written.

    Args:
        folder: where they go.
        what: the files, as the sentence begins.

    Raises:
        DiskError: the disk is full or fails, or SimpleITK cannot write a file there.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        reason = "the disk is full" if error.errno in FULL else error.strerror
        raise _refusal(folder, what, reason) from error
    except RuntimeError as error:
        if "Exception thrown in SimpleITK" not in str(error):
            raise
        raise _refusal(folder, what, "a file could not be written to its end") from error


def require_whole_gzip(path: Path, size: int) -> None:
    """Refuse a compressed file that lacks its end, as ITK tells nobody when a NIfTI file does not fit the disk.

    Args:
        path: ends with the size of the content modulo 2^32 where it is whole (RFC 1952, ISIZE).
        size: bytes of the content.

    Raises:
        OSError: the file was cut short.
    """
    with path.open("rb") as file:
        file.seek(-min(4, path.stat().st_size), 2)
        if int.from_bytes(file.read(4), "little") != size % 2**32:
            raise OSError(errno.ENOSPC, "the file was cut short", str(path))


@contextmanager
def temporary_folder(home: Path | None = None, prefix: str = PREFIX) -> Iterator[Path]:
    """Make a folder that goes with the block, by default a `task_folder`; those of killed processes go as well."""
    if home is None:
        folder = task_folder()
    else:
        sweep(home, prefix)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=home))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def task_folder() -> Path:
    """Make a folder for one task and remove those that dead processes left; the caller removes it.

    Its name tells computer and process, so that a patient's CT does not stay for a day when the process is killed.
    """
    home = Path(tempfile.gettempdir())
    sweep(home, TASK)
    return Path(tempfile.mkdtemp(prefix=f"{TASK}{platform.node()}-{os.getpid()}-", dir=home))


def sweep(home: Path, prefix: str = PREFIX) -> None:
    """Remove the temporary folders of dead processes; of others only what this user may remove."""
    for folder in home.glob(f"{prefix}*"):
        try:
            old = time.time() - folder.stat().st_mtime > STALE_S
        except OSError:  # it went meanwhile
            continue
        if folder.is_dir() and (old or _is_orphan(folder.name.removeprefix(prefix))):
            shutil.rmtree(folder, ignore_errors=True)


def _is_orphan(name: str) -> bool:
    """Whether a name tells a process of this computer that has ended; Windows can only be asked by ending it."""
    computer, _, process = name.rpartition("-")[0].rpartition("-")
    if os.name == "nt" or computer != platform.node() or not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's, or no process that we named
        return False
    return False


def _refusal(folder: Path, what: str, reason: str) -> DiskError:
    there = next(each for each in (folder, *folder.parents) if each.is_dir())
    free = shutil.disk_usage(there).free / 2**20
    return DiskError(
        f"{what} cannot be written in {there} ({reason}; {free:.0f} MB are free there); make room or choose another "
        "folder, and try again."
    )
