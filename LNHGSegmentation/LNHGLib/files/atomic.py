"""Files and folders that appear whole or not at all, temporary folders, and disks that are full or fail."""

import errno
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from LNHGLib.errors import DiskError, InputError, quoted

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
TEMPORARY_PREFIX = ".lnhg-tmp-"
"""Begins the name of a temporary folder beside the files that are written, and of nothing else that LNHG writes."""
TASK_PREFIX = "LNHG-run-"
"""Begins the name of a task's folder, which holds its CT, in the computer's temporary folder."""
PART_SUFFIX = ".part"
"""Ends the name of a file that is being written by `atomic_file`."""
MAX_AGE_S = 24 * 3600.0
"""A temporary folder of that age was left by a process that was killed: no task takes so long."""


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write to, by one process at a time; rename it to `path` when the block ends well.

    The content is on the disk before it is renamed. When the block fails, nothing is left and an earlier file stays.
    """
    part = path.with_name(path.name + PART_SUFFIX)
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(
    out: Path, overwrite: bool = False, names: Sequence[str] = (), what: str = "The results"
) -> Iterator[Path]:
    """Give an empty folder to fill; rename it to `out` when the block ends well.

    When the block fails, nothing is left and an earlier folder stays.

    Args:
        out: Folder to make; its missing parents are made too.
        overwrite: Replace an earlier folder there.
        names: Patterns of the files that such a folder consists of.
        what: The files, as a sentence about a full disk begins.

    Raises:
        InputError: As `require_free`, before the block begins.
        DiskError: As `explain_disk_errors`.
    """
    out = Path(out).resolve()
    require_free(out, overwrite, names)
    home = next(folder for folder in out.parents if folder.is_dir())
    with explain_disk_errors(home, what), temporary_folder(home) as scratch:
        new, old = scratch / "new", scratch / "old"
        new.mkdir()
        yield new
        out.parent.mkdir(parents=True, exist_ok=True)
        if not out.exists():
            new.rename(out)
            return
        out.rename(old)
        try:
            new.rename(out)
        except BaseException:
            old.rename(out)
            raise


def require_text(out: Path) -> None:
    """Refuse a folder whose name ITK cannot write to: it ends the process over bytes that are no text.

    Raises:
        InputError: The name, or one of a folder above, is no text.
    """
    if any(0xD800 <= ord(char) < 0xE000 for char in str(out.absolute())):
        raise InputError(f"The bytes of {out} are no text in UTF-8, expected a name of letters; give another folder.")


def require_free(out: Path, overwrite: bool = False, names: Sequence[str] = ()) -> None:
    """Refuse a folder that must not be replaced; call it before the work as well.

    Args:
        out: Folder to be written. An empty one is free.
        overwrite: Whether an earlier folder of such files may be replaced.
        names: Patterns of the files that such a folder consists of.

    Raises:
        InputError: `out` is a file, holds files while `overwrite` is off, or holds files of other names.
    """
    require_text(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"The result folder {out} is a file, expected a new folder; give another name.")
    entries = sorted(entry.name for entry in out.iterdir()) if out.exists() else []
    if entries and not overwrite:
        raise InputError(f"The result folder {out} already exists; give another name, or --overwrite to replace it.")
    foreign = [entry for entry in entries if not any(fnmatch(entry, name) for name in names)]
    if foreign:
        raise InputError(
            f"The result folder {out} holds {quoted(foreign[0])}, which this command does not write, and is not "
            "replaced; give another folder."
        )


@contextmanager
def explain_disk_errors(folder: Path, what: str = "The results") -> Iterator[None]:
    """Say in one sentence why files cannot be written.

    Args:
        folder: Where they go.
        what: The files, as the sentence begins.

    Raises:
        DiskError: The disk is full or fails, or SimpleITK cannot write a file there.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        reason = "the disk is full" if error.errno in DISK_FULL_ERRNOS else error.strerror
        raise _disk_error(folder, what, reason) from error
    except RuntimeError as error:
        if "Exception thrown in SimpleITK" not in str(error):
            raise
        raise _disk_error(folder, what, "a file could not be written to its end") from error


def _disk_error(folder: Path, what: str, reason: str) -> DiskError:
    existing = next(each for each in (folder, *folder.parents) if each.is_dir())
    free = shutil.disk_usage(existing).free / 2**20
    return DiskError(
        f"{what} cannot be written in {existing} ({reason}; {free:.0f} MB are free there); make room or choose another "
        "folder, and try again."
    )


def require_whole_gzip(path: Path, size: int) -> None:
    """Refuse a compressed file that lacks its end: ITK does not tell when a NIfTI file does not fit the disk.

    Args:
        path: File that ends with the size of its content modulo 2^32 where it is whole (RFC 1952, ISIZE).
        size: Bytes of the content.

    Raises:
        OSError: The file was cut short.
    """
    with path.open("rb") as file:
        file.seek(-min(4, path.stat().st_size), 2)
        if int.from_bytes(file.read(4), "little") != size % 2**32:
            raise OSError(errno.ENOSPC, "the file was cut short", str(path))


@contextmanager
def temporary_folder(home: Path | None = None, prefix: str = TEMPORARY_PREFIX) -> Iterator[Path]:
    """Make a folder that goes when the block ends; remove those that killed processes left there.

    Args:
        home: Folder to make it in; None makes a `task_folder`.
        prefix: How its name begins, with `home`.
    """
    folder = task_folder() if home is None else _make_folder(home, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def task_folder() -> Path:
    """Make a folder for one task and remove those that killed processes left; the caller removes it.

    Its name tells computer and process, so that a patient's CT does not stay for a day when the process is killed.
    """
    return _make_folder(Path(tempfile.gettempdir()), TASK_PREFIX, f"{platform.node()}-{os.getpid()}-")


def _make_folder(home: Path, prefix: str, owner: str = "") -> Path:
    """Make a folder and remove those of killed processes; of others only what this user may remove."""
    for folder in home.glob(f"{prefix}*"):
        try:
            old = time.time() - folder.stat().st_mtime > MAX_AGE_S
        except OSError:  # it went meanwhile
            continue
        if folder.is_dir() and (old or _is_of_ended_process(folder.name.removeprefix(prefix))):
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{owner}", dir=home))


def _is_of_ended_process(name: str) -> bool:
    """Tell whether a name is of a process of this computer that has ended; asking on Windows would end it."""
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
