"""Text files, each kind written and read in one way: CSV, JSON, and tables in Markdown.

All are written in UTF-8 with lines that end with a line feed. Whoever writes a table calls `write_csv`, which takes
rows by column name: no other file of the packages makes a csv writer. Files that must appear whole are written through
`atomic_file`:

    with atomic_file(path) as part:
        write_csv(part, rows, COLUMNS)
"""

import codecs
import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from LNHGLib.errors import InputError

FORMULA = re.compile(r"'*[\s\0]*[=+\-@\uff1d\uff0b\uff0d\uff20]|'*[\t\r]")
"""How a text begins that spreadsheets take for a formula, wide characters included."""


def csv_text(rows: Iterable[Mapping[str, object]], columns: Sequence[str], decimals: int | None = None) -> str:
    """Return rows as the text of a CSV file with a header.

    Args:
        rows: Values by column name. What a row lacks, None and numbers that are not finite become empty cells; what is
            under no column is left out. No text begins as a formula does, see `without_formula`.
        columns: Names, in their order.
        decimals: Digits after the point that floats are rounded to; None writes all they have.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    quoting = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)  # the other leaves a carriage return bare
    writer.writerow(map(without_formula, columns))
    for row in rows:
        cells = []
        for value in map(row.get, columns):
            if isinstance(value, Real) and not isinstance(value, Integral):
                value = float(value) if math.isfinite(value) else None
            rounded = isinstance(value, float) and decimals is not None
            cells.append(round(value, decimals) if rounded else without_formula(value))
        bare = any(isinstance(cell, str) and "\r" in cell for cell in cells)
        (quoting if bare else writer).writerow(cells)
    return text.getvalue()


def write_csv(
    path: Path, rows: Iterable[Mapping[str, object]], columns: Sequence[str], decimals: int | None = None
) -> None:
    """Write rows as a CSV file with a header, as `csv_text` has it.

    Args:
        path: File to write.
        rows: Values by column name.
        columns: Names, in their order.
        decimals: Digits after the point that floats are rounded to; None writes all they have.
    """
    write_text(path, csv_text(rows, columns, decimals))


def write_text(path: Path, text: str) -> None:
    """Write a text as it is; bytes of a file's name that are none of a text are written as their numbers.

    Args:
        path: File to write.
        text: Its content.
    """
    path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def read_json(path: Path) -> Any:
    """Read JSON that somebody may have changed.

    Raises:
        ValueError: it is no JSON, no UTF-8, or nested too deep.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file by the names of its header, as `csv_reader` reads them.

    Raises:
        OSError: The file cannot be read.
        InputError: It is no text.
    """
    return list(csv_reader(path))


def csv_reader(path: Path) -> csv.DictReader:
    """Return a reader of a CSV file as spreadsheets and other programs write it.

    That is in UTF-8, UTF-16 or Windows-1252, with commas, semicolons or tabs, and with any line ends.

    Raises:
        OSError: The file cannot be read.
        InputError: It is no text.
    """
    content = path.read_bytes()
    encodings = ("utf-16",) if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else ("utf-8-sig", "cp1252")
    for encoding in encodings:
        with suppress(UnicodeDecodeError):
            text = content.decode(encoding)
            break
    else:
        text = "\0"
    if "\0" in text:
        raise InputError(f"{path} is no text, expected a CSV table; save it as CSV (UTF-8).")
    if named := re.match(r"sep=(.)\r?\n", text):  # how Excel is told
        return _PlainReader(io.StringIO(text[named.end() :], newline=""), delimiter=named[1])
    head = text.lstrip().partition("\n")[0]
    return _PlainReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))


class _PlainReader(csv.DictReader):
    """Gives texts as they were before they were kept from being formulas."""

    def __next__(self) -> dict[str, str]:
        try:
            row = super().__next__()
        except csv.Error as error:
            raise InputError(f"The CSV table is damaged ({error}), expected rows of text; save it again.") from error
        for key, value in row.items():
            if isinstance(value, str) and value[:1] == "'" and without_formula(value[1:]) == value:
                row[key] = value[1:]
        return row


def without_formula(value: object) -> object:
    """Keep a spreadsheet from taking a text for a formula, by a quotation mark that `csv_reader` takes away again."""
    if not isinstance(value, str) or not FORMULA.match(value):
        return value
    if value[0] == "-":
        with suppress(ValueError):
            float(value)  # a negative number is no formula
            return value
    return f"'{value}"


def to_json(value: Any) -> Any:
    """Return what JSON can hold of a value: null for numbers that are not finite, text for paths, plain numbers."""
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if hasattr(value, "tolist"):  # of numpy, which is not imported for this
        return to_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def json_text(value: Any) -> str:
    """Return a value as the text of a JSON file for people to read; numbers of numpy and paths are taken as plain ones.

    Raises:
        ValueError: A number is not finite; see `to_json` where null is meant.
    """

    def plain(item: object) -> object:
        return item.item() if hasattr(item, "item") else str(item)

    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, default=plain) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write a value as a JSON file, as `json_text` has it.

    Args:
        path: File to write.
        value: What JSON can hold, numbers of numpy and paths.

    Raises:
        ValueError: A number is not finite.
    """
    write_text(path, json_text(value))


def markdown_table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table whose last line ends like the others.

    Args:
        header: Names of the columns.
        rows: Cells, as many as the header has.
    """
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)
