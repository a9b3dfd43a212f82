"""Connected components of the segmenter's nodule image: numbering, scores, extents and neighbors.

Arrays are zyx on the working grid; component numbers start at 1, 0 is background.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from LNHGLib.image.boxes import Box, grow_box

TOP_FRACTION = 0.5
SIGNAL_FLOOR = 0.05
BRIGHT = 0.9
"""Quantile of a finding's image that tells how strong its signal is."""


@dataclass(frozen=True, eq=False)
class Components:
    """Numbered components with their voxel counts (by number) and extents (by number - 1)."""

    labels: np.ndarray
    counts: np.ndarray
    extents: list

    @classmethod
    def of(cls, labels: np.ndarray) -> "Components":
        """Count and measure the components of a numbered array; outside them nothing is counted."""
        return cls(labels, np.bincount(labels[labels > 0]), ndimage.find_objects(labels))

    def of_size(self, min_voxels: float) -> list[int]:
        """Numbers of the components of at least so many voxels."""
        return np.flatnonzero(self.counts >= max(min_voxels, 1)).tolist()


def components(mask: np.ndarray, connectivity: str = "3d") -> np.ndarray:
    """Label the connected components of a mask (zyx): int32, 0 outside; see `FusionOptions.connectivity`."""
    structure = np.ones((3, 3, 3), bool)
    if connectivity == "slice":
        structure[[0, 2]] = False
    labels = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, structure, output=labels)
    return labels


def nearest(
    mask: np.ndarray, place: Sequence[float], spacing_mm: Sequence[float], reach_mm: float = np.inf
) -> np.ndarray:
    """Return the component (26-connected) of a mask that holds a place, or comes nearest to it.

    Args:
        mask: bool (z, y, x).
        place: index (z, y, x).
        spacing_mm: of the voxels (z, y, x).
        reach_mm: how far it may lie.

    Returns:
        bool (z, y, x), all False where there is none.
    """
    points = np.argwhere(mask)
    apart_mm = np.linalg.norm((points - np.asarray(place)) * spacing_mm, axis=1)
    if not len(points) or apart_mm.min() > reach_mm:
        return np.zeros_like(mask)
    labels = components(mask)
    return labels == labels[tuple(points[apart_mm.argmin()])]


def mark_around(
    image: np.ndarray, inside: np.ndarray | Box, threshold: float, faint_below: float | None = None
) -> np.ndarray:
    """Mark what of a nodule image belongs to nodules; around a faint finding more of it does.

    The image of a ground-glass nodule is as faint as its signal, so that one threshold for all would cut off its rim:
    below `faint_below` the threshold falls with the square of the signal.

    Args:
        image: nodule image, float (z, y, x).
        inside: where the finding is: bool (z, y, x), or a box.
        threshold: of the image of other findings.
        faint_below: signal of a finding; None takes one threshold for all.

    Returns:
        bool (z, y, x).
    """
    marked = image > threshold
    if faint_below is None:
        return marked
    labels = components(marked)
    met = np.unique(labels[inside])
    finding = image[np.isin(labels, met[met > 0])]
    signal = np.quantile(finding, BRIGHT) if finding.size else faint_below
    return marked if signal >= faint_below else image > threshold * (signal / faint_below) ** 2


def component_scores(labels: np.ndarray, generated: np.ndarray, original: np.ndarray) -> np.ndarray:
    """Segmenter score of every component: how much of the CT's own signal the generator let through.

    A voxel has r = clip(G / max(O, 0.05), 0, 1), O being the normalized CT; the score is the mean of the upper half
    of the component's voxels, so that a soft rim does not lower it.

    Args:
        labels: component numbers zyx.
        generated: the generator's nodule image G on the same grid.
        original: the normalized CT O in 0..1 on the same grid.

    Returns:
        Scores by component number; entry 0 is unused.
    """
    inside = labels > 0
    numbers = labels[inside]
    ratio = np.clip(generated[inside] / np.maximum(original[inside], SIGNAL_FLOOR), 0.0, 1.0)
    order = np.lexsort((-ratio, numbers))
    counts = np.bincount(numbers)
    first = np.cumsum(counts) - counts
    rank = np.arange(len(order)) - first[numbers[order]]
    top = rank < np.maximum(np.ceil(counts * TOP_FRACTION), 1)[numbers[order]]
    picked = numbers[order][top]
    total = np.bincount(picked, ratio[order][top], minlength=len(counts))
    return total / np.maximum(np.bincount(picked, minlength=len(counts)), 1)


def close_pairs(
    parts: Components, numbers: Iterable[int], spacing_mm: Sequence[float], reach_mm: float
) -> list[tuple[int, int]]:
    """Return the pairs of components whose voxel centers come near each other.

    Args:
        parts: the components.
        numbers: of those that take part.
        spacing_mm: of the voxels, zyx.
        reach_mm: how near; one voxel's diagonal if that is more.
    """
    labels, wanted = parts.labels, set(numbers)
    reach = max(reach_mm, float(np.linalg.norm(spacing_mm)) + 1e-6)
    room = [int(reach / spacing) for spacing in spacing_mm]
    boxes = {number: grow_box(parts.extents[number - 1], room, labels.shape) for number in wanted}
    pairs = set()
    for number in sorted(boxes, key=lambda number: labels[boxes[number]].size)[:-1]:  # the rest met the largest
        near = labels[boxes[number]]
        distance = ndimage.distance_transform_edt(near != number, sampling=spacing_mm)
        others = wanted.intersection(np.unique(near[distance <= reach]).tolist()) - {number}
        pairs |= {(min(number, other), max(number, other)) for other in others}
    return sorted(pairs)
