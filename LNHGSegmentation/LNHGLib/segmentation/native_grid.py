"""Bringing what was found on the working grid back to the CT's own voxels."""

from dataclasses import dataclass

import numpy as np

from LNHGLib.image.boxes import Box, LpsBox, box_around_lps, box_covering, box_of_edges, grow_box
from LNHGLib.image.volume import Grid, resample

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
    place = box_around_lps(box, target, AROUND_MM)
    if place is None:
        return None
    there = target.crop(place)
    crop = box_covering(there, grid)
    if crop is None:
        return Patch(place, np.zeros(there.shape, np.float32))
    return Patch(place, resample(generated[crop], grid.crop(crop), there, fill=0.0))


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
    crop = grow_box(box_of_edges(box), _ROOM, labels.shape)
    own = np.isin(labels[crop], numbers)
    part = grid.crop(crop)
    place = box_covering(part, target)
    if place is None:
        return None
    there = target.crop(place)
    mask = resample(own.astype(np.float32), part, there, fill=0.0) >= 0.5
    if not mask.any():
        nearest = np.rint(there.lps_to_index(part.index_to_lps(np.argwhere(own)))).astype(int)
        nearest = nearest[((nearest >= 0) & (nearest < there.shape)).all(1)]
        mask[tuple(nearest.T)] = True
    signal = np.where(mask, resample(generated[crop], part, there, fill=0.0), 0)
    return Outline(place, mask, signal.astype(np.float32)) if mask.any() else None
