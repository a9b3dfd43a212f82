"""Batches for the segmenter: nodules, their surroundings, nodule-free lung, and nodules placed into it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from LNHGLib.errors import InputError
from LNHGLib.models.unet import require_planes
from LNHGLib.segmentation.preprocessing import normalise
from torch import Tensor

from LNHGTrainingLib.data.crops import CUBE, LabeledVolume, cut, paste, sample_augmentation, sample_cavity, scanner
from LNHGTrainingLib.data.hard_negatives import Background, Places, draw


@dataclass(frozen=True)
class Batch:
    """Tensors (B, 1, D, H, W): normalised CT, nodule image to reach, mask, known voxels."""

    image: Tensor
    target: Tensor
    mask: Tensor
    known: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The batch on `device`."""
        return Batch(*(part.to(device) for part in (self.image, self.target, self.mask, self.known)))


class SegmenterPatches:
    """Draws batches from the seed, the step and the part alone, so that a resumed run sees the same data.

    Args:
        crops: nodule crops.
        backgrounds: chest CTs with lung voxels; may be empty.
        config: the configuration's `sampling` part.
        window_hu: display window that is scaled to [0, 1].
        seed: of the draws.
        target: what the generator is to draw: "intensity", the CT inside the nodule, or "binary", its mask.
        negatives: places that look like nodules and are none, in groups drawn equally often; may be empty.

    Raises:
        InputError: another target, or another number of `planes`.
    """

    def __init__(
        self,
        crops: Sequence[LabeledVolume],
        backgrounds: list[Background],
        config: dict,
        window_hu: list,
        seed: int,
        target: str = "intensity",
        negatives: Sequence[Places] = (),
    ) -> None:
        if target not in ("intensity", "binary"):
            raise InputError(f"`target` is {target!r}, expected intensity or binary; mend the configuration.")
        self.crops, self.backgrounds, self.config, self.seed = crops, backgrounds, config, seed
        self.planes = require_planes(config.get("planes", 1))
        self.window_hu, self.target, self.negatives = window_hu, target, negatives

    def batch(self, step: int, size: int, part: int = 0) -> Batch:
        """Batch of a part of a step; all patches of a step share one size, drawn from `sides`."""
        rng = np.random.default_rng([self.seed, step])
        side = tuple(self.config["sides"][rng.integers(len(self.config["sides"]))])
        if part:
            rng = np.random.default_rng([self.seed, step, part])
        return self._stack([self._patch(rng, side) for _ in range(size)])

    def _patch(self, rng: np.random.Generator, side: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        kinds = ["nodule", "surround", "background", "pasted", "negative"]
        shares = np.array([self.config.get(kind, 0.0) for kind in kinds], float)
        if not self.backgrounds:
            shares[2:4] = 0
        if not self.negatives:
            shares[4] = 0
        kind = kinds[rng.choice(len(kinds), p=shares / shares.sum())]
        if kind == "background":
            return self._lung(rng, side)
        if kind == "pasted":
            return self._pasted(rng, side)
        if kind == "negative":
            place, reach = draw(rng, self.negatives), np.maximum(0.25 * np.asarray(side), 1.5)
            return self._cut(place.volume, rng, place.center + rng.uniform(-reach, reach), side)
        crop = self.crops[rng.integers(len(self.crops))]
        reach = np.full(3, 0.42 * CUBE) if kind == "surround" else np.asarray(side) * 0.35
        return self._cut(crop, rng, CUBE / 2 + rng.uniform(-reach, reach), side)

    def _cut(
        self, volume: LabeledVolume, rng: np.random.Generator, centre: np.ndarray, side: tuple[int, int, int]
    ) -> tuple:
        warp = sample_augmentation(rng, centre, self.planes)
        hu, mask, known = cut(volume, warp, side)
        hu = sample_cavity(rng, self.config.get("hollow", 0.0), hu, mask)
        return scanner(hu, warp), mask, known

    def _lung(self, rng: np.random.Generator, side: tuple[int, int, int]) -> tuple:
        volume, lung = self.backgrounds[rng.integers(len(self.backgrounds))]
        return self._cut(volume, rng, lung[rng.integers(len(lung))].astype(float), side)

    def _pasted(self, rng: np.random.Generator, side: tuple[int, int, int]) -> tuple:
        hu, _, known = self._lung(rng, side)
        crop = self.crops[rng.integers(len(self.crops))]
        reach = np.asarray(side) * 0.35
        warp = sample_augmentation(rng, CUBE / 2 + rng.uniform(-reach, reach), self.planes)
        nodule_hu, mask, _ = cut(crop, warp, side)
        nodule_hu = sample_cavity(rng, self.config.get("hollow", 0.0), nodule_hu, mask)
        return paste(hu, scanner(nodule_hu, warp), mask), mask, known

    def _stack(self, patches: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Batch:
        hu, mask, known = (np.stack(part)[:, None].astype(np.float32) for part in zip(*patches, strict=True))
        image = torch.from_numpy(normalise(hu, self.window_hu))
        mask = torch.from_numpy(mask)
        target = image * mask if self.target == "intensity" else mask
        return Batch(image, target, mask, torch.from_numpy(known))
