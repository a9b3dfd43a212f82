"""Readers' outlines on slices: what they enclose, and which of them show the same nodule."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from LNHGLib.image.boxes import (
    Box,
    box_around_mask,
    box_between,
    box_intersection,
    box_start,
    box_within,
    shift_box,
    whole_box,
)
from scipy.cluster.hierarchy import DisjointSet
from scipy.spatial import cKDTree

TOLERANCE = 1 + 1e-9
"""Of distances, for rounding."""


@dataclass(frozen=True, eq=False)
class Contour:
    """One closed outline on one slice.

    Attributes:
        slice_index: z index in the volume.
        points: int (N, 2), x and y of the outline's pixels in their order.
        inclusion: what it encloses belongs to the nodule; otherwise it is a hole.
    """

    slice_index: int
    points: np.ndarray
    inclusion: bool = True


@dataclass(frozen=True, eq=False)
class Outlined:
    """A nodule as one reader saw it: `mask` bool (z, y, x) inside `box` of the volume."""

    reader: int
    box: Box
    mask: np.ndarray
    attributes: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Cluster:
    """Indices of the outlines that show one nodule; `ambiguous` when a reader comes twice and none can be split off."""

    members: tuple[int, ...]
    ambiguous: bool = False


def enclosed(points: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the pixels strictly inside a closed outline, by the even-odd rule.

    LIDC's outlines run over the first pixels outside the nodule, so pixels on the outline do not belong to it
    (register R1).

    Args:
        points: int (N, 2), x and y of the corners in order; the last joins the first.

    Returns:
        bool (y, x) over the outline's bounding box, and the box's first y and x.
    """
    x, y = np.asarray(points, np.int64).T
    x0, y0 = int(x.min()), int(y.min())
    columns, rows = np.arange(x0, x.max() + 1)[None], np.arange(y0, y.max() + 1)[:, None]
    odd = np.zeros((rows.size, columns.size), bool)
    edge = np.zeros_like(odd)
    for ax, ay, bx, by in zip(x, y, np.roll(x, -1), np.roll(y, -1), strict=True):
        side = (bx - ax) * (rows - ay) - (by - ay) * (columns - ax)  # 0 on the line through both corners
        spans = (rows >= min(ay, by)) & (rows <= max(ay, by))
        edge |= (side == 0) & spans & (columns >= min(ax, bx)) & (columns <= max(ax, bx))
        crosses = (rows >= min(ay, by)) & (rows < max(ay, by))
        odd ^= crosses & ((side > 0) == (by > ay))
    return odd & ~edge, (y0, x0)


def fill(contours: Iterable[Contour], shape: tuple[int, int, int]) -> tuple[Box, np.ndarray] | None:
    """Return the voxels of one nodule by one reader: inside an inclusion, and inside no exclusion.

    The pixels of an exclusion's own outline stay in the nodule, as those of an inclusion stay outside.

    Args:
        contours: On any slices.
        shape: (nz, ny, nx) of the volume; what lies outside is cut off.

    Returns:
        The box of the voxels and the mask inside it, or None when the outlines enclose no voxel.
    """
    contours = sorted(contours, key=lambda contour: not contour.inclusion)
    if not contours:
        return None
    corners = np.array([[c.slice_index, *c.points.min(0)[::-1]] for c in contours])
    ends = np.array([[c.slice_index, *c.points.max(0)[::-1]] for c in contours])
    start, stop = corners.min(0), ends.max(0) + 1
    mask = np.zeros(stop - start, bool)
    for contour in contours:
        inside, (y0, x0) = enclosed(contour.points)
        y0, x0 = y0 - start[1], x0 - start[2]
        part = mask[contour.slice_index - start[0], y0 : y0 + inside.shape[0], x0 : x0 + inside.shape[1]]
        part[inside] = contour.inclusion
    box = box_between(start, stop)
    inside = box_intersection(box, whole_box(shape))
    if inside is None:
        return None
    mask = mask[box_within(inside, box)]
    tight = box_around_mask(mask)
    return None if tight is None else (shift_box(tight, box_start(inside)), mask[tight])


def cluster(outlined: list[Outlined], spacing_mm: tuple[float, float, float]) -> list[Cluster]:
    """Return which outlines show the same nodule.

    Two outlines go together when their voxels come as close as the largest voxel spacing; so do chains of them. Where
    that joins two outlines of one reader, the distance is halved, twice, and then only overlap joins. What still holds
    a reader twice is ambiguous.

    Args:
        outlined: Nodules of all readers of one scan.
        spacing_mm: Voxel spacing zyx.

    Returns:
        The clusters, each index in exactly one, by their first index.
    """
    points = [(np.argwhere(each.mask) + box_start(each.box)) * np.asarray(spacing_mm) for each in outlined]
    trees = [cKDTree(each) for each in points]
    reach, gaps_mm = max(spacing_mm), {}
    for a, b in combinations(range(len(outlined)), 2):
        apart = np.maximum(trees[a].mins - trees[b].maxes, trees[b].mins - trees[a].maxes).max()
        if apart <= reach * TOLERANCE:
            gap = trees[a].query(points[b], distance_upper_bound=reach * 1.01)[0].min()
            if gap <= reach * TOLERANCE:
                gaps_mm[a, b] = float(gap)
    readers = [each.reader for each in outlined]
    found = _split(list(range(len(outlined))), readers, gaps_mm, [reach, reach / 2, reach / 4, 0.0])
    return sorted(found, key=lambda each: each.members)


def _split(
    members: list[int], readers: list[int], gaps_mm: dict[tuple[int, int], float], reaches_mm: list[float]
) -> list[Cluster]:
    """Join what lies within the first reach; split what then holds a reader twice by the next one."""
    joined = DisjointSet(members)
    for (a, b), gap in gaps_mm.items():
        if a in joined and b in joined and gap <= reaches_mm[0] * TOLERANCE:
            joined.merge(a, b)
    found = []
    for group in map(sorted, joined.subsets()):
        clear = len({readers[index] for index in group}) == len(group)
        if clear or len(reaches_mm) == 1:
            found.append(Cluster(tuple(group), ambiguous=not clear))
        else:
            found += _split(group, readers, gaps_mm, reaches_mm[1:])
    return found
