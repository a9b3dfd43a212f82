"""Paired tests between two modalities, and means and standard deviations with their intervals."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from LNHGLib.stats.agreement import Interval

T, WILCOXON, BY_NORMALITY = "t", "wilcoxon", "by-normality"
TESTS = (WILCOXON, T, BY_NORMALITY)
NORMALITY_LEVEL = 0.05


@dataclass(frozen=True)
class Paired:
    """A paired comparison.

    Attributes:
        test: `T` or `WILCOXON`.
        pairs: number of differences.
        difference: the mean with `T`, the pseudomedian of Hodges and Lehmann with `WILCOXON`.
        p: two-sided.
        normality_p: of Shapiro and Wilk's test of the differences; NaN where they do not vary or are fewer than three.
    """

    test: str
    pairs: int
    difference: Interval
    p: float
    normality_p: float


def compare(differences: np.ndarray, test: str = WILCOXON, level: float = 0.95) -> Paired:
    """Test that paired differences are centered at 0.

    Args:
        differences: float (pairs,), at least two.
        test: one of `TESTS`, chosen before the scores are seen; `BY_NORMALITY` takes t unless Shapiro and Wilk (1965,
            Biometrika 52:591) reject normal differences at 0.05.
        level: of the confidence interval.
    """
    differences = np.asarray(differences, float)
    normality = np.nan
    if len(differences) > 2 and np.ptp(differences) > 0:
        normality = float(stats.shapiro(differences).pvalue)
    if test == BY_NORMALITY:
        test = WILCOXON if normality < NORMALITY_LEVEL else T
    if not np.any(differences):
        return Paired(test, len(differences), Interval(0.0, 0.0, 0.0), 1.0, normality)
    if test == T:
        p = float(stats.ttest_1samp(differences, 0).pvalue) if np.ptp(differences) > 0 else np.nan
        return Paired(T, len(differences), mean(differences, level), p, normality)
    p = float(stats.wilcoxon(differences).pvalue)
    return Paired(WILCOXON, len(differences), pseudomedian(differences, level), p, normality)


def pseudomedian(differences: np.ndarray, level: float = 0.95) -> Interval:
    """Return the median of all pairwise means with its distribution-free interval.

    Hodges and Lehmann (1963, Ann Math Stat 34:598); the interval goes with the exact null distribution of the
    signed-rank statistic (Hollander and Wolfe 1999, Nonparametric Statistical Methods, section 3.3).
    """
    rows, columns = np.triu_indices(len(differences))
    means = np.sort((differences[rows] + differences[columns]) / 2)
    cumulated = np.cumsum(_signed_rank_distribution(len(differences)))
    outside = int(np.searchsorted(cumulated, (1 - level) / 2, side="right"))
    cut = max(outside, 1) - 1
    return Interval(float(np.median(means)), float(means[cut]), float(means[-1 - cut]))


def _signed_rank_distribution(n: int) -> np.ndarray:
    """Probability of each value of the signed-rank statistic of n untied differences."""
    chance = np.ones(1)
    for rank in range(1, n + 1):
        longer = np.zeros(len(chance) + rank)
        longer[: len(chance)] += chance / 2
        longer[rank:] += chance / 2
        chance = longer
    return chance


def mean(values: np.ndarray, level: float = 0.95) -> Interval:
    """Return the mean with its t interval."""
    middle, n = float(np.mean(values)), len(values)
    if n < 2:
        return Interval(middle, np.nan, np.nan)
    reach = float(stats.t.ppf((1 + level) / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return Interval(middle, middle - reach, middle + reach)


def deviation(values: np.ndarray, level: float = 0.95) -> Interval:
    """Return the standard deviation with the chi square interval of normal values."""
    if len(values) < 2:
        return Interval(np.nan, np.nan, np.nan)
    spread, df = float(np.std(values, ddof=1)), len(values) - 1
    ends = np.sqrt(df / stats.chi2.ppf([(1 + level) / 2, (1 - level) / 2], df))
    return Interval(spread, *(float(spread * end) for end in ends))


def holm(p_values: list[float]) -> list[float]:
    """Return p values adjusted for making several tests (Holm 1979, Scand J Stat 6:65); NaN is no test."""
    p = np.asarray(p_values, float)
    order = np.argsort(p)[: np.isfinite(p).sum()]
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * (len(order) - np.arange(len(order)))))
    return adjusted.tolist()
