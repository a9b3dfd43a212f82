"""How document 001 cuts a network's map and counts what it hits (docs/method.md, section 13.3)."""

import numpy as np
from scipy.cluster.vq import kmeans2

POSITIVE_PX = 3
"""A slice with more marked pixels is positive."""
HIT_PX = 1
"""A positive slice with more of them inside the reference hits it."""


def two_means_threshold(values: np.ndarray) -> float | None:
    """Return the mean of the centers of two clusters of values; None where all are the same (register T6)."""
    flat = values.reshape(-1, 1).astype(np.float64)
    if flat.min() == flat.max():
        return None
    centers, _ = kmeans2(flat, np.array([flat.min(axis=0), flat.max(axis=0)]), minit="matrix", iter=50)
    return float(centers.mean())


def cut_slices(image: np.ndarray) -> np.ndarray:
    """Return the upper of two clusters of each slice's values, bool (z, y, x); a slice of one value has none.

    Every other slice has one, be there a nodule or not (register T6). The document scales a slice's values to a mean of
    0 and a standard deviation of 1 first, which moves the threshold with them.

    Args:
        image: a network's map (z, y, x).
    """
    thresholds = [two_means_threshold(one) for one in image]
    return np.stack([one > (np.inf if cut is None else cut) for one, cut in zip(image, thresholds, strict=True)])


def hits(mask: np.ndarray, reference: np.ndarray) -> bool:
    """Return whether the middle slice of a nodule's cube or a neighbor of it is positive and hits the nodule.

    Args:
        mask: what is marked, bool (z, y, x).
        reference: the readers' consensus, of the same shape.
    """
    middle = len(mask) // 2
    return any(
        mask[z].sum() > POSITIVE_PX and (mask[z] & reference[z]).sum() > HIT_PX for z in range(middle - 1, middle + 2)
    )
