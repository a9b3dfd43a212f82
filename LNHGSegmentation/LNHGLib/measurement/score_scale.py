"""What the scores of a result mean: the probability that a finding is a nodule, or a number of the model's own."""

from collections.abc import Mapping
from typing import Any

MODEL, PROBABILITY = "model", "probability"
NAMES = {MODEL: "Score", PROBABILITY: "Probability"}
"""What a score is called where people read it."""


def scale_of(report: Mapping[str, Any]) -> str:
    """Return `PROBABILITY` or `MODEL`; results of older versions do not say it, theirs are the model's own.

    Args:
        report: content of report.json, or what a scene keeps of it.
    """
    return PROBABILITY if report.get("score_scale") == PROBABILITY else MODEL


def name_of(report: Mapping[str, Any]) -> str:
    """Return what a score of a result is called: "Probability" or "Score"."""
    return NAMES[scale_of(report)]


def text_of(score: float, scale: str) -> str:
    """Return a score with its name, as "Probability 0.83".

    Args:
        score: in 0..1.
        scale: `PROBABILITY` or `MODEL`.
    """
    return f"{NAMES[scale]} {score:.2f}"
