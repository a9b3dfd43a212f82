"""Output folders and files that appear whole or not at all, tables and JSON in them."""

import csv
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from LNHGLib.errors import InputError
from LNHGLib.files import result_folder

PLOTS = ("dice_vs_diameter.png", "bland_altman.png", "examples.png", "froc.png")
EVALUATION = ("nodules.csv", "findings.csv", "summary.json", "summary.md", *PLOTS)
COMPARISON = ("pairs.csv", "comparison.json", "comparison.md")
MAPS = ("maps.csv", "maps.json", "maps.md")
BRANCHES = ("branches.json", "branches.md")
"""All that each command writes; a folder that holds anything else is never replaced by it."""


def check_free(out: Path, overwrite: bool, files: tuple[str, ...] = EVALUATION) -> None:
    """Refuse an output folder that would be lost; call it before the work as well.

    Raises:
        InputError: `out` is a file, or holds something that must not be replaced.
    """
    if out.is_file():
        raise InputError(f"{out} is a file, expected a folder to write into; name another.")
    there = sorted(path.name for path in out.iterdir()) if out.exists() else []
    if there and not overwrite:
        raise InputError(f"{out} exists and is not empty; name another folder or add --overwrite.")
    foreign = [name for name in there if name not in files]
    if foreign:
        raise InputError(f"{out} holds {foreign[0]!r}, which this command does not write; name another folder.")


@contextmanager
def whole_folder(out: Path, overwrite: bool = False, files: tuple[str, ...] = EVALUATION) -> Iterator[Path]:
    """A temporary folder beside `out` that takes its place when the block ends well, and goes when it does not.

    Raises:
        InputError: as `check_free`.
    """
    out = Path(out).absolute()
    check_free(out, overwrite, files)
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        new = scratch / "new"
        new.mkdir()
        yield new
        result_folder.swap(new, out, scratch / "old")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; it takes its place when the block ends well, and goes otherwise."""
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_table(rows: list[dict], columns: list[str], path: Path, digits: int = 4) -> None:
    """A CSV with a header, figures at so many decimals, blank where nothing was measured."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows([_cell(row[column], digits) for column in columns] for row in rows)


def _cell(value: object, digits: int) -> object:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return round(value, digits) if isinstance(value, float) else value


def write_json(value: dict, path: Path) -> None:
    """JSON that people can read; not-a-number is refused."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
