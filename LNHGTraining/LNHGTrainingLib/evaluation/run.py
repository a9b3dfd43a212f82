"""`lnhg-train evaluate`: score a model on crops or on whole scans and write tables, summary and plots."""

import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import LNHGLib
import numpy as np
from LNHGLib.errors import InputError, quoted
from LNHGLib.files.atomic import atomic_folder, require_free
from LNHGLib.files.checksum import file_sha256
from LNHGLib.files.text import write_csv, write_json
from LNHGLib.image.volume import Grid, resample
from LNHGLib.models.card import with_words_of_today
from tqdm import tqdm

from LNHGTrainingLib import output_files
from LNHGTrainingLib.evaluation import crops as evaluate_crops
from LNHGTrainingLib.evaluation import markdown, matching, metrics, plots, scans, summary
from LNHGTrainingLib.evaluation.crops import CropFiles, Predict, Selection
from LNHGTrainingLib.evaluation.scans import Segment

if TYPE_CHECKING:
    import torch
    from LNHGLib.models.folder import Model
    from LNHGLib.segmentation.ensemble import Ensemble

FROC_THRESHOLD = 0.05
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "SimpleITK")


@dataclass(frozen=True)
class EvaluationOptions:
    """How an evaluation is done and labeled.

    Attributes:
        seed: Of the bootstrap.
        data_name: How the reports call the data; None takes the name of the first file.
        overwrite: Replace an earlier evaluation.
        quiet: Show no progress bar.
    """

    seed: int = 0
    data_name: str | None = None
    overwrite: bool = False
    quiet: bool = False


