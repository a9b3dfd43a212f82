"""Batches for the segmenter: nodules, what is around them, nodule-free lung, nodules pasted or injected into it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from LNHGLib.segmentation.preprocessing import normalize
from torch import Tensor

from LNHGTrainingLib.config import NoduleNetConfig, SegmenterConfig
from LNHGTrainingLib.data import hard_negatives, injection
from LNHGTrainingLib.data.augmentation import (
    Geometry,
    paste_nodule,
    sample_augmentation,
    sample_cavity,
    sample_ground_glass,
    sample_patch,
    simulate_scanner,
)
from LNHGTrainingLib.data.crops import CUBE, LabeledVolume
from LNHGTrainingLib.data.hard_negatives import Background, Locations
from LNHGTrainingLib.data.injection import HALF

KINDS = ("nodule", "surround", "background", "pasted", "negative", "mass", "injected", "slice")
SOLID_TEXTURE = 4.5
"""Of the readers' mean rating from 1, ground glass, to 5: what is rated lower is part-solid at most."""
MASS_MM = (25.0, 60.0)
MIN_ENLARGED_MM = 12.0
"""Smaller nodules show too little of their texture to be enlarged to a mass."""
Side = tuple[int, int, int]
Patch = tuple[np.ndarray, np.ndarray, np.ndarray]
"""HU, mask and known voxels, (D, H, W) each."""


