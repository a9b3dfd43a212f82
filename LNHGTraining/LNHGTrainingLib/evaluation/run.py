"""`lnhg-train evaluate`: score a model on crops or on whole scans and write tables, summary and plots."""

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import LNHGLib
import numpy as np
from LNHGLib.errors import InputError
from LNHGLib.files.atomic import atomic_folder, require_free
from LNHGLib.files.checksum import file_sha256
from LNHGLib.image.volume import Grid, resample
from tqdm import tqdm

from LNHGTrainingLib import output_files
from LNHGTrainingLib.evaluation import crops as evaluate_crops
from LNHGTrainingLib.evaluation import markdown, matching, metrics, plots, scans, summary
from LNHGTrainingLib.evaluation.crops import CropFiles, Predict, Selection
from LNHGTrainingLib.evaluation.scans import Segment

if TYPE_CHECKING:
    import torch
    from LNHGLib.models.folder import Model
    from torch import nn

FROC_THRESHOLD = 0.05
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "SimpleITK")


@dataclass(frozen=True)
class EvaluationOptions:
    """How an evaluation is done and labeled: seed of the bootstrap, name of the data, overwriting, progress bar."""

    seed: int = 0
    data_name: str | None = None
    overwrite: bool = False
    quiet: bool = False


def generator_predictor(generator: "nn.Module", card: dict, second: "nn.Module | None" = None) -> Predict:
    """The generator as a function of a cube at 1 mm, resampled when the model works at another spacing.

    It is the mean of the ensemble that the card asks for, as in the pipeline, with the model's second generator if any.

    Raises:
        InputError: the model's grid depends on the scan's field of view, which a cube does not have.
    """
    from LNHGTrainingLib.training.validate import cube_ensemble

    grid = card["grid"]
    if grid["kind"] != "spacing":
        raise InputError(
            f"Model {card['name']} works on a grid of kind {grid['kind']!r} that depends on the scan's field of view, "
            "expected a fixed spacing for crops; evaluate it with --scans."
        )
    spacing = np.array(grid["spacing_mm"], float)
    predict_cube = cube_ensemble(generator, second, card).predict_mean
    if np.allclose(spacing, 1.0):
        return predict_cube

    def predict(hu: np.ndarray) -> np.ndarray:
        cube = Grid.aligned(hu.shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
        working = Grid.aligned(np.ceil(hu.shape / spacing).astype(int), spacing, ((spacing - 1) / 2)[::-1])
        return resample(predict_cube(resample(hu, cube, working)), working, cube, fill=0.0)

    return predict


def model_predictor(model: "Model", where: "torch.device") -> Predict:
    """As `generator_predictor`, of a model's generators."""
    return generator_predictor(model.generator(where), model.card, model.second_generator(where))


def pipeline_segmenter(model: "Model", device: str, threshold: float) -> Segment:
    """The whole pipeline at a threshold."""
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
        InputError: the arguments or the files do not fit.
    """
    require_free(out, options.overwrite, output_files.EVALUATION)
    rows = evaluate_crops.select_rows(files.table, selection)
    read = evaluate_crops.read_crops(files.crops, rows)
    shown = progress(read, len(rows), "nodule", options)
    generator = card["generator"]
    results = evaluate_crops.evaluate_crops(shown, predict, generator["threshold"], generator.get("trim", False))
    protocol = evaluate_crops.protocol(selection.min_readers) + evaluate_crops.inference_text(card)
    report = head("crops", protocol, card, options) | {
        "data": identity(files, options),
        "patients": len({row["patient_id"] for row in rows}),
        "split": _crop_split(card, rows, selection),
        **summary.crop_metrics(results, generator["threshold"], options.seed),
    }
    write_crops(results, report, out, options)
    return report


def write_crops(results: evaluate_crops.CropResults, report: dict, out: Path, options: EvaluationOptions) -> None:
    """Write tables, summary and plots of an evaluation on crops."""
    with atomic_folder(out, options.overwrite, output_files.EVALUATION) as folder:
        columns = [field.name for field in fields(evaluate_crops.CropScore)]
        output_files.write_table(evaluate_crops.rows_of(results), columns, folder / "nodules.csv")
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
        InputError: the arguments or the files do not fit.
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
    with atomic_folder(out, options.overwrite, output_files.EVALUATION) as temporary:
        _write_scans(results, report, temporary)
    return report


def _write_scans(results: scans.ScanResults, report: dict, folder: Path) -> None:
    nodules, findings = scans.rows_of(results)
    output_files.write_table(nodules, [f.name for f in fields(scans.ScanNodule)], folder / "nodules.csv")
    output_files.write_table(findings, [f.name for f in fields(scans.ScanFinding)], folder / "findings.csv")
    counted = [nodule for nodule in results.nodules if nodule.counts]
    names = ["froc.png", "dice_vs_diameter.png", "bland_altman.png"] if counted else []
    _write_report(report, names, folder)
    if not counted:
        return
    curves = {rule: metrics.froc(scans.detections(results, rule)) for rule in scans.RULES}
    plots.froc_plot(curves, report["operating_point"], folder / "froc.png")
    plots.dice_vs_diameter(counted, folder / "dice_vs_diameter.png")
    plots.bland_altman(counted, folder / "bland_altman.png")


def progress(items: Iterable, total: int, unit: str, options: EvaluationOptions) -> Iterable:
    """The items, with a progress bar where a person watches."""
    return tqdm(items, total=total, unit=unit, disable=options.quiet or None)


def _write_report(report: dict, pictures: list[str], folder: Path) -> None:
    output_files.write_json(report, folder / "summary.json")
    links = "".join(f"\n![{Path(name).stem.replace('_', ' ')}]({name})\n" for name in pictures)
    (folder / "summary.md").write_text(markdown.render(report) + links, encoding="utf-8")


def head(kind: str, protocol: str, card: dict, options: EvaluationOptions) -> dict:
    """The part of a summary that says what was measured, how, and with what."""
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
    """Name of the data and SHA-256 of its files."""
    files = {path.resolve().name: file_sha256(path) for path in paths if path.is_file()}
    return {"name": options.data_name or paths[0].resolve().stem, "files": files}


def _crop_split(card: dict, rows: list[dict[str, str]], selection: Selection) -> str:
    patients = {row["patient_id"] for row in rows}
    folds = "all folds" if selection.folds is None else f"folds {' '.join(map(str, selection.folds))}"
    limit = f", the first {selection.limit} crops" if selection.limit else ""
    tests = "included" if selection.scan_test else "left out"
    return (
        f"{len(rows)} crops of {len(patients)} patients, {folds} by patient{limit}, nodules of the test scans {tests}. "
        f"{_training_split(card, patients)}{_chosen_on(card, rows)}"
    )


def _chosen_on(card: dict, rows: list[dict[str, str]]) -> str:
    """Says so when these folds picked the checkpoint, because the figures then flatter the model a little."""
    chose = set(card.get("training", {}).get("generator", {}).get("data", {}).get("validation_folds", []))
    shared = sorted(chose & {int(row["fold"]) for row in rows if row.get("fold")})
    if not shared:
        return ""
    return f" Fold {' '.join(map(str, shared))} also chose the checkpoint (validation): this is no independent test."


def _training_split(card: dict, patients: set[str]) -> str:
    """Whether the model has seen these patients, as far as its card tells (register U5)."""
    trained = set(card.get("training", {}).get("train_patients", []))
    if not trained:
        return "The model card does not list the patients it was trained on."
    shared = len(patients & trained)
    if shared:
        return f"Beware: {shared} of them are among the {len(trained)} patients the model was trained on."
    return f"None of them is among the {len(trained)} patients the model was trained on."
