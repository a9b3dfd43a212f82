"""Make scores probabilities: a logistic regression over the scores of all parts and the size, on whole scans.

Fitted on findings in scans, by networks that did not see their patients. The regression is judged on patients that it
was not fitted on: each patient's findings get their probability from a regression on the others'.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from LNHGLib.errors import InputError
from LNHGLib.files.atomic import atomic_folder
from LNHGLib.files.text import markdown_table, write_csv, write_json
from LNHGLib.models.card import ProbabilitySpec
from LNHGLib.models.folder import Model
from LNHGLib.segmentation.calibration import logit, probability
from scipy.optimize import minimize
from tqdm import tqdm

from LNHGTrainingLib import output_files
from LNHGTrainingLib.data.scans import Scan, read_scans, scan_folds
from LNHGTrainingLib.evaluation import metrics, plots
from LNHGTrainingLib.evaluation.markdown import INTERVAL_NOTE, interval
from LNHGTrainingLib.evaluation.matching import MIN_READERS
from LNHGTrainingLib.evaluation.summary import to_rounded_json
from LNHGTrainingLib.release.scan_findings import ScoredFinding, detections, score_scan

PARTS = ("segmenter", "detector", "classifier")
RIDGE = 0.1
"""Weight of the squared coefficients beside the summed cross-entropy: few nodules must not drive one to infinity."""
COLUMNS = ("scan", "z", "y", "x", "outcome", "provenance", "diameter_mm", *PARTS, "probability")
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
    total, last = int(np.sum(nodules)), {}
    for threshold, sensitivity, false in zip(curve.thresholds, curve.sensitivity, curve.false_per_scan, strict=True):
        if np.isfinite(threshold):  # where two scores are one to four digits, the row with both holds
            last[float(np.floor(threshold * 1e4) / 1e4)] = round(float(sensitivity) * total), round(float(false), 3)
    return {
        "thresholds": list(last),
        "found": [found for found, _ in last.values()],
        "false_per_scan": [false for _, false in last.values()],
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


@dataclass(frozen=True, eq=False)
class Study:
    """What a calibration gave.

    Attributes:
        card: the model's, with `probability`, `froc`, `threshold` and `calibration`.
        report: JSON-ready.
        rows: all findings.
        scores: their held-out probabilities.
        curves: FROC curves by the score's name.
    """

    card: dict
    report: dict
    rows: list[ScoredFinding]
    scores: np.ndarray
    curves: dict[str, metrics.Froc]


def run(
    model: Model, held_out: Sequence[Model], data: Path, allowed: float, seed: int, device: str | torch.device
) -> Study:
    """Let each scan be searched by a model that did not see its patient, and fit the regression on what is found.

    Args:
        model: its card gets the regression.
        held_out: models like it, each trained without some patients.
        data: folder with `crops/` and `scans/`, as the models' cards name them.
        allowed: false findings per scan at the card's threshold.
        seed: of the bootstrap.
        device: where to compute.

    Raises:
        InputError: a scan's patient was seen by all models, or there is no scan.
    """
    files = model.card["training"]["classifier"]["data"]
    table = data / files["table"]
    folds = scan_folds(table)
    scans = list(read_scans(data / files["scans"], table, sorted(set(folds.values()))))
    if not scans:
        raise InputError(
            f"{data / files['scans']} holds no scan, expected some with readers' outlines; give their folder."
        )
    unseeing = [_unseeing(held_out, scan, folds[scan.patient]) for scan in scans]
    detect = not any(saw(one, "detector", scan, folds[scan.patient]) for one, scan in zip(unseeing, scans, strict=True))
    parts = PARTS if detect else tuple(part for part in PARTS if part != "detector")
    searched = zip(tqdm(scans, unit="scan", disable=None), unseeing, strict=True)
    rows = [row for scan, one in searched for row in score_scan(scan, one, device, detect)]
    return _study(model, rows, scans, parts, allowed, seed)


def _study(
    model: Model, rows: list[ScoredFinding], scans: Sequence[Scan], parts: Sequence[str], allowed: float, seed: int
) -> Study:
    floor, patients = model.spec.fusion.floor, [scan.patient for scan in scans]
    known = [scan.name for scan in scans], [sum(n.readers >= MIN_READERS for n in scan.nodules) for scan in scans]
    scores = held_out_probabilities(rows, floor, parts)
    own = "all parts and the size"
    rankings = {
        own: scores,
        "without the classifier": held_out_probabilities(rows, floor, [p for p in parts if p != "classifier"]),
        "the classifier alone": np.array([row.classifier or 0.0 for row in rows]),
        "the segmenter alone": np.array([row.segmenter or 0.0 for row in rows]),
    }
    found = {name: detections(rows, ranking, *known) for name, ranking in rankings.items()}
    rests_on = f"{len(scans)} scans, each by networks that did not see its patient"
    froc = froc_part(rows, scores, *known, rests_on)
    reached = [t for t, rate in zip(froc["thresholds"], froc["false_per_scan"], strict=True) if rate <= allowed]
    if not reached:
        raise InputError(f"Not even the best finding comes at {allowed} false findings a scan; allow more.")
    spec, total = fit(rows, floor, parts), int(sum(known[1]))
    report = to_rounded_json(
        {
            "schema": 1,
            "kind": "probability",
            "model": model.name,
            "scans": len(scans),
            "patients": len(set(patients)),
            "nodules": total,
            "candidates": len(rows),
            "parts": list(parts),
            "bootstrap": {"unit": "patient", "samples": metrics.BOOTSTRAP_SAMPLES, "seed": seed},
            "threshold": reached[-1],
            "found": {name: metrics.detection_metrics(one, patients, seed) for name, one in found.items()},
            "reliability": reliability(rows, scores, seed),
        }
    )
    card = {key: value for key, value in model.card.items() if key != "results"} | {
        "threshold": reached[-1],
        "probability": {key: round(value, 4) for key, value in asdict(spec).items()},
        "froc": froc,
        "calibration": {key: report[key] for key in ("scans", "nodules", "candidates", "parts", "reliability")},
    }
    return Study(card, report, rows, scores, {name: metrics.froc(one) for name, one in found.items()})


def _unseeing(models: Sequence[Model], scan: Scan, fold: int) -> Model:
    """Return the first model whose generator and classifier did not see a scan's patient."""
    for model in models:
        if not any(saw(model, part, scan, fold) for part in ("generator", "classifier")):
            return model
    raise InputError(f"Every model given was trained on {scan.patient}, expected one that was not; train and give it.")


