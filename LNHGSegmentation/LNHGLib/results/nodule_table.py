"""The table of nodules as CSV: what a run found, and what was kept of it for a report."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from LNHGLib.results.files import COLUMNS, MEASURES

if TYPE_CHECKING:
    from LNHGLib.measurement.nodule import Nodule


def write_table(nodules: Iterable["Nodule"], path: Path) -> None:
    """Write a row a finding, with the columns of the contract."""
    write_rows((nodule_row(nodule) for nodule in nodules), COLUMNS, path)


def write_rows(rows: Iterable[dict[str, object]], columns: Sequence[str], path: Path) -> None:
    """Write rows as CSV; what a row does not have stays empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def nodule_row(nodule: "Nodule") -> dict[str, object]:
    """Return the row of a finding by `COLUMNS`, numbers rounded to four digits after the point."""
    names = ("number", "score", "provenance", "segmenter_score", "detector_score", "side", "slice")
    row = {name: getattr(nodule, name) for name in names}
    if nodule.measurement is not None:
        row |= {name: getattr(nodule.measurement, name) for name in MEASURES}
    if nodule.center_lps_mm is not None:
        row |= {f"centroid_{axis}_lps_mm": value for axis, value in zip("xyz", nodule.center_lps_mm, strict=True)}
    row |= {f"signal_{name}": value for name, value in (nodule.heterogeneity or {}).items()}
    for end, corner in zip(("min", "max"), nodule.box_lps_mm or (), strict=False):
        row |= {f"box_{axis}_{end}_lps_mm": value for axis, value in zip("xyz", corner, strict=True)}
    return {key: round(float(v), 4) if isinstance(v, float | np.floating) else v for key, v in row.items()}
