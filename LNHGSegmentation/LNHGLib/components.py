"""Connected components of the segmenter's nodule image: numbering, scores, extents and neighbors.

Arrays are zyx on the working grid; component numbers start at 1, 0 is background.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

TOP_SHARE = 0.5
SIGNAL_FLOOR = 0.05


@dataclass(frozen=True, eq=False)
class Components:
    """Numbered components with their voxel counts (by number) and extents (by number - 1)."""

    labels: np.ndarray
    counts: np.ndarray
    extents: list

    @classmethod
    def of(cls, labels: np.ndarray) -> "Components":
        """Count and measure the components of a numbered array."""
        return cls(labels, np.bincount(labels.ravel()), ndimage.find_objects(labels))

    def of_size(self, min_voxels: float) -> list[int]:
        """Numbers of the components of at least so many voxels."""
        numbers = np.flatnonzero(self.counts >= max(min_voxels, 1))
        return numbers[numbers > 0].tolist()


def components(mask: np.ndarray, connectivity: str = "3d") -> np.ndarray:
    """Number the connected components of a mask (zyx): int32, 0 outside; see `FusionOptions.connectivity`."""
    structure = np.ones((3, 3, 3), bool)
    if connectivity == "slice":
        structure[[0, 2]] = False
    labels = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, structure, output=labels)
    return labels


def component_scores(labels: np.ndarray, generated: np.ndarray, original: np.ndarray) -> np.ndarray:
    """Segmenter score of every component: how much of the CT's own signal the generator let through.

    A voxel has r = clip(G / max(O, 0.05), 0, 1), O being the normalised CT; the score is the mean of the upper half
    of the component's voxels, so that a soft rim does not lower it.

    Args:
        labels: component numbers zyx.
        generated: the generator's nodule image G on the same grid.
        original: the normalised CT O in 0..1 on the same grid.

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
    top = rank < np.maximum(np.ceil(counts * TOP_SHARE), 1)[numbers[order]]
    picked = numbers[order][top]
    total = np.bincount(picked, ratio[order][top], minlength=len(counts))
    return total / np.maximum(np.bincount(picked, minlength=len(counts)), 1)


def close_pairs(
    labels: np.ndarray, numbers: Iterable[int], spacing_mm: Sequence[float], reach_mm: float
) -> list[tuple[int, int]]:
    """Pairs of components whose voxel centers come within `reach_mm`, or within one voxel's diagonal if larger."""
    wanted = np.zeros(int(labels.max()) + 1, bool)
    wanted[list(numbers)] = True
    points = np.argwhere(wanted[labels])
    if wanted.sum() < 2:
        return []
    owner = labels[tuple(points.T)]
    reach = max(reach_mm, float(np.linalg.norm(spacing_mm)) + 1e-6)
    surface = _surface(labels, points)
    points, owner = points[surface], owner[surface]
    near = cKDTree(points * np.asarray(spacing_mm)).query_pairs(reach, output_type="ndarray")
    pairs = np.sort(owner[near], axis=1)
    return [(int(a), int(b)) for a, b in np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)]


def _surface(labels: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Which of the points have a face neighbor of another component, of the background or outside the array."""
    padded = np.pad(labels, 1)
    own = labels[tuple(points.T)]
    surface = np.zeros(len(points), bool)
    for axis in range(3):
        for shift in (0, 2):
            neighbor = points + 1
            neighbor[:, axis] += shift - 1
            surface |= padded[tuple(neighbor.T)] != own
    return surface
