"""Text files, each kind written and read in one way: CSV, JSON, and tables in Markdown.

All are UTF-8 with lines that end with a line feed. Whoever writes a table calls `write_csv`, which takes rows by column
name: no other file of the packages makes a csv writer. Files that must appear whole are written through `atomic_file`:

    with atomic_file(path) as part:
        write_csv(part, rows, COLUMNS)
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def csv_text(rows: Iterable[Mapping[str, object]], columns: Sequence[str], decimals: int | None = None) -> str:
    """Return rows as the text of a CSV file with a header.

    Args:
        rows: Values by column name. What a row lacks, None and numbers that are not finite become empty cells; what is
            under no column is left out.
        columns: Names, in their order.
        decimals: Digits after the point that floats are rounded to; None writes all they have.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        cells = []
        for value in map(row.get, columns):
            if isinstance(value, float | np.floating):
                value = float(value) if math.isfinite(value) else None
            rounded = isinstance(value, float) and decimals is not None
            cells.append(round(value, decimals) if rounded else value)
        writer.writerow(cells)
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
    path.write_text(csv_text(rows, columns, decimals), encoding="utf-8", newline="")


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file by the names of its header, with any line ends and with or without a mark of UTF-8.

    Raises:
        OSError: The file cannot be read.
        UnicodeDecodeError: It is no UTF-8.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def to_json(value: Any) -> Any:
    """Return what JSON can hold of a value: null for numbers that are not finite, text for paths, plain numbers."""
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, np.ndarray):
        return to_json(value.tolist())
    if isinstance(value, np.generic):
        return to_json(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def json_text(value: Any) -> str:
    """Return a value as the text of a JSON file for people to read; numbers of numpy and paths are taken as plain ones.

    Raises:
        ValueError: A number is not finite; see `to_json` where null is meant.
    """

    def plain(item: object) -> object:
        return item.item() if isinstance(item, np.generic) else str(item)

    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, default=plain) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write a value as a JSON file, as `json_text` has it.

    Args:
        path: File to write.
        value: What JSON can hold, numbers of numpy and paths.

    Raises:
        ValueError: A number is not finite.
    """
    path.write_text(json_text(value), encoding="utf-8", newline="")


def markdown_table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table whose last line ends like the others.

    Args:
        header: Names of the columns.
        rows: Cells, as many as the header has.
    """
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)
