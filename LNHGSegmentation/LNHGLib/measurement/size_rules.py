"""Mean diameter and size band of a nodule by two published rules. For research use: no advice and no diagnosis.

What is implemented, in our words:

Fleischner Society 2017 (MacMahon et al., Radiology 2017;284:228-243, doi:10.1148/radiol.2017161659, table and its
notes; measuring: Bankier et al., Radiology 2017;285:584-600). The diameter is the mean of the long and the short axis
measured on the same plane, rounded to the nearest whole millimeter. Solid nodules: below 6 mm, 6 to 8 mm, above 8 mm.
Subsolid nodules (ground-glass and part-solid): below 6 mm, 6 mm and more.

Lung-RADS v2022 (American College of Radiology, November 2022; Christensen et al., Chest 2024;165:738-753). Both axes
are measured to one decimal of a millimeter, and their mean is given to one decimal. Bands of nodules at a first scan:
solid below 6, 6 to below 8, 8 to below 15, 15 mm and more; part-solid, by the whole nodule, below 6, 6 mm and more;
non-solid (ground-glass) below 30, 30 mm and more.

Both texts leave open what happens to an exact half: it is rounded up here. Both allow any plane, LNHG measures on axial
slices. Both divide part-solid nodules of 6 mm and more further by their solid part, which LNHG does not measure, and
neither has bands of its own for calcified nodules: they get those of solid ones. New and growing nodules have other
thresholds in Lung-RADS; LNHG knows one scan only. The category, which stands for advice, is left to the reader.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from LNHGLib.measurement.size import Attenuation

RESEARCH_USE = "research use"


@dataclass(frozen=True)
class SizeCategory:
    """A nodule's size by one rule.

    Attributes:
        rule: name and version of the rule.
        mean_diameter_mm: rounded as the rule says.
        band: the size band, in mm.
        note: what the rule's reader must know; empty where there is nothing.
    """

    rule: str
    mean_diameter_mm: float
    band: str
    note: str = ""

    def __str__(self) -> str:
        note = f"; {self.note}" if self.note else ""
        return f"{self.mean_diameter_mm:g} mm mean, band {self.band} ({self.rule}, {RESEARCH_USE}{note})"


def fleischner(long_axis_mm: float, short_axis_mm: float, attenuation: "Attenuation") -> SizeCategory:
    """Return mean diameter and size band by the Fleischner Society's guideline of 2017.

    Args:
        long_axis_mm: not rounded.
        short_axis_mm: not rounded.
        attenuation: the nodule's type.
    """
    mean = _rounded((Decimal(repr(long_axis_mm)) + Decimal(repr(short_axis_mm))) / 2, "1")
    if attenuation in ("part-solid", "ground-glass"):
        band = "below 6 mm" if mean < 6 else "6 mm or more"
    else:
        band = "below 6 mm" if mean < 6 else "6 to 8 mm" if mean <= 8 else "above 8 mm"
    return SizeCategory(FLEISCHNER, float(mean), f"{_kind(attenuation, 'subsolid')} {band}", _note(attenuation, mean))


def lung_rads(long_axis_mm: float, short_axis_mm: float, attenuation: "Attenuation") -> SizeCategory:
    """Return mean diameter and size band by Lung-RADS v2022, for a nodule of a first scan.

    Args:
        long_axis_mm: not rounded.
        short_axis_mm: not rounded.
        attenuation: the nodule's type.
    """
    long, short = (_rounded(Decimal(repr(axis)), "0.1") for axis in (long_axis_mm, short_axis_mm))
    mean = _rounded((long + short) / 2, "0.1")
    limits = {"part-solid": (6,), "ground-glass": (30,)}.get(attenuation, (6, 8, 15))
    kind = "non-solid" if attenuation == "ground-glass" else _kind(attenuation, attenuation)
    place = sum(mean >= limit for limit in limits)
    if place == 0:
        band = f"below {limits[0]} mm"
    elif place == len(limits):
        band = f"{limits[-1]} mm or more"
    else:
        band = f"{limits[place - 1]} to below {limits[place]} mm"
    return SizeCategory(LUNG_RADS, float(mean), f"{kind} {band}", _note(attenuation, mean))


FLEISCHNER, LUNG_RADS = "Fleischner Society 2017", "Lung-RADS v2022"
RULES: dict[str, Callable[[float, float, str], SizeCategory]] = {FLEISCHNER: fleischner, LUNG_RADS: lung_rads}
"""The rules by name and version."""


def _rounded(value: Decimal, step: str) -> Decimal:
    """Round to the step, halves up; noise of floating point in the tenth digit does not decide."""
    return value.quantize(Decimal("1e-9"), ROUND_HALF_UP).quantize(Decimal(step), ROUND_HALF_UP)


def _kind(attenuation: "Attenuation", other: str) -> str:
    return "solid" if attenuation in ("solid", "calcified") else other


def _note(attenuation: "Attenuation", mean: Decimal) -> str:
    if attenuation == "calcified":
        return "calcified: bands of solid nodules"
    return "solid part not measured" if attenuation == "part-solid" and mean >= 6 else ""
