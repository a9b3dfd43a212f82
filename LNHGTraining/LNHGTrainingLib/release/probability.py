"""Make scores probabilities: a logistic regression over the scores of all parts and the size.

What is falsely found comes from whole scans, and the nodules from crops of patients that no network was trained on:
whole scans hold too few of them. A nodule counts so much that the crops' nodules are as many as the scans hold. The
classifier saw no patient of theirs; the other networks may have been trained on crops of the scans' patients, but on no
whole scan, so what they mark falsely there is new to them. Regressions are compared, and probabilities judged, on
patients that they were not fitted on: each patient's findings get their probability from a regression on the others'.
FROC curves come from one regression on all findings, as it runs: scores of several regressions have no common order.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from LNHGLib.errors import InputError, shown
from LNHGLib.files.atomic import atomic_folder
from LNHGLib.files.text import markdown_table, write_csv, write_json
from LNHGLib.models.card import ProbabilitySpec
from LNHGLib.models.folder import Model
from LNHGLib.segmentation.calibration import logit, probability
from LNHGLib.segmentation.fusion import combine
from scipy.optimize import minimize

from LNHGTrainingLib import output_files
from LNHGTrainingLib.data.crops import load_crops
from LNHGTrainingLib.data.scans import Scan, read_scans, scan_folds
from LNHGTrainingLib.evaluation import metrics, plots
from LNHGTrainingLib.evaluation.markdown import INTERVAL_NOTE, interval
from LNHGTrainingLib.evaluation.matching import MIN_READERS
from LNHGTrainingLib.evaluation.summary import to_rounded_json
from LNHGTrainingLib.release.scan_findings import (
    ScoredFinding,
    detections,
    search,
    without_probability,
)

PARTS = ("segmenter", "detector", "classifier")
REGRESSIONS = {
    "all parts and the size": (PARTS, True),
    "without the classifier": (("segmenter", "detector"), True),
    "without the detector": (("segmenter", "classifier"), True),
    "the classifier and the segmenter": (("segmenter", "classifier"), False),
    "the classifier and the detector": (("detector", "classifier"), False),
    "the classifier and the size": (("classifier",), True),
    "the classifier": (("classifier",), False),
}
"""What takes part in a regression: scores, and whether the size does. The best one goes into the card."""
RIDGE = 1.0
"""Weight of the squared coefficients beside the summed cross-entropy: few nodules must not drive one to infinity."""
COLUMNS = ("scan", "z", "y", "x", "outcome", "provenance", "diameter_mm", *PARTS, "probability")
BINS = 5
MIN_PROBABILITY = 0.1
"""Findings of a lower probability are not looked at in the reliability diagram: nobody is shown them."""


def fit(
    rows: Sequence[ScoredFinding], floor: float, nodule: float = 1.0, parts: Sequence[str] = PARTS, size: bool = True
) -> ProbabilitySpec:
    """Fit the regression; what touches a nodule and does not hit it is left out.

    Args:
        rows: findings.
        floor: score that stands for a part that found nothing there.
        nodule: how often a finding on a nodule counts; one on none counts once.
        parts: whose scores take part; the others' coefficients are 0.
        size: whether the diameter takes part.
    """
    used = [row for row in rows if row.on or not row.touches]
    truth = np.array([bool(row.on) for row in used], float)
    design, weights = np.array([features(row, floor) for row in used]), np.where(truth > 0, nodule, 1.0)
    free = np.array([1.0, *(part in parts for part in PARTS), size])
    bounds = [(None, None), *((0, None) if part in parts else (0, 0) for part in PARTS), (None, None)]

    def loss(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        odds = design @ (coefficients * free)
        value = weights @ (np.logaddexp(0, odds) - truth * odds) + RIDGE * (coefficients[1:] ** 2).sum()
        gradient = design.T @ (weights * (1 / (1 + np.exp(-odds)) - truth)) * free
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
    rows: Sequence[ScoredFinding], floor: float, nodule: float = 1.0, parts: Sequence[str] = PARTS, size: bool = True
) -> np.ndarray:
    """Return each finding's probability by a regression on the other patients' findings, float (N,).

    Args:
        rows: N findings.
        floor: score that stands for a part that found nothing there.
        nodule: how often a finding on a nodule counts.
        parts: whose scores take part.
        size: whether the diameter takes part.
    """
    patients, result = np.array([row.patient for row in rows]), np.zeros(len(rows))
    for patient in np.unique(patients):
        own = np.flatnonzero(patients == patient)
        spec = fit([row for row in rows if row.patient != patient], floor, nodule, parts, size)
        result[own] = probabilities([rows[number] for number in own], spec, floor)
    return result


def froc_part(found: metrics.Detections, rests_on: str) -> dict:
    """Return the card's `froc` part: what was found, and falsely found, at each score.

    Args:
        found: by held-out probabilities.
        rests_on: the scans and nodules in words, and which networks looked at them.
    """
    curve = metrics.froc(found)
    total, last = int(found.nodules.sum()), {}
    for threshold, sensitivity, false in zip(curve.thresholds, curve.sensitivity, curve.false_per_scan, strict=True):
        if np.isfinite(threshold):  # where two scores are one to four digits, the row with both holds
            last[float(np.floor(threshold * 1e4) / 1e4)] = round(float(sensitivity) * total), round(float(false), 3)
    return {
        "thresholds": list(last),
        "found": [found for found, _ in last.values()],
        "false_per_scan": [false for _, false in last.values()],
        "nodules": total,
        "scans": int(len(found.nodules) if found.whole is None else found.whole.sum()),
        "rests_on": rests_on,
    }


def reliability(rows: Sequence[ScoredFinding], scores: np.ndarray, nodule: float = 1.0, seed: int = 0) -> dict:
    """Return how far probabilities are to be trusted: bins, calibration error, slope and Brier score with intervals.

    Args:
        rows: findings.
        scores: their held-out probabilities.
        nodule: how often a finding on a nodule counts.
        seed: of the bootstrap over patients.
    """
    counted = [n for n, row in enumerate(rows) if (row.on or not row.touches) and scores[n] >= MIN_PROBABILITY]
    truth = np.array([bool(rows[n].on) for n in counted], float)
    shown, weights = np.asarray(scores)[counted], np.where(truth > 0, nodule, 1.0)
    names, clusters = np.unique([rows[n].patient for n in counted], return_inverse=True)

    def statistic(samples: np.ndarray) -> np.ndarray:
        return np.array([_calibration(truth, shown, weights * counts[clusters]) for counts in samples])

    intervals = metrics.cluster_bootstrap(len(names), statistic, seed)
    keys = ("expected_calibration_error", "slope", "brier", "brier_of_a_constant")
    return {
        "findings": len(counted),
        "nodules": int(truth.sum()),
        "min_probability": MIN_PROBABILITY,
        "bins": [
            {
                "findings": len(part),
                "probability": float(np.average(shown[part], weights=weights[part])),
                "nodules": float(np.average(truth[part], weights=weights[part])),
            }
            for part in _bins(shown, weights)
        ],
        **{key: asdict(one) for key, one in zip(keys, intervals, strict=True)},
    }


def _bins(shown: np.ndarray, weights: np.ndarray) -> list[np.ndarray]:
    """Return the numbers of the findings in bins of equal weight by their probability; empty bins are left out."""
    order = np.argsort(shown, kind="stable")
    middle = np.cumsum(weights[order]) - weights[order] / 2
    number = np.minimum(BINS * middle / weights.sum(), BINS - 1).astype(int)
    return [order[number == k] for k in range(BINS) if weights[order[number == k]].sum() > 0]


def _calibration(truth: np.ndarray, shown: np.ndarray, weights: np.ndarray) -> list[float]:
    """Return calibration error, slope, Brier score and a constant's Brier score, each finding with its weight."""
    total = weights.sum()
    mean = weights @ truth / total if total else 0.0
    if (weights > 0).sum() < BINS or not 0 < mean < 1:
        return [np.nan] * 4
    error = sum(abs(weights[part] @ (truth[part] - shown[part])) for part in _bins(shown, weights)) / total
    odds = np.array([logit(value) for value in shown])
    design = np.column_stack([np.ones_like(odds), odds])

    def loss(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        z = design @ coefficients
        value = weights @ (np.logaddexp(0, z) - truth * z) + 1e-3 * (coefficients**2).sum()
        return value, design.T @ (weights * (1 / (1 + np.exp(-z)) - truth)) + 2e-3 * coefficients

    slope = minimize(loss, np.array([0.0, 1.0]), jac=True, method="L-BFGS-B").x[1]
    return [float(error), float(slope), float(weights @ (truth - shown) ** 2 / total), float(mean * (1 - mean))]


@dataclass(frozen=True, eq=False)
class Study:
    """What a calibration gave.

    Attributes:
        card: the model's, with `probability`, `froc`, `threshold` and `calibration`.
        report: JSON-ready.
        rows: all findings.
        scores: their probabilities.
        curves: FROC curves by the score's name.
    """

    card: dict
    report: dict
    rows: list[ScoredFinding]
    scores: np.ndarray
    curves: dict[str, metrics.Froc]


@dataclass(frozen=True, eq=False)
class Search:
    """What networks found.

    Attributes:
        rows: what the segmenter marks falsely in whole scans, and on the nodules of crops.
        places: names of all scans, each with 0, and of all crops, each with its nodule.
        patients: of each.
        in_scans: nodules that the scans hold.
    """

    rows: list[ScoredFinding]
    places: dict[str, int]
    patients: list[str]
    in_scans: int


def run(
    model: Model, held_out: Sequence[Model], data: Path, allowed: float, seed: int, device: str | torch.device
) -> Study:
    """Search whole scans and crops with the model, each by a classifier that did not see its patient, and fit.

    Args:
        model: its card gets the regression.
        held_out: the same with classifiers that were trained without some patients.
        data: folder with `crops/` and `scans/`, as the model's card names them.
        allowed: false findings per scan at the card's threshold.
        seed: of the bootstrap.
        device: where to compute.

    Raises:
        InputError: networks saw what they must not, or there is no scan.
    """
    recipe = model.card["training"]["classifier"]["data"]
    table, networks = data / recipe["table"], ("generator", "detector", "classifier")
    folds = scan_folds(table)
    scans = list(read_scans(data / recipe["scans"], table, sorted(set(folds.values()))))
    unseen = [fold for fold in recipe["validation_folds"] if not any(saw(model, part, fold) for part in networks)]
    if not scans or not unseen:
        raise InputError(
            f"There are {len(scans)} whole scans and {len(unseen)} folds that no network of {model.name} saw, "
            "expected some of both; give a model that holds a fold out."
        )
    crops = load_crops(data / recipe["crops"], table, unseen, MIN_READERS)
    uncut = [without_probability(one) for one in (model, *held_out)]
    searching = [_unseeing(uncut, scan, folds[scan.patient]) for scan in scans]
    rows, places = search(scans, searching, crops, uncut[0], device)
    patients = [scan.patient for scan in scans] + [crop.patient for crop in crops]
    in_scans = sum(n.readers >= MIN_READERS for scan in scans for n in scan.nodules)
    return _study(model, Search(rows, places, patients, in_scans), allowed, seed)


def _study(model: Model, search: Search, allowed: float, seed: int) -> Study:
    rows, places, patients, fusion = search.rows, search.places, search.patients, model.spec.fusion
    whole = [not count for count in places.values()]
    scans, nodules = sum(whole), sum(places.values())
    weight, per_scan = search.in_scans / nodules, search.in_scans / scans
    held = {name: held_out_probabilities(rows, fusion.floor, weight, *kind) for name, kind in REGRESSIONS.items()}
    losses = {name: cross_entropy(rows, scores, weight) for name, scores in held.items()}
    best = min(losses, key=losses.get)
    specs = {name: fit(rows, fusion.floor, weight, *kind) for name, kind in REGRESSIONS.items()}
    scored = {name: probabilities(rows, spec, fusion.floor) for name, spec in specs.items()}
    scored["the segmenter's own score"] = np.array([row.segmenter for row in rows])
    both = [combine(row.segmenter, row.detector, fusion.weight, fusion.floor) for row in rows]
    scored["both branches without a classifier"] = np.array(both)
    found = {name: detections(rows, scores, places, whole) for name, scores in scored.items()}
    rests_on = f"{nodules} nodules in crops and {scans} scans, of patients that the classifier did not see"
    froc = froc_part(found[best], rests_on)
    reached = [t for t, rate in zip(froc["thresholds"], froc["false_per_scan"], strict=True) if rate <= allowed]
    if not reached:
        raise InputError(f"Not even the best finding comes at {allowed} false findings a scan; allow more.")
    report = to_rounded_json(
        {
            "schema": 2,
            "kind": "probability",
            "model": model.name,
            "scans": scans,
            "patients": len(set(patients)),
            "nodules": nodules,
            "nodules_per_scan": per_scan,
            "candidates": len(rows),
            "regression": best,
            "cross_entropy": losses,
            "bootstrap": {"unit": "patient", "samples": metrics.BOOTSTRAP_SAMPLES, "seed": seed},
            "threshold": reached[-1],
            "found": {name: metrics.detection_metrics(one, patients, seed) for name, one in found.items()},
            "reliability": reliability(rows, held[best], weight, seed),
        }
    )
    kept = ("scans", "nodules", "nodules_per_scan", "candidates", "regression", "reliability")
    card = {key: value for key, value in model.card.items() if key != "results"} | {
        "threshold": reached[-1],
        "probability": {key: round(value, 4) for key, value in asdict(specs[best]).items()},
        "froc": froc,
        "calibration": {key: report[key] for key in kept},
    }
    return Study(card, report, rows, scored[best], {name: metrics.froc(one) for name, one in found.items()})


def cross_entropy(rows: Sequence[ScoredFinding], scores: np.ndarray, nodule: float = 1.0) -> float:
    """Return the mean cross-entropy of probabilities; what touches a nodule and does not hit it is left out.

    Args:
        rows: findings.
        scores: their probabilities.
        nodule: how often a finding on a nodule counts.
    """
    counted = [n for n, row in enumerate(rows) if row.on or not row.touches]
    truth = np.array([bool(rows[n].on) for n in counted])
    right = np.clip(np.where(truth, scores[counted], 1 - scores[counted]), 1e-9, 1)
    return float(np.average(-np.log(right), weights=np.where(truth, nodule, 1.0)))


def _unseeing(models: Sequence[Model], scan: Scan, fold: int) -> Model:
    """Return the first model, all of the same branches, whose classifier did not see a scan's patient.

    Raises:
        InputError: there is none, its branches are others, or they were trained on whole scans of the patient.
    """
    first = models[0]
    for model in models:
        if saw(model, "classifier", fold, scan.patient):
            continue
        for part in ("generator", "detector"):
            weights = [one.card["files"][one.card[part]["weights"]] for one in (first, model)]
            if weights[0] != weights[1]:
                raise InputError(
                    f"The {part} of {model.name} is not that of {first.name}, expected the same; "
                    "give models that differ in the classifier alone."
                )
            if saw(model, part, fold, scan.patient) and model.card["training"][part]["data"].get("scans"):
                raise InputError(
                    f"The {part} of {model.name} was trained on the whole scan of {shown(scan.patient)}, expected one "
                    "that was not; train one without it."
                )
        return model
    raise InputError(
        f"Every classifier given was trained on {shown(scan.patient)}, expected one that was not; train and give it."
    )


def saw(model: Model, part: str, fold: int, patient: str | None = None) -> bool:
    """Return whether a network of a model was trained on a fold, and there on a patient.

    Args:
        model: its card says what it was trained on.
        part: "generator", "detector" or "classifier".
        fold: number of the fold.
        patient: of the fold; None asks for the fold.
    """
    recipe = model.card["training"][part]
    return fold in recipe["data"]["train_folds"] and patient not in recipe.get("without", ())


def render(report: dict) -> str:
    """Return the report as Markdown."""
    rates = [*next(iter(report["found"].values()))["sensitivity_at"]]
    rows = [
        [name, interval(one["cpm"]), *(interval(one["sensitivity_at"][rate]) for rate in rates)]
        for name, one in report["found"].items()
    ]
    table = markdown_table(["findings sorted by", "CPM", *(f"at {rate}" for rate in rates)], rows)
    trust = report["reliability"]
    bins = markdown_table(
        ["findings", "mean probability", "fraction that are nodules"],
        [[b["findings"], f"{b['probability']:.2f}", f"{b['nodules']:.2f}"] for b in trust["bins"]],
    )
    keys = {
        "expected_calibration_error": "expected calibration error",
        "slope": "slope",
        "brier": "Brier score",
        "brier_of_a_constant": "Brier score of a constant",
    }
    values = markdown_table(["measure", "value"], [[name, interval(trust[key])] for key, name in keys.items()])
    return "\n".join(
        [
            f"# What {report['model']} finds in whole scans, and how far its probabilities are to be trusted\n",
            f"{report['nodules']} nodules of {MIN_READERS} or more readers, in crops of patients that no network was "
            f"trained on, and what is found falsely in {report['scans']} whole scans, whose patients the classifier "
            "did not see. The other networks saw crops of some of them, but no whole scan. Each probability is by a "
            f"regression on the other patients, with {report['nodules_per_scan']:.2g} nodules a scan, as these scans "
            "have. Sensitivity at false findings a scan, by one regression on all; CPM is the mean of all rates. The "
            f"regression with the lowest cross-entropy on the other patients, {report['regression']}, makes the "
            "model's probabilities.\n",
            table,
            f"Findings of a probability of at least {trust['min_probability']:g}, in bins of equal weight:\n",
            bins,
            values,
            f"{INTERVAL_NOTE.format(**report['bootstrap'])}\n",
        ]
    )


def write(study: Study, out: Path, overwrite: bool = False) -> None:
    """Write findings, report, reliability diagram and FROC curves into a folder.

    Args:
        study: from `run`.
        out: folder to write.
        overwrite: replace an earlier one.

    Raises:
        InputError: the folder holds something that must not be replaced.
    """
    lines = []
    for row, score in zip(study.rows, study.scores, strict=True):
        outcome = "nodule" if row.on else "near a nodule" if row.touches else "false"
        values = asdict(row) | dict(zip("zyx", row.center, strict=True)) | {"outcome": outcome}
        lines.append(values | {"probability": float(score)})
    with atomic_folder(out, overwrite, output_files.PROBABILITY) as folder:
        write_csv(folder / "findings.csv", lines, COLUMNS, decimals=4)
        write_json(folder / "probability.json", study.report)
        (folder / "probability.md").write_text(render(study.report), encoding="utf-8")
        plots.reliability_plot(study.report["reliability"], folder / "reliability.png")
        title = f"{study.report['scans']} scans, {study.report['nodules']} nodules"
        plots.froc_of_scores(study.curves, title, folder / "froc.png")