def cube_predictor(ensemble: "Ensemble", card: dict) -> Predict:
    """Return an ensemble as a function of a cube at 1 mm: what all its members make of the field around the middle.

    The cube is resampled when the model works at another spacing.

    Args:
        ensemble: The model's.
        card: Its `name`, `grid` and `window_hu`.

    Raises:
        InputError: The model's grid depends on the scan's field of view, which a cube does not have.
    """
    from LNHGLib.segmentation.preprocessing import normalize

    grid = card["grid"]
    if grid["kind"] != "spacing":
        raise InputError(
            f"Model {card['name']} works on a grid of kind {quoted(grid['kind'])} that depends on the scan's field of "
            "view, expected a fixed spacing for crops; evaluate it with --scans."
        )
    spacing = np.array(grid["spacing_mm"], float)

    def predict(hu: np.ndarray) -> np.ndarray:
        if np.allclose(spacing, 1.0):
            return ensemble.predict_center(normalize(hu, card["window_hu"]))
        cube = Grid.aligned(hu.shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
        working = Grid.aligned(np.ceil(hu.shape / spacing).astype(int), spacing, ((spacing - 1) / 2)[::-1])
        image = ensemble.predict_center(normalize(resample(hu, cube, working), card["window_hu"]))
        return resample(image, working, cube, fill=0.0)

    return predict


def model_predictor(model: "Model", device: "torch.device") -> Predict:
    """Return a model's generators as a function of a cube, as `cube_predictor` does.

    Args:
        model: The model.
        device: Where to compute.
    """
    from LNHGLib.segmentation.pipeline import load_ensemble
    from LNHGLib.segmentation.progress import Monitor

    return cube_predictor(load_ensemble(model, device, Monitor()), model.card)


def pipeline_segmenter(model: "Model", device: str, threshold: float) -> Segment:
    """Return the whole pipeline at a threshold as a function of a volume.

    Args:
        model: The model.
        device: Where to compute.
        threshold: Lowest score of a finding that is kept.
    """
    from LNHGLib.segmentation import pipeline

    return lambda volume: pipeline.segment(volume, model, device=device, threshold=threshold)


def run_crops(
    card: dict, predict: Predict, files: CropFiles, out: Path, selection: Selection, options: EvaluationOptions
) -> dict:
    """Score the generator on crops with the location given; the returned summary is also in OUT.

    Args:
        card: The model's card.
        predict: The model's generator as a function.
        files: Crops and their table.
        out: Folder that must not exist yet unless `options.overwrite`.
        selection: Which nodules.
        options: Seed, name of the data, overwriting, progress bar.

    Raises:
        InputError: The arguments or the files do not fit.
    """
    require_free(out, options.overwrite, output_files.EVALUATION)
    rows = evaluate_crops.select_rows(files.table, selection)
    crops = progress(evaluate_crops.read_crops(files.crops, rows), len(rows), "nodule", options)
    generator = with_words_of_today(card["generator"])
    used = [generator.get(key) for key in ("threshold", "prune_attachments", "faint_below")]
    results = evaluate_crops.evaluate_crops(crops, predict, *used)
    patients = {row["patient_id"] for row in rows}
    folds = "all folds" if selection.folds is None else f"folds {' '.join(map(str, selection.folds))}"
    limit = f", the first {selection.limit} crops" if selection.limit else ""
    tests = "included" if selection.scan_test else "left out"
    split = (
        f"{len(rows)} crops of {len(patients)} patients, {folds} by patient{limit}, nodules of the test scans {tests}. "
        f"{_training_split(card, patients)}"
    )
    chose = set(card.get("training", {}).get("generator", {}).get("data", {}).get("validation_folds", []))
    shared = sorted(chose & {int(row["fold"]) for row in rows if row.get("fold")})
    if shared:  # the metrics then flatter the model a little
        fold = " ".join(map(str, shared))
        split += f" Fold {fold} also chose the checkpoint (validation): this is no independent test."
    protocol = evaluate_crops.protocol(selection.min_readers) + evaluate_crops.inference_text(card)
    report = head("crops", protocol, card, options) | {
        "data": identity(files, options),
        "patients": len(patients),
        "split": split,
        **summary.crop_metrics(results, generator["threshold"], options.seed),
    }
    write_crops(results, report, out, options)
    return report


def write_crops(results: evaluate_crops.CropResults, report: dict, out: Path, options: EvaluationOptions) -> None:
    """Write tables, summary and plots of an evaluation on crops.

    Args:
        results: Scores and pictures.
        report: The content of `summary.json`.
        out: Folder to write.
        options: Whether it may be replaced.
    """
    with atomic_folder(out, options.overwrite, output_files.EVALUATION) as folder:
        columns = [field.name for field in fields(evaluate_crops.CropScore)]
        write_csv(folder / "nodules.csv", map(asdict, results.scores), columns, decimals=4)
        _write_report(report, ["dice_vs_diameter.png", "bland_altman.png", "examples.png"], folder)
        plots.dice_vs_diameter(results.scores, folder / "dice_vs_diameter.png")
        plots.bland_altman(results.scores, folder / "bland_altman.png")
        plots.gallery(results.worst, results.best, folder / "examples.png")


def run_scans(
    card: dict, segment: Segment, folder: Path, out: Path, limit: int | None, options: EvaluationOptions
) -> dict:
    """Score the whole pipeline on a folder of cases; the returned summary is also in OUT.

    Args:
        card: The model's card, whose `threshold` decides what is found.
        segment: The pipeline at a lower threshold, for the FROC curve.
        folder: Of the cases.
        out: Folder that must not exist yet unless `options.overwrite`.
        limit: At most so many cases.
        options: Seed, name of the data, overwriting, progress bar.

    Raises:
        InputError: The arguments or the files do not fit.
    """
    require_free(out, options.overwrite, output_files.EVALUATION)
    paths = scans.find_cases(folder, limit)
    cases = (scans.read_case(path) for path in progress(paths, len(paths), "scan", options))
    results = scans.evaluate_scans(cases, segment, card["threshold"])
    patients = {case.patient for case in results.cases}
    report = head("scans", matching.PROTOCOL, card, options) | {
        "data": identity([folder], options),
        "patients": len(patients),
        "split": f"{len(paths)} scans of {len(patients)} patients. {_training_split(card, patients)}",
        **summary.scan_metrics(results, options.seed),
    }
    counted = [nodule for nodule in results.nodules if nodule.counts]
    pictures = ["froc.png", "dice_vs_diameter.png", "bland_altman.png"] if counted else []
    with atomic_folder(out, options.overwrite, output_files.EVALUATION) as new:
        for name, rows, kind in (
            ("nodules.csv", results.nodules, scans.ScanNodule),
            ("findings.csv", results.findings, scans.ScanFinding),
        ):
            write_csv(new / name, map(asdict, rows), [field.name for field in fields(kind)], decimals=4)
        _write_report(report, pictures, new)
        if counted:
            curves = {rule: metrics.froc(scans.detections(results, rule)) for rule in scans.RULES}
            plots.froc_plot(curves, report["operating_point"], new / "froc.png")
            plots.dice_vs_diameter(counted, new / "dice_vs_diameter.png")
            plots.bland_altman(counted, new / "bland_altman.png")
    return report


def progress(items: Iterable, total: int, unit: str, options: EvaluationOptions) -> Iterable:
    """Return the items, with a progress bar where a person watches.

    Args:
        items: Anything.
        total: How many there are.
        unit: What one of them is called.
        options: Whether a bar may be shown.
    """
    return tqdm(items, total=total, unit=unit, disable=options.quiet or None)


def _write_report(report: dict, pictures: list[str], folder: Path) -> None:
    write_json(folder / "summary.json", report)
    links = "".join(f"\n![{Path(name).stem.replace('_', ' ')}]({name})\n" for name in pictures)
    (folder / "summary.md").write_text(markdown.render(report) + links, encoding="utf-8")


def head(kind: str, protocol: str, card: dict, options: EvaluationOptions) -> dict:
    """Return the part of a summary that says what was measured, how, and with what.

    Args:
        kind: "crops" or "scans".
        protocol: How they are scored.
        card: With the model's `name` and the SHA-256 of its `files`.
        options: Seed of the bootstrap.
    """
    versions = {name: version(name) for name in PACKAGES}
    return {
        "schema": 2,
        "kind": kind,
        "protocol": protocol,
        "model": {"name": card["name"], "sha256": card["files"]},
        "versions": {"lnhg": LNHGLib.__version__, "python": platform.python_version()} | versions,
        "bootstrap": {"unit": "patient", "samples": metrics.BOOTSTRAP_SAMPLES, "seed": options.seed},
    }


def identity(paths: Sequence[Path], options: EvaluationOptions) -> dict:
    """Return name of the data and SHA-256 of its files.

    Args:
        paths: Of the data; the first one stands for the name where `options` has none.
        options: Name of the data.
    """
    files = {path.resolve().name: file_sha256(path) for path in paths if path.is_file()}
    return {"name": options.data_name or paths[0].resolve().stem, "files": files}


def _training_split(card: dict, patients: set[str]) -> str:
    """Return whether the model has seen these patients, as far as its card tells (register U5)."""
    trained = set(card.get("training", {}).get("train_patients", []))
    if not trained:
        return "The model card does not list the patients it was trained on."
    shared = len(patients & trained)
    if shared:
        return f"Beware: {shared} of them are among the {len(trained)} patients the model was trained on."
    return f"None of them is among the {len(trained)} patients the model was trained on."
