"""Batches for the candidate classifier: fields around candidates, seen as other scanners would show them."""

import numpy as np
import torch
from LNHGLib.segmentation.classification import FIELD, candidate_field
from LNHGLib.segmentation.components import nearest
from LNHGLib.segmentation.preprocessing import normalize
from torch import Tensor

from LNHGTrainingLib.config import ClassifierConfig
from LNHGTrainingLib.data.augmentation import SpatialAugmentation, paste_nodule, simulate_scanner
from LNHGTrainingLib.data.candidates import MIN_SIGNAL, SIDE, Candidates

OCCLUDED = (0.2, 0.5)
"""Least and most of a field's side that an occlusion empties."""
MAX_TISSUE_HU = -400.0
"""A nodule is pasted where the mean is below: not into the mediastinum or the chest wall."""


class CandidateFields:
    """Samples batches from the seed, the step and the micro-batch alone.

    Args:
        candidates: to train on.
        config: of the training.
    """

    def __init__(self, candidates: Candidates, config: ClassifierConfig) -> None:
        self.candidates, self.config, self.sampling = candidates, config, config.sampling
        nodule, scan = candidates.nodule == 1, candidates.scan
        self.others, self.tissue = np.flatnonzero(~nodule), np.flatnonzero(~nodule & scan)
        self.of_crops = np.flatnonzero(nodule & ~scan)
        self.of_scans = [
            np.flatnonzero(nodule & scan & (candidates.patient == one))
            for one in np.unique(candidates.patient[nodule & scan])
        ]

    def batch(self, step: int, size: int, number: int = 0) -> tuple[Tensor, Tensor]:
        """Return fields (B, 2, 32, 32, 32) and whether they are nodules, float32 (B,).

        Args:
            step: number of the step.
            size: fields.
            number: of the micro-batch.
        """
        rng = np.random.default_rng([self.config.seed, step, number])
        nodules = np.arange(size) < round(self.sampling.nodule * size)
        fields = [self._field(rng, self._choose(rng, bool(nodule))) for nodule in nodules]
        return torch.from_numpy(np.stack(fields)), torch.from_numpy(nodules.astype(np.float32))

    def _choose(self, rng: np.random.Generator, nodule: bool) -> int:
        """Choose a candidate; of the nodules of scans, each patient's as often as the others'."""
        if not nodule:
            return int(rng.choice(self.others))
        scan = len(self.of_scans) > 0 and rng.random() < self.sampling.scans
        return int(rng.choice(self.of_scans[rng.integers(len(self.of_scans))] if scan else self.of_crops))

    def _cube(self, rng: np.random.Generator, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return HU and nodule image of a candidate; some nodules of crops are pasted over other candidates of scans.

        Nodules come mostly from crops, the others mostly from scans: without that, the tissue around would tell which.
        """
        hu, image = (array[number].astype(np.float32) for array in (self.candidates.hu, self.candidates.image))
        image /= 255
        own = self.candidates.nodule[number] and not self.candidates.scan[number] and len(self.tissue)
        if own and rng.random() < self.sampling.pasted:
            other = int(rng.choice(self.tissue))
            mask = nearest(image > MIN_SIGNAL, (SIDE / 2,) * 3, (1, 1, 1))
            place = self.candidates.hu[other].astype(np.float32)
            if mask.any() and place[mask].mean() < MAX_TISSUE_HU:
                shown = np.where(mask, image, self.candidates.image[other] / np.float32(255))
                return paste_nodule(place, hu, mask), shown
        return hu, image

    def _field(self, rng: np.random.Generator, number: int) -> np.ndarray:
        """Cut one field: moved, flipped and turned in the axial plane, with another contrast and noise."""
        window = self.config.window_hu
        soft = rng.uniform(0.2, 0.7) if rng.random() < 0.3 else 0.0
        scanner = SpatialAugmentation(
            center=(0.0, 0.0, 0.0),
            matrix=np.eye(3),
            shift_hu=float(rng.normal(0, 20)),
            contrast=float(np.exp(rng.normal(0, 0.05))),
            noise_hu=float(abs(rng.normal(0, 25))) if rng.random() < 0.5 else 0.0,
            blur=(soft, soft, soft),
            noise_seed=int(rng.integers(2**31)),
        )
        hu, image = self._cube(rng, number)
        ct_norm = normalize(simulate_scanner(hu, scanner), window)
        image = image * np.float32(np.exp(rng.normal(0, 0.2)))
        center = SIDE / 2 + rng.integers(-self.sampling.shift, self.sampling.shift + 1, 3)
        field = np.rot90(candidate_field(ct_norm, image, center, window), rng.integers(4), (2, 3))
        field = np.flip(field, [axis for axis in (1, 2, 3) if rng.random() < 0.5]).copy()
        if rng.random() < self.sampling.occluded:
            axis, length = rng.integers(1, 4), round(FIELD / 2 * rng.uniform(*OCCLUDED))
            part = slice(0, length) if rng.random() < 0.5 else slice(FIELD - length, FIELD)
            field[(slice(None), *(part if each == axis else slice(None) for each in (1, 2, 3)))] = 0
        return field
