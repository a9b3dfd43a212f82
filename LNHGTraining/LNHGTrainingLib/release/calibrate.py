"""Choose a model's thresholds on validation crops: the mask's, the weight of the detector, the lowest score shown.

    lnhg-train calibrate --model MODEL --data ../shared/data

Every network sees each cube once, the generator also its half turn where the card asks for it. Of the mask's thresholds
with about the best mean Dice the one counts whose volumes are least biased; the detector's weight maximises the mean
sensitivity at 1, 2, 4 and 8 false findings per two lungs; the score threshold is where the false findings reach the
rate asked for. Test scans and training patients take no part.
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
from LNHGLib.segmentation.fusion import Finding, FusionOptions
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
    """What the networks made of one crop: nodule images (z, y, x), boxes (N, 6), the cube with its lung.

    Attributes:
        nodule_image: of the first generator, in which candidates are found.
        ensemble_mean: of all members, by which candidates are scored and outlined.
    """

    crop: LabeledVolume
    nodule_image: np.ndarray
    ensemble_mean: np.ndarray
    boxes: np.ndarray
    work: PreparedScan


def validation_crops(model: Model, folder: Path) -> CropDataset:
    """The crops of three or more readers in the folds that the model's training left for validation.

    Args:
        model: its card names the files and the folds.
        folder: where `crops/` is.

    Raises:
        InputError: the card does not say, or the grid is not the crops' 1 mm.
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
    """Run a model's networks on every crop."""
    card, detector = model.card, model.detector(device)
    step, window = step_of(card), card["window_hu"]
    ensemble = cube_ensemble(model.generator(device), model.second_generator(device), card)
    seen = []
    for crop in crops:
        grid = Grid.aligned(crop.hu.shape, (1, 1, 1), (0, 0, 0))
        work = PreparedScan(grid, normalize(crop.hu, window), lung_of_cube(crop.hu))
        boxes = run_detector(detector, work.ct_norm, work.lungs, step=step)
        image = ensemble.predict(crop.hu)
        seen.append(CropOutputs(crop, image, ensemble.predict_mean(crop.hu, image), boxes, work))
    return seen


def step_of(card: dict) -> int:
    """Slices between two that the detector sees, on the crops' grid."""
    return max(1, round(card["detector"]["slice_step_mm"]))


def mean_dice(seen: Iterable[CropOutputs], threshold: float, trim: bool = False) -> float:
    """Mean Dice of the nodules at the cubes' centers, location given, their outlines trimmed if asked for."""
    return float(np.mean([dice(_outline(one, threshold, trim), one.crop.mask) for one in seen]))


def volume_bias(seen: Iterable[CropOutputs], threshold: float, trim: bool = False) -> float:
    """How far the median of the outlines' volumes, as shares of the readers', is from 1."""
    shares = [np.count_nonzero(_outline(one, threshold, trim)) / np.count_nonzero(one.crop.mask) for one in seen]
    return abs(float(np.median(shares)) - 1)


def _outline(one: CropOutputs, threshold: float, trim: bool) -> np.ndarray:
    return central_nodule(one.ensemble_mean > threshold, trim) & one.crop.known


def detection_curve(seen: list[CropOutputs], card: dict) -> Froc:
    """Sensitivity over false findings per cube for the fused branches, as on a whole scan.

    A finding with its centroid in the consensus is a hit, the best one counts; findings on the nodule, on other
    lesions or on padding are left out. Components in a cube without any candidate are dropped, since a whole scan
    always has some.
    """
    return froc(cube_detections(fused_findings(one, card) for one in seen))


def fused_findings(one: CropOutputs, card: dict) -> list[tuple[float, str]]:
    """Scores and kinds of a cube's findings, as `cube_detections` takes them; without those of the segmenter alone."""
    return [(score, kind) for score, kind, provenance in findings(one, card) if provenance != "segmenter"]


def findings(one: CropOutputs, card: dict) -> list[tuple[float, str, str]]:
    """Score, kind ("hit", "false" or "ignored") and provenance of a cube's findings, best first."""
    options = FusionOptions.from_card(card["fusion"])
    mask_threshold = card["generator"]["threshold"]
    joined = join_branches(one.work, one.nodule_image, one.boxes, step_of(card), mask_threshold, options)
    seen = joined.labels, one.ensemble_mean, one.work.ct_norm
    scored = [rescore(f, *seen, options) if f.labels else f for f in joined.fusion.findings]
    return [(f.score, _kind(f, joined.labels, one.crop), f.provenance) for f in sorted(scored, key=lambda f: -f.score)]


def _kind(finding: Finding, labels: np.ndarray, crop: LabeledVolume) -> str:
    if not finding.labels:
        center = np.array(finding.box).reshape(2, 3).mean(0).astype(int)
        voxel = tuple(np.clip(center, 0, np.array(crop.mask.shape) - 1))
        return "ignored" if crop.mask[voxel] or not crop.known[voxel] else "false"
    mask = np.isin(labels, finding.labels)
    if crop.mask[tuple(np.rint(ndimage.center_of_mass(mask)).astype(int))]:
        return "hit"
    return "ignored" if crop.mask[mask].any() or crop.known[mask].mean() < 0.5 else "false"


def choose_mask_threshold(seen: list[CropOutputs], trim: bool = False) -> float:
    """Of the thresholds with about the best mean Dice, the one with the least bias of volume."""
    scores = {threshold: mean_dice(seen, threshold, trim) for threshold in MASK_THRESHOLDS}
    good = [threshold for threshold, score in scores.items() if score >= max(scores.values()) - EQUAL_DICE]
    return min(good, key=lambda threshold: volume_bias(seen, threshold, trim))


def choose(seen: list[CropOutputs], card: dict, false_per_scan: float) -> dict:
    """The card with the best thresholds, and under `calibration` how they were found.

    Args:
        seen: from `predict_crops`.
        card: the model's card; it stays as it is.
        false_per_scan: false findings per two lungs (40 cubes) that the default threshold may show.
    """
    card = deepcopy(card)
    trim = card["generator"].get("trim", False)
    card["generator"]["threshold"] = choose_mask_threshold(seen, trim)
    curves = {}
    for weight in WEIGHTS:
        card["fusion"]["weight"] = weight
        curves[weight] = detection_curve(seen, card)
    card["fusion"]["weight"] = max(WEIGHTS, key=lambda weight: sum(_sensitivities(curves[weight]).values()))
    curve = curves[card["fusion"]["weight"]]
    allowed = curve.thresholds[(curve.false_per_scan <= false_per_scan / LUNG_CUBES) & np.isfinite(curve.thresholds)]
    if not len(allowed):
        raise InputError(
            f"Not even the best finding comes at {false_per_scan} false findings a scan; allow more, or train longer."
        )
    card["threshold"] = round(float(allowed.min()), 3)
    card["calibration"] = {
        "crops": len(seen),
        "patients": len({one.crop.patient for one in seen}),
        "dice": round(mean_dice(seen, card["generator"]["threshold"], trim), 4),
        "false_per_scan": false_per_scan,
        "sensitivity_at": _sensitivities(curve),
    }
    return card


def _sensitivities(curve: Froc) -> dict[str, float]:
    return {str(rate): round(value, 4) for rate, value in sensitivities(curve).items()}