def saw(model: Model, part: str, scan: Scan, fold: int) -> bool:
    """Return whether a network of a model was trained on a scan's patient.

    Args:
        model: its card says what it was trained on.
        part: "generator", "detector" or "classifier".
        scan: of the patient.
        fold: of the patient.
    """
    recipe = model.card["training"][part]
    return fold in recipe["data"]["train_folds"] and scan.patient not in recipe.get("without", ())


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
            f"{report['candidates']} findings in {report['scans']} scans of {report['patients']} patients with "
            f"{report['nodules']} nodules of {MIN_READERS} or more readers, each scan by networks that did not see its "
            "patient, and each probability by a regression on the other patients. Sensitivity at false findings a "
            "scan; CPM is the mean of all rates.\n",
            table,
            f"Findings of a probability of at least {trust['min_probability']:g}, in bins of equally many:\n",
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
    with atomic_folder(out, overwrite, output_files.PROBABILITY) as folder:
        write_csv(folder / "findings.csv", _lines(study.rows, study.scores), COLUMNS, decimals=4)
        write_json(folder / "probability.json", study.report)
        (folder / "probability.md").write_text(render(study.report), encoding="utf-8")
        plots.reliability_plot(study.report["reliability"], folder / "reliability.png")
        title = f"{study.report['scans']} scans, {study.report['nodules']} nodules"
        plots.froc_of_scores(study.curves, title, folder / "froc.png")


def _lines(rows: Iterable[ScoredFinding], scores: np.ndarray) -> list[dict]:
    lines = []
    for row, score in zip(rows, scores, strict=True):
        outcome = "nodule" if row.on else "near a nodule" if row.touches else "false"
        values = asdict(row) | dict(zip("zyx", row.center, strict=True)) | {"outcome": outcome}
        lines.append(values | {"probability": float(score)})
    return lines
