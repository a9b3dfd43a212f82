"""Nodules between the voxels: their outline and signal on a finer grid, as Slicer shows the CT between its voxels.

Slicer interpolates the CT but shows masks and maps voxel by voxel, which on thick slices looks like bricks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from LNHGLib.image.volume import Grid, resample
from scipy import ndimage

SPACING_MM = 0.25
MOST_VOXELS = 3e7  # a larger close-up is made of larger voxels
PAD = 3  # voxels around a nodule in which its border is looked for
FAR_MM = 1000.0


@dataclass(frozen=True, eq=False)
class CloseUp:
    """The findings in a cube of the scan.

    Attributes:
        grid: fine and upright.
        labels: uint16 (z, y, x), value = nodule number.
        signal: float32 (z, y, x), 0 outside nodules.
    """

    grid: Grid
    labels: np.ndarray
    signal: np.ndarray


def close_up(labels: np.ndarray, signal: np.ndarray, grid: Grid, center_lps_mm: np.ndarray, side_mm: float) -> CloseUp:
    """Interpolate each nodule's distance from its border, and its signal among its own voxels only.

    Args:
        labels: (z, y, x), value = nodule number.
        signal: float32 (z, y, x).
        grid: of both.
        center_lps_mm: middle of the cube, xyz.
        side_mm: of the cube.
    """
    cube = Grid.aligned((2, 2, 2), (side_mm,) * 3, np.asarray(center_lps_mm) - side_mm / 2)
    boxes = ndimage.find_objects(labels)
    numbers = np.setdiff1d(labels[_box_of(cube, grid)], 0)
    padded = {n: tuple(slice(max(p.start - PAD, 0), p.stop + PAD) for p in boxes[n - 1]) for n in numbers}
    fine = _fine_grid([_part(grid, box) for box in padded.values()] or [cube])
    shown = CloseUp(fine, np.zeros(fine.shape, np.uint16), np.zeros(fine.shape, np.float32))
    for number, box in padded.items():
        _add(shown, int(number), labels[box] == number, signal[box], _part(grid, box))
    return shown


def _fine_grid(parts: Sequence[Grid]) -> Grid:
    """Return an upright grid around all parts."""
    corners = np.concatenate([_corners(part) for part in parts])
    low, extent = corners.min(0), np.ptp(corners, axis=0)
    spacing = max(SPACING_MM, float(np.prod(extent) / MOST_VOXELS) ** (1 / 3))
    return Grid.aligned([int(mm / spacing) + 1 for mm in extent[::-1]], (spacing,) * 3, low)


def _add(shown: CloseUp, number: int, mask: np.ndarray, signal: np.ndarray, grid: Grid) -> None:
    outside, nearest = ndimage.distance_transform_edt(~mask, grid.spacing_mm, return_indices=True)
    depth = ndimage.distance_transform_edt(mask, grid.spacing_mm) - outside
    box = _box_of(grid, shown.grid)
    fine = _part(shown.grid, box)
    inside = resample(depth.astype(np.float32), grid, fine, fill=-FAR_MM) > 0
    spread = resample(signal[tuple(nearest)].astype(np.float32), grid, fine, fill=0.0)
    shown.labels[box][inside] = number
    shown.signal[box][inside] = spread[inside]


def _corners(grid: Grid) -> np.ndarray:
    return grid.index_to_lps(np.array(list(np.ndindex(2, 2, 2))) * (np.array(grid.shape) - 1))


def _box_of(part: Grid, whole: Grid) -> tuple[slice, ...]:
    """Return the voxels of `whole` that lie around `part`."""
    index = whole.lps_to_index(_corners(part))
    first, end = np.floor(index.min(0)).astype(int), np.ceil(index.max(0)).astype(int) + 1
    return tuple(slice(max(a, 0), max(b, 0)) for a, b in zip(first, end, strict=True))


def _part(grid: Grid, box: tuple[slice, ...]) -> Grid:
    affine = grid.affine.copy()
    affine[:3, 3] = grid.index_to_lps(np.array([part.start for part in box]))
    shape = tuple(len(range(*part.indices(size))) for part, size in zip(box, grid.shape, strict=True))
    return Grid(shape, affine)
