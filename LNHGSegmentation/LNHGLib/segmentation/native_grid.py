"""Bringing what was found on the working grid back to the CT's own voxels."""

from dataclasses import dataclass

import numpy as np

from LNHGLib.image.volume import Grid, resample

Box = tuple[slice, slice, slice]
LpsBox = tuple[tuple[float, float, float], tuple[float, float, float]]

_ROOM = 2
AROUND_MM = 10.0
"""How far around a finding the generator's signal is kept: an outline that a reader corrects grows no farther."""


@dataclass(frozen=True, eq=False)
class Outline:
    """One nodule on the CT's voxels.

    Attributes:
        box: where in the CT's array `mask` and `signal` lie, slices zyx.
        mask: boolean, the nodule's voxels.
        signal: float32, the generator's nodule image G inside the mask, 0 outside.
    """

    box: Box
    mask: np.ndarray
    signal: np.ndarray


@dataclass(frozen=True, eq=False)
class Patch:
    """A part of the generator's nodule image on the CT's voxels.

    Attributes:
        box: where in the CT's array it lies, slices zyx.
        signal: float32.
    """

    box: Box
    signal: np.ndarray


def patch_around(box: LpsBox, generated: np.ndarray, grid: Grid, target: Grid) -> Patch | None:
    """Bring the nodule image within `AROUND_MM` of a finding to another grid; 0 beyond the working grid.

    Args:
        box: least and greatest x, y, z of the finding.
        generated: the generator's nodule image on the working grid, zyx.
        grid: the working grid.
        target: the CT's grid.

    Returns:
        The patch, or None where the finding lies outside the target.
    """
    place = box_around(box, target)
    if place is None:
        return None
    there = subgrid(target, place)
    crop = _covering(there, grid)
    if crop is None:
        return Patch(place, np.zeros(there.shape, np.float32))
    return Patch(place, resample(generated[crop], subgrid(grid, crop), there, fill=0.0))


def box_around(box: LpsBox, grid: Grid, margin_mm: float = AROUND_MM) -> Box | None:
    """The voxels of a grid within a margin of an LPS box; None when the grid has none there."""
    margin = np.array([[-margin_mm], [margin_mm]])
    return _spanned(grid.lps_to_index(_corners(np.array(box) + margin)), grid.shape)


def outline(
    labels: np.ndarray,
    numbers: tuple[int, ...],
    box: tuple[float, ...],
    generated: np.ndarray,
    grid: Grid,
    target: Grid,
) -> Outline | None:
    """Outline a nodule on another grid: where its interpolated components make up half a voxel or more.

    Interpolating the nodule image and cutting it there at its low threshold would widen the nodule by up to a voxel.
    A nodule that falls between coarse voxels takes the voxels nearest to it.

    Args:
        labels: component numbers on the working grid, zyx.
        numbers: the nodule's components.
        box: z0, y0, x0, z1, y1, x1 around them in voxel edges.
        generated: the generator's nodule image on the working grid.
        grid: the working grid.
        target: the CT's grid.

    Returns:
        The outline, or None where the nodule lies outside the target.
    """
    crop = _widened(box, labels.shape)
    own = np.isin(labels[crop], numbers)
    place = _covering(part := subgrid(grid, crop), target)
    if place is None:
        return None
    there = subgrid(target, place)
    mask = resample(own.astype(np.float32), part, there, fill=0.0) >= 0.5
    mask = mask if mask.any() else _nearest(own, part, there)
    signal = np.where(mask, resample(generated[crop], part, there, fill=0.0), 0)
    return Outline(place, mask, signal.astype(np.float32)) if mask.any() else None


def subgrid(grid: Grid, box: Box) -> Grid:
    """The grid of a box of an array."""
    affine = grid.affine.copy()
    affine[:3, 3] = grid.index_to_lps([part.start for part in box])
    return Grid(tuple(part.stop - part.start for part in box), affine)


def box_lps_mm(box: tuple[float, ...], grid: Grid) -> LpsBox:
    """The LPS box (least x, y, z; greatest x, y, z) around a box z0, y0, x0, z1, y1, x1 in voxel edges."""
    corners = grid.index_to_lps(_corners(np.reshape(box, (2, 3)) - 0.5))
    return tuple(map(float, corners.min(0))), tuple(map(float, corners.max(0)))


def _corners(ends: np.ndarray) -> np.ndarray:
    """The eight corners (8, 3) of the box with the given ends (2, 3)."""
    return np.stack(np.meshgrid(*ends.T, indexing="ij"), -1).reshape(-1, 3)


def _widened(box: tuple[float, ...], shape: tuple[int, ...]) -> Box:
    low, high = np.reshape(box, (2, 3)).astype(int)
    return tuple(slice(max(a - _ROOM, 0), min(b + _ROOM, size)) for a, b, size in zip(low, high, shape, strict=True))


def _covering(part: Grid, target: Grid) -> Box | None:
    """The box of the target that covers a grid; None when they do not meet."""
    ends = np.array([np.full(3, -0.5), np.array(part.shape) - 0.5])
    return _spanned(target.lps_to_index(part.index_to_lps(_corners(ends))), target.shape)


def _spanned(corners: np.ndarray, shape: tuple[int, ...]) -> Box | None:
    """The box of an array that holds the corners (8, 3); None where it is empty."""
    low = np.maximum(np.floor(corners.min(0)), 0).astype(int)
    high = np.minimum(np.ceil(corners.max(0)) + 1, shape).astype(int)
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True)) if (high > low).all() else None


def _nearest(own: np.ndarray, part: Grid, there: Grid) -> np.ndarray:
    """The target voxels that are nearest to the voxels of a nodule."""
    index = np.rint(there.lps_to_index(part.index_to_lps(np.argwhere(own)))).astype(int)
    index = index[((index >= 0) & (index < there.shape)).all(1)]
    mask = np.zeros(there.shape, bool)
    mask[tuple(index.T)] = True
    return mask
