"""`lnhg-train crossvalidate`: one method's checkpoints of several folds, each scored on the patients it never saw.

Location given, as in `evaluate`. The fold's own patients decide nothing: give the last checkpoint of a budget fixed
beforehand, and the mask's threshold is the one with the best mean Dice on the other folds' nodules, each as predicted
by the network that never saw it. Of a single fold, it is the best on crops the network was trained on.
"""

import hashlib
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from LNHGLib.errors import InputError
from LNHGLib.files.atomic import require_free
from LNHGLib.files.checksum import file_sha256

from LNHGTrainingLib import output_files
from LNHGTrainingLib.baselines import k_means
from LNHGTrainingLib.data.crops import LabeledVolume, load_crops, patients
from LNHGTrainingLib.evaluation import crops as evaluate_crops
from LNHGTrainingLib.evaluation import metrics, summary
from LNHGTrainingLib.evaluation import run as evaluate
from LNHGTrainingLib.evaluation.crops import CropFiles, CropResults, Predict, Selection
from LNHGTrainingLib.evaluation.predictors import checkpoint_predictor, read_checkpoint
from LNHGTrainingLib.evaluation.run import EvaluationOptions
from LNHGTrainingLib.release.calibrate import MASK_THRESHOLDS

PROBABILITIES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
INTENSITIES = (*MASK_THRESHOLDS, 0.3, 0.4, 0.5)
TRAINING_CROPS = 120
PROTOCOL = " Each nodule is scored by the network of the fold that held its patient out; {}."
ON_OTHERS = "the threshold of each fold was chosen on the nodules of the other folds, scored likewise"
ON_TRAINING = f"the threshold was chosen on {TRAINING_CROPS} crops of its training patients"
BY_K_MEANS = (
    "each slice is cut by K-means, as in document 001, and a nodule is hit where its middle slice or a neighbor of it "
    f"has more than {k_means.POSITIVE_PX} pixels marked and more than {k_means.HIT_PX} of them inside the reference"
)


@dataclass(frozen=True)
class InferenceOptions:
    """How outlines are made of a network's predictions.

    Attributes:
        rotate_180: From the mean with what is predicted of the cube rotated by 180 degrees, see `ensemble`.
        prune: Without the vessels and walls that they ran along, see `attachments`.
        k_means: As document 001 does, from two clusters of each slice's values, see `k_means`.
    """

    rotate_180: bool = False
    prune: bool = False
    k_means: bool = False

    @property
    def text(self) -> str:
        """What a report says of it."""
        return evaluate_crops.inference_text(
            {"generator": {"rotate_180": self.rotate_180, "prune_attachments": self.prune}}
        )


SINGLE_PREDICTION = InferenceOptions()


@dataclass(frozen=True, eq=False)
class Fold:
    """A checkpoint and what it is scored by.

    Attributes:
        predict: The network as a function of a cube of HU.
        step: Of its training.
        sha256: Of the checkpoint.
        held_out: Folds that it may be scored on.
        thresholds: Of the nodule image, to choose from.
        trained_on: Patients of its training.
        inference: How outlines are made of what it predicts.
    """

    predict: Predict
    step: int
    sha256: str
    held_out: tuple[int, ...]
    thresholds: tuple[float, ...]
    trained_on: frozenset[str] = frozenset()
    inference: InferenceOptions = SINGLE_PREDICTION

    @property
    def name(self) -> str:
        """Its held-out folds in words."""
        return f"fold {' '.join(map(str, self.held_out))}"


def read_folds(
    checkpoints: Sequence[Path],
    files: CropFiles,
    device: str = "auto",
    inference: InferenceOptions = SINGLE_PREDICTION,
) -> list[Fold]:
    """Load the checkpoints; the threshold of a single one is chosen here.

    Args:
        checkpoints: Of the segmenter's training, or folds of nnU-Net's, their held-out folds disjoint.
        files: The crops that they were trained on, with their table.
        device: Where to compute.
        inference: How outlines are made of what the networks predict.

    Raises:
        InputError: A checkpoint is none of a segmenter, two of them hold out the same fold, or their targets differ.
    """
    networks = []
    for path in checkpoints:  # all, before any of them is worked with
        state = read_checkpoint(path)
        predict = checkpoint_predictor(state, path, device, inference.rotate_180)
        networks.append((predict, state["step"], state["config"]))
    targets = sorted({config.get("target", "intensity") for _, _, config in networks})
    if len(targets) > 1:
        raise InputError(
            f"The checkpoints were trained for the targets {' and '.join(targets)}, expected one target; "
            "give the folds of one method."
        )
    folds = []
    for path, (predict, step, config) in zip(checkpoints, networks, strict=True):
        data = config["data"]
        trained = load_crops(*files, data["train_folds"], 3)
        thresholds = PROBABILITIES if targets == ["binary"] else INTENSITIES
        if inference.k_means:
            predict, thresholds = cut_by_k_means(predict), (0.5,)
        elif len(checkpoints) == 1:
            some = trained.spread(TRAINING_CROPS)[:TRAINING_CROPS]
            thresholds = (thresholds[dice_sums(predict, some, thresholds, inference.prune).argmax()],)
        held_out = tuple(data["validation_folds"])
        trained_on = frozenset(patients(trained))
        folds.append(Fold(predict, step, file_sha256(path), held_out, thresholds, trained_on, inference))
    numbers = [number for fold in folds for number in fold.held_out]
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    if twice:
        raise InputError(f"Fold {twice[0]} is held out by two checkpoints, expected one; give one of each fold.")
    return folds