@dataclass(frozen=True)
class Batch:
    """Tensors (B, 1, D, H, W): normalized CT, nodule image to reach, mask, known voxels.

    `injected`, bool (B,), tells which nodules CT-GAN made.
    """

    image: Tensor
    target: Tensor
    mask: Tensor
    known: Tensor
    injected: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on `device`."""
        return Batch(*(getattr(self, part.name).to(device) for part in fields(self)))


class SegmenterPatches:
    """Samples batches from the seed, the step and the micro-batch alone, so that a resumed run sees the same data.

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
        config: SegmenterConfig | NoduleNetConfig,
    ) -> None:
        self.crops, self.backgrounds, self.negatives, self.config = crops, backgrounds, negatives, config
        self.sampling = config.sampling
        self.geometry = Geometry(*(getattr(self.sampling, name) for name in Geometry._fields))
        fractions = np.array([getattr(self.sampling, kind) for kind in KINDS])
        if not backgrounds:
            fractions[[2, 3, 5, 6, 7]] = 0
        if not negatives:
            fractions[4] = 0
        self.fractions = fractions / fractions.sum()
        self.marked = [np.flatnonzero(chest.mask.any((1, 2))) for chest, _ in backgrounds] if fractions[7] else []
        self.injector = injection.load(config.data) if fractions[6] else None
        weighted = self.sampling.faint_weight != 1 or self.sampling.large_weight != 1
        rows = [crop.row for crop in crops] if weighted or self.sampling.mass else []
        faint = np.array([float(row.get("att_texture") or 5) < SOLID_TEXTURE for row in rows], bool)
        large = np.array([float(row["luna_diameter_exact_mm"] or 0) >= MIN_ENLARGED_MM for row in rows], bool)
        weights = np.where(faint, self.sampling.faint_weight, 1.0) * np.where(large, self.sampling.large_weight, 1.0)
        self.weights, self.large = weights / weights.sum() if weighted else None, np.flatnonzero(large)
        if not len(self.large):
            self.fractions[5] = 0
            self.fractions /= self.fractions.sum()

    def batch(self, step: int, size: int, number: int = 0) -> Batch:
        """Return a micro-batch of a step; all patches of a step share one size, chosen from `sides`.

        Args:
            step: number of the step.
            size: samples.
            number: of the micro-batch.
        """
        rng = np.random.default_rng([self.config.seed, step])
        side = tuple(self.sampling.sides[rng.integers(len(self.sampling.sides))])
        if number:
            rng = np.random.default_rng([self.config.seed, step, number])
        patches, injected = zip(*(self._patch(rng, side) for _ in range(size)), strict=True)
        hu, mask, known = (np.stack(part)[:, None].astype(np.float32) for part in zip(*patches, strict=True))
        image = torch.from_numpy(normalize(hu, self.config.window_hu))
        mask = torch.from_numpy(mask)
        target = image * mask if self.config.target == "intensity" else mask
        return Batch(image, target, mask, torch.from_numpy(known), torch.tensor(injected))

    def _patch(self, rng: np.random.Generator, side: Side) -> tuple[Patch, bool]:
        """Sample a patch of any kind, and tell whether it holds an injected nodule."""
        kind = KINDS[rng.choice(len(KINDS), p=self.fractions)]
        if kind == "injected":
            volume, lung = self.backgrounds[rng.integers(len(self.backgrounds))]
            part, middle, injected = self.injector.inject_into(rng, volume, lung, HALF + int(1.1 * max(side)))
            shift = np.asarray(side) * 0.35
            return self._augmented(part, rng, middle + rng.uniform(-shift, shift), side), injected
        if kind == "mass":
            return self._mass(rng, side), False
        if kind == "slice":
            number = rng.integers(len(self.backgrounds))
            volume, marked = self.backgrounds[number][0], self.marked[number]
            z = rng.choice(marked) if len(marked) and rng.random() < 0.5 else rng.integers(len(volume.hu))
            height, width = volume.hu.shape[1:]
            middle = np.array([z, (height - 1) / 2, (width - 1) / 2])
            fine = (side[0], 2 * side[1], 2 * side[2])  # pixels are means, as on the grid of a model (register L10)
            parts = self._augmented(volume, rng, middle, fine, max(height, width) / fine[-1])
            hu, mask, known = block_means(parts, side)
            return (hu, mask > 0.5, known > 0.5), False
        return self._as_scanned(kind, rng, side), False

    def _as_scanned(self, kind: str, rng: np.random.Generator, side: Side) -> Patch:
        """Sample a patch at the scale of the scans."""
        if kind in ("background", "pasted"):
            volume, lung = self.backgrounds[rng.integers(len(self.backgrounds))]
            hu, mask, known = self._augmented(volume, rng, lung[rng.integers(len(lung))].astype(float), side)
            if kind == "pasted":
                reach = np.asarray(side) * 0.35
                nodule_hu, nodule, _ = self._augmented(
                    self._crop(rng), rng, CUBE / 2 + rng.uniform(-reach, reach), side
                )
                hu, mask = paste_nodule(hu, nodule_hu, nodule), mask | nodule
            return hu, mask, known
        if kind == "negative":
            location = hard_negatives.sample(rng, self.negatives)
            reach = np.maximum(0.25 * np.asarray(side), 1.5)
            return self._augmented(location.volume, rng, location.center + rng.uniform(-reach, reach), side)
        reach = np.full(3, 0.42 * CUBE) if kind == "surround" else np.asarray(side) * 0.35
        return self._augmented(self._crop(rng), rng, CUBE / 2 + rng.uniform(-reach, reach), side)

    def _crop(self, rng: np.random.Generator) -> LabeledVolume:
        """Choose a crop at random, faint nodules as often as the configuration asks."""
        return self.crops[
            rng.integers(len(self.crops)) if self.weights is None else rng.choice(len(self.weights), p=self.weights)
        ]

    def _mass(self, rng: np.random.Generator, side: Side) -> Patch:
        """Sample a chest at half the resolution with a nodule in its lung that is enlarged to a mass."""
        volume, lung = self.backgrounds[rng.integers(len(self.backgrounds))]
        place, offset = lung[rng.integers(len(lung))].astype(float), rng.uniform(-0.3, 0.3, 3) * side
        chest = sample_augmentation(rng, place, self.geometry)
        chest = replace(chest, center=tuple(place - 2 * chest.matrix @ offset))
        hu, mask, known = block_means(sample_patch(volume, chest, tuple(2 * length for length in side)), side)
        crop = self.crops[self.large[rng.integers(len(self.large))]]
        enlarged = float(crop.row["luna_diameter_exact_mm"]) / (rng.uniform(*MASS_MM) / 2)
        nodule = sample_augmentation(rng, np.full(3, CUBE / 2), self.geometry)
        matrix = nodule.matrix * enlarged
        nodule = replace(nodule, center=tuple(CUBE / 2 - matrix @ offset), matrix=matrix)
        nodule_hu, pasted, _ = sample_patch(crop, nodule, side)
        nodule_hu = sample_ground_glass(rng, self.sampling.ground_glass / 2, nodule_hu, pasted)
        nodule_hu = sample_cavity(rng, self.sampling.cavity, nodule_hu, pasted)
        hu = simulate_scanner(paste_nodule(hu, nodule_hu, pasted), chest)
        return hu, (mask > 0.5) | pasted, known > 0.5

    def _augmented(
        self, volume: LabeledVolume, rng: np.random.Generator, center: np.ndarray, side: Side, pixel: float = 1.0
    ) -> Patch:
        """Sample a patch of a volume around a location, as another scanner, faint or with a cavity; `pixel` in mm."""
        augmentation = sample_augmentation(rng, center, self.geometry)
        augmentation = replace(augmentation, matrix=augmentation.matrix @ np.diag([1.0, pixel, pixel]))
        hu, mask, known = sample_patch(volume, augmentation, side)
        hu = sample_ground_glass(rng, self.sampling.ground_glass, hu, mask)
        hu = sample_cavity(rng, self.sampling.cavity, hu, mask)
        return simulate_scanner(hu, augmentation), mask, known


def block_means(parts: Patch, side: Side) -> tuple[np.ndarray, ...]:
    """Average a finer patch; of its mask and of what is known the shares are left.

    Args:
        parts: HU, mask and what is known, a whole number of times as large along each axis.
        side: (D, H, W) wanted.
    """
    blocks = [size for fine, wanted in zip(parts[0].shape, side, strict=True) for size in (wanted, fine // wanted)]
    return tuple(part.astype(np.float32).reshape(blocks).mean((1, 3, 5)) for part in parts)
