"""`lnhg-train crossvalidate`: one method's checkpoints of several folds, each scored on the patients it never saw.

Location given, as in `evaluate`. The fold's own patients decide nothing: give the last checkpoint of a budget fixed
beforehand, and the mask's threshold is the one with the best mean Dice on crops the network was trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from LNHGLib.checksum import file_sha256
from LNHGLib.errors import InputError
from LNHGLib.outline import two_looks

from LNHGTrainingLib import checkpoint, evaluate, evaluate_crops, metrics, nnunet, outputs, summary
from LNHGTrainingLib.calibrate import MASK_THRESHOLDS
from LNHGTrainingLib.data import Labelled, load_crops, patients
from LNHGTrainingLib.evaluate_crops import CropResults, Predict, Selection
from LNHGTrainingLib.sources import predictor_of

PROBABILITIES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
INTENSITIES = (*MASK_THRESHOLDS, 0.3, 0.4, 0.5)
TRAINING_CROPS = 120
PROTOCOL = (
    " Each nodule is scored by the network of the fold that held its patient out; the threshold of each fold was "
    f"chosen on {TRAINING_CROPS} crops of its training patients."
)


@dataclass(frozen=True, eq=False)
class Fold:
    """A checkpoint, the crops it may be scored on, the threshold and the patients of its training crops."""

    predict: Predict
    step: int
    sha256: str
    held_out: tuple[int, ...]
    threshold: float
    trained_on: frozenset[str] = frozenset()
    half_turn: bool = False


def read_folds(
    checkpoints: Sequence[Path], crops: Path, table: Path, device: str = "auto", half_turn: bool = False
) -> list[Fold]:
    """Load the checkpoints and choose their thresholds.

    Args:
        checkpoints: Of the segmenter's training, or folds of nnU-Net's, their held-out folds disjoint.
        crops: HDF5 file that they were trained on.
        table: Its table.
        device: Where to compute.
        half_turn: Draw outlines from two looks, see `LNHGLib.outline`.

    Raises:
        InputError: a checkpoint is none of a segmenter, or two of them hold out the same fold.
    """
    folds = []
    networks = [_network(path, device) for path in checkpoints]  # all, before any of them is worked with
    for path, (predict, step, config) in zip(checkpoints, networks, strict=True):
        data, target = config["data"], config.get("target", "intensity")
        predict = two_looks(predict) if half_turn else predict
        trained = load_crops(crops, table, data["train_folds"], 3)
        some = trained.spread(TRAINING_CROPS)[:TRAINING_CROPS]
        threshold = choose_threshold(predict, some, PROBABILITIES if target == "binary" else INTENSITIES)
        held_out, seen = tuple(data["validation_folds"]), frozenset(patients(trained))
        folds.append(Fold(predict, step, file_sha256(path), held_out, threshold, seen, half_turn))
    _check_disjoint(folds)
    return folds


def _network(path: Path, device: str) -> tuple[Predict, int, dict]:
    if path.suffix == nnunet.SUFFIX:
        return nnunet.load(path, device)
    state = checkpoint.load(path)
    return predictor_of(state, path, device), state["step"], state["config"]


def _check_disjoint(folds: list[Fold]) -> None:
    numbers = [number for fold in folds for number in fold.held_out]
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    if twice:
        raise InputError(f"Fold {twice[0]} is held out by two checkpoints, expected one; give one of each fold.")


def choose_threshold(predict: Predict, crops: Sequence[Labelled], candidates: Sequence[float]) -> float:
    """The threshold of the nodule image with the best mean Dice."""
    scores = np.zeros(len(candidates))
    for crop in crops:
        image = predict(crop.hu)
        masks = (evaluate_crops.center_component(image > threshold) & crop.known for threshold in candidates)
        scores += [metrics.dice(mask, crop.mask) for mask in masks]
    return candidates[int(scores.argmax())]


def run(
    name: str, folds: Sequence[Fold], crops: Path, table: Path, out: Path, options: evaluate.Options, readers: int = 3
) -> dict:
    """Score a method; the returned summary is also in OUT, which `compare` takes.

    Args:
        name: Of the method.
        folds: As from `read_folds`.
        crops: HDF5 file laid out like `luna16_crops.h5`.
        table: CSV laid out like `luna16_crops.csv`.
        out: Folder that must not exist yet unless `options.overwrite`.
        options: Seed, name of the data, overwriting, progress bar.
        readers: Fewest readers of a nodule.
    """
    outputs.check_free(out, options.overwrite)
    parts, scored, leaked = [], set(), set()
    for fold in folds:
        rows = evaluate_crops.select_rows(table, Selection(fold.held_out, readers))
        read = evaluate.progress(evaluate_crops.read_crops(crops, rows), len(rows), "nodule", options)
        parts.append(evaluate_crops.evaluate_crops(read, fold.predict, fold.threshold))
        scored |= {row["patient_id"] for row in rows}
        leaked |= {row["patient_id"] for row in rows} & fold.trained_on
    results = CropResults.joined(parts)
    protocol = evaluate_crops.protocol(readers, half_turn=False) + PROTOCOL
    files = {f"fold {' '.join(map(str, fold.held_out))}": fold.sha256 for fold in folds}
    report = evaluate.head("crops", protocol, {"name": name, "files": files}, options) | {
        "data": evaluate.identity([crops, table], options),
        "patients": len(scored),
        "split": _split(results, folds, len(scored), len(leaked)),
        **summary.crop_figures(results, None, options.seed),
    }
    evaluate.write_crops(results, report, out, options)
    return report


def _split(results: CropResults, folds: Sequence[Fold], scored: int, leaked: int) -> str:
    budgets = ", ".join(
        f"fold {' '.join(map(str, fold.held_out))}: step {fold.step}, threshold {fold.threshold:g}" for fold in folds
    )
    count = len(results.scores) + results.without_reference
    by = f"nodule, {leaked} patients on both sides, which flatters" if leaked else "patient"
    looks = evaluate_crops.TWO_LOOKS if any(fold.half_turn for fold in folds) else ""
    return f"{count} crops of {scored} patients, {len(folds)} folds by {by} ({budgets}), test scans left out.{looks}"
