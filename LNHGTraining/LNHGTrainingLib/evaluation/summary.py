"""From scores to the figures that are reported: means with intervals by patient, by size and by texture, detection."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np

from LNHGTrainingLib.evaluation import metrics
from LNHGTrainingLib.evaluation.crops import CropResults, NoduleScore
from LNHGTrainingLib.evaluation.scans import RULES, ScanNodule, ScanResults, detections

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


def to_json(value: object) -> object:
    """The same for JSON: floats at five decimals, None for what was not measured, numpy types gone."""
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, float | np.floating):
        return round(float(value), 5) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def by_group(scores: Sequence[NoduleScore], seed: int = 0) -> dict[str, dict]:
    """Figures of each group in `GROUPS` that has a nodule."""
    parts = {name: [score for score in scores if member(score)] for name, member in GROUPS.items()}
    return {name: segmentation_metrics(part, seed) for name, part in parts.items() if part}


def segmentation_metrics(scores: Sequence[NoduleScore], seed: int = 0) -> dict:
    """Dice with missed nodules at 0 and of the found alone, beside the readers on the same nodules (register U4, U11).

    Args:
        scores: At least one nodule.
        seed: Of the bootstrap.

    Returns:
        Counts, and a value with its 95 % interval for each figure.
    """
    patients = [score.patient for score in scores]
    dice = np.array([score.dice for score in scores])
    found = np.array([score.found for score in scores], bool)
    human = np.array([score.human_loo_dice for score in scores])
    error = np.array([score.volume_error for score in scores])
    figures = {
        "found_share": found.astype(float),
        "dice_all": dice,
        "dice_found": np.where(found, dice, np.nan),
        "human_loo_dice": human,
        "dice_minus_human": dice - human,
        "hd95_mm": np.array([score.hd95_mm for score in scores]),
        "volume_error": error,
        "absolute_volume_error": np.abs(error),
    }
    counts = {"nodules": len(scores), "patients": len(set(patients)), "found": int(found.sum())}
    intervals = {name: asdict(metrics.mean_interval(values, patients, seed)) for name, values in figures.items()}
    by_patient = {
        f"{name}_per_patient": asdict(_per_patient(figures[key], patients, seed))
        for name, key in (("dice", "dice_all"), ("dice_found", "dice_found"), ("human_loo_dice", "human_loo_dice"))
    }
    return counts | intervals | by_patient


def _per_patient(values: np.ndarray, patients: list[str], seed: int) -> metrics.Interval:
    names, means = patient_means(values, patients)
    return metrics.mean_interval(means, names, seed)


def patient_means(values: np.ndarray, patients: list[str]) -> tuple[list[str], np.ndarray]:
    """The patients with a finite value, and the mean of each one's finite values."""
    own, finite = np.array(patients), np.isfinite(values)
    names = sorted(set(own[finite]))
    return names, np.array([values[finite & (own == name)].mean() for name in names])


def crop_metrics(results: CropResults, threshold: float | None, seed: int = 0) -> dict:
    """Everything about crops that goes into `summary.json`; no threshold where each fold has its own."""
    patients = [score.patient for score in results.scores]
    figures = {
        "threshold": threshold,
        "without_reference": results.without_reference,
        "elsewhere": asdict(metrics.mean_interval([score.elsewhere for score in results.scores], patients, seed)),
        "groups": by_group(results.scores, seed),
    }
    return to_json(figures)


def scan_metrics(results: ScanResults, seed: int = 0) -> dict:
    """Everything about whole scans that goes into `summary.json`."""
    counted = [nodule for nodule in results.nodules if nodule.counts]
    figures = {
        "threshold": results.threshold,
        "groups": by_group(counted, seed),
        "operating_point": {rule: operating_point(results, rule, seed) for rule in RULES},
        "froc": {rule: _froc_figures(results, rule, seed) for rule in RULES},
        "detection_by_group": detection_by_group(results, seed),
        "scan_dice": asdict(metrics.mean_interval([c.scan_dice for c in results.cases], _patients(results), seed)),
        "cases": [_case_figures(results, index) for index in range(len(results.cases))],
        "nodules": [asdict(nodule) for nodule in results.nodules],
    }
    return to_json(figures)


def operating_point(results: ScanResults, rule: str, seed: int = 0) -> dict:
    """Precision, recall (sensitivity), F1 and false findings a scan at the model's own threshold, by patient."""
    outcome = RULES[rule][0]
    cases = [case.case for case in results.cases]
    above = [finding for finding in results.findings if finding.above_threshold]
    false = np.array([sum(f.case == case and getattr(f, outcome) == "false" for f in above) for case in cases])
    hits = np.array([sum(f.case == case and getattr(f, outcome) == "hit" for f in above) for case in cases])
    nodules = np.array([sum(n.case == case and n.counts for n in results.nodules) for case in cases])
    clusters = np.unique(_patients(results), return_inverse=True)[1]
    sums = [np.bincount(clusters, part) for part in (hits, false, nodules, np.ones(len(cases)))]
    rates = metrics.precision_recall_f1(*sums[:3], seed)
    return {
        "scans": len(cases), "nodules": int(nodules.sum()), "hits": int(hits.sum()), "false": int(false.sum()),
        "false_worst_scan": int(false.max()), "sensitivity": asdict(rates["recall"]),
        "precision": asdict(rates["precision"]), "f1": asdict(rates["f1"]),
        "false_per_scan": asdict(metrics.ratio_interval(sums[1], sums[3], seed)),
    }  # fmt: skip


def _patients(results: ScanResults) -> list[str]:
    return [case.patient for case in results.cases]


def _froc_figures(
    results: ScanResults, rule: str, seed: int, member: Callable[[ScanNodule], bool] = GROUPS["all"]
) -> dict:
    return metrics.detection_metrics(detections(results, rule, member), _patients(results), seed)


def detection_by_group(results: ScanResults, seed: int = 0) -> dict[str, dict]:
    """CPM of each group under the LUNA16-like rule; hits on other nodules are ignored, false findings are shared."""
    counted = [nodule for nodule in results.nodules if nodule.counts]
    return {
        name: {
            "nodules": sum(map(member, counted)),
            "cpm": _froc_figures(results, "luna16_like", seed, member)["cpm"],
        }
        for name, member in GROUPS.items()
        if any(map(member, counted))
    }


def _case_figures(results: ScanResults, index: int) -> dict:
    case = results.cases[index]
    nodules: list[ScanNodule] = [n for n in results.nodules if n.case == case.case and n.counts]
    outcomes = [f.outcome for f in results.findings if f.case == case.case and f.above_threshold]
    return asdict(case) | {
        "nodules": len(nodules),
        "found": sum(n.found for n in nodules),
        "dice_all": float(np.mean([n.dice for n in nodules])) if nodules else float("nan"),
        "false": outcomes.count("false"),
        "ignored": outcomes.count("ignored"),
    }
