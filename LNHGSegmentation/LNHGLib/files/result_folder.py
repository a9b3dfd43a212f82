"""A folder of files that is written whole or not at all."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path

from LNHGLib.errors import InputError
from LNHGLib.files import disk


def check(out: Path, overwrite: bool, names: Sequence[str]) -> None:
    """Refuse a folder that must not be replaced.

    Args:
        out: the folder to be written.
        overwrite: whether an earlier result there may be replaced.
        names: patterns of the files that such a result consists of.

    Raises:
        InputError: `out` exists and `overwrite` is off, or it is not a folder of earlier results.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"The result folder {out} is a file, expected a new folder: give another name.")
    if not overwrite:
        raise InputError(f"The result folder {out} already exists: give another name, or --overwrite to replace it.")
    foreign = sorted(entry.name for entry in out.iterdir() if not any(fnmatch(entry.name, name) for name in names))
    if foreign:
        raise InputError(
            f"The result folder {out} holds {foreign[0]!r}, which is no result of LNHG, and is not replaced: "
            "give another folder."
        )


def write(out: Path, overwrite: bool, names: Sequence[str], fill: Callable[[Path], None]) -> None:
    """Write a folder, or nothing: an earlier one stays until the new one is complete.

    Args:
        out: folder to make; its missing parents are made too.
        overwrite: replace an earlier result there.
        names: patterns of the files that such a result consists of.
        fill: writes the files into the empty folder that it is given.

    Raises:
        InputError: as `check`.
        DiskError: the disk is full or fails.
    """
    out = Path(out).resolve()
    check(out, overwrite, names)
    home = next(folder for folder in out.parents if folder.is_dir())
    with disk.writing(home), disk.temporary_folder(home) as scratch:
        complete = scratch / "new"
        complete.mkdir()
        fill(complete)
        out.parent.mkdir(parents=True, exist_ok=True)
        swap(complete, out, scratch / "old")


def swap(new: Path, out: Path, old: Path) -> None:
    """Rename `new` to `out`; what was there goes to `old`, and back if the rename fails."""
    if not out.exists():
        new.rename(out)
        return
    out.rename(old)
    try:
        new.rename(out)
    except BaseException:
        old.rename(out)
        raise
