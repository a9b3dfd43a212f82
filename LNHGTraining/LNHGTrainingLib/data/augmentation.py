"""Augmentation: patches sampled from labeled volumes with random geometry and scanner-like intensity changes.

Random choice (`sample_augmentation`, from a `numpy.random.Generator`) is kept apart from its deterministic application.
Arrays are zyx at 1 mm, intensities in HU.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from LNHGLib.image.boxes import box_between
from scipy import ndimage

from LNHGTrainingLib.data.crops import LabeledVolume

CAVITY_HU = -950.0
CAVITY_WALL_MM = (1.0, 3.5)
"""Thinnest and thickest wall of a nodule made a cavity."""


class Geometry(NamedTuple):
    """How patches may lie in their source; they are mirrored along any axis besides.

    Attributes:
        planes: how many of axial, coronal and sagittal they may lie in.
        quarter_turns: Whether they are turned in their plane by quarters, too.
        degrees: Most by which they are turned in their plane, besides.
        zoom: Most by which they are enlarged or made smaller, natural logarithm.
    """

    planes: int = 1
    quarter_turns: bool = True
    degrees: float = 15.0
    zoom: float = 0.15


@dataclass(frozen=True)
class SpatialAugmentation:
    """How a patch is sampled from a volume, and how its intensities are changed.

    Attributes:
        center: (z, y, x) index in the source.
        matrix: (3, 3) zyx, from offsets in the patch to offsets in the source.
        shift_hu: added.
        contrast: factor about air.
        noise_hu: standard deviation.
        blur: standard deviations along z, y and x, voxels.
        noise_seed: of the noise.
    """

    center: tuple[float, float, float]
    matrix: np.ndarray
    shift_hu: float = 0.0
    contrast: float = 1.0
    noise_hu: float = 0.0
    blur: tuple[float, float, float] = (0.0, 0.0, 0.0)
    noise_seed: int = 0


def sample_augmentation(
    rng: np.random.Generator, center: np.ndarray, geometry: Geometry | None = None
) -> SpatialAugmentation:
    """Choose at random how a patch is sampled around a location, and scanner-like intensity changes.

    Args:
        rng: source of randomness.
        center: (z, y, x) index in the source.
        geometry: what is allowed; None allows what `Geometry` has by itself.
    """
    planes, quarter_turns, degrees, zoom = geometry or Geometry()
    thick = rng.uniform(0.5, 1.2) if rng.random() < 0.3 else 0.0
    soft = rng.uniform(0.3, 0.8) if rng.random() < 0.3 else 0.0
    to_plane = np.roll(np.eye(3), rng.integers(planes), axis=0)
    angle = np.deg2rad(90 * quarter_turns * rng.integers(4) + rng.uniform(-degrees, degrees))
    turn = np.eye(3)
    turn[1:, 1:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    flips = np.diag(rng.choice([-1.0, 1.0], 3))
    in_plane = turn @ flips * np.exp(rng.uniform(-zoom, zoom))
    return SpatialAugmentation(
        center=tuple(float(c) for c in center),
        matrix=to_plane @ in_plane,
        shift_hu=float(rng.normal(0, 15)),
        contrast=float(np.exp(rng.normal(0, 0.04))),
        noise_hu=float(abs(rng.normal(0, 20))) if rng.random() < 0.5 else 0.0,
        blur=(max(thick, soft), soft, soft),
        noise_seed=int(rng.integers(2**31)),
    )


def sample_patch(
    volume: LabeledVolume, augmentation: SpatialAugmentation, side: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sample the patch that an augmentation names.

    Args:
        volume: source.
        augmentation: geometry; intensity changes are left to `simulate_scanner`.
        side: (D, H, W) of the patch.

    Returns:
        hu float32, mask bool, known bool, each (D, H, W); `known` is False outside the source.
    """
    center, matrix = np.asarray(augmentation.center), augmentation.matrix
    reach = np.abs(matrix) @ (np.asarray(side) / 2) + 2
    low = np.maximum(0, np.floor(center - reach)).astype(int)
    high = np.minimum(volume.hu.shape, np.ceil(center + reach) + 1).astype(int)
    part = box_between(low, high)  # what the patch can reach, so that large volumes are not copied
    offset = center - matrix @ ((np.asarray(side) - 1) / 2) - low
    options = {"matrix": matrix, "offset": offset, "output_shape": tuple(side)}
    hu = ndimage.affine_transform(volume.hu[part].astype(np.float32), order=1, mode="mirror", **options)
    mask = ndimage.affine_transform(volume.mask[part].astype(np.float32), order=1, cval=0.0, **options) > 0.5
    known = ndimage.affine_transform(volume.known[part].astype(np.uint8), order=0, cval=0, **options) > 0
    return hu, mask, known


