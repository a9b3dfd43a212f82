"""Batches for the segmenter: nodules, what is around them, nodule-free lung, and nodules pasted into it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from LNHGLib.segmentation.preprocessing import normalize
from torch import Tensor

from LNHGTrainingLib.config import SegmenterConfig
from LNHGTrainingLib.data import hard_negatives
from LNHGTrainingLib.data.augmentation import (
    paste_nodule,
    sample_augmentation,
    sample_cavity,
    sample_patch,
    simulate_scanner,
)
from LNHGTrainingLib.data.crops import CUBE, LabeledVolume
from LNHGTrainingLib.data.hard_negatives import Background, Locations

KINDS = ("nodule", "surround", "background", "pasted", "negative")
Side = tuple[int, int, int]
Patch = tuple[np.ndarray, np.ndarray, np.ndarray]
"""HU, mask and known voxels, (D, H, W) each."""


@dataclass(frozen=True)
class Batch:
    """Tensors (B, 1, D, H, W): normalized CT, nodule image to reach, mask, known voxels."""

    image: Tensor
    target: Tensor
    mask: Tensor
    known: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on `device`."""
        return Batch(*(part.to(device) for part in (self.image, self.target, self.mask, self.known)))


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
        config: SegmenterConfig,
    ) -> None:
        self.crops, self.backgrounds, self.negatives, self.config = crops, backgrounds, negatives, config
        self.sampling = config.sampling
        fractions = np.array([getattr(self.sampling, kind) for kind in KINDS])
        if not backgrounds:
            fractions[2:4] = 0
        if not negatives:
            fractions[4] = 0
        self.fractions = fractions / fractions.sum()

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
        patches = [self._patch(rng, side) for _ in range(size)]
        hu, mask, known = (np.stack(part)[:, None].astype(np.float32) for part in zip(*patches, strict=True))
        image = torch.from_numpy(normalize(hu, self.config.window_hu))
        mask = torch.from_numpy(mask)
        target = image * mask if self.config.target == "intensity" else mask
        return Batch(image, target, mask, torch.from_numpy(known))

    def _patch(self, rng: np.random.Generator, side: Side) -> Patch:
        """Sample a patch of any kind."""
        kind = KINDS[rng.choice(len(KINDS), p=self.fractions)]
        if kind in ("background", "pasted"):
            volume, lung = self.backgrounds[rng.integers(len(self.backgrounds))]
            hu, mask, known = self._augmented(volume, rng, lung[rng.integers(len(lung))].astype(float), side)
            if kind == "pasted":
                crop = self.crops[rng.integers(len(self.crops))]
                reach = np.asarray(side) * 0.35
                nodule_hu, mask, _ = self._augmented(crop, rng, CUBE / 2 + rng.uniform(-reach, reach), side)
                hu = paste_nodule(hu, nodule_hu, mask)
            return hu, mask, known
        if kind == "negative":
            location = hard_negatives.sample(rng, self.negatives)
            reach = np.maximum(0.25 * np.asarray(side), 1.5)
            return self._augmented(location.volume, rng, location.center + rng.uniform(-reach, reach), side)
        crop = self.crops[rng.integers(len(self.crops))]
        reach = np.full(3, 0.42 * CUBE) if kind == "surround" else np.asarray(side) * 0.35
        return self._augmented(crop, rng, CUBE / 2 + rng.uniform(-reach, reach), side)

    def _augmented(self, volume: LabeledVolume, rng: np.random.Generator, center: np.ndarray, side: Side) -> Patch:
        """Sample a patch of a volume around a location, as another scanner or with a cavity."""
        augmentation = sample_augmentation(rng, center, self.sampling.planes)
        hu, mask, known = sample_patch(volume, augmentation, side)
        hu = sample_cavity(rng, self.sampling.cavity, hu, mask)
        return simulate_scanner(hu, augmentation), mask, known
