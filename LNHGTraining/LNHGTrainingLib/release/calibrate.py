"""Choose a model's thresholds on validation crops: the mask's, the weight of the detector, the lowest score shown.

    lnhg-train calibrate --model MODEL --data ../shared/data

Every network sees each cube once, the generator also the cube rotated by 180 degrees where the card asks for it. Of the
mask's thresholds with about the best mean Dice the one counts whose volumes are least biased; the detector's weight
maximizes the mean sensitivity at 1, 2, 4 and 8 false findings per two lungs; the score threshold is where the false
findings reach the rate asked for. Test scans and training patients take no part.
"""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from LNHGLib.errors import InputError
from LNHGLib.image.volume import Grid
from LNHGLib.models.folder import Model
from LNHGLib.segmentation.ensemble import rescore
from LNHGLib.segmentation.fusion import FusionOptions
from LNHGLib.segmentation.pipeline import PreparedScan, join_branches
from LNHGLib.segmentation.preprocessing import normalize
from LNHGLib.segmentation.tiled_inference import run_detector
from scipy import ndimage

from LNHGTrainingLib.data.crops import CropDataset, LabeledVolume, load_crops
from LNHGTrainingLib.evaluation.attachment import lung_of_cube
from LNHGTrainingLib.evaluation.crops import central_nodule
from LNHGTrainingLib.evaluation.metrics import Froc, dice, froc
from LNHGTrainingLib.training.validate import LUNG_CUBES, cube_detections, cube_ensemble, sensitivities

MASK_THRESHOLDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
EQUAL_DICE = 0.005
"""Thresholds whose mean Dice is less below the best one's count as good as it."""
WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


@dataclass(frozen=True, eq=False)
class CropOutputs:
    """What the networks made of one crop.

    Attributes:
        crop: The crop.
        nodule_image: Of the first generator, in which candidates are found: float32 (z, y, x).
        ensemble_mean: Of all members, by which candidates are scored and outlined: float32 (z, y, x).
        boxes: Of the detector: float (N, 6), rows z, y0, x0, y1, x1, score.
        prepared: The cube with its lung.
    """

    crop: LabeledVolume
    nodule_image: np.ndarray
    ensemble_mean: np.ndarray
    boxes: np.ndarray
    prepared: PreparedScan


def validation_crops(model: Model, folder: Path) -> CropDataset:
    """Return the crops of three or more readers in the folds that the model's training left for validation.

    Args:
        model: Its card names the files and the folds.
        folder: Where `crops/` is.

    Raises:
        InputError: The card does not say, or the grid is not the crops' 1 mm.
    """
    data = model.card.get("training", {}).get("generator", {}).get("data")
    if not data or model.card["grid"].get("spacing_mm") != [1.0, 1.0, 1.0]:
        raise InputError(
            f"The card of {model.name} names no validation folds on a grid of 1 mm, expected both; "
            "calibrate a model that `lnhg-train export` wrote."
        )
    return load_crops(folder / data["crops"], folder / data["table"], data["validation_folds"], 3)


def predict_crops(
    model: Model, crops: Iterable[LabeledVolume], device: str | torch.device = "cpu"
) -> list[CropOutputs]:
    """Run a model's networks on every crop.

    Args:
        model: The model.
        crops: At 1 mm.
        device: Where to compute.
    """
    card, detector = model.card, model.detector(device)
    ensemble = cube_ensemble(model.generator(device), model.second_generator(device), card)
    outputs = []
    for crop in crops:
        grid = Grid.aligned(crop.hu.shape, (1, 1, 1), (0, 0, 0))
        prepared = PreparedScan(grid, normalize(crop.hu, card["window_hu"]), lung_of_cube(crop.hu))
        boxes = run_detector(detector, prepared.ct_norm, prepared.lungs, step=step_of(card))
        image = ensemble.predict(crop.hu)
        outputs.append(CropOutputs(crop, image, ensemble.predict_mean(crop.hu, image), boxes, prepared))
    return outputs


def step_of(card: dict) -> int:
    """Return the slices between two that the detector sees, on the crops' grid."""
    return max(1, round(card["detector"]["slice_step_mm"]))


def mean_dice(outputs: Iterable[CropOutputs], threshold: float, prune: bool = False) -> float:
    """Return the mean Dice of the nodules at the cubes' centers, location given.

    Args:
        outputs: From `predict_crops`.
        threshold: Of the nodule image.
        prune: Prune the outlines.
    """
    return float(np.mean([dice(_outline(one, threshold, prune), one.crop.mask) for one in outputs]))


def volume_bias(outputs: Iterable[CropOutputs], threshold: float, prune: bool = False) -> float:
    """Return how far the median of the outlines' volumes, as fractions of the readers', is from 1.

    Args:
        outputs: From `predict_crops`.
        threshold: Of the nodule image.
        prune: Prune the outlines.
    """
    outlines = ((_outline(one, threshold, prune), one.crop.mask) for one in outputs)
    fractions = [np.count_nonzero(outline) / np.count_nonzero(mask) for outline, mask in outlines]
    return abs(float(np.median(fractions)) - 1)


