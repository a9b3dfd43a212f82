"""Choose a model's thresholds on validation crops: the mask's, the weight of the detector, the lowest score shown.

    lnhg-train calibrate --model MODEL --data ../shared/data

Candidates are found, scored and outlined as in a scan: by the first generator in the whole cube, then by all members of
the ensemble in the field around each, or around the cube's middle where the location is given. Of the mask's thresholds
with about the best mean Dice the one counts whose volumes are least biased; the detector's weight maximizes the mean
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
from LNHGLib.models.card import with_words_of_today
from LNHGLib.models.folder import Model
from LNHGLib.segmentation.ensemble import Ensemble
from LNHGLib.segmentation.fusion import Finding, FusionOptions, combine
from LNHGLib.segmentation.pipeline import Findings, PreparedScan, join_branches, load_ensemble, rescore_findings
from LNHGLib.segmentation.preprocessing import normalize
from LNHGLib.segmentation.progress import Monitor
from LNHGLib.segmentation.tiled_inference import run_detector
from scipy import ndimage

from LNHGTrainingLib.data.crops import CropDataset, LabeledVolume, load_crops
from LNHGTrainingLib.evaluation.attachment import lung_of_cube
from LNHGTrainingLib.evaluation.crops import central_nodule
from LNHGTrainingLib.evaluation.metrics import Froc, dice, froc
from LNHGTrainingLib.training.validate import LUNG_CUBES, cube_detections, sensitivities

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
        central_image: Of all members in the field around the cube's middle, 0 outside of it: float32 (z, y, x).
        boxes: Of the detector: float (N, 6), rows z, y0, x0, y1, x1, score.
        prepared: The cube with its lung.
        ensemble: Scores and outlines candidates.
    """

    crop: LabeledVolume
    nodule_image: np.ndarray
    central_image: np.ndarray
    boxes: np.ndarray
    prepared: PreparedScan
    ensemble: Ensemble


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
    ensemble = load_ensemble(model, torch.device(device), Monitor())
    outputs = []
    for crop in crops:
        grid = Grid.aligned(crop.hu.shape, (1, 1, 1), (0, 0, 0))
        prepared = PreparedScan(grid, normalize(crop.hu, card["window_hu"]), lung_of_cube(crop.hu))
        boxes = run_detector(detector, prepared.ct_norm, prepared.lungs, step=step_of(card))
        image, central = (predict(prepared.ct_norm) for predict in (ensemble.predict, ensemble.predict_center))
        outputs.append(CropOutputs(crop, image, central, boxes, prepared, ensemble))
    return outputs


def step_of(card: dict) -> int:
    """Return the slices between two that the detector sees, on the crops' grid."""
    return max(1, round(card["detector"]["slice_step_mm"]))


def mean_dice(
    outputs: Iterable[CropOutputs], threshold: float, prune: bool = False, faint_below: float | None = None
) -> float:
    """Return the mean Dice of the nodules at the cubes' centers, location given.

    Args:
        outputs: From `predict_crops`.
        threshold: Of the nodule image.
        prune: Prune the outlines.
        faint_below: As `mark_around` takes it.
    """
    return float(np.mean([dice(_outline(one, threshold, prune, faint_below), one.crop.mask) for one in outputs]))


def volume_bias(
    outputs: Iterable[CropOutputs], threshold: float, prune: bool = False, faint_below: float | None = None
) -> float:
    """Return how far the median of the outlines' volumes, as fractions of the readers', is from 1.

    Args:
        outputs: From `predict_crops`.
        threshold: Of the nodule image.
        prune: Prune the outlines.
        faint_below: As `mark_around` takes it.
    """
    outlines = ((_outline(one, threshold, prune, faint_below), one.crop.mask) for one in outputs)
    fractions = [np.count_nonzero(outline) / np.count_nonzero(mask) for outline, mask in outlines]
    return abs(float(np.median(fractions)) - 1)


def _outline(one: CropOutputs, *how: float | bool | None) -> np.ndarray:
    return central_nodule(one.central_image, *how) & one.crop.known


@dataclass(frozen=True)
class CubeFinding:
    """A finding in a cube.

    Attributes:
        finding: With the scores that the members of the ensemble give it.
        kind: "hit" with its centroid in the consensus, "ignored" on the nodule, other lesions or padding, or "false".
    """

    finding: Finding
    kind: str


