"""Batches for the candidate classifier: fields around candidates, turned, scaled, and as other scanners show them."""

import numpy as np
import torch
from LNHGLib.segmentation.classification import BALL, FIELD, rounded
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool3d, grid_sample

from LNHGTrainingLib.config import ClassifierConfig
from LNHGTrainingLib.data.candidates import SIDE, Candidates


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
        self.hu = torch.from_numpy(candidates.hu)
        nodule, scan, marked = candidates.nodule == 1, candidates.scan, candidates.marked
        cut = (candidates.reach < SIDE // 2).any(1)
        self.bright = np.flatnonzero(~nodule & ~marked)
        self.others = [np.flatnonzero(~nodule & marked & (scan == where)) for where in (True, False)]
        self.cut = np.flatnonzero(~nodule & cut)
        bright = config.sampling.bright if len(self.bright) else 0.0
        kinds = (self.bright, bright), (self.others[1], (1 - bright) * self._share_of_crops())
        self.cut_share = sum(share * cut[numbers].mean() for numbers, share in kinds if share)
        self.of_crops = np.flatnonzero(nodule & ~scan)
        self.of_scans = [
            np.flatnonzero(nodule & scan & (candidates.patient == one))
            for one in np.unique(candidates.patient[nodule & scan])
        ]

    def _share_of_crops(self) -> float:
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
        chosen = np.array([self._choose(rng, bool(nodule)) for nodule in nodules])
        shown = shown_parts(np.stack([self._reach(rng, one) for one in chosen]))
        grid = self._turned(rng, size)
        cubes = self.hu[torch.from_numpy(chosen)][:, None].float()
        hu = grid_sample(cubes, grid, "bilinear", "border", align_corners=False)
        low, high = self.config.window_hu
        ct_norm = ((_as_other_scanners(hu, rng) - low) / (high - low)).clamp(0, 1)
        seen = grid_sample(shown, grid, "nearest", "zeros", align_corners=False) * torch.from_numpy(BALL)
        fields = torch.from_numpy(rounded(ct_norm.numpy(), self.config.window_hu)) * seen
        return fields, torch.from_numpy(nodules.astype(np.float32))

    def _choose(self, rng: np.random.Generator, nodule: bool) -> int:
        """Choose a candidate; of the nodules of scans, each patient's as often as the others'."""
        if not nodule and len(self.bright) and rng.random() < self.sampling.bright:
            return int(rng.choice(self.bright))
        if not nodule:
            return int(rng.choice(self.others[int(rng.random() < self._share_of_crops())]))
        scan = len(self.of_scans) > 0 and rng.random() < self.sampling.scans
        return int(rng.choice(self.of_scans[rng.integers(len(self.of_scans))] if scan else self.of_crops))

    def _reach(self, rng: np.random.Generator, number: int) -> np.ndarray:
        """Return how far a candidate is seen: a nodule now and then as another candidate of a crop, turned over."""
        if not self.candidates.nodule[number] or rng.random() >= self.cut_share:
            return self.candidates.reach[number]
        sides = self.candidates.reach[rng.choice(self.cut)].reshape(2, 3)[:, rng.permutation(3)]
        turned = np.where(rng.random(3) < 0.5, sides, sides[::-1])
        return np.minimum(turned.ravel(), self.candidates.reach[number])

    def _turned(self, rng: np.random.Generator, size: int) -> Tensor:
        """Return where in its cube each voxel of each field lies, for `grid_sample`, float32 (B, 32, 32, 32, 3).

        Fields are turned about the patient's axis, some in any direction, scaled, mirrored and moved.
        """
        axial = Rotation.from_euler("z", rng.uniform(0, 2 * np.pi, (size, 1))).as_matrix()
        free = Rotation.random(size, random_state=rng).as_matrix()
        turned = np.where((rng.random(size) < self.sampling.turned)[:, None, None], free, axial)
        scale = np.exp(rng.normal(0, self.sampling.scale, size))[:, None, None]
        mirrored = np.where(rng.random((size, 3)) < 0.5, -1, 1)[:, :, None]
        moved = rng.integers(-self.sampling.shift, self.sampling.shift + 1, (size, 3, 1)) * 2 / FIELD
        affine = np.concatenate([turned * scale * mirrored, moved], 2)
        grid = affine_grid(torch.from_numpy(affine).float(), [size, 1, FIELD, FIELD, FIELD], align_corners=False)
        return grid * (FIELD / SIDE)


def shown_parts(reach: np.ndarray) -> Tensor:
    """Return what crops show of the cubes of candidates, float32 (B, 1, 40, 40, 40).

    Args:
        reach: of each, as in `Candidates`, (B, 6).
    """
    offset = np.arange(SIDE) - SIDE // 2
    along = (offset >= -reach[:, :3, None]) & (offset <= reach[:, 3:, None])
    shown = along[:, 0, :, None, None] & along[:, 1, None, :, None] & along[:, 2, None, None, :]
    return torch.from_numpy(shown[:, None].astype(np.float32))


def _as_other_scanners(hu: Tensor, rng: np.random.Generator) -> Tensor:
    """Blur some fields (in place), add noise to some, and change the contrast and brightness of all."""
    size = len(hu)

    def per_field(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).view(-1, 1, 1, 1, 1)

    blurred = torch.from_numpy(np.flatnonzero(rng.random(size) < 0.3))
    soft = per_field(rng.uniform(0.2, 0.8, len(blurred)))
    hu[blurred] += soft * (avg_pool3d(hu[blurred], 3, 1, 1) - hu[blurred])
    noise = per_field((rng.random(size) < 0.5) * np.abs(rng.normal(0, 25, size)))
    contrast, brightness = per_field(np.exp(rng.normal(0, 0.05, size))), per_field(rng.normal(0, 20, size))
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    return (hu + 1000) * contrast - 1000 + brightness + noise * torch.randn(hu.shape, generator=generator)
