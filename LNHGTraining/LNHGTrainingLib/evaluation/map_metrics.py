"""What a heterogeneity map is worth, in metrics: alike between trainings, a copy of the CT, repeatable under noise.

Register L1: the generator adds its input before the last ReLU, so texture inside the nodule can be the CT that failed
to cancel. Register U22: "more vivid" is no metric. Arrays are zyx at 1 mm; signals lie in 0 to 1.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, stats
from skimage.metrics import structural_similarity

MIN_VOXELS = 10
"""Fewer voxels inside a nodule give no correlation."""

LUNG_HU = (-990.0, -750.0)
CLEAR_OF_TISSUE_HU = -600.0
CLEAR_VOXELS = 3
MEAN_VOXELS = 5
MIN_LUNG_VOXELS = 500
LAG_RANGE = (0.02, 0.9)
ROUNDING = 1e-4
ROBUST_SD = 1.4826
"""Median absolute deviation to standard deviation, for a normal distribution."""


@dataclass(frozen=True)
class Noise:
    """A scan's noise: standard deviation in HU, and the Gaussian (voxels, zyx) that white noise is smoothed with."""

    sd_hu: float
    blur: tuple[float, float, float]


def similarity(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> float:
    """Return the SSIM (Wang et al. 2004: Gaussian of 1.5 voxels, range 1) of two maps, its mean over a nodule's voxels.

    Args:
        a: (z, y, x), at least 11 voxels along each axis.
        b: (z, y, x).
        mask: The nodule, bool (z, y, x).
    """
    options = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    _, local = structural_similarity(a.astype(np.float64), b.astype(np.float64), full=True, **options)
    return float(local[mask].mean())


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Spearman's correlation; NaN where one of both does not vary or there are too few values.

    Args:
        a: (n,).
        b: (n,).
    """
    if len(a) < MIN_VOXELS or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(stats.spearmanr(a, b).statistic)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Pearson's correlation; NaN where one of both does not vary or there are too few values.

    Args:
        a: (n,).
        b: (n,).
    """
    if len(a) < MIN_VOXELS or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(stats.pearsonr(a.astype(np.float64), b.astype(np.float64)).statistic)


def beyond(signal: np.ndarray, ct: np.ndarray) -> np.ndarray:
    """Return the part of a signal that no straight line on the CT gives; zeros where only rounding is left.

    Args:
        signal: (n,).
        ct: (n,), of the same voxels.
    """
    signal, ct = signal.astype(np.float64), ct.astype(np.float64)
    if np.ptp(ct) == 0:
        return signal - signal.mean()
    slope, offset = np.polyfit(ct, signal, 1)
    left = signal - (slope * ct + offset)
    return left if left.std() > ROUNDING * signal.std() else np.zeros(len(signal))


def estimate_noise(hu: np.ndarray, valid: np.ndarray) -> Noise | None:
    """Estimate a scan's own noise from the lung in a crop.

    The lung's voxels away from tissue, less the mean of their neighborhood of `MEAN_VOXELS` along each axis; the spread
    is taken robustly. The smoothness is the Gaussian that gives white noise the correlation of neighbors along each
    axis: exp(-1 / (4 s^2)) for a width of s.

    Args:
        hu: CT (z, y, x).
        valid: bool (z, y, x), False in padding.

    Returns:
        None when the crop holds too little lung.
    """
    hu = hu.astype(np.float64)
    smooth = ndimage.uniform_filter(hu, MEAN_VOXELS)
    lung = (smooth > LUNG_HU[0]) & (smooth < LUNG_HU[1]) & valid
    lung &= ~ndimage.binary_dilation((smooth > CLEAR_OF_TISSUE_HU) | ~valid, iterations=CLEAR_VOXELS)
    if np.count_nonzero(lung) < MIN_LUNG_VOXELS:
        return None
    rest = hu - smooth
    sd = ROBUST_SD * float(np.median(np.abs(rest[lung] - np.median(rest[lung]))))
    blur = []
    for axis in range(3):
        size = rest.shape[axis]
        first, second = (np.take(rest, np.arange(n, size - 1 + n), axis) for n in (0, 1))
        both = np.take(lung, np.arange(size - 1), axis) & np.take(lung, np.arange(1, size), axis)
        near = 0.0
        if np.count_nonzero(both) >= MIN_LUNG_VOXELS and rest[lung].any():
            near = np.mean(first[both] * second[both]) / np.mean(rest[lung] ** 2)
        blur.append(float(np.sqrt(-0.25 / np.log(min(near, LAG_RANGE[1])))) if near > LAG_RANGE[0] else 0.0)
    return Noise(sd, tuple(blur))


def repeat(hu: np.ndarray, noise: Noise, rng: np.random.Generator) -> np.ndarray:
    """Return the same anatomy with noise sampled anew: two repeats differ as two scans of the nodule would.

    The scan's own noise stays in each, so a repeat is noisier than the scan by a factor of the square root of two.

    Args:
        hu: CT (z, y, x).
        noise: Of the scan.
        rng: To sample from.
    """
    sampled = ndimage.gaussian_filter(rng.normal(size=hu.shape), noise.blur, mode="wrap")
    return hu + noise.sd_hu * sampled / sampled.std()
