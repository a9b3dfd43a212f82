"""How far readers agree with each other and with themselves."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import chi2, f, norm, t

LINEAR, QUADRATIC = 1, 2


class Interval(NamedTuple):
    """A value with its confidence interval; NaN where the data do not tell."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Repeatability:
    """How a reader scores the same case twice.

    Attributes:
        pairs: number of cases read twice.
        bias: mean of the second score minus the first.
        limits: lower and upper limit of agreement, which hold 95 % of the differences.
        within_sd: standard deviation of scores of the same case.
        coefficient: the difference that two scores of a case stay below in 95 % of cases.
    """

    pairs: int
    bias: Interval
    limits: tuple[Interval, Interval]
    within_sd: Interval
    coefficient: Interval


def crosstab(first: np.ndarray, second: np.ndarray, categories: int) -> np.ndarray:
    """Count how often each pair of categories was given.

    Args:
        first: category 0, 1, ... of each case by one reader (cases,).
        second: likewise by the other reader, in the same order.
        categories: their number.

    Returns:
        Counts, float (categories, categories), first reader by second.
    """
    table = np.zeros((categories, categories))
    np.add.at(table, (np.asarray(first, int), np.asarray(second, int)), 1)
    return table


def agreement_weights(categories: int, power: int = QUADRATIC) -> np.ndarray:
    """Return weights 1 - (distance / largest distance) ** power, float (categories, categories).

    Cicchetti and Allison (1971) for the linear ones, Fleiss and Cohen (1973) for the quadratic ones.
    """
    steps = np.arange(categories)
    return 1 - (np.abs(steps[:, None] - steps[None, :]) / (categories - 1)) ** power


def weighted_kappa(table: np.ndarray, weights: np.ndarray, level: float = 0.95) -> Interval:
    """Return Cohen's weighted kappa (1968, Psychol Bull 70:213).

    The interval has the standard error of Fleiss, Cohen and Everitt (1969, Psychol Bull 72:323, equation 13).

    Args:
        table: counts (categories, categories), first reader by second.
        weights: 1 for full agreement to 0 for none, (categories, categories).
        level: of the confidence interval.
    """
    fraction = table / table.sum()
    first, second = fraction.sum(axis=1), fraction.sum(axis=0)
    chance = np.outer(first, second)
    observed, expected = (weights * fraction).sum(), (weights * chance).sum()
    if expected >= 1:
        return Interval(np.nan, np.nan, np.nan)
    kappa = (observed - expected) / (1 - expected)
    margins = (weights @ second)[:, None] + (first @ weights)[None, :]
    spread = (fraction * (weights * (1 - expected) - margins * (1 - observed)) ** 2).sum()
    spread -= (observed * expected - 2 * expected + observed) ** 2
    reach = norm.ppf((1 + level) / 2) * np.sqrt(max(spread, 0) / table.sum()) / (1 - expected) ** 2
    return Interval(float(kappa), float(kappa - reach), float(min(kappa + reach, 1.0)))


def icc(scores: np.ndarray, level: float = 0.95) -> Interval:
    """Return ICC(2,1): agreement of single scores, cases and readers both random.

    Shrout and Fleiss (1979, Psychol Bull 86:420) for the value and the interval; McGraw and Wong (1996, Psychol Methods
    1:30) call it ICC(A,1).

    Args:
        scores: float (cases, readers), at least two of each.
        level: of the confidence interval.
    """
    n, k = scores.shape
    value = icc_value(scores)
    cases, readers, rest = two_way_mean_squares(scores)
    if np.isnan(value) or rest <= 0:
        return Interval(value, np.nan, np.nan)
    ratio = readers / rest
    numerator = (k - 1) * (n - 1) * (k * value * ratio + n * (1 + (k - 1) * value) - k * value) ** 2
    denominator = (n - 1) * k**2 * value**2 * ratio**2 + (n * (1 + (k - 1) * value) - k * value) ** 2
    df = numerator / denominator
    upper, lower = f.ppf((1 + level) / 2, n - 1, df), f.ppf((1 + level) / 2, df, n - 1)
    mixed = k * readers + (k * n - k - n) * rest
    low = n * (cases - upper * rest) / (upper * mixed + n * cases)
    high = n * (lower * cases - rest) / (mixed + n * lower * cases)
    return Interval(float(value), float(low), float(high))


def icc_value(scores: np.ndarray) -> float:
    """Return ICC(A,1) as `icc` does, without its interval; NaN where the data do not tell.

    Args:
        scores: float (cases, readers).
    """
    n, k = scores.shape
    if min(n, k) < 2:
        return float("nan")
    cases, readers, rest = two_way_mean_squares(scores)
    total = cases + (k - 1) * rest + k * (readers - rest) / n
    return float((cases - rest) / total) if total > 0 else float("nan")


def two_way_mean_squares(scores: np.ndarray) -> tuple[float, float, float]:
    """Return the mean squares of cases, readers and the rest of scores (cases, readers) without repeats."""
    n, k = scores.shape
    by_case, by_reader, mean = scores.mean(axis=1), scores.mean(axis=0), scores.mean()
    rest = scores - by_case[:, None] - by_reader[None, :] + mean
    return (
        k * ((by_case - mean) ** 2).sum() / max(n - 1, 1),
        n * ((by_reader - mean) ** 2).sum() / max(k - 1, 1),
        (rest**2).sum() / max((n - 1) * (k - 1), 1),
    )


def repeatability(first: np.ndarray, second: np.ndarray, level: float = 0.95) -> Repeatability:
    """Compare two scores of each case by one reader.

    Bland and Altman (1986, Lancet 327:307) for the bias, the limits and their intervals; Bland and Altman (1996, BMJ
    313:744) for the standard deviation within cases and the coefficient, with the interval of a variance of normal
    values.

    Args:
        first: float (cases,).
        second: float (cases,), in the same order; at least two cases.
        level: of the confidence intervals.
    """
    differences = np.asarray(second, float) - np.asarray(first, float)
    n, bias, spread = len(differences), float(differences.mean()), float(differences.std(ddof=1))
    wide, reach = float(norm.ppf(0.975)), float(t.ppf((1 + level) / 2, n - 1) * spread / np.sqrt(n))
    limits = [bias - wide * spread, bias + wide * spread]
    within = np.sqrt((differences**2).mean() / 2)
    ends = np.sqrt(n / chi2.ppf([(1 + level) / 2, (1 - level) / 2], n))
    deviation = Interval(float(within), *(float(within * end) for end in ends))
    return Repeatability(
        n,
        Interval(bias, bias - reach, bias + reach),
        tuple(Interval(limit, limit - 3**0.5 * reach, limit + 3**0.5 * reach) for limit in limits),
        deviation,
        Interval(*(wide * 2**0.5 * value for value in deviation)),
    )