def simulate_scanner(hu: np.ndarray, augmentation: SpatialAugmentation) -> np.ndarray:
    """Apply an augmentation's blur, contrast, shift and noise.

    Args:
        hu: HU of a patch (D, H, W).
        augmentation: what to apply.

    Returns:
        float32 (D, H, W).
    """
    if any(augmentation.blur):
        hu = ndimage.gaussian_filter(hu, augmentation.blur)
    hu = (hu + 1000) * augmentation.contrast - 1000 + augmentation.shift_hu
    if augmentation.noise_hu:
        noise = np.random.default_rng(augmentation.noise_seed).normal(0, augmentation.noise_hu, hu.shape)
        hu = hu + ndimage.gaussian_filter(noise, 0.6) * 2.0
    return hu.astype(np.float32)


def paste_nodule(hu: np.ndarray, nodule_hu: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Blend a nodule with a soft rim into other lung tissue.

    Args:
        hu: HU of the tissue (D, H, W).
        nodule_hu: HU of a patch with the nodule, of the same shape.
        mask: bool of the same shape, the nodule.

    Returns:
        HU (D, H, W).
    """
    soft = ndimage.gaussian_filter(ndimage.binary_dilation(mask, iterations=1).astype(np.float32), 0.8)
    alpha = np.clip(soft * 1.3, 0, 1)
    return hu * (1 - alpha) + nodule_hu * alpha


def sample_cavity(rng: np.random.Generator, fraction: float, hu: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Make a fraction of nodules cavities: cavitary nodules are too rare in the data to learn them from.

    Args:
        rng: source of randomness, used where the fraction is not 0.
        fraction: of the nodules, 0 to 1.
        hu: HU of a patch (D, H, W).
        mask: bool of the same shape, the nodule.

    Returns:
        HU (D, H, W), changed or not.
    """
    if fraction and rng.random() < fraction:
        return simulate_cavity(hu, mask, rng.uniform(*CAVITY_WALL_MM))
    return hu


def simulate_cavity(hu: np.ndarray, mask: np.ndarray, wall_mm: float) -> np.ndarray:
    """Fill a nodule with air inside its wall; one that is thinner than the wall stays as it is.

    Args:
        hu: HU of a patch at 1 mm (D, H, W).
        mask: bool of the same shape, the nodule.
        wall_mm: thickness of the wall.

    Returns:
        HU (D, H, W).
    """
    air = ndimage.distance_transform_edt(mask) > wall_mm + 0.5  # from the mask's border, half a voxel beyond its rim
    soft = ndimage.gaussian_filter(air.astype(np.float32), 0.7)
    return hu * (1 - soft) + CAVITY_HU * soft


LUNG_HU = -850.0
GROUND_GLASS_CONTRAST = (0.2, 0.6)
"""Least and most of a solid nodule's contrast to the lung that simulated ground glass keeps: about -700 to -350 HU."""


def sample_ground_glass(rng: np.random.Generator, fraction: float, hu: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Make a fraction of nodules ground glass: faint nodules are too rare in the data to learn them from.

    Args:
        rng: source of randomness, used where the fraction is not 0.
        fraction: of the nodules, 0 to 1.
        hu: HU of a patch (D, H, W).
        mask: bool of the same shape, the nodule.

    Returns:
        HU (D, H, W), changed or not.
    """
    if fraction and rng.random() < fraction:
        return simulate_ground_glass(hu, mask, rng.uniform(*GROUND_GLASS_CONTRAST))
    return hu


def simulate_ground_glass(hu: np.ndarray, mask: np.ndarray, contrast: float) -> np.ndarray:
    """Lower a nodule's contrast to the lung.

    Args:
        hu: HU of a patch at 1 mm (D, H, W).
        mask: bool of the same shape, the nodule.
        contrast: what is left of it, 0 to 1.

    Returns:
        HU (D, H, W).
    """
    soft = np.clip(1.5 * ndimage.gaussian_filter(ndimage.binary_dilation(mask).astype(np.float32), 0.7), 0, 1)
    faint = LUNG_HU + contrast * np.maximum(hu - LUNG_HU, 0)
    return np.where(hu > LUNG_HU, hu * (1 - soft) + faint * soft, hu)
