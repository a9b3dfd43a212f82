"""Output folders that appear whole or not at all, tables and JSON in them."""

import csv
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from LNHGLib.errors import InputError


def check_free(out: Path, overwrite: bool) -> None:
    """Refuse an output folder that would be lost, before any work is done.

    Raises:
        InputError: `out` is a file, or it exists and `overwrite` is False.
    """
    if out.is_file():
        raise InputError(f"{out} is a file, expected a folder to write into; name another.")
    if out.exists() and any(out.iterdir()) and not overwrite:
        raise InputError(f"{out} exists and is not empty; name another folder or add --overwrite.")


@contextmanager
def whole_folder(out: Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside `out` that takes its place when the block ends well, and goes when it does not.

    Raises:
        InputError: as `check_free`.
    """
    out = Path(out).absolute()
    check_free(out, overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.parent / f".{out.name}.{os.getpid()}.part"
    temporary.mkdir()
    try:
        yield temporary
        _replace(out, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(out: Path, temporary: Path) -> None:
    if not out.exists():
        temporary.rename(out)
        return
    old = temporary.with_suffix(".old")
    out.rename(old)
    temporary.rename(out)
    shutil.rmtree(old)


def write_table(rows: list[dict], columns: list[str], path: Path) -> None:
    """A CSV with a header, figures at four decimals, blank where nothing was measured."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows([_cell(row[column]) for column in columns] for row in rows)


def _cell(value: object) -> object:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return round(value, 4) if isinstance(value, float) else value


def write_json(value: dict, path: Path) -> None:
    """JSON that people can read; not-a-number is refused."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
