"""Paired tests, the correction for making several, and means and standard deviations with their intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from LNHGLib.stats.agreement import Interval

T, WILCOXON, BY_NORMALITY = "t", "wilcoxon", "by-normality"
TESTS = (WILCOXON, T, BY_NORMALITY)
NORMALITY_LEVEL = 0.05


@dataclass(frozen=True)
class PairedComparison:
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


def compare(differences: np.ndarray, test: str = WILCOXON, level: float = 0.95) -> PairedComparison:
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
        return PairedComparison(test, len(differences), Interval(0.0, 0.0, 0.0), 1.0, normality)
    if test == T:
        p = float(stats.ttest_1samp(differences, 0).pvalue) if np.ptp(differences) > 0 else np.nan
        return PairedComparison(T, len(differences), mean(differences, level), p, normality)
    return PairedComparison(
        WILCOXON, len(differences), pseudomedian(differences, level), wilcoxon_p(differences), normality
    )


def pseudomedian(differences: np.ndarray, level: float = 0.95) -> Interval:
    """Return the median of all pairwise means with its distribution-free interval.

    Hodges and Lehmann (1963, Ann Math Stat 34:598); the interval goes with the exact null distribution of the
    signed-rank statistic (Hollander and Wolfe 1999, Nonparametric Statistical Methods, section 3.3).

    Args:
        differences: float (pairs,).
        level: of the confidence interval.
    """
    rows, columns = np.triu_indices(len(differences))
    means = np.sort((differences[rows] + differences[columns]) / 2)
    cumulated = np.cumsum(signed_rank_distribution(len(differences)))
    outside = int(np.searchsorted(cumulated, (1 - level) / 2, side="right"))
    cut = max(outside, 1) - 1
    return Interval(float(np.median(means)), float(means[cut]), float(means[-1 - cut]))


def signed_rank_distribution(n: int) -> np.ndarray:
    """Return the probability of each value of the signed-rank statistic of n untied differences."""
    probability = np.ones(1)
    for rank in range(1, n + 1):
        longer = np.zeros(len(probability) + rank)
        longer[: len(probability)] += probability / 2
        longer[rank:] += probability / 2
        probability = longer
    return probability


def mean(values: np.ndarray, level: float = 0.95) -> Interval:
    """Return the mean of values (n,) with its t interval; NaN for the interval of a single one."""
    middle, n = float(np.mean(values)), len(values)
    if n < 2:
        return Interval(middle, np.nan, np.nan)
    reach = float(stats.t.ppf((1 + level) / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return Interval(middle, middle - reach, middle + reach)


def deviation(values: np.ndarray, level: float = 0.95) -> Interval:
    """Return the standard deviation of values (n,) with the chi square interval of normal ones."""
    if len(values) < 2:
        return Interval(np.nan, np.nan, np.nan)
    spread, df = float(np.std(values, ddof=1)), len(values) - 1
    ends = np.sqrt(df / stats.chi2.ppf([(1 + level) / 2, (1 - level) / 2], df))
    return Interval(spread, *(float(spread * end) for end in ends))


def wilcoxon_p(differences: np.ndarray) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test of paired differences (pairs,); 1 when all are zero."""
    return float(stats.wilcoxon(differences).pvalue) if np.any(differences) else 1.0


def tost_p(differences: np.ndarray, margin: float) -> float:
    """Make two one-sided t-tests: small when the mean difference lies inside -margin to margin (equivalence).

    Args:
        differences: float (pairs,).
        margin: the largest difference that does not matter, above zero.

    Returns:
        The larger of both p values; NaN with fewer than two pairs.
    """
    if len(differences) < 2:
        return float("nan")
    if np.ptp(differences) == 0:
        return float(abs(differences[0]) >= margin)
    above = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(differences, margin, alternative="less").pvalue
    return float(max(above, below))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for making several tests (Holm 1979, Scand J Stat 6:65); NaN is no test and stays."""
    p = np.asarray(p_values, float)
    order = np.argsort(p)[: np.isfinite(p).sum()]
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * (len(order) - np.arange(len(order)))))
    return adjusted.tolist()
