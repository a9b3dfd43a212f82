"""Training images for the detector: mosaics of nodule crops, and chest slices, whole or parts of them.

Chest slices show their own nodules and others that are pasted in. An image is (3, H, W): a slice between its neighbors
`step` mm below and above. Nodule-free images are part of it (register F2). Of chests, what the reference does not know
of is ignored: it is neither nodule nor background.
"""

from collections.abc import Sequence

import numpy as np
import torch
from LNHGLib.segmentation.preprocessing import normalize
from scipy import ndimage
from torch import Tensor

from LNHGTrainingLib.config import DetectorConfig
from LNHGTrainingLib.data import hard_negatives
from LNHGTrainingLib.data.augmentation import (
    paste_nodule,
    sample_augmentation,
    sample_patch,
    simulate_scanner,
)
from LNHGTrainingLib.data.crops import CUBE, CropDataset, LabeledVolume
from LNHGTrainingLib.data.hard_negatives import Background, Location, Locations

UNKNOWN_HU = -850.0
MAX_LUNG_HU = -650.0
"""A nodule is pasted where the mean is below."""
PARTS_OF_WHOLE = 4
"""A batch of whole slices has so many times fewer images than one of parts."""
OWN_NODULE = 0.25
"""Fraction of whole slices that are cut through a nodule of their chest; it has few, and they must not be all."""

Image = tuple[np.ndarray, list[np.ndarray], np.ndarray]
"""HU (depth, H, W), the mask (H, W) of each nodule in the middle slice, and what of that slice is ignored, bool."""