def dice_sums(
    predict: Predict, crops: Iterable[LabeledVolume], thresholds: Sequence[float], prune: bool = False
) -> np.ndarray:
    """Return the sum of the crops' Dice at each threshold of the nodule image: float (thresholds,).

    Args:
        predict: The network as a function of a cube of HU.
        crops: With a nodule at their middle.
        thresholds: Of the nodule image.
        prune: Prune the outlines.
    """
    sums = np.zeros(len(thresholds))
    for crop in crops:
        image = predict(crop.hu)
        masks = (evaluate_crops.central_nodule(image, threshold, prune) & crop.known for threshold in thresholds)
        sums += [metrics.dice(mask, crop.mask) for mask in masks]
    return sums


def run(
    name: str, folds: Sequence[Fold], files: CropFiles, out: Path, options: EvaluationOptions, readers: int = 3
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
    parts, scored, leaked, hits = [], set(), set(), []
    with tempfile.TemporaryDirectory() as cache:
        folds = [replace(fold, predict=_cached(fold.predict, Path(cache), n)) for n, fold in enumerate(folds)]
        thresholds = choose_thresholds(folds, files, readers, options)
        for fold, threshold in zip(folds, thresholds, strict=True):
            rows = evaluate_crops.select_rows(files.table, Selection(fold.held_out, readers))
            crops = evaluate.progress(evaluate_crops.read_crops(files.crops, rows), len(rows), "nodule", options)
            parts.append(evaluate_crops.evaluate_crops(crops, fold.predict, threshold, fold.inference.prune))
            if fold.inference.k_means:
                read = evaluate_crops.read_crops(files.crops, rows)
                hits += [(c.row["patient_id"], k_means.hits(fold.predict(c.hu) > threshold, c.reference)) for c in read]
            scored |= {row["patient_id"] for row in rows}
            leaked |= {row["patient_id"] for row in rows} & fold.trained_on
    results = CropResults.joined(parts)
    cut = BY_K_MEANS if hits else ON_TRAINING if len(folds) == 1 else ON_OTHERS
    protocol = evaluate_crops.protocol(readers) + PROTOCOL.format(cut)
    weights = {fold.name: fold.sha256 for fold in folds}
    budgets = ", ".join(
        f"{fold.name}: step {fold.step}, threshold {threshold:g}"
        for fold, threshold in zip(folds, thresholds, strict=True)
    )
    split_by = f"nodule, {len(leaked)} patients on both sides, which flatters" if leaked else "patient"
    report = evaluate.head("crops", protocol, {"name": name, "files": weights}, options) | {
        "data": evaluate.identity(files, options),
        "patients": len(scored),
        "split": (
            f"{len(results.scores) + results.without_reference} crops of {len(scored)} patients, {len(folds)} folds by "
            f"{split_by} ({budgets}), test scans left out.{folds[0].inference.text}"
        ),
        **summary.crop_metrics(results, None, options.seed),
    }
    if hits:
        names, found = zip(*hits, strict=True)
        report["hits_by_slice"] = summary.to_rounded_json(asdict(metrics.mean_interval(found, names, options.seed)))
    evaluate.write_crops(results, report, out, options)
    return report


def choose_thresholds(folds: Sequence[Fold], files: CropFiles, readers: int, options: EvaluationOptions) -> list[float]:
    """Return the threshold of each fold, the best of its own on the nodules of the other folds.

    Args:
        folds: As from `read_folds`.
        files: Crops and their table.
        readers: Fewest readers of a nodule.
        options: Whether a progress bar may be shown.
    """
    if all(len(fold.thresholds) == 1 for fold in folds):
        return [fold.thresholds[0] for fold in folds]
    sums = []
    for fold in folds:
        held_out = load_crops(*files, list(fold.held_out), readers)
        crops = evaluate.progress(held_out, len(held_out), "drawing", options)
        sums.append(dice_sums(fold.predict, crops, fold.thresholds, fold.inference.prune))
    return [fold.thresholds[(sum(sums) - own).argmax()] for fold, own in zip(folds, sums, strict=True)]


def cut_by_k_means(predict: Predict) -> Predict:
    """Return a function that gives 1 where `predict` is in the upper of two clusters of a slice."""
    return lambda hu: k_means.cut_slices(predict(hu)).astype(np.float32)


def _cached(predict: Predict, folder: Path, number: int) -> Predict:
    """Return a function that predicts every cube a single time; its images wait in a folder under the fold's number."""

    def predict_once(hu: np.ndarray) -> np.ndarray:
        file = folder / f"{number}-{hashlib.sha256(np.ascontiguousarray(hu)).hexdigest()}.npy"
        if not file.exists():
            np.save(file, predict(hu))
        return np.load(file)

    return predict_once
