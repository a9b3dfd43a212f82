"""Areas under ROC curves of one or several sets of scores on the same cases, and how these areas vary together."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata


@dataclass(frozen=True, eq=False)
class Areas:
    """Areas under the ROC curves of several sets of scores on the same cases.

    Attributes:
        area: float (sets,).
        positives: float (sets, positives), for each positive case the fraction of the negatives that it scores above.
        negatives: float (sets, negatives), for each negative case the fraction of the positives that it scores below.
    """

    area: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray


def areas(scores: np.ndarray, truth: np.ndarray) -> Areas:
    """Return the empirical (trapezoidal) areas; equal scores count half.

    The area is the Mann-Whitney statistic (Bamber 1975, J Math Psychol 12:387); the parts of single cases are the
    structural components of DeLong, DeLong and Clarke-Pearson (1988, Biometrics 44:837), got from ranks as in Sun and
    Xu (2014, IEEE Signal Process Lett 21:1389).

    Args:
        scores: float (sets, cases), higher for the disease.
        truth: bool (cases,), at least one of each.
    """
    scores, truth = np.asarray(scores, float), np.asarray(truth, bool)
    sick, sound = scores[:, truth], scores[:, ~truth]
    among_all = rankdata(scores, axis=1)
    below = (among_all[:, truth] - rankdata(sick, axis=1)) / sound.shape[1]
    above = 1 - (among_all[:, ~truth] - rankdata(sound, axis=1)) / sick.shape[1]
    return Areas(below.mean(axis=1), below, above)


def delong_covariance(parts: Areas) -> np.ndarray:
    """Return the covariance (sets, sets) of the areas over cases (DeLong et al. 1988, equation 5)."""
    of_positives, of_negatives = (np.atleast_2d(np.cov(values)) for values in (parts.positives, parts.negatives))
    return of_positives / parts.positives.shape[1] + of_negatives / parts.negatives.shape[1]


def jackknife_covariance(parts: Areas) -> np.ndarray:
    """Return the covariance (sets, sets) of the areas over cases, each case left out once.

    As in the Obuchowski-Rockette method (Hillis, Obuchowski, Schartz and Berbaum 2005, Stat Med 24:1579, section 3.2).
    """
    without = [
        (values.shape[1] * parts.area[:, None] - values) / (values.shape[1] - 1)
        for values in (parts.positives, parts.negatives)
    ]
    left_out = np.concatenate(without, axis=1)
    centered = left_out - left_out.mean(axis=1, keepdims=True)
    return (left_out.shape[1] - 1) / left_out.shape[1] * centered @ centered.T


def interval(area: float, variance: float, level: float = 0.95) -> tuple[float, float]:
    """Return a confidence interval of one area that stays between 0 and 1.

    Symmetric on the logit scale (Pepe 2003, The Statistical Evaluation of Medical Tests, section 5.2); NaN where no
    case is out of order, as the cases then tell nothing of the variance.
    """
    if variance <= 0 or not 0 < area < 1:
        return np.nan, np.nan
    reach = norm.ppf((1 + level) / 2) * np.sqrt(variance) / (area * (1 - area))
    low, high = 1 / (1 + np.exp(-(np.log(area / (1 - area)) + np.array([-reach, reach]))))
    return float(low), float(high)


def curve(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the empirical ROC curve: false and true positive fractions from (0, 0) to (1, 1).

    Args:
        scores: float (cases,), higher for the disease.
        truth: bool (cases,), at least one of each.

    Returns:
        Both fractions, float (thresholds + 1,) each, one point per threshold.
    """
    scores, truth = np.asarray(scores, float), np.asarray(truth, bool)
    thresholds = np.unique(scores)[::-1]
    called = scores[None, :] >= thresholds[:, None]
    points = [np.concatenate(([0.0], called[:, of].mean(axis=1))) for of in (~truth, truth)]
    return points[0], points[1]
