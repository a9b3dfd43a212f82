"""`lnhg-train crossvalidate`: one method's checkpoints of several folds, each scored on the patients it never saw.

Location given, as in `evaluate`. The fold's own patients decide nothing: give the last checkpoint of a budget fixed
beforehand, and the mask's threshold is the one with the best mean Dice on the other folds' nodules, each as drawn by
the network that never saw it. Of a single fold, it is the best on crops the network was trained on.
"""

import hashlib
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from LNHGLib.errors import InputError
from LNHGLib.files.atomic import require_free
from LNHGLib.files.checksum import file_sha256
from LNHGLib.segmentation.ensemble import Ensemble, rotated_180

from LNHGTrainingLib import output_files
from LNHGTrainingLib.baselines import nnunet
from LNHGTrainingLib.data.crops import LabeledVolume, load_crops, patients
from LNHGTrainingLib.evaluation import crops as evaluate_crops
from LNHGTrainingLib.evaluation import metrics, summary
from LNHGTrainingLib.evaluation import run as evaluate
from LNHGTrainingLib.evaluation.crops import CropFiles, CropResults, Predict, Selection
from LNHGTrainingLib.evaluation.predictors import checkpoint_predictor
from LNHGTrainingLib.release.calibrate import MASK_THRESHOLDS
from LNHGTrainingLib.training import checkpoint

PROBABILITIES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
INTENSITIES = (*MASK_THRESHOLDS, 0.3, 0.4, 0.5)
TRAINING_CROPS = 120
PROTOCOL = (
    " Each nodule is scored by the network of the fold that held its patient out; the threshold of each fold was "
    "chosen on {}."
)
ON_OTHERS = "the nodules of the other folds, scored likewise"
ON_TRAINING = f"{TRAINING_CROPS} crops of its training patients"


@dataclass(frozen=True)
class InferenceOptions:
    """How outlines are drawn: from two looks (see `ensemble`), and trimmed (see `attachments`)."""

    half_turn: bool = False
    trim: bool = False

    @property
    def text(self) -> str:
        """What a report says of it."""
        return evaluate_crops.inference_text({"generator": {"half_turn": self.half_turn, "trim": self.trim}})


ONE_LOOK = InferenceOptions()


@dataclass(frozen=True, eq=False)
class Fold:
    """A checkpoint, the crops it may be scored on, the thresholds to choose from and the patients of its training."""

    predict: Predict
    step: int
    sha256: str
    held_out: tuple[int, ...]
    thresholds: tuple[float, ...]
    trained_on: frozenset[str] = frozenset()
    how: InferenceOptions = ONE_LOOK


def read_folds(
    checkpoints: Sequence[Path], files: CropFiles, device: str = "auto", how: InferenceOptions = ONE_LOOK
) -> list[Fold]:
    """Load the checkpoints; the threshold of a single one is chosen here.

    Args:
        checkpoints: Of the segmenter's training, or folds of nnU-Net's, their held-out folds disjoint.
        files: The crops that they were trained on, with their table.
        device: Where to compute.
        how: How outlines are drawn.

    Raises:
        InputError: a checkpoint is none of a segmenter, two of them hold out the same fold, or their targets differ.
    """
    folds = []
    networks = [_network(path, device) for path in checkpoints]  # all, before any of them is worked with
    target = _one_target([config for _, _, config in networks])
    for path, (predict, step, config) in zip(checkpoints, networks, strict=True):
        data = config["data"]
        predict = Ensemble(predict, [rotated_180(predict)]).predict_mean if how.half_turn else predict
        trained = load_crops(*files, data["train_folds"], 3)
        thresholds = PROBABILITIES if target == "binary" else INTENSITIES
        if len(checkpoints) == 1:
            some = trained.spread(TRAINING_CROPS)[:TRAINING_CROPS]
            thresholds = (thresholds[dice_sums(predict, some, thresholds, how.trim).argmax()],)
        held_out, seen = tuple(data["validation_folds"]), frozenset(patients(trained))
        folds.append(Fold(predict, step, file_sha256(path), held_out, thresholds, seen, how))
    _check_disjoint(folds)
    return folds


def _network(path: Path, device: str) -> tuple[Predict, int, dict]:
    if path.suffix == nnunet.SUFFIX:
        return nnunet.load(path, device)
    state = checkpoint.load(path)
    return checkpoint_predictor(state, path, device), state["step"], state["config"]


def _one_target(configs: Iterable[dict]) -> str:
    """What all the networks were trained to draw: "binary" or "intensity"."""
    targets = sorted({config.get("target", "intensity") for config in configs})
    if len(targets) > 1:
        raise InputError(
            f"The checkpoints were trained for the targets {' and '.join(targets)}, expected one target; "
            "give the folds of one method."
        )
    return targets[0]


