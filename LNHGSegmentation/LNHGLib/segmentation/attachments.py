"""Vessels and walls that an outline ran along, pruned from it. Arrays are zyx."""

from collections.abc import Collection, Sequence

import numpy as np
from scipy import ndimage

from LNHGLib.image.boxes import box_around_mask, box_start
from LNHGLib.segmentation.components import components, nearest

CORE = 0.5
"""Share of a nodule's depth that its core has at least."""
NEAR_MM = 5.0
"""How far from its place a nodule's depth is looked for."""


def prune_mask(mask: np.ndarray, place: Sequence[float], spacing_mm: Sequence[float]) -> np.ndarray:
    """Return a nodule without the vessels and walls that its outline ran along.

    Its depth is the radius of the largest ball in it near its place, its core the part there that is at least half as
    deep. Kept is what lies within that depth of the core.

    Args:
        mask: bool (z, y, x), a component.
        place: index (z, y, x) where the nodule is.
        spacing_mm: of the voxels (z, y, x).

    Returns:
        The connected part of the mask that is kept; bool (z, y, x).
    """
    if not mask.any():
        return mask
    box = box_around_mask(mask)
    part = np.pad(mask[box], 1)  # what the volume's border cuts ends there
    place = np.asarray(place) - np.subtract(box_start(box), 1)
    apart_mm = np.linalg.norm((np.stack(np.indices(part.shape), -1) - place) * spacing_mm, axis=-1)
    depth_mm = ndimage.distance_transform_edt(part, sampling=spacing_mm)
    deepest_mm = depth_mm[apart_mm <= NEAR_MM].max(initial=0) or depth_mm.max()
    core = nearest(depth_mm >= CORE * deepest_mm, place, spacing_mm)
    kept = part & (ndimage.distance_transform_edt(~core, sampling=spacing_mm) <= deepest_mm)
    result = np.zeros_like(mask)
    result[box] = nearest(kept, place, spacing_mm)[1:-1, 1:-1, 1:-1]
    return result


def prune_attachments(
    labels: np.ndarray, numbers: Collection[int], image: np.ndarray, spacing_mm: Sequence[float]
) -> np.ndarray:
    """Prune outlines, each of their connected parts at its center of signal.

    Args:
        labels: component numbers, int (z, y, x).
        numbers: of the components to prune.
        image: nodule image, float32 (z, y, x).
        spacing_mm: of the voxels (z, y, x).

    Returns:
        The component numbers; what was cut off is 0.
    """
    pruned = np.zeros(labels.shape, labels.dtype)
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:
            continue
        kept = labels[box] == number
        parts = components(kept if number in numbers else np.zeros_like(kept))
        for part in range(1, parts.max() + 1):
            mask = parts == part
            kept &= ~mask | prune_mask(mask, ndimage.center_of_mass(image[box], parts, part), spacing_mm)
        pruned[box][kept] = number
    return pruned