def _outline(one: CropOutputs, threshold: float, prune: bool) -> np.ndarray:
    return central_nodule(one.ensemble_mean > threshold, prune) & one.crop.known


def detection_curve(outputs: list[CropOutputs], card: dict) -> Froc:
    """Return sensitivity over false findings per cube for the fused branches, as on a whole scan.

    A finding with its centroid in the consensus is a hit, the best one counts; findings on the nodule, on other
    lesions or on padding are left out. Components in a cube without any candidate are dropped, since a whole scan
    always has some.

    Args:
        outputs: From `predict_crops`.
        card: Of the model.
    """
    return froc(cube_detections(fused_findings(one, card) for one in outputs))


def fused_findings(one: CropOutputs, card: dict) -> list[tuple[float, str]]:
    """Return scores and kinds of a cube's findings, without those of the segmenter alone.

    Args:
        one: A cube.
        card: Of the model.

    Returns:
        As `cube_detections` takes them.
    """
    return [(score, kind) for score, kind, provenance in findings(one, card) if provenance != "segmenter"]


def findings(one: CropOutputs, card: dict) -> list[tuple[float, str, str]]:
    """Return score, kind ("hit", "false" or "ignored") and provenance of a cube's findings, best first.

    Args:
        one: A cube.
        card: Of the model.
    """
    options = FusionOptions.from_card(card["fusion"])
    mask_threshold = card["generator"]["threshold"]
    joined = join_branches(one.prepared, one.nodule_image, one.boxes, step_of(card), mask_threshold, options)
    nodule, known, found = one.crop.mask, one.crop.known, []
    for finding in joined.fusion.findings:
        if finding.labels:
            scored = rescore(finding, joined.labels, one.ensemble_mean, one.prepared.ct_norm, options)
            mask = np.isin(joined.labels, finding.labels)
            hit = nodule[tuple(np.rint(ndimage.center_of_mass(mask)).astype(int))]
            ignored = nodule[mask].any() or known[mask].mean() < 0.5
        else:
            scored, hit = finding, False
            center = np.array(finding.box).reshape(2, 3).mean(0).astype(int)
            voxel = tuple(np.clip(center, 0, np.array(nodule.shape) - 1))
            ignored = nodule[voxel] or not known[voxel]
        kind = "hit" if hit else "ignored" if ignored else "false"
        found.append((scored.score, kind, scored.provenance))
    return sorted(found, key=lambda each: -each[0])


def choose_mask_threshold(outputs: list[CropOutputs], prune: bool = False) -> float:
    """Return, of the thresholds with about the best mean Dice, the one with the least bias of volume.

    Args:
        outputs: From `predict_crops`.
        prune: Prune the outlines.
    """
    scores = {threshold: mean_dice(outputs, threshold, prune) for threshold in MASK_THRESHOLDS}
    good = [threshold for threshold, score in scores.items() if score >= max(scores.values()) - EQUAL_DICE]
    return min(good, key=lambda threshold: volume_bias(outputs, threshold, prune))


def choose(outputs: list[CropOutputs], card: dict, false_per_scan: float) -> dict:
    """Return the card with the best thresholds, and under `calibration` how they were found.

    Args:
        outputs: From `predict_crops`.
        card: The model's card; it stays as it is.
        false_per_scan: False findings per two lungs (40 cubes) that the default threshold may show.

    Raises:
        InputError: Not even the best finding comes at that rate.
    """
    card = deepcopy(card)
    prune = card["generator"].get("trim", False)
    card["generator"]["threshold"] = choose_mask_threshold(outputs, prune)
    curves = {}
    for weight in WEIGHTS:
        card["fusion"]["weight"] = weight
        curves[weight] = detection_curve(outputs, card)
    card["fusion"]["weight"] = max(WEIGHTS, key=lambda weight: sum(_sensitivities(curves[weight]).values()))
    curve = curves[card["fusion"]["weight"]]
    allowed = curve.thresholds[(curve.false_per_scan <= false_per_scan / LUNG_CUBES) & np.isfinite(curve.thresholds)]
    if not len(allowed):
        raise InputError(
            f"Not even the best finding comes at {false_per_scan} false findings a scan; allow more, or train longer."
        )
    card["threshold"] = round(float(allowed.min()), 3)
    card["calibration"] = {
        "crops": len(outputs),
        "patients": len({one.crop.patient for one in outputs}),
        "dice": round(mean_dice(outputs, card["generator"]["threshold"], prune), 4),
        "false_per_scan": false_per_scan,
        "sensitivity_at": _sensitivities(curve),
    }
    return card


def _sensitivities(curve: Froc) -> dict[str, float]:
    return {str(rate): round(value, 4) for rate, value in sensitivities(curve).items()}
