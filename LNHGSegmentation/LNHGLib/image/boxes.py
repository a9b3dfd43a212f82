"""Boxes of voxels in an array and boxes in the patient's space: the only place where both are computed.

A `Box` is three slices along z, y and x with whole numbers for start and stop; `array[box]` is what lies in it and
`Grid.crop(box)` where that lies. An `LpsBox` has its least and its greatest corner (x, y, z) in LPS mm. Voxel `i` of an
axis reaches from `i - 0.5` to `i + 0.5`.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from LNHGLib.image.volume import Grid

Box = tuple[slice, slice, slice]
Point = tuple[float, float, float]
LpsBox = tuple[Point, Point]


def box_between(start: Sequence[int], stop: Sequence[int]) -> Box:
    """Return the box from a first index to the one behind the last.

    Args:
        start: (z, y, x), whole numbers.
        stop: (z, y, x), whole numbers.
    """
    return tuple(slice(int(first), int(end)) for first, end in zip(start, stop, strict=True))


def whole_box(shape: Sequence[int]) -> Box:
    """Return the box of all voxels of an array of that shape."""
    return tuple(slice(0, int(size)) for size in shape)


def box_start(box: Box) -> list[int]:
    """Return the first index (z, y, x) of a box."""
    return [part.start for part in box]


def box_shape(box: Box) -> list[int]:
    """Return the number of voxels of a box along z, y, x."""
    return [part.stop - part.start for part in box]


def shift_box(box: Box, offset: Sequence[int]) -> Box:
    """Return a box moved by voxels.

    Args:
        box: The box.
        offset: Voxels along z, y, x, whole numbers.
    """
    return tuple(slice(part.start + int(step), part.stop + int(step)) for part, step in zip(box, offset, strict=True))


def box_within(box: Box, outer: Box) -> Box:
    """Return where a box lies in the array of an outer box.

    Args:
        box: The box.
        outer: Whose start the result counts from.
    """
    return shift_box(box, [-start for start in box_start(outer)])


def grow_box(box: Box, margin: int | Sequence[int], shape: Sequence[int]) -> Box:
    """Return a box with a margin on each side, cut at the array's border.

    Args:
        box: The box.
        margin: Voxels, one number or along z, y, x.
        shape: Of the array.
    """
    sides = zip(box, np.broadcast_to(margin, len(box)).tolist(), shape, strict=True)
    return tuple(slice(max(part.start - room, 0), min(part.stop + room, int(size))) for part, room, size in sides)


def box_intersection(box: Box, other: Box) -> Box | None:
    """Return what two boxes share, None where that is nothing.

    Args:
        box: One box.
        other: Another box of the same array.
    """
    start = np.maximum(box_start(box), box_start(other))
    stop = np.minimum([part.stop for part in box], [part.stop for part in other])
    return box_between(start, stop) if (stop > start).all() else None


def box_union(boxes: Iterable[Box]) -> Box:
    """Return the smallest box that holds all of some boxes, at least one."""
    axes = list(zip(*boxes, strict=True))
    return tuple(slice(min(part.start for part in axis), max(part.stop for part in axis)) for axis in axes)


def box_around_mask(mask: np.ndarray) -> Box | None:
    """Return the smallest box that holds all true voxels of a mask (z, y, x), None where there are none."""
    others = [tuple(other for other in range(mask.ndim) if other != axis) for axis in range(mask.ndim)]
    found = [np.flatnonzero(mask.any(axis=axes)) for axes in others]
    return box_between([line[0] for line in found], [line[-1] + 1 for line in found]) if found[0].size else None


def box_of_edges(edges: Sequence[float]) -> Box:
    """Return the box of the edges z0, y0, x0, z1, y1, x1, which lie between voxels: 0 before the first, 1 behind it."""
    start, stop = np.reshape(edges, (2, 3)).astype(int)
    return box_between(start, stop)


def box_around_points(points: np.ndarray, shape: Sequence[int]) -> Box | None:
    """Return the box of the voxels between which points lie, cut at the array's border.

    Args:
        points: (N, 3) indices zyx, not rounded.
        shape: Of the array.

    Returns:
        The box, None where it lies outside the array.
    """
    start = np.maximum(np.floor(points.min(0)), 0)
    stop = np.minimum(np.ceil(points.max(0)) + 1, shape)
    return box_between(start, stop) if (stop > start).all() else None


def nearest_box_around_points(points: np.ndarray, shape: Sequence[int], margin: int = 0) -> Box:
    """Return the box of the voxels between which points lie; outside the array, the voxels at its border.

    Args:
        points: (N, 3) indices zyx, not rounded.
        shape: Of the array.
        margin: Voxels on each side.
    """
    start = np.clip(np.floor(points.min(0)) - margin, 0, np.array(shape) - 1)
    return box_between(start, np.clip(np.ceil(points.max(0)) + margin + 1, start + 1, shape))


def corners(low: Sequence[float], high: Sequence[float]) -> np.ndarray:
    """Return the eight corners (8, 3) of a box in any space.

    Args:
        low: (3,) its least corner.
        high: (3,) its greatest corner.
    """
    return np.stack(np.meshgrid(*np.transpose([low, high]), indexing="ij"), -1).reshape(-1, 3)


def lps_box(start: Sequence[float], stop: Sequence[float], grid: "Grid") -> LpsBox:
    """Return the box in the patient's space around voxels, from rim to rim.

    Args:
        start: (z, y, x) of the first voxel, may lie between voxels.
        stop: (z, y, x) behind the last voxel.
        grid: Where the voxels lie.
    """
    lps = grid.index_to_lps(corners(np.subtract(start, 0.5), np.subtract(stop, 0.5)))
    return tuple(map(float, lps.min(0))), tuple(map(float, lps.max(0)))


def box_around_lps(box: LpsBox, grid: "Grid", margin_mm: float = 0.0) -> Box | None:
    """Return the voxels of a grid within a margin of a box in the patient's space.

    Args:
        box: Least and greatest x, y, z in mm.
        grid: The grid.
        margin_mm: Along x, y and z.

    Returns:
        The box, None where the grid has no voxel there.
    """
    low, high = np.array(box)
    return box_around_points(grid.lps_to_index(corners(low - margin_mm, high + margin_mm)), grid.shape)


def box_covering(part: "Grid", grid: "Grid") -> Box | None:
    """Return the voxels of a grid that cover another grid, None where they do not meet.

    Args:
        part: The grid to cover, from rim to rim.
        grid: The grid whose voxels are returned.
    """
    rim = corners(np.full(3, -0.5), np.array(part.shape) - 0.5)
    return box_around_points(grid.lps_to_index(part.index_to_lps(rim)), grid.shape)
