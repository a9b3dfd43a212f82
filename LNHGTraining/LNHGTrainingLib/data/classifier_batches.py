"""Batches for the candidate classifier: fields around candidates, seen as other scanners would show them."""

import numpy as np
import torch
from LNHGLib.segmentation.preprocessing import normalize
from torch import Tensor

from LNHGTrainingLib.config import ClassifierConfig
from LNHGTrainingLib.data.augmentation import SpatialAugmentation, simulate_scanner
from LNHGTrainingLib.data.candidates import SIDE, Candidates, seen_field


class CandidateFields:
    """Samples batches from the seed, the step and the micro-batch alone.

    Crops cut the fields of most candidates that are no nodules, since nodules lie in their middle. So that a cut field
    tells nothing, nodules are cut as often, and as those are.

    Args:
        candidates: to train on.
        config: of the training.
    """

    def __init__(self, candidates: Candidates, config: ClassifierConfig) -> None:
        self.candidates, self.config, self.sampling = candidates, config, config.sampling
        nodule, scan, marked = candidates.nodule == 1, candidates.scan, candidates.marked
        cut = (candidates.reach < SIDE // 2).any(1)
        self.bright = np.flatnonzero(~nodule & ~marked)
        self.others = [np.flatnonzero(~nodule & marked & (scan == where)) for where in (True, False)]
        self.cut = np.flatnonzero(~nodule & cut)
        kinds = (self.bright, config.sampling.bright), (self.others[1], (1 - config.sampling.bright) * self._crops())
        self.cut_share = sum(share * cut[numbers].mean() for numbers, share in kinds if len(numbers))
        self.of_crops = np.flatnonzero(nodule & ~scan)
        self.of_scans = [
            np.flatnonzero(nodule & scan & (candidates.patient == one))
            for one in np.unique(candidates.patient[nodule & scan])
        ]

    def _crops(self) -> float:
        """Return the fraction of marked candidates that are no nodules and come from crops."""
        return self.sampling.crops if all(map(len, self.others)) else float(len(self.others[1]) > 0)

    def batch(self, step: int, size: int, number: int = 0) -> tuple[Tensor, Tensor]:
        """Return fields (B, 1, 32, 32, 32) and whether they are nodules, float32 (B,).

        Args:
            step: number of the step.
            size: fields.
            number: of the micro-batch.
        """
        rng = np.random.default_rng([self.config.seed, step, number])
        nodules = np.arange(size) < round(self.sampling.nodule * size)
        fields = [self._field(rng, self._choose(rng, bool(nodule))) for nodule in nodules]
        return torch.from_numpy(np.stack(fields)[:, None]), torch.from_numpy(nodules.astype(np.float32))

    def _choose(self, rng: np.random.Generator, nodule: bool) -> int:
        """Choose a candidate; of the nodules of scans, each patient's as often as the others'."""
        if not nodule and len(self.bright) and rng.random() < self.sampling.bright:
            return int(rng.choice(self.bright))
        if not nodule:
            return int(rng.choice(self.others[int(rng.random() < self._crops())]))
        scan = len(self.of_scans) > 0 and rng.random() < self.sampling.scans
        return int(rng.choice(self.of_scans[rng.integers(len(self.of_scans))] if scan else self.of_crops))

    def _reach(self, rng: np.random.Generator, number: int) -> np.ndarray:
        """Return how far a candidate is seen: a nodule now and then as another candidate of a crop, turned over."""
        if not self.candidates.nodule[number] or rng.random() >= self.cut_share:
            return self.candidates.reach[number]
        sides = self.candidates.reach[rng.choice(self.cut)].reshape(2, 3)[:, rng.permutation(3)]
        turned = np.where(rng.random(3) < 0.5, sides, sides[::-1])
        return np.minimum(turned.ravel(), self.candidates.reach[number])

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
        ct_norm = normalize(simulate_scanner(self.candidates.hu[number].astype(np.float32), scanner), window)
        center = SIDE / 2 + rng.integers(-self.sampling.shift, self.sampling.shift + 1, 3)
        field = np.rot90(seen_field(ct_norm, self._reach(rng, number), center, window), rng.integers(4), (1, 2))
        return np.flip(field, [axis for axis in (0, 1, 2) if rng.random() < 0.5]).copy()