class DetectorSlices:
    """Samples images with boxes from the seed, the step and the micro-batch alone.

    Args:
        crops: nodule crops.
        backgrounds: chest CTs with lung voxels; may be empty.
        negatives: locations that look like nodules and are none, in groups sampled equally often; may be empty.
        config: of the training.
    """

    def __init__(
        self,
        crops: Sequence[LabeledVolume],
        backgrounds: Sequence[Background],
        negatives: Sequence[Locations],
        config: DetectorConfig,
    ) -> None:
        self.crops, self.backgrounds, self.negatives, self.config = crops, backgrounds, negatives, config
        self.sampling, self.step_mm = config.sampling, config.detector.slice_step_mm
        self.depth = 2 * self.step_mm + 1
        self.own = [np.flatnonzero(volume.mask.any((1, 2))) for volume, _ in backgrounds]
        self.marked: list[list[int]] = [[] for _ in backgrounds]
        numbers = {id(volume): number for number, (volume, _) in enumerate(backgrounds)}
        for group in negatives:
            for volume, center in () if isinstance(group.volumes, CropDataset) else group.where:
                self.marked[numbers[id(group.volumes[volume])]].append(round(center[0]))

    def batch(self, step: int, size: int, number: int = 0) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        """Return a micro-batch of a step, which shows mosaics, whole chest slices or parts of them only.

        Args:
            step: number of the step.
            size: images; of whole slices there are fewer.
            number: of the micro-batch.

        Returns:
            Images (3, H, W) in [0, 1] and torchvision's targets, with what is ignored, bool (H, W).
        """
        rng = np.random.default_rng([self.config.seed, step])
        kind = rng.random() if self.backgrounds else -1.0
        mosaic = kind < self.sampling.mosaic
        whole = not mosaic and kind < self.sampling.mosaic + self.sampling.whole
        if number:
            rng = np.random.default_rng([self.config.seed, step, number])
        images, targets = [], []
        for _ in range(max(1, size // PARTS_OF_WHOLE) if whole else size):
            hu, masks, ignored = self._mosaic(rng) if mosaic else self._chest(rng, whole)
            images.append(torch.from_numpy(normalize(hu[:: self.step_mm], self.config.window_hu)))
            boxes = [box for mask in masks for box in slice_boxes(mask, self.sampling.min_area)]
            tips = np.any(masks, axis=0)  # too small for a box, and no background
            for x0, y0, x1, y1 in boxes:
                tips[y0:y1, x0:x1] = False
            targets.append(
                {
                    "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                    "labels": torch.ones(len(boxes), dtype=torch.int64),
                    "ignored": torch.from_numpy(ignored | tips),
                }
            )
        return images, targets

    def _mosaic(self, rng: np.random.Generator) -> Image:
        """Sample tiles of different crops side by side."""
        tile, across = self.sampling.tile, self.sampling.tiles
        full = np.empty((self.depth, tile * across, tile * across), np.float32)
        masks = []
        for row, column in np.ndindex(across, across):
            if self.negatives and rng.random() < self.sampling.negative:
                location, half = hard_negatives.sample(rng, self.negatives), 4.0
            else:
                crop = self.crops[rng.integers(len(self.crops))]
                location, half = Location(crop, (CUBE / 2,) * 3), self._half_depth(crop)
            depth = half if rng.random() < self.sampling.nodule else CUBE / 2 - self.step_mm
            reach = np.array([depth, 10.0, 10.0])
            augmentation = sample_augmentation(rng, location.center + rng.uniform(-reach, reach))
            hu, mask, known = sample_patch(location.volume, augmentation, (self.depth, tile, tile))
            hu = simulate_scanner(hu, augmentation)
            hu[~known] = UNKNOWN_HU
            part = np.s_[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile]
            full[:, *part] = hu
            masks.append(np.zeros(full.shape[1:], bool))
            masks[-1][part] = mask[self.step_mm]
        return full, masks, np.zeros(full.shape[1:], bool)

    @staticmethod
    def _half_depth(crop: LabeledVolume) -> float:
        return max(1.0, 0.4 * float(np.ptp(np.flatnonzero(crop.mask.any((1, 2))))))

    def _chest(self, rng: np.random.Generator, whole: bool) -> Image:
        """Sample a chest slice, whole or a part, with its own nodules and up to `placed` others, each in its lungs."""
        number = rng.integers(len(self.backgrounds))
        volume, lung = self.backgrounds[number]
        side, place = self.sampling.chest, lung[rng.integers(len(lung))].astype(float)
        if whole:
            height, width = volume.hu.shape[1:]
            side, place = max(height, width), np.array([self._slice(rng, number, place[0]), height / 2, width / 2])
        chest = sample_augmentation(rng, place)
        hu, mask, known = sample_patch(volume, chest, (self.depth, side, side))
        hu, masks = simulate_scanner(hu, chest), [mask[self.step_mm]]
        tile, z = self.sampling.tile, round(chest.center[0])
        first, last = np.searchsorted(lung[:, 0], [z, z + 1])
        in_slice = (lung[first:last] - np.array(chest.center)) @ np.linalg.inv(chest.matrix).T
        corners = np.rint(in_slice[:, 1:] + (side - 1 - tile) / 2).astype(int)  # of tiles with lung at their middle
        corners = corners[((corners >= 0) & (corners <= side - tile)).all(1)]
        for _ in range(rng.integers(self.sampling.placed + 1) if len(corners) else 0):
            corner = corners[rng.integers(len(corners))]
            part = np.s_[:, corner[0] : corner[0] + tile, corner[1] : corner[1] + tile]
            crop = self.crops[rng.integers(len(self.crops))]
            half = self._half_depth(crop)
            augmentation = sample_augmentation(rng, CUBE / 2 + rng.uniform(-1, 1, 3) * [half, 5, 5])
            nodule_hu, mask, _ = sample_patch(crop, augmentation, (self.depth, tile, tile))
            middle = mask[self.step_mm]
            taken = any(other[part[1:]][middle].any() for other in masks)
            if taken or not middle.any() or hu[part][mask].mean() > MAX_LUNG_HU:
                continue
            hu[part] = paste_nodule(hu[part], simulate_scanner(nodule_hu, augmentation), mask)
            masks.append(np.zeros(hu.shape[1:], bool))
            masks[-1][part[1:]] = middle
        known = known[self.step_mm]
        return hu, [mask & known for mask in masks], ~known

    def _slice(self, rng: np.random.Generator, number: int, anywhere: float) -> float:
        """Choose a slice of a chest: through one of its nodules, at a hard negative, or the one at hand."""
        kind = rng.random()
        if kind < OWN_NODULE and len(self.own[number]):
            return float(rng.choice(self.own[number]))
        if OWN_NODULE <= kind < OWN_NODULE + self.sampling.negative and self.marked[number]:
            return float(rng.choice(self.marked[number]))
        return anywhere


def slice_boxes(mask: np.ndarray, min_area: int) -> list[tuple[int, int, int, int]]:
    """Return the boxes (x0, y0, x1, y1) of a mask's components, last pixel included.

    Args:
        mask: bool (y, x).
        min_area: pixels of the smallest component that has a box.
    """
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    found = enumerate(ndimage.find_objects(labels), start=1)
    return [(x.start, y.start, x.stop, y.stop) for i, (y, x) in found if (labels[y, x] == i).sum() >= min_area]
