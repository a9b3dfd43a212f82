"""What is chosen for the analysis of a reader study before its scores are seen, and the rows of its tables."""

from dataclasses import dataclass
from typing import Any

from LNHGLib.stats import paired
from LNHGLib.stats.agreement import Interval

Row = dict[str, Any]
DELONG, JACKKNIFE = "delong", "jackknife"
COVARIANCES = (DELONG, JACKKNIFE)


@dataclass(frozen=True)
class Settings:
    """The choices.

    Attributes:
        test: paired test, one of `paired.TESTS`.
        covariance: of areas over cases, one of `COVARIANCES`.
        categories: number of equal steps that scores are put into for weighted kappa.
        level: of the confidence intervals.
    """

    test: str = paired.WILCOXON
    covariance: str = DELONG
    categories: int = 5
    level: float = 0.95


def bounds(name: str, interval: Interval) -> Row:
    """Return a value and its interval as three columns."""
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
