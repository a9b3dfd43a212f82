"""Axial cuts through a volume of any orientation: what pictures are made of.

Radiological convention: the patient's right is on the left, anterior is up.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from LNHGLib.image.volume import Grid

if TYPE_CHECKING:
    from LNHGLib.measurement.nodule import Nodule

FIELD_MM = 50.0
PIXELS = 256


@dataclass(frozen=True)
class Cut:
    """A square axial cut through the patient, `PIXELS` on a side."""

    center_lps_mm: np.ndarray
    field_mm: float

    @property
    def points(self) -> np.ndarray:
        """Return the pixels' LPS mm positions as (row, column, xyz)."""
        steps = ((np.arange(PIXELS) + 0.5) / PIXELS - 0.5) * self.field_mm
        y, x = np.meshgrid(steps, steps, indexing="ij")
        return self.center_lps_mm + np.stack([x, y, np.zeros_like(x)], axis=-1)

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Return (left, right, bottom, top) in LPS mm for matplotlib."""
        x, y, half = *self.center_lps_mm[:2], self.field_mm / 2
        return x - half, x + half, y + half, y - half

    def crop(self, grid: Grid) -> tuple[tuple[slice, ...], Grid]:
        """Return the part of the grid that the cut touches: its slices (z, y, x) and its own grid."""
        index, last = grid.lps_to_index(self.points), np.array(grid.shape) - 1
        first = np.floor(index.min((0, 1))).astype(int).clip(0, last)
        end = np.ceil(index.max((0, 1))).astype(int).clip(0, last) + 1
        affine = grid.affine.copy()
        affine[:3, 3] = grid.index_to_lps(first)
        return tuple(slice(a, b) for a, b in zip(first, end, strict=True)), Grid(tuple(end - first), affine)

    def sample(self, array: np.ndarray, grid: Grid, fill: float = 0.0) -> np.ndarray:
        """Interpolate `array` linearly at the pixels, `fill` where they lie outside the grid; returns float32."""
        index = np.moveaxis(grid.lps_to_index(self.points), -1, 0)
        size = np.array(grid.shape)[:, None, None]
        outside = ((index < -0.5) | (index > size - 0.5)).any(0)
        values = ndimage.map_coordinates(array.astype(np.float32), index.clip(0, size - 1), order=1)
        return np.where(outside, np.float32(fill), values)


def cuts(nodule: "Nodule", grid: Grid) -> tuple[Cut, Cut]:
    """Return the whole slice and the close-up, on the slice of the long axis or through the box's center."""
    low, high = np.array(nodule.box_lps_mm, float)
    center, size_mm = (low + high) / 2, float((high - low)[:2].max())
    if nodule.measurement is not None:
        center[2] = np.mean(nodule.measurement.long_axis_ends_lps_mm, axis=0)[2]
        size_mm = nodule.measurement.long_axis_mm
    return whole_cut(grid, center), Cut(center, max(FIELD_MM, 1.5 * size_mm))


def whole_cut(grid: Grid, center: np.ndarray) -> Cut:
    """Return the cut at the center's height that shows the whole grid."""
    corners = grid.index_to_lps(np.array(list(np.ndindex(2, 2, 2))) * grid.shape - 0.5)
    low, high = corners.min(0), corners.max(0)
    return Cut(np.array([*(low + high)[:2] / 2, center[2]]), float((high - low)[:2].max()))
