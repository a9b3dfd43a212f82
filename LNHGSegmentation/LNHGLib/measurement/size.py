"""Size, density and attenuation type of one nodule, in millimeters and HU, from its mask on the CT's own grid."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, distance

from LNHGLib.image.boxes import Point, box_around_mask, box_start, lps_box
from LNHGLib.image.volume import Grid

Attenuation = Literal["solid", "part-solid", "ground-glass", "calcified"]

SOLID_HU = -300.0
"""A voxel at or above this counts as solid tissue; ground glass lies below."""
CALCIFIED_HU = 200.0
"""A voxel at or above this counts as calcified."""
CALCIFIED_FRACTION = 0.10
SOLID_FRACTION = 0.70
GROUND_GLASS_FRACTION = 0.10
PART_SOLID_MIN_MM = 6.0
"""Below this diameter part-solid is not told apart (Fleischner Society guideline 2017)."""
SMALL_SOLID_HU = -450.0
"""Median of a small nodule's core from which it is solid: partial volume leaves such cores far below -300 HU."""

_CHORD_STEP = 0.1


@dataclass(frozen=True)
class Measurement:
    """One nodule's measurements; coordinates are LPS mm (x, y, z).

    The long axis is the largest distance between two boundary points within one axial slice, taken on the slice where
    it is largest; the short axis is the longest chord perpendicular to it in that slice. `long_axis_ends_lps_mm` and
    `short_axis_ends_lps_mm` are their end points (the latter None in results of older versions), `box_lps_mm` the
    corners of the box around the mask's voxels.
    """

    centroid_lps_mm: Point
    volume_mm3: float
    long_axis_mm: float
    short_axis_mm: float
    mean_hu: float
    sd_hu: float
    attenuation: Attenuation
    long_axis_ends_lps_mm: tuple[Point, Point]
    box_lps_mm: tuple[Point, Point]
    short_axis_ends_lps_mm: tuple[Point, Point] | None = None


def measure(hu: np.ndarray, grid: Grid, mask: np.ndarray) -> Measurement:
    """Measure one nodule.

    Args:
        hu: (z, y, x) CT in HU.
        grid: geometry of `hu`; any axis order, flip, obliquity and spacing.
        mask: same shape, bool, the nodule's voxels.

    Returns:
        The nodule's measurements.

    Raises:
        ValueError: if the mask is empty.
    """
    box = box_around_mask(mask)
    if box is None:
        raise ValueError("the nodule mask is empty: a measurement needs at least one voxel.")
    start = np.array(box_start(box))
    hu, mask = hu[box], mask[box].astype(bool)
    values = hu[mask].astype(np.float64)
    axis = axial_axis(grid)
    plane = np.delete(grid.affine[:3, :3], axis, axis=1)
    # A 2 x 2 map from in-plane indices to mm that keeps lengths and angles, also for a sheared (tilted) grid.
    to_mm = np.linalg.cholesky(plane.T @ plane).T
    long_mm, index, long_ends = _long_axis(np.moveaxis(mask, axis, 0), to_mm)
    short_mm, short_ends = _short_axis(np.take(mask, index, axis), long_ends, to_mm)
    long_lps, short_lps = (
        tuple(map(tuple, grid.index_to_lps(np.insert(ends, axis, index, axis=1) + start).tolist()))
        for ends in (long_ends, short_ends)
    )
    return Measurement(
        centroid_lps_mm=tuple(grid.index_to_lps(np.argwhere(mask).mean(0) + start).tolist()),
        volume_mm3=len(values) * grid.voxel_volume_mm3,
        long_axis_mm=long_mm,
        short_axis_mm=min(short_mm, long_mm),
        mean_hu=float(values.mean()),
        sd_hu=float(values.std()),
        attenuation=classify_attenuation(hu, mask, grid.spacing_mm, long_mm),
        long_axis_ends_lps_mm=long_lps,
        box_lps_mm=lps_box(start, start + mask.shape, grid),
        short_axis_ends_lps_mm=short_lps,
    )


