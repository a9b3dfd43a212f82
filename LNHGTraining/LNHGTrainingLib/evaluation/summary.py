"""From scores to the metrics that are reported: means with intervals by patient, by size and by texture, detection."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np
from LNHGLib.files.text import to_json

from LNHGTrainingLib.evaluation import metrics
from LNHGTrainingLib.evaluation.crops import CropResults, NoduleScore
from LNHGTrainingLib.evaluation.scans import RULES, ScanResults, detections

GROUPS: dict[str, Callable[[NoduleScore], bool]] = {
    "all": lambda s: True,
    "under 6 mm": lambda s: s.diameter_mm < 6,
    "6 to 10 mm": lambda s: 6 <= s.diameter_mm < 10,
    "10 mm and over": lambda s: s.diameter_mm >= 10,
    "ground-glass (texture up to 2)": lambda s: s.texture <= 2,
    "part-solid (texture 2 to 4)": lambda s: 2 < s.texture < 4,
    "solid (texture from 4)": lambda s: s.texture >= 4,
    "juxta-pleural": lambda s: bool(s.juxta_pleural),
    "juxta-vascular": lambda s: bool(s.juxta_vascular),
    "attached to neither": lambda s: not s.juxta_pleural and not s.juxta_vascular,
    "1 reader": lambda s: s.readers == 1,
    "2 readers": lambda s: s.readers == 2,
    "3 readers": lambda s: s.readers == 3,
    "4 readers": lambda s: s.readers == 4,
}
"""Groups of nodules by LUNA16 or longest axial diameter, by the readers' mean texture rating (1 to 5), by what the
nodule is attached to (`attachment`), and by how many readers outlined it."""


def to_rounded_json(value: object) -> object:
    """Return what JSON can hold of a value: as `files.text.to_json`, with floats at five decimals."""
    if isinstance(value, dict):
        return {key: to_rounded_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_rounded_json(item) for item in value]
    plain = to_json(value)
    return round(plain, 5) if isinstance(plain, float) else plain


def by_group(scores: Sequence[NoduleScore], seed: int = 0) -> dict[str, dict]:
    """Return the metrics of each group in `GROUPS` that has a nodule.

    Args:
        scores: Of all nodules.
        seed: Of the bootstrap.
    """
    parts = {name: [score for score in scores if member(score)] for name, member in GROUPS.items()}
    return {name: segmentation_metrics(part, seed) for name, part in parts.items() if part}


def segmentation_metrics(scores: Sequence[NoduleScore], seed: int = 0) -> dict:
    """Return Dice with missed nodules at 0 and of the found alone, beside the readers on the same nodules.

    Register U4, U11.

    Args:
        scores: At least one nodule.
        seed: Of the bootstrap.

    Returns:
        Counts, and a value with its 95 % interval for each metric.
    """
    patients = [score.patient for score in scores]
    dice = np.array([score.dice for score in scores])
    found = np.array([score.found for score in scores], bool)
    human = np.array([score.human_loo_dice for score in scores])
    error = np.array([score.volume_error for score in scores])
    values = {
        "found_share": found.astype(float),
        "dice_all": dice,
        "dice_found": np.where(found, dice, np.nan),
        "human_loo_dice": human,
        "dice_minus_human": dice - human,
        "hd95_mm": np.array([score.hd95_mm for score in scores]),
        "volume_error": error,
        "absolute_volume_error": np.abs(error),
    }
    report = {"nodules": len(scores), "patients": len(set(patients)), "found": int(found.sum())}
    report |= {name: asdict(metrics.mean_interval(own, patients, seed)) for name, own in values.items()}
    for name, key in (("dice", "dice_all"), ("dice_found", "dice_found"), ("human_loo_dice", "human_loo_dice")):
        names, means = patient_means(values[key], patients)
        report[f"{name}_per_patient"] = asdict(metrics.mean_interval(means, names, seed))
    return report


def patient_means(values: np.ndarray, patients: list[str]) -> tuple[list[str], np.ndarray]:
    """Return the patients with a finite value, and the mean of each one's finite values.

    Args:
        values: float (N,).
        patients: Of each value.

    Returns:
        Names in alphabetical order, and float (names,).
    """
    own, finite = np.array(patients), np.isfinite(values)
    names = sorted(set(own[finite]))
    return names, np.array([values[finite & (own == name)].mean() for name in names])


def crop_metrics(results: CropResults, threshold: float | None, seed: int = 0) -> dict:
    """Return everything about crops that goes into `summary.json`.

    Args:
        results: Of `evaluate_crops`.
        threshold: Of the nodule image; None where each fold has its own.
        seed: Of the bootstrap.
    """
    patients = [score.patient for score in results.scores]
    return to_rounded_json(
        {
            "threshold": threshold,
            "without_reference": results.without_reference,
            "elsewhere": asdict(metrics.mean_interval([score.elsewhere for score in results.scores], patients, seed)),
            "groups": by_group(results.scores, seed),
        }
    )


def scan_metrics(results: ScanResults, seed: int = 0) -> dict:
    """Return everything about whole scans that goes into `summary.json`.

    CPM by group is that of the LUNA16-like rule: hits on nodules of other groups are ignored, and all groups share the
    false findings.

    Args:
        results: Of `evaluate_scans`.
        seed: Of the bootstrap.
    """
    counted = [nodule for nodule in results.nodules if nodule.counts]
    froc = {rule: metrics.detection_metrics(detections(results, rule), results.patients, seed) for rule in RULES}
    by_kind = {}
    for name, member in GROUPS.items():
        if any(map(member, counted)):
            found = metrics.detection_metrics(detections(results, "luna16_like", member), results.patients, seed)
            by_kind[name] = {"nodules": sum(map(member, counted)), "cpm": found["cpm"]}
    cases = []
    for case in results.cases:
        nodules = [nodule for nodule in counted if nodule.case == case.case]
        outcomes = [f.outcome for f in results.findings if f.case == case.case and f.above_threshold]
        cases.append(
            asdict(case)
            | {
                "nodules": len(nodules),
                "found": sum(nodule.found for nodule in nodules),
                "dice_all": float(np.mean([nodule.dice for nodule in nodules])) if nodules else float("nan"),
                "false": outcomes.count("false"),
                "ignored": outcomes.count("ignored"),
            }
        )
    return to_rounded_json(
        {
            "threshold": results.threshold,
            "groups": by_group(counted, seed),
            "operating_point": {rule: operating_point(results, rule, seed) for rule in RULES},
            "froc": froc,
            "detection_by_group": by_kind,
            "scan_dice": asdict(metrics.mean_interval([c.scan_dice for c in results.cases], results.patients, seed)),
            "cases": cases,
            "nodules": [asdict(nodule) for nodule in results.nodules],
        }
    )


def operating_point(results: ScanResults, rule: str, seed: int = 0) -> dict:
    """Return precision, recall (sensitivity), F1 and false findings per scan at the model's own threshold, by patient.

    Args:
        results: Of `evaluate_scans`.
        rule: One of `RULES`.
        seed: Of the bootstrap.
    """
    outcome = RULES[rule][0]
    cases = [case.case for case in results.cases]
    above = [finding for finding in results.findings if finding.above_threshold]
    false = np.array([sum(f.case == case and getattr(f, outcome) == "false" for f in above) for case in cases])
    hits = np.array([sum(f.case == case and getattr(f, outcome) == "hit" for f in above) for case in cases])
    nodules = np.array([sum(n.case == case and n.counts for n in results.nodules) for case in cases])
    clusters = np.unique(results.patients, return_inverse=True)[1]
    sums = [np.bincount(clusters, part) for part in (hits, false, nodules, np.ones(len(cases)))]
    rates = metrics.precision_recall_f1(*sums[:3], seed)
    return {
        "scans": len(cases), "nodules": int(nodules.sum()), "hits": int(hits.sum()), "false": int(false.sum()),
        "false_worst_scan": int(false.max()), "sensitivity": asdict(rates["recall"]),
        "precision": asdict(rates["precision"]), "f1": asdict(rates["f1"]),
        "false_per_scan": asdict(metrics.ratio_interval(sums[1], sums[3], seed)),
    }  # fmt: skip
