"""What each command writes, and how it writes tables and JSON."""

import csv
import json
import math
from pathlib import Path

PLOTS = ("dice_vs_diameter.png", "bland_altman.png", "examples.png", "froc.png")
EVALUATION = ("nodules.csv", "findings.csv", "summary.json", "summary.md", *PLOTS)
COMPARISON = ("pairs.csv", "comparison.json", "comparison.md")
MAPS = ("maps.csv", "maps.json", "maps.md")
BRANCH_ABLATION = ("branches.json", "branches.md")
"""All that each command writes; a folder that holds anything else is never replaced by it."""


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
