"""Nodules that CT-GAN makes, put into the lungs of chests to train on (docs/method.md, section 11.3).

They exist in the memory of a training alone: no file of a chest with one is ever written.
"""

from pathlib import Path

import numpy as np
import torch
from LNHGLib.errors import InputError, shown
from scipy import ndimage
from scipy.special import expit

from LNHGTrainingLib.baselines.ct_gan import HIDDEN, SIDE, Equalizer, Injector, hide
from LNHGTrainingLib.config import Data
from LNHGTrainingLib.data.crops import LabeledVolume, load_crops, patients
from LNHGTrainingLib.evaluation.crops import center_component
from LNHGTrainingLib.training import checkpoint

LUNG_BELOW_HU = -800.0
"""Whose values about their mean are the noise of a scan."""
SOFT_HU, WIDTH_HU = -700.0, 70.0
SIGMAS = 3
"""Of the window, from the middle of a cube to its sides."""
MIN_ADDED_HU = 150.0
"""Where less was added at most, no nodule came out."""
HALF = SIDE // 2


class NoduleInjector:
    """Puts nodules into chests at 1 mm.

    Args:
        network: evaluated, on the CPU.
        equalizer: that it was trained with.
    """

    def __init__(self, network: Injector, equalizer: Equalizer) -> None:
        self.network, self.equalizer = network.eval().requires_grad_(False), equalizer
        axis = np.linspace(-SIGMAS, SIGMAS, SIDE) ** 2 / 2
        self.window = np.exp(-(axis[:, None, None] + axis[:, None] + axis))

    @staticmethod
    def of_checkpoint(state: dict, path: Path) -> "NoduleInjector":
        """Return the averaged network of a loaded checkpoint with its equalization.

        Args:
            state: as from `checkpoint.load`.
            path: where it was loaded from.

        Raises:
            InputError: it is no checkpoint of the injector.
        """
        if "injector" not in state["config"]:
            raise InputError(f"{path} holds no injector, expected a checkpoint of `train injector`; give another.")
        network, equalizer = Injector(state["config"]["injector"]["width"]), Equalizer()
        network.load_state_dict(state["ema"])
        equalizer.load_state_dict(state["equalizer"])
        return NoduleInjector(network, equalizer)

    def inject(self, hu: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Put a nodule into the middle of a cube of lung.

        What was made is blended in where it is denser than lung, less towards the cube's sides, and never makes
        anything darker. The nodule is where at least half of the most that was added was.

        Args:
            hu: HU (32, 32, 32).
            noise: HU of the same shape, added to what is made, which is smooth.

        Returns:
            HU float32 and the nodule, bool, of the same shape; the cube as it was and nothing where none came out.
        """
        seen = hide(torch.from_numpy(self.equalizer.equalize(hu))[None, None])
        made = self.equalizer.undo(self.network(seen)[0, 0].numpy()) + noise
        weight = expit((made - SOFT_HU) / WIDTH_HU) * self.window
        result = np.maximum(hu, weight * made + (1 - weight) * hu).astype(np.float32)
        added = ndimage.uniform_filter(result - hu, 3)
        most = added[HIDDEN, HIDDEN, HIDDEN].max()
        nodule = center_component(added > most / 2) if most >= MIN_ADDED_HU else np.zeros(hu.shape, bool)
        return (result, nodule) if nodule.any() else (hu.astype(np.float32), nodule)

    def inject_into(
        self, rng: np.random.Generator, volume: LabeledVolume, lung: np.ndarray, reach: int
    ) -> tuple[LabeledVolume, np.ndarray, bool]:
        """Put a nodule into a chest at a random place of its lungs.

        Args:
            rng: source of randomness.
            volume: the chest, which stays as it is; larger than a cube.
            lung: (N, 3) indices of its lung.
            reach: voxels around the place that are returned.

        Returns:
            The part of the chest around the nodule, its middle (z, y, x) in it, and whether a nodule came out.
        """
        place, other = (lung[rng.integers(len(lung))].astype(int) for _ in range(2))
        return self.inject_at(volume, place, other, reach)

    def inject_at(
        self, volume: LabeledVolume, place: np.ndarray, other: np.ndarray, reach: int
    ) -> tuple[LabeledVolume, np.ndarray, bool]:
        """Put a nodule into a chest at a place, as `inject_into` does.

        Args:
            volume: the chest, which stays as it is; larger than a cube.
            place: index of the nodule, moved inwards where a cube around it would leave the chest.
            other: index of lung that gives the noise.
            reach: voxels around the place that are returned.
        """
        place, other = (at.clip(HALF, np.array(volume.hu.shape) - HALF) for at in (place, other))
        noise = volume.hu[_around(other, HALF)].astype(np.float32)
        is_lung = noise < LUNG_BELOW_HU
        noise = np.where(is_lung, noise - noise[is_lung].mean() if is_lung.any() else 0, 0)
        low = np.maximum(place - reach, 0)
        part = tuple(slice(a, b) for a, b in zip(low, place + reach, strict=True))
        hu, mask = volume.hu[part].astype(np.float32), volume.mask[part].copy()
        cube = _around(place - low, HALF)
        hu[cube], nodule = self.inject(hu[cube], noise)
        mask[cube] |= nodule
        middle = np.argwhere(nodule).mean(axis=0) - HALF if nodule.any() else 0
        return LabeledVolume(hu, mask, volume.known[part], volume.patient, {}), place - low + middle, bool(nodule.any())


def load(data: Data) -> NoduleInjector:
    """Return the injector that a configuration's `data` names.

    Raises:
        InputError: it is none, or was trained on a patient of the validation folds (register M12).
    """
    path = Path(data.injector)
    state = checkpoint.load(path)
    injector = NoduleInjector.of_checkpoint(state, path)
    held_out = load_crops(Path(data.folder) / data.crops, Path(data.folder) / data.table, data.validation_folds)
    shared = sorted(patients(held_out) & set(state["patients"]))
    if shared:
        raise InputError(
            f"{path} was trained on {len(shared)} patients of the validation folds ({shown(shared[0])}, ...), "
            "expected none; train the injector on the same folds."
        )
    return injector


def _around(place: np.ndarray, half: int) -> tuple[slice, ...]:
    return tuple(slice(int(at) - half, int(at) + half) for at in place)
