"""The signal inside a nodule in numbers, which the paper lacks (register U3, U22)."""

import numpy as np

from LNHGLib.image.boxes import box_around_mask

ENTROPY_BIN_WIDTH = 0.02
"""Width of the histogram bins behind `entropy_bits`, in signal units; bin edges are multiples of it."""

STATISTICS = ("mean", "sd", "entropy_bits", "p10_p90_range", "gradient_per_mm", "edge_to_core")
"""Keys of the dictionary that `statistics` returns, in the order in which tables show them."""


def statistics(signal: np.ndarray, mask: np.ndarray, spacing_mm: tuple[float, ...]) -> dict[str, float | None]:
    """Measure the signal inside one nodule; no voxel outside the mask has any influence.

    Args:
        signal: (z, y, x) float, relative units.
        mask: same shape, bool, at least one voxel.
        spacing_mm: voxel size in array order.

    Returns:
        `mean`, `sd` (population), `entropy_bits` (Shannon, bins of `ENTROPY_BIN_WIDTH`), `p10_p90_range`,
        `gradient_per_mm` (mean magnitude, from differences between neighbors inside the mask) and `edge_to_core`
        (mean of the third of the voxels nearest the surface over the mean of the deepest third, by distance in mm; 1
        where both are the same voxels, None where the core's mean is zero).

    Raises:
        ValueError: if the mask is empty.
    """
    from scipy import ndimage  # here, as those who only name the statistics need none of it

    box = box_around_mask(mask)
    if box is None:
        raise ValueError("the nodule mask is empty: statistics need at least one voxel.")
    signal, mask = signal[box].astype(np.float64), mask[box].astype(bool)
    values = signal[mask]
    low, high = np.percentile(values, (10, 90))
    _, counts = np.unique(np.floor(values / ENTROPY_BIN_WIDTH), return_counts=True)
    fractions = counts / counts.sum()
    depth_mm = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing_mm)
    depth_mm = depth_mm[(slice(1, -1),) * mask.ndim][mask]
    shallow, deep = np.quantile(depth_mm, (1 / 3, 2 / 3))
    edge, core = values[depth_mm <= shallow].mean(), values[depth_mm >= deep].mean()
    return {
        "mean": float(values.mean()),
        "sd": float(values.std()),
        "entropy_bits": float(max(0.0, -(fractions * np.log2(fractions)).sum())),
        "p10_p90_range": float(high - low),
        "gradient_per_mm": float(_gradient_magnitude(signal, mask, spacing_mm)[mask].mean()),
        "edge_to_core": float(edge / core) if core > 0 else None,
    }


def _gradient_magnitude(signal: np.ndarray, mask: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Return the gradient's magnitude: the mean of the one-sided differences whose two voxels lie in the mask."""
    squared = np.zeros(signal.shape)
    for axis, step_mm in enumerate(spacing_mm):
        ahead, behind = [slice(None)] * signal.ndim, [slice(None)] * signal.ndim
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        both = mask[tuple(ahead)] & mask[tuple(behind)]
        difference = np.where(both, (signal[tuple(ahead)] - signal[tuple(behind)]) / step_mm, 0.0)
        total, count = np.zeros(signal.shape), np.zeros(signal.shape)
        for side in (tuple(ahead), tuple(behind)):
            total[side] += difference
            count[side] += both
        squared += (total / np.maximum(count, 1)) ** 2
    return np.sqrt(squared)
