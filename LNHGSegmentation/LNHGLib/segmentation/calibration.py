"""Scores that are probabilities, and what to expect at a threshold. Imports no torch.

The card's `probability` part is a logistic regression, fitted on candidates by networks that did not see their
patients; its `froc` part is what whole scans with known nodules gave.
"""

import math
from dataclasses import dataclass

from LNHGLib.models.card import FrocSpec, ProbabilitySpec

MIN_SCORE = 1e-4
"""Scores are kept so far from 0 and 1: a logit is finite, and one part alone cannot outweigh all others."""
SAME_SCORE = 1e-9


@dataclass(frozen=True)
class Expectation:
    """What to expect of the findings from a threshold on.

    Attributes:
        found: nodules that are found, of `FrocSpec.nodules`.
        false_per_scan: mean number of findings of a scan that are no nodule.
    """

    found: int
    false_per_scan: float


def probability(
    spec: ProbabilitySpec,
    segmenter: float | None,
    detector: float | None,
    classifier: float | None,
    diameter_mm: float,
    floor: float,
) -> float:
    """Return the probability that a finding is a nodule.

    Args:
        spec: the card's `probability` part.
        segmenter: the segmenter's score in 0..1; None where it found nothing there.
        detector: the detector's score in 0..1; None where it found nothing there.
        classifier: the classifier's score in 0..1; None where there is none.
        diameter_mm: of the sphere of the finding's volume, above 0; see `sphere_diameter_mm`.
        floor: score that stands for None, the card's `fusion.floor`.
    """
    log_odds = spec.intercept + spec.log_diameter * math.log(diameter_mm)
    for factor, score in ((spec.segmenter, segmenter), (spec.detector, detector), (spec.classifier, classifier)):
        log_odds += factor * logit(floor if score is None else score)
    return 1 / (1 + math.exp(-log_odds)) if log_odds > 0 else 1 - 1 / (1 + math.exp(log_odds))


def logit(score: float) -> float:
    """Return the log odds of a score, which is kept `MIN_SCORE` away from 0 and 1."""
    inside = min(max(float(score), MIN_SCORE), 1 - MIN_SCORE)
    return math.log(inside / (1 - inside))


def sphere_diameter_mm(volume_mm3: float) -> float:
    """Return the diameter of the sphere of a volume."""
    return (6 * volume_mm3 / math.pi) ** (1 / 3)


def expectation(froc: FrocSpec, threshold: float) -> Expectation:
    """Return what the findings from a threshold on gave on the card's scans.

    That is the row of the lowest stored threshold that is not below the given one: between two rows no score lies.
    Nothing is found above the highest row; below the lowest one there is no more to tell than that one says.

    Args:
        froc: the card's `froc` part.
        threshold: lowest score of a finding.
    """
    rows = [index for index, stored in enumerate(froc.thresholds) if stored >= threshold - SAME_SCORE]
    return Expectation(froc.found[rows[-1]], froc.false_per_scan[rows[-1]]) if rows else Expectation(0, 0.0)