def _check_disjoint(folds: list[Fold]) -> None:
    numbers = [number for fold in folds for number in fold.held_out]
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    if twice:
        raise InputError(f"Fold {twice[0]} is held out by two checkpoints, expected one; give one of each fold.")


def dice_sums(
    predict: Predict, crops: Iterable[LabeledVolume], thresholds: Sequence[float], trim: bool = False
) -> np.ndarray:
    """Sum of the crops' Dice at each threshold of the nodule image."""
    sums = np.zeros(len(thresholds))
    for crop in crops:
        image = predict(crop.hu)
        masks = (evaluate_crops.central_nodule(image > threshold, trim) & crop.known for threshold in thresholds)
        sums += [metrics.dice(mask, crop.mask) for mask in masks]
    return sums


def run(
    name: str,
    folds: Sequence[Fold],
    crops: Path,
    table: Path,
    out: Path,
    options: evaluate.EvaluationOptions,
    readers: int = 3,
) -> dict:
    """Score a method; the returned summary is also in OUT, which `compare` takes.

    Args:
        name: Of the method.
        folds: As from `read_folds`.
        files: Crops and their table.
        out: Folder that must not exist yet unless `options.overwrite`.
        options: Seed, name of the data, overwriting, progress bar.
        readers: Fewest readers of a nodule.
    """
    require_free(out, options.overwrite, output_files.EVALUATION)
    parts, scored, leaked = [], set(), set()
    with tempfile.TemporaryDirectory() as folder:
        folds = [replace(fold, predict=_once(fold.predict, Path(folder), number)) for number, fold in enumerate(folds)]
        thresholds = choose_thresholds(folds, files, readers, options)
        for fold, threshold in zip(folds, thresholds, strict=True):
            rows = evaluate_crops.select_rows(files.table, Selection(fold.held_out, readers))
            read = evaluate.progress(evaluate_crops.read_crops(files.crops, rows), len(rows), "nodule", options)
            parts.append(evaluate_crops.evaluate_crops(read, fold.predict, threshold, fold.how.trim))
            scored |= {row["patient_id"] for row in rows}
            leaked |= {row["patient_id"] for row in rows} & fold.trained_on
    results = CropResults.joined(parts)
    chosen_on = ON_TRAINING if len(folds) == 1 else ON_OTHERS
    protocol = evaluate_crops.protocol(readers) + PROTOCOL.format(chosen_on)
    weights = {f"fold {_numbers(fold)}": fold.sha256 for fold in folds}
    report = evaluate.head("crops", protocol, {"name": name, "files": weights}, options) | {
        "data": evaluate.identity(files, options),
        "patients": len(scored),
        "split": _split(results, folds, thresholds, len(scored), len(leaked)),
        **summary.crop_metrics(results, None, options.seed),
    }
    evaluate.write_crops(results, report, out, options)
    return report


def choose_thresholds(
    folds: Sequence[Fold], files: CropFiles, readers: int, options: evaluate.EvaluationOptions
) -> list[float]:
    """The threshold of each fold, the best of its own on the nodules of the other folds."""
    if all(len(fold.thresholds) == 1 for fold in folds):
        return [fold.thresholds[0] for fold in folds]
    sums = []
    for fold in folds:
        held_out = load_crops(*files, list(fold.held_out), readers)
        drawn = evaluate.progress(held_out, len(held_out), "drawing", options)
        sums.append(dice_sums(fold.predict, drawn, fold.thresholds, fold.how.trim))
    return [fold.thresholds[(sum(sums) - own).argmax()] for fold, own in zip(folds, sums, strict=True)]


def _once(predict: Predict, folder: Path, number: int) -> Predict:
    """What draws every cube a single time; images wait on disk."""

    def drawn(hu: np.ndarray) -> np.ndarray:
        file = folder / f"{number}-{hashlib.sha256(np.ascontiguousarray(hu)).hexdigest()}.npy"
        if not file.exists():
            np.save(file, predict(hu))
        return np.load(file)

    return drawn


def _numbers(fold: Fold) -> str:
    return " ".join(map(str, fold.held_out))


def _split(results: CropResults, folds: Sequence[Fold], thresholds: Sequence[float], scored: int, leaked: int) -> str:
    budgets = ", ".join(
        f"fold {_numbers(fold)}: step {fold.step}, threshold {threshold:g}"
        for fold, threshold in zip(folds, thresholds, strict=True)
    )
    count = len(results.scores) + results.without_reference
    by = f"nodule, {leaked} patients on both sides, which flatters" if leaked else "patient"
    how = folds[0].how.text
    return f"{count} crops of {scored} patients, {len(folds)} folds by {by} ({budgets}), test scans left out.{how}"
