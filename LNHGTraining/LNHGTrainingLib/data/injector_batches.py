"""Cubes for training CT-GAN: nodules of the training folds, each in one of the document's 67 copies."""

import numpy as np
import torch
from torch import Tensor

from LNHGTrainingLib.baselines.ct_gan import HIGH_HU, LOW_HU, SIDE, Equalizer
from LNHGTrainingLib.config import InjectorConfig
from LNHGTrainingLib.data.augmentation import SpatialAugmentation, sample_patch
from LNHGTrainingLib.data.crops import CUBE, CropDataset

SHIFT_MM, STEP_DEGREES = 4, 6
FLIPS = [np.diag([1.0, y, x]) for y in (1, -1) for x in (1, -1)]
SHIFTS = [(0, y, x) for y in (SHIFT_MM, -SHIFT_MM) for x in (SHIFT_MM, -SHIFT_MM)]
TURNS = range(STEP_DEGREES, 360, STEP_DEGREES)
COPIES = len(FLIPS) + len(SHIFTS) + len(TURNS)


def copy_of_cube(number: int) -> SpatialAugmentation:
    """Return how one of the `COPIES` is cut: as it is, flipped, moved along both axes of a slice, or turned in it."""
    middle, matrix = np.full(3, (CUBE - 1) / 2), np.eye(3)
    if number < len(FLIPS):
        matrix = FLIPS[number]
    elif number < len(FLIPS) + len(SHIFTS):
        middle = middle + SHIFTS[number - len(FLIPS)]
    else:
        angle = np.deg2rad(TURNS[number - len(FLIPS) - len(SHIFTS)])
        matrix[1:, 1:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return SpatialAugmentation(tuple(middle), matrix)


def fit_equalizer(crops: CropDataset) -> Equalizer:
    """Return the equalization of what is known of the crops."""
    counts, equalizer = np.zeros(HIGH_HU - LOW_HU + 1), Equalizer()
    for crop in crops:
        counts += np.bincount(crop.hu[crop.known].clip(LOW_HU, HIGH_HU) - LOW_HU, minlength=len(counts))
    equalizer.fit(counts)
    return equalizer


class InjectorCubes:
    """Samples batches from the seed, the step and the micro-batch alone.

    Args:
        crops: of nodules.
        equalizer: fitted to them.
        config: of the training.
    """

    def __init__(self, crops: CropDataset, equalizer: Equalizer, config: InjectorConfig) -> None:
        self.crops, self.equalizer, self.config = crops, equalizer, config

    def batch(self, step: int, size: int, number: int = 0) -> Tensor:
        """Return cubes (B, 1, 32, 32, 32), equalized.

        Args:
            step: number of the step.
            size: samples.
            number: of the micro-batch.
        """
        rng = np.random.default_rng([self.config.seed, step, number])
        chosen = zip(rng.integers(len(self.crops), size=size), rng.integers(COPIES, size=size), strict=True)
        return torch.from_numpy(np.stack([self.cube(int(crop), int(copy)) for crop, copy in chosen])[:, None])

    def cube(self, number: int, copy: int = 0) -> np.ndarray:
        """Return a crop's equalized cube.

        Args:
            number: of the crop.
            copy: number of the copy.
        """
        hu, _, _ = sample_patch(self.crops[number], copy_of_cube(copy), (SIDE,) * 3)
        return self.equalizer.equalize(hu)
