"""Dice on validation crops, location given; no gradients, evaluation mode (register L5)."""

import numpy as np
import torch
from LNHGLib.fusion import link
from LNHGLib.preprocessing import normalise
from torch import nn

from LNHGTrainingLib.data import CUBE, Labelled
from LNHGTrainingLib.distributed import each
from LNHGTrainingLib.evaluate_crops import center_component
from LNHGTrainingLib.metrics import Detections, dice, froc, sensitivity_at

LUNG_CUBES = 40
"""Two lungs of 5 litres hold the volume of forty 50 mm cubes: a rate per scan from crops."""


def generate(generator: nn.Module, hu: np.ndarray, window_hu: list) -> np.ndarray:
    """Nodule image of one volume: HU (z, y, x) -> float32 of the same shape."""
    pad = [(0, -size % generator.multiple) for size in hu.shape]
    image = np.pad(normalise(hu, window_hu), pad, mode="edge")
    device = next(generator.parameters()).device
    with torch.inference_mode():
        result = generator.eval()(torch.from_numpy(image)[None, None].to(device))[0, 0].cpu().numpy()
    return result[tuple(slice(0, size) for size in hu.shape)]


def crop_dice(generator: nn.Module, crops: list[Labelled], window_hu: list, threshold: float) -> np.ndarray:
    """Dice of each crop's central nodule: (N,)."""

    def score(crop: Labelled) -> float:
        found = center_component(generate(generator, crop.hu, window_hu) > threshold)
        return dice(found & crop.known, crop.mask)

    return np.array(each(score, crops))


def detect(detector: nn.Module, hu: np.ndarray, window_hu: list, step: int) -> np.ndarray:
    """Boxes of every `step`-th slice of one volume: (N, 6) rows z, y0, x0, y1, x1, score."""
    image = torch.from_numpy(normalise(hu, window_hu))
    slices = range(step, len(hu) - step, step)
    device = next(detector.parameters()).device
    with torch.inference_mode():
        found = detector.eval()([image[[z - step, z, z + step]].to(device) for z in slices])
    rows = [
        np.column_stack([np.full(len(part["scores"]), z), part["boxes"][:, [1, 0, 3, 2]].cpu(), part["scores"].cpu()])
        for z, part in zip(slices, found, strict=True)
    ]
    return np.concatenate(rows)


def crop_froc(detector: nn.Module, crops: list[Labelled], window_hu: list, step: int) -> dict[int, float]:
    """Sensitivity at 1, 2, 4, 8 false candidates per `LUNG_CUBES` cubes; candidates on other lesions are left out."""
    boxes = each(lambda crop: detect(detector, crop.hu, window_hu, step), crops)
    scores, hits, scans = [], [], []
    for index, crop in enumerate(crops):
        found = False
        for candidate in link(boxes[index], step):
            kind = _kind(crop, candidate.box)
            if kind == "other" or (kind == "hit" and found):
                continue
            scores.append(candidate.score)
            hits.append(kind == "hit")
            scans.append(index)
            found |= kind == "hit"
    detections = Detections(np.array(scores), np.array(hits, bool), np.array(scans, int), np.ones(len(crops), int))
    curve = froc(detections)
    return {rate: sensitivity_at(curve, rate / LUNG_CUBES) for rate in (1, 2, 4, 8)}


def _kind(crop: Labelled, box: tuple[float, ...]) -> str:
    """A candidate's centre lies on the crop's nodule ("hit"), on another lesion or padding ("other"), or is "false"."""
    centre = (np.array(box[:3]) + np.array(box[3:])) / 2
    voxel = tuple(np.clip(centre.astype(int), 0, CUBE - 1))
    if crop.mask[tuple(slice(max(0, v - 1), v + 2) for v in voxel)].any():
        return "hit"
    return "false" if crop.known[voxel] else "other"