def classify_attenuation(
    hu: np.ndarray, mask: np.ndarray, spacing_mm: tuple[float, ...], long_axis_mm: float
) -> Attenuation:
    """Name a nodule's attenuation type from its deeper voxels, which partial volume spares.

    Calcified: at least a tenth of the core is at or above 200 HU. Otherwise by the core's fraction of solid voxels (at
    or above -300 HU): solid from 70 %, ground-glass up to 10 %, part-solid between; below 6 mm the core's median alone
    decides, solid from -450 HU. The core is the mask less its surface voxels in the slice planes, or the
    deepest third where that leaves too little. HU are averaged over 3 x 3 voxels of the core against noise. Air in a
    cavity counts as not solid: there is no type of its own for it.

    Args:
        hu: (z, y, x) CT around the nodule.
        mask: same shape, bool, at least one voxel.
        spacing_mm: voxel size in array order.
        long_axis_mm: the nodule's long axial diameter.

    Returns:
        The attenuation type.
    """
    thick = int(np.argmax(spacing_mm))
    core = ndimage.binary_erosion(mask, np.expand_dims(ndimage.generate_binary_structure(2, 1), thick))
    if core.sum() < max(20, 0.25 * mask.sum()):
        depth_mm = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
        core = mask & (depth_mm >= np.quantile(depth_mm[mask], 2 / 3))
    neighbors = np.where(np.arange(3) == thick, 1, 3)
    weight = ndimage.uniform_filter(core.astype(np.float64), neighbors, mode="constant")
    values = ndimage.uniform_filter(np.where(core, hu.astype(np.float64), 0.0), neighbors, mode="constant")
    values = values[core] / weight[core]
    if np.mean(values >= CALCIFIED_HU) >= CALCIFIED_FRACTION:
        return "calcified"
    if long_axis_mm < PART_SOLID_MIN_MM:
        return "solid" if np.median(values) >= SMALL_SOLID_HU else "ground-glass"
    solid = np.mean(values >= SOLID_HU)
    if solid >= SOLID_FRACTION:
        return "solid"
    return "ground-glass" if solid <= GROUND_GLASS_FRACTION else "part-solid"


def axial_axis(grid: Grid) -> int:
    """Return the array axis whose direction is closest to the patient's z, so that fixing it gives an axial slice."""
    columns = grid.affine[:3, :3]
    return int(np.argmax(np.abs(columns[2]) / np.linalg.norm(columns, axis=0)))


def _long_axis(slices: np.ndarray, to_mm: np.ndarray) -> tuple[float, int, np.ndarray]:
    """Return the largest distance in mm between two boundary points within one slice, its slice and its ends (2, 2).

    The boundary points are the midpoints of pixel edges between inside and outside: the half-way contour's vertices.
    The largest distance between them is what LIDC's published diameters are. A disc measures half a pixel too large on
    average by it, since the longest of all directions wins; pixel corners would add another half.
    """
    longest = 0.0, 0, np.zeros((2, 2))
    for index in np.flatnonzero(slices.any((1, 2))):
        padded = np.pad(slices[index], 1).astype(np.int8)
        crossings = [np.argwhere(np.diff(padded, axis=axis) != 0) - 1 + 0.5 * np.eye(2)[axis] for axis in range(2)]
        points = np.concatenate(crossings)
        points = points[ConvexHull(points).vertices]
        lengths = distance.squareform(distance.pdist(points @ to_mm.T))
        first, second = np.unravel_index(np.argmax(lengths), lengths.shape)
        if lengths[first, second] > longest[0]:
            longest = float(lengths[first, second]), int(index), points[[first, second]]
    return longest


def _short_axis(pixels: np.ndarray, ends: np.ndarray, to_mm: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the longest chord perpendicular to the long axis, by sampling the interpolated mask along chords.

    Returns:
        Its length in mm and its two ends as (2, 2) indices.
    """
    along = (ends[1] - ends[0]) @ to_mm.T
    long_mm = np.linalg.norm(along)
    along = along / long_mm
    across = np.array([-along[1], along[0]])
    step_mm = _CHORD_STEP * np.sqrt(abs(np.linalg.det(to_mm)))
    count = int(np.ceil(long_mm / 2 / step_mm))
    offsets_mm = np.arange(-count, count + 1) * step_mm
    middle = ends.mean(0) @ to_mm.T
    # A chord may stick out sideways by up to the long axis' length from its end, never farther.
    sideways_mm = np.arange(-2 * count, 2 * count + 1) * step_mm
    to_index = np.linalg.inv(to_mm).T
    chords = ((middle + offsets_mm[:, None] * along) @ to_index).T[:, :, None]
    samples = chords + ((sideways_mm[:, None] * across) @ to_index).T[:, None, :]
    inside = ndimage.map_coordinates(np.pad(pixels, 1).astype(np.float32), samples + 1, order=1)
    inside = inside >= 0.5
    first, last = inside.argmax(1), inside.shape[1] - 1 - inside[:, ::-1].argmax(1)
    spans = np.where(inside.any(1), last - first, -1)
    longest = np.flatnonzero(spans == spans.max())
    row = longest[np.abs(longest - count).argmin()]  # the one nearest to the long axis' middle
    return float(spans[row] * step_mm), samples[:, row, [first[row], last[row]]].T
