"""Paired tests between methods on the same patients, and the correction for making several (register U11).

Every test works on one difference a patient, the mean over the patient's nodules: nodules of a patient are not
independent, and a test that took them for it would find differences too easily.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats


def wilcoxon_p(differences: np.ndarray) -> float:
    """Two-sided Wilcoxon signed-rank test of paired differences; 1 when all of them are zero.

    Args:
        differences: float (patients,).
    """
    if not np.any(differences):
        return 1.0
    return float(stats.wilcoxon(differences).pvalue)


def tost_p(differences: np.ndarray, margin: float) -> float:
    """Two one-sided t-tests: small when the mean difference lies inside -margin to margin (equivalence).

    Args:
        differences: float (patients,).
        margin: The largest difference that does not matter, above zero.

    Returns:
        The larger of both p values; NaN with fewer than two patients.
    """
    if len(differences) < 2:
        return float("nan")
    if np.ptp(differences) == 0:
        return float(abs(differences[0]) >= margin)
    above = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(differences, margin, alternative="less").pvalue
    return float(max(above, below))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of p values (Holm 1979); NaN stays NaN and does not count as a test."""
    p = np.asarray(p_values, float)
    order = np.argsort(p)[: np.isfinite(p).sum()]
    adjusted = np.full(len(p), np.nan)
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return adjusted.tolist()