def detection_curve(found: Iterable[list[CubeFinding]], options: FusionOptions) -> Froc:
    """Return sensitivity over false findings per cube for the fused branches, as on a whole scan.

    The best hit counts; what is to be ignored is left out. Components in a cube without any candidate are dropped,
    since a whole scan always has some.

    Args:
        found: Of each cube, as from `findings`.
        options: Weight and floor of the scores.
    """
    return froc(cube_detections(fused_scores(of_cube, options) for of_cube in found))


def fused_scores(found: Iterable[CubeFinding], options: FusionOptions) -> list[tuple[float, str]]:
    """Return scores and kinds of a cube's findings, best first, without those of the segmenter alone.

    Args:
        found: Of the cube.
        options: Weight and floor of the scores.

    Returns:
        As `cube_detections` takes them.
    """
    return scores([one for one in found if one.finding.provenance != "segmenter"], options)


def scores(found: Iterable[CubeFinding], options: FusionOptions) -> list[tuple[float, str]]:
    """Return scores and kinds of a cube's findings, best first.

    Args:
        found: Of the cube.
        options: Weight and floor of the scores; those that the findings were joined with may differ in them.
    """
    parts = [(one.finding.segmenter_score, one.finding.detector_score, one.kind) for one in found]
    scored = [(combine(*both, options.weight, options.floor), kind) for *both, kind in parts]
    return sorted(scored, key=lambda each: -each[0])


def findings(one: CropOutputs, card: dict) -> list[CubeFinding]:
    """Return a cube's findings as the pipeline finds and scores them.

    Args:
        one: A cube.
        card: Of the model.
    """
    options = FusionOptions.from_card(card["fusion"])
    mask_threshold = card["generator"]["threshold"]
    joined = join_branches(one.prepared, one.nodule_image, one.boxes, step_of(card), mask_threshold, options)
    scored, _patches = rescore_findings(one.prepared, joined, one.ensemble, options)
    return [CubeFinding(finding, _kind(finding, scored, one.crop)) for finding in scored.fusion.findings]


def _kind(finding: Finding, found: Findings, crop: LabeledVolume) -> str:
    nodule, known = crop.mask, crop.known
    if finding.labels:
        mask = np.isin(found.labels, finding.labels)
        if nodule[tuple(np.rint(ndimage.center_of_mass(mask)).astype(int))]:
            return "hit"
        return "ignored" if nodule[mask].any() or known[mask].mean() < 0.5 else "false"
    center = np.array(finding.box).reshape(2, 3).mean(0).astype(int)
    voxel = tuple(np.clip(center, 0, np.array(nodule.shape) - 1))
    return "ignored" if nodule[voxel] or not known[voxel] else "false"


def choose_mask_threshold(outputs: list[CropOutputs], prune: bool = False, faint_below: float | None = None) -> float:
    """Return, of the thresholds with about the best mean Dice, the one with the least bias of volume.

    Args:
        outputs: From `predict_crops`.
        prune: Prune the outlines.
        faint_below: As `mark_around` takes it.
    """
    scores = {threshold: mean_dice(outputs, threshold, prune, faint_below) for threshold in MASK_THRESHOLDS}
    good = [threshold for threshold, score in scores.items() if score >= max(scores.values()) - EQUAL_DICE]
    return min(good, key=lambda threshold: volume_bias(outputs, threshold, prune, faint_below))


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
    generator = with_words_of_today(card["generator"])
    how = [generator.get(key) for key in ("prune_attachments", "faint_below")]
    card["generator"]["threshold"] = choose_mask_threshold(outputs, *how)
    found = [findings(one, card) for one in outputs]  # which there are does not depend on the weight
    curves = {}
    for weight in WEIGHTS:
        card["fusion"]["weight"] = weight
        curves[weight] = detection_curve(found, FusionOptions.from_card(card["fusion"]))
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
        "dice": round(mean_dice(outputs, card["generator"]["threshold"], *how), 4),
        "false_per_scan": false_per_scan,
        "sensitivity_at": _sensitivities(curve),
    }
    return card


def _sensitivities(curve: Froc) -> dict[str, float]:
    return {str(rate): round(value, 4) for rate, value in sensitivities(curve).items()}
