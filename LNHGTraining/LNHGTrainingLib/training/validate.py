"""Dice on validation crops, location given; no gradients, evaluation mode (register L5)."""

from collections.abc import Iterable, Sequence

import numpy as np
from LNHGLib.segmentation.ensemble import Ensemble, Member
from LNHGLib.segmentation.fusion import link
from LNHGLib.segmentation.preprocessing import normalize
from LNHGLib.segmentation.tiled_inference import run_detector
from torch import nn

from LNHGTrainingLib.data.crops import CUBE, LabeledVolume, nodule_diameter_mm
from LNHGTrainingLib.evaluation.attachment import lung_of_cube
from LNHGTrainingLib.evaluation.crops import center_component
from LNHGTrainingLib.evaluation.metrics import Detections, Froc, dice, froc, sensitivity_at
from LNHGTrainingLib.training.distributed import map_over_ranks
from LNHGTrainingLib.training.sigterm import StopSignal

LUNG_CUBES = 40
"""Two lungs of 5 liters hold the volume of forty 50 mm cubes: a rate per scan from crops."""
SMALL_MM, LARGE_MM = 6.0, 10.0
"""Diameters between the sizes whose Dice the log tells apart."""
RATES = (1, 2, 4, 8)
"""False findings per two lungs at which the sensitivity is read."""


def crop_dice(
    generator: nn.Module, crops: Sequence[LabeledVolume], window_hu: list, threshold: float, stop: StopSignal
) -> np.ndarray:
    """Return the Dice of each crop's central nodule: (N,); broken off as `map_over_ranks` is.

    Args:
        generator: predicts the nodule image; alone, in the field around the cube's middle.
        crops: N cubes.
        window_hu: HU that become 0 and 1.
        threshold: cuts the nodule image into a mask.
        stop: tells whether SIGTERM came.
    """

    alone = Ensemble([Member.of(generator.eval())])

    def score(crop: LabeledVolume) -> float:
        found = center_component(alone.predict_center(normalize(crop.hu, window_hu)) > threshold)
        return dice(found & crop.known, crop.mask)

    return np.array(map_over_ranks(score, crops, stop))


def dice_by_size(
    generator: nn.Module, crops: Sequence[LabeledVolume], window_hu: list, threshold: float, stop: StopSignal
) -> dict[str, float]:
    """Return the mean Dice of `crop_dice`, of all crops and of those of each size, by name.

    Args:
        generator: as `crop_dice` takes it.
        crops: likewise.
        window_hu: likewise.
        threshold: likewise.
        stop: likewise.
    """
    scores = crop_dice(generator, crops, window_hu, threshold, stop)
    diameter = np.array([nodule_diameter_mm(crop.row, np.count_nonzero(crop.mask)) for crop in crops])
    small, large = diameter < SMALL_MM, diameter >= LARGE_MM
    sizes = {"small": small, "middle": ~small & ~large, "large": large}
    by_size = {f"dice_{name}": float(np.mean(scores[chosen])) for name, chosen in sizes.items() if chosen.any()}
    return {"dice": float(np.mean(scores)), **by_size}


def detect(detector: nn.Module, hu: np.ndarray, window_hu: list, step: int) -> np.ndarray:
    """Predict the boxes in every `step`-th slice of a cube, those outside the lung left out as on a whole scan.

    Args:
        detector: the network.
        hu: HU (z, y, x).
        window_hu: HU that become 0 and 1.
        step: slices between two that the detector sees.

    Returns:
        (N, 6) rows z, y0, x0, y1, x1, score.
    """
    return run_detector(detector.eval(), normalize(hu, window_hu), lung_of_cube(hu), step=step)


def crop_froc(
    detector: nn.Module, crops: Sequence[LabeledVolume], window_hu: list, step: int, stop: StopSignal
) -> dict[int, float]:
    """Return the sensitivity at `RATES` false candidates per two lungs; those on other lesions are left out.

    It is broken off as `map_over_ranks` is.

    Args:
        detector: predicts the boxes.
        crops: cubes.
        window_hu: HU that become 0 and 1.
        step: slices between two that the detector sees.
        stop: tells whether SIGTERM came.
    """
    boxes = map_over_ranks(lambda crop: detect(detector, crop.hu, window_hu, step), crops, stop)
    curve = froc(cube_detections(candidates(*one, step) for one in zip(crops, boxes, strict=True)))
    return sensitivities(curve)


def sensitivities(curve: Froc) -> dict[int, float]:
    """Return the sensitivity at `RATES` false findings per two lungs, of a curve over cubes."""
    return {rate: sensitivity_at(curve, rate / LUNG_CUBES) for rate in RATES}


def candidates(crop: LabeledVolume, boxes: np.ndarray, step: int) -> list[tuple[float, str]]:
    """Return scores and kinds of the detector's candidates in a cube, as `cube_detections` takes them.

    A candidate's center lies on the crop's nodule ("hit"), on another lesion or padding ("other"), or is "false".

    Args:
        crop: the cube.
        boxes: (N, 6) as from `detect`.
        step: slices between two that the detector sees.
    """
    found = []
    for candidate in link(boxes, step):
        center = (np.array(candidate.box[:3]) + np.array(candidate.box[3:])) / 2
        voxel = tuple(np.clip(center.astype(int), 0, CUBE - 1))
        if crop.mask[tuple(slice(max(0, v - 1), v + 2) for v in voxel)].any():
            kind = "hit"
        else:
            kind = "false" if crop.known[voxel] else "other"
        found.append((candidate.score, kind))
    return found


def cube_detections(findings: Iterable[list[tuple[float, str]]]) -> Detections:
    """Return what was found in cubes that hold a nodule each.

    Args:
        findings: of each cube, score and kind from the best score down: "hit", of which the first counts, "false", or
            anything else, which is left out.
    """
    scores, hits, cubes, count = [], [], [], 0
    for cube, found in enumerate(findings):
        count += 1
        first = next((index for index, (_, kind) in enumerate(found) if kind == "hit"), None)
        for index, (score, kind) in enumerate(found):
            if index == first or kind == "false":
                scores.append(score)
                hits.append(index == first)
                cubes.append(cube)
    return Detections(np.array(scores, float), np.array(hits, bool), np.array(cubes, int), np.ones(count, int))
