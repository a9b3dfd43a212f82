"""Make scores probabilities: a logistic regression over the scores of all parts and the size, on whole scans.

Fitted on findings in scans, by networks that did not see their patients. The regression is judged on patients that it
was not fitted on: each patient's findings get their probability from a regression on the others'.
"""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from LNHGLib.models.card import ProbabilitySpec
from LNHGLib.segmentation.calibration import logit, probability
from scipy.optimize import minimize

from LNHGTrainingLib.evaluation import metrics
from LNHGTrainingLib.evaluation.scan_findings import ScoredFinding, detections

PARTS = ("segmenter", "detector", "classifier")
RIDGE = 0.1
"""Weight of the squared coefficients beside the summed cross-entropy: few nodules must not drive one to infinity."""
BINS = 5
MIN_PROBABILITY = 0.1
"""Findings of a lower probability are not looked at in the reliability diagram: nobody is shown them."""


def fit(
    rows: Sequence[ScoredFinding], floor: float, parts: Sequence[str] = PARTS, size: bool = True
) -> ProbabilitySpec:
    """Fit the regression; what touches a nodule and does not hit it is left out.

    Args:
        rows: findings of scans.
        floor: score that stands for a part that found nothing there.
        parts: whose scores take part; the others' coefficients are 0.
        size: whether the diameter takes part.
    """
    used = [row for row in rows if row.on or not row.touches]
    truth = np.array([bool(row.on) for row in used], float)
    design = np.array([features(row, floor) for row in used])
    free = np.array([1.0, *(part in parts for part in PARTS), size])
    bounds = [(None, None), *((0, None) if part in parts else (0, 0) for part in PARTS), (None, None)]

    def loss(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        odds = design @ (coefficients * free)
        value = np.logaddexp(0, odds).sum() - truth @ odds + RIDGE * (coefficients[1:] ** 2).sum()
        gradient = design.T @ (1 / (1 + np.exp(-odds)) - truth) * free
        gradient[1:] += 2 * RIDGE * coefficients[1:]
        return value, gradient

    found = minimize(loss, np.zeros(5), jac=True, method="L-BFGS-B", bounds=bounds).x * free
    return ProbabilitySpec(*(float(value) for value in found))


def features(row: ScoredFinding, floor: float) -> list[float]:
    """Return what the regression's coefficients belong to, in the order of `ProbabilitySpec`.

    Args:
        row: a finding.
        floor: score that stands for a part that found nothing there.
    """
    scores = (getattr(row, part) for part in PARTS)
    return [1.0, *(logit(floor if score is None else score) for score in scores), float(np.log(row.diameter_mm))]


def probabilities(rows: Sequence[ScoredFinding], spec: ProbabilitySpec, floor: float) -> np.ndarray:
    """Return each finding's probability, as the pipeline gives it, float (N,).

    Args:
        rows: N findings.
        spec: the regression.
        floor: score that stands for a part that found nothing there.
    """
    return np.array(
        [probability(spec, row.segmenter, row.detector, row.classifier, row.diameter_mm, floor) for row in rows]
    )


def held_out_probabilities(
    rows: Sequence[ScoredFinding], floor: float, parts: Sequence[str] = PARTS, size: bool = True
) -> np.ndarray:
    """Return each finding's probability by a regression on the other patients' findings, float (N,).

    Args:
        rows: N findings.
        floor: score that stands for a part that found nothing there.
        parts: whose scores take part.
        size: whether the diameter takes part.
    """
    patients, result = np.array([row.patient for row in rows]), np.zeros(len(rows))
    for patient in np.unique(patients):
        own = np.flatnonzero(patients == patient)
        spec = fit([row for row in rows if row.patient != patient], floor, parts, size)
        result[own] = probabilities([rows[number] for number in own], spec, floor)
    return result


def froc_part(
    rows: Sequence[ScoredFinding],
    scores: np.ndarray,
    scans: Sequence[str],
    nodules: Sequence[int],
    rests_on: str,
) -> dict:
    """Return the card's `froc` part: what was found, and falsely found, at each score.

    Args:
        rows: findings of the scans.
        scores: held-out probabilities.
        scans: names of all scans.
        nodules: how many nodules of enough readers each of them has.
        rests_on: the scans in words, and which networks looked at them.
    """
    curve = metrics.froc(detections(rows, scores, scans, nodules))
    total = int(np.sum(nodules))
    return {
        "thresholds": [round(float(value), 4) for value in curve.thresholds[1:]],
        "found": [round(float(value) * total) for value in curve.sensitivity[1:]],
        "false_per_scan": [round(float(value), 3) for value in curve.false_per_scan[1:]],
        "nodules": total,
        "scans": len(scans),
        "rests_on": rests_on,
    }


def reliability(rows: Sequence[ScoredFinding], scores: np.ndarray, seed: int = 0) -> dict:
    """Return how far probabilities are to be trusted: bins, calibration error, slope and Brier score with intervals.

    Args:
        rows: findings.
        scores: their held-out probabilities.
        seed: of the bootstrap over patients.
    """
    counted = [n for n, row in enumerate(rows) if (row.on or not row.touches) and scores[n] >= MIN_PROBABILITY]
    truth = np.array([bool(rows[n].on) for n in counted], float)
    shown = np.asarray(scores)[counted]
    names, clusters = np.unique([rows[n].patient for n in counted], return_inverse=True)

    def statistic(samples: np.ndarray) -> np.ndarray:
        return np.array([_calibration(truth, shown, counts[clusters]) for counts in samples])

    intervals = metrics.cluster_bootstrap(len(names), statistic, seed)
    keys = ("expected_calibration_error", "slope", "brier", "brier_of_a_constant")
    bins = [
        {"findings": len(part), "probability": float(shown[part].mean()), "nodules": float(truth[part].mean())}
        for part in np.array_split(np.argsort(shown), BINS)
        if len(part)
    ]
    return {
        "findings": len(counted),
        "nodules": int(truth.sum()),
        "min_probability": MIN_PROBABILITY,
        "bins": bins,
        **{key: asdict(one) for key, one in zip(keys, intervals, strict=True)},
    }


def _calibration(truth: np.ndarray, shown: np.ndarray, counts: np.ndarray) -> list[float]:
    """Return calibration error, slope, Brier score and a constant's Brier score, each finding counted so often."""
    order = np.repeat(np.arange(len(truth)), counts)
    if len(order) < BINS or not 0 < truth[order].mean() < 1:
        return [np.nan] * 4
    truth, shown = truth[order], shown[order]
    parts = np.array_split(np.argsort(shown, kind="stable"), BINS)
    error = sum(len(part) * abs(truth[part].mean() - shown[part].mean()) for part in parts) / len(truth)
    odds = np.array([logit(value) for value in shown])
    design = np.column_stack([np.ones_like(odds), odds])

    def loss(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        z = design @ coefficients
        value = np.logaddexp(0, z).sum() - truth @ z + 1e-3 * (coefficients**2).sum()
        return value, design.T @ (1 / (1 + np.exp(-z)) - truth) + 2e-3 * coefficients

    slope = minimize(loss, np.array([0.0, 1.0]), jac=True, method="L-BFGS-B").x[1]
    mean = truth.mean()
    return [float(error), float(slope), float(((truth - shown) ** 2).mean()), float(mean * (1 - mean))]
