"""A finding in parts: its separate pieces, or one piece cut at its waist."""

import numpy as np

from LNHGSegmentationLib.Scene import SegmentVoxels
from LNHGSegmentationLib.Scene.SegmentVoxels import Crop

FLOOD_STEPS = 20
NECK = 0.85  # of the thinner part's radius: a waist that is no narrower than that is none


def parts(crop: Crop, spacing_mm: tuple[float, float, float]) -> list[Crop]:
    """Return the parts of a mask, the largest first; the mask itself if it cannot be parted.

    One piece is cut by the watershed of its distance from the surface, between its two thickest places.

    Args:
        crop: The mask.
        spacing_mm: Voxel size (z, y, x).
    """
    from scipy import ndimage

    labels, count = ndimage.label(crop.array, np.ones((3, 3, 3)))
    if count == 1:
        labels = _atWaist(crop.array, spacing_mm)
    pieces = [labels == value for value in range(1, labels.max() + 1)]
    pieces.sort(key=np.count_nonzero, reverse=True)
    return [SegmentVoxels.trimmed(Crop(crop.box, piece)) for piece in pieces]


def _atWaist(mask: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Label the two parts of one piece with 1 and 2, or all of it with 1 where it has no waist.

    Two seeds in its thickest places grow over it: at each depth a voxel takes the nearest number.
    """
    from scipy import ndimage

    depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    depth = ndimage.gaussian_filter(depth, 0.7)
    for level in np.quantile(depth[mask], np.linspace(0.05, 0.98, 40)):
        markers, count = ndimage.label(mask & (depth > level))
        if count > 1:
            break
    else:
        return mask.astype(np.int32)
    peaks = ndimage.maximum(depth, markers, np.arange(1, count + 1))
    two = 1 + np.argsort(peaks)[::-1][:2]
    if level > NECK * min(peaks[two - 1]):
        return mask.astype(np.int32)
    labels = np.where(markers == two[0], 1, np.where(markers == two[1], 2, 0))
    for least in np.linspace(level, 0.0, FLOOD_STEPS):  # from the deep to the shallow
        _, nearest = ndimage.distance_transform_edt(labels == 0, return_indices=True)
        new = mask & (depth >= least) & (labels == 0)
        labels[new] = labels[tuple(nearest)][new]
    _, nearest = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    return np.where(mask, labels[tuple(nearest)], 0)
