"""Training images for the detector: mosaics of nodule crops, and chest slices with and without nodules placed in them.

An image is (3, H, W): a slice between its neighbours `step` mm below and above. Nodule-free images are part of it
(register F2).
"""

from collections.abc import Sequence

import numpy as np
import torch
from LNHGLib.segmentation.preprocessing import normalise
from scipy import ndimage
from torch import Tensor

from LNHGTrainingLib.data.crops import CUBE, LabeledVolume, cut, paste, sample_augmentation, scanner
from LNHGTrainingLib.data.hard_negatives import Background, Place, Places, draw

UNKNOWN_HU = -850.0


class DetectorSlices:
    """Draws images with boxes from the seed, the step and the part alone.

    Args:
        crops: nodule crops.
        backgrounds: chest CTs with lung voxels; may be empty.
        config: the configuration's `sampling` part.
        window_hu: window that is scaled to [0, 1].
        step_mm: distance of the neighbouring slices.
        seed: of the draws.
        negatives: places that look like nodules and are none, in groups drawn equally often; may be empty.
    """

    def __init__(
        self,
        crops: Sequence[LabeledVolume],
        backgrounds: list[Background],
        config: dict,
        window_hu: list,
        step_mm: int,
        seed: int,
        negatives: Sequence[Places] = (),
    ) -> None:
        self.crops, self.backgrounds, self.config, self.seed = crops, backgrounds, config, seed
        self.window_hu, self.step_mm, self.negatives = window_hu, step_mm, negatives
        self.depth = 2 * step_mm + 1

    def batch(self, step: int, size: int, part: int = 0) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        """Images (3, H, W) and torchvision targets of a part of a step, which shows mosaics or chests only."""
        rng = np.random.default_rng([self.seed, step])
        mosaic = not self.backgrounds or rng.random() < self.config["mosaic"]
        if part:
            rng = np.random.default_rng([self.seed, step, part])
        drawn = [self._mosaic(rng) if mosaic else self._chest(rng) for _ in range(size)]
        images = [torch.from_numpy(normalise(hu[:: self.step_mm], self.window_hu)) for hu, _ in drawn]
        return images, [self._target(masks) for _, masks in drawn]

    def _mosaic(self, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
        """Tiles of different crops side by side."""
        tile, across = self.config["tile"], self.config["tiles"]
        hu = np.empty((self.depth, tile * across, tile * across), np.float32)
        masks = []
        for row in range(across):
            for column in range(across):
                part = np.s_[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile]
                hu[:, *part], mask = self._tile(rng, (self.depth, tile, tile))
                full = np.zeros(hu.shape[1:], bool)
                full[part] = mask
                masks.append(full)
        return hu, masks

    def _tile(self, rng: np.random.Generator, side: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        if self.negatives and rng.random() < self.config.get("negative", 0.0):
            place, half = draw(rng, self.negatives), 4.0
        else:
            crop = self.crops[rng.integers(len(self.crops))]
            place, half = Place(crop, (CUBE / 2,) * 3), self._half_depth(crop)
        reach = np.array([half if rng.random() < self.config["nodule"] else CUBE / 2 - self.step_mm, 10.0, 10.0])
        warp = sample_augmentation(rng, place.center + rng.uniform(-reach, reach))
        hu, mask, known = cut(place.volume, warp, side)
        hu = scanner(hu, warp)
        hu[~known] = UNKNOWN_HU
        return hu, mask[self.step_mm]

    @staticmethod
    def _half_depth(crop: LabeledVolume) -> float:
        return max(1.0, 0.4 * float(np.ptp(np.flatnonzero(crop.mask.any((1, 2))))))

    def _chest(self, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
        """A part of a chest slice with up to `placed` nodules, each in lung tissue."""
        volume, lung = self.backgrounds[rng.integers(len(self.backgrounds))]
        side = (self.depth, self.config["chest"], self.config["chest"])
        warp = sample_augmentation(rng, lung[rng.integers(len(lung))].astype(float))
        hu, _, known = cut(volume, warp, side)
        hu = scanner(hu, warp)
        masks: list[np.ndarray] = []
        for _ in range(rng.integers(self.config["placed"] + 1)):
            hu, masks = self._place(rng, hu, masks)
        hu[~known] = UNKNOWN_HU
        return hu, [mask & known[self.step_mm] for mask in masks]

    def _place(
        self, rng: np.random.Generator, hu: np.ndarray, masks: list[np.ndarray]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        tile = self.config["tile"]
        corner = rng.integers(0, hu.shape[1] - tile, 2)
        part = np.s_[:, corner[0] : corner[0] + tile, corner[1] : corner[1] + tile]
        crop = self.crops[rng.integers(len(self.crops))]
        half = self._half_depth(crop)
        warp = sample_augmentation(rng, CUBE / 2 + rng.uniform(-1, 1, 3) * [half, 5, 5])
        nodule_hu, mask, _ = cut(crop, warp, (self.depth, tile, tile))
        taken = any(old[part[1:]][mask[self.step_mm]].any() for old in masks)
        if taken or not mask[self.step_mm].any() or hu[part][mask].mean() > -650:
            return hu, masks
        hu = hu.copy()
        hu[part] = paste(hu[part], scanner(nodule_hu, warp), mask)
        placed = np.zeros(hu.shape[1:], bool)
        placed[part[1:]] = mask[self.step_mm]
        return hu, [*masks, placed]

    def _target(self, masks: list[np.ndarray]) -> dict[str, Tensor]:
        boxes = [box for mask in masks for box in slice_boxes(mask, self.config["min_area"])]
        return {
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.ones(len(boxes), dtype=torch.int64),
        }


def slice_boxes(mask: np.ndarray, min_area: int) -> list[tuple[int, int, int, int]]:
    """Boxes (x0, y0, x1, y1) of the mask's components of at least `min_area` pixels, last pixel included."""
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    found = enumerate(ndimage.find_objects(labels), start=1)
    return [(x.start, y.start, x.stop, y.stop) for i, (y, x) in found if (labels[y, x] == i).sum() >= min_area]
