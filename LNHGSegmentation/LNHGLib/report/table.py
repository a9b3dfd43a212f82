"""The table of kept findings in words and as CSV, size bands included."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from LNHGLib.files.text import write_csv
from LNHGLib.measurement import score_scale
from LNHGLib.measurement.size_rules import RESEARCH_USE, RULES, SizeCategory
from LNHGLib.report.case import ReportNodule
from LNHGLib.results import files
from LNHGLib.results.nodule_table import nodule_row

BLANK = "\N{EN DASH}"
SLUGS = {rule: rule.lower().replace(" ", "_").replace("-", "_") for rule in RULES}
CSV_COLUMNS = (
    "name",
    "made_by",
    *files.COLUMNS,
    *(f"{slug}_{part}" for slug in SLUGS.values() for part in ("mean_diameter_mm", "band")),
    "use",
)
USE = f"{RESEARCH_USE} only, not for diagnosis"


class Column(NamedTuple):
    """A column of the page's table; its width in inches; numbers stand at its right edge."""

    title: str
    width: float
    right: bool = False


SCORE_LINES = {
    score_scale.PROBABILITY: "Probability: that the finding is a nodule as readers mark them, estimated on scans with "
    "readers' outlines. It says nothing of malignancy.",
    score_scale.MODEL: "Score: the model's own scale from 0 to 1, not a probability.",
}
"""What the page says about its scores, by their scale."""


def columns(scale: str) -> tuple[Column, ...]:
    """Return the columns of the page's table.

    Args:
        scale: what the scores mean, see `score_scale`.
    """
    return (
        Column("Nodule", 1.1),
        Column("Found by", 1.5),
        Column(score_scale.NAMES[scale], 0.5, True),
        Column("Side, slice", 0.75),
        Column("Long \u00d7 short mm", 0.95, True),
        Column("Volume mm\u00b3", 0.72, True),
        Column("Mean HU", 0.6, True),
        Column("Type", 0.78),
        Column("Signal", 0.37, True),
    )


def write_table(nodules: Iterable[ReportNodule], scale: str, path: Path) -> None:
    """Write the kept findings: the columns of a run's nodules.csv, name, origin and size bands.

    Args:
        nodules: the kept findings.
        scale: what their scores mean, see `score_scale`.
        path: the CSV file to write.
    """
    rows = []
    for nodule in nodules:
        row = {"name": nodule.label, "made_by": nodule.origin, "use": USE, **nodule_row(nodule, scale)}
        for size in sizes(nodule):
            row[f"{SLUGS[size.rule]}_mean_diameter_mm"] = size.mean_diameter_mm
            row[f"{SLUGS[size.rule]}_band"] = size.band
        rows.append(row)
    write_csv(path, rows, CSV_COLUMNS)


def sizes(nodule: ReportNodule) -> list[SizeCategory]:
    """Return the finding's size by each rule; empty where it was not measured."""
    m = nodule.measurement
    return [] if m is None else [rule(m.long_axis_mm, m.short_axis_mm, m.attenuation) for rule in RULES.values()]


def cells(nodule: ReportNodule) -> list[str]:
    """Return the page's table cells, by `columns`."""
    m, signal = nodule.measurement, nodule.heterogeneity
    score = BLANK if nodule.score is None else f"{nodule.score:.2f}"
    place = ", ".join(str(part) for part in (nodule.side, nodule.slice) if part is not None) or BLANK
    measured = [BLANK] * 4
    if m is not None:
        axes = f"{m.long_axis_mm:.1f} \u00d7 {m.short_axis_mm:.1f}"
        measured = [axes, f"{m.volume_mm3:.0f}", _signed(m.mean_hu), m.attenuation]
    return [
        _shortened(nodule.label, 16),
        _shortened(nodule.origin, 24),
        score,
        place,
        *measured,
        f"{signal['mean']:.2f}" if signal else BLANK,
    ]


def size_summary(nodule: ReportNodule) -> str:
    """Return the second line of a finding in the page's table."""
    if nodule.measurement is None:
        return f"Not outlined, not measured: no size band. {_box(nodule)}"
    parts = (f"{size.rule}: mean {size.mean_diameter_mm:g} mm, {size.band}" for size in sizes(nodule))
    return "   ·   ".join(parts)


def size_lines() -> list[str]:
    """Return what the page says about the size bands."""
    return [
        f"Size bands ({RESEARCH_USE}; size only, no recommendation and no diagnosis) from the mean of long and short "
        "axial axis:",
        "Fleischner Society 2017 rounded to 1 mm, Lung-RADS v2022 (first scan) to 0.1 mm. The solid part of part-solid "
        "nodules is not measured;",
        "calcified nodules get the bands of solid ones. Check every measurement before use.",
    ]


def details(nodule: ReportNodule, scale: str) -> list[str]:
    """Return the lines beside a finding's pictures.

    Args:
        nodule: the finding.
        scale: what its score means, see `score_scale`.
    """
    m, signal = nodule.measurement, nodule.heterogeneity
    score = [] if nodule.score is None else [score_scale.text_of(nodule.score, scale)]
    if m is None:
        return [*score, _shortened(nodule.origin, 32), "Not outlined, not measured", _box(nodule)]
    lines = [
        *score,
        _shortened(nodule.origin, 32),
        f"{m.long_axis_mm:.1f} \u00d7 {m.short_axis_mm:.1f} mm, {m.volume_mm3:.0f} mm\u00b3",
        f"{m.attenuation}, {_signed(m.mean_hu)} \u00b1 {m.sd_hu:.0f} HU",
    ]
    if signal:
        lines.append(f"signal {signal['mean']:.2f} \u00b1 {signal['sd']:.2f}, {signal['entropy_bits']:.1f} bits")
    x, y, z = m.centroid_lps_mm
    return [*lines, f"LPS {_signed(x)}, {_signed(y)}, {_signed(z)} mm"]


def _box(nodule: ReportNodule) -> str:
    if nodule.box_lps_mm is None:
        return ""
    sides = (high - low for low, high in zip(*nodule.box_lps_mm, strict=True))
    return "Box {:.0f} \u00d7 {:.0f} \u00d7 {:.0f} mm".format(*sides)


def _signed(value: float) -> str:
    return f"{value:.0f}".replace("-", "\N{MINUS SIGN}")


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"
