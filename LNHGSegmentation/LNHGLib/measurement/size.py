"""Size, density and attenuation type of one nodule, in millimeters and HU, from its mask on the CT's own grid."""

from collections.abc import Iterator
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
    long_mm, short_mm, ends, short_ends = _axes_mm(mask, grid)
    return Measurement(
        centroid_lps_mm=_point(grid.index_to_lps(np.argwhere(mask).mean(0) + start)),
        volume_mm3=len(values) * grid.voxel_volume_mm3,
        long_axis_mm=long_mm,
        short_axis_mm=short_mm,
        mean_hu=float(values.mean()),
        sd_hu=float(values.std()),
        attenuation=classify_attenuation(hu, mask, grid.spacing_mm, long_mm),
        long_axis_ends_lps_mm=_points(grid.index_to_lps(ends + start)),
        box_lps_mm=lps_box(start, start + mask.shape, grid),
        short_axis_ends_lps_mm=_points(grid.index_to_lps(short_ends + start)),
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
    core = _core(mask, spacing_mm, thick)
    values = _mean_within(hu.astype(np.float64), core, thick)[core]
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


def _point(lps: np.ndarray) -> Point:
    return tuple(float(value) for value in lps)


def _points(lps: np.ndarray) -> tuple[Point, Point]:
    return _point(lps[0]), _point(lps[1])


def _axes_mm(mask: np.ndarray, grid: Grid) -> tuple[float, float, np.ndarray, np.ndarray]:
    """Return long and short axis in mm and the two ends of each as (2, 3) zyx indices."""
    axis = axial_axis(grid)
    plane = np.delete(grid.affine[:3, :3], axis, axis=1)
    # A 2 x 2 map from in-plane indices to mm that keeps lengths and angles, also for a sheared (tilted) grid.
    to_mm = np.linalg.cholesky(plane.T @ plane).T
    long_mm, index, ends = max(_long_axes(np.moveaxis(mask, axis, 0), to_mm), key=lambda found: found[0])
    short_mm, short_ends = _short_axis(np.take(mask, index, axis), ends, to_mm)
    ends, short_ends = (np.insert(each, axis, index, axis=1) for each in (ends, short_ends))
    return long_mm, min(short_mm, long_mm), ends, short_ends


def _long_axes(slices: np.ndarray, to_mm: np.ndarray) -> Iterator[tuple[float, int, np.ndarray]]:
    """Yield (length mm, slice index, end points) for every slice with voxels."""
    for index, pixels in enumerate(slices):
        if pixels.any():
            points = _boundary_points(pixels)
            points = points[ConvexHull(points).vertices]
            lengths = distance.squareform(distance.pdist(points @ to_mm.T))
            first, second = np.unravel_index(np.argmax(lengths), lengths.shape)
            yield float(lengths[first, second]), index, points[[first, second]]


def _boundary_points(pixels: np.ndarray) -> np.ndarray:
    """Return the midpoints of pixel edges between inside and outside: the half-way contour's vertices.

    The largest distance between them is what LIDC's published diameters are. A disc measures half a pixel too large on
    average by it, since the longest of all directions wins; pixel corners would add another half.
    """
    padded = np.pad(pixels, 1).astype(np.int8)
    points = []
    for axis in range(2):
        crossings = np.argwhere(np.diff(padded, axis=axis) != 0).astype(np.float64) - 1
        crossings[:, axis] += 0.5
        points.append(crossings)
    return np.concatenate(points)


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


def _core(mask: np.ndarray, spacing_mm: tuple[float, ...], thick: int) -> np.ndarray:
    """Return the mask less its surface in the planes across axis `thick`, or the deepest third of a small mask."""
    core = ndimage.binary_erosion(mask, np.expand_dims(ndimage.generate_binary_structure(2, 1), thick))
    if core.sum() >= max(20, 0.25 * mask.sum()):
        return core
    depth_mm = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    return mask & (depth_mm >= np.quantile(depth_mm[mask], 2 / 3))


def _mean_within(hu: np.ndarray, core: np.ndarray, thick: int) -> np.ndarray:
    """Average over 3 x 3 voxels across axis `thick`, counting only the core's voxels."""
    size = np.where(np.arange(3) == thick, 1, 3)
    weight = ndimage.uniform_filter(core.astype(np.float64), size, mode="constant")
    total = ndimage.uniform_filter(np.where(core, hu, 0.0), size, mode="constant")
    return np.divide(total, weight, out=np.zeros_like(total), where=core)
