"""Axial planes through a volume of any orientation, and what lies on them: what all pictures are made of.

Radiological convention: the patient's right is on the left, anterior is up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from LNHGLib.figures import colors
from LNHGLib.image.boxes import Box, corners, lps_box, nearest_box_around_points
from LNHGLib.image.volume import Grid, Volume, resample

if TYPE_CHECKING:
    from LNHGLib.measurement.nodule import Nodule

FIELD_MM = 50.0
PIXELS = 256
OUTSIDE_HU = -1024.0


@dataclass(frozen=True, eq=False)
class AxialPlane:
    """A square of an axial plane through the patient.

    Attributes:
        center_lps_mm: (3,) x, y, z of its middle.
        field_mm: its side.
        pixels: pixels along its side.
    """

    center_lps_mm: np.ndarray
    field_mm: float
    pixels: int = PIXELS

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top in LPS mm, for matplotlib."""
        x, y, half = *self.center_lps_mm[:2], self.field_mm / 2
        return x - half, x + half, y + half, y - half

    def grid(self, heights_mm: Sequence[float] | None = None) -> Grid:
        """Return the pixels as a grid: rows run to the back, columns to the patient's left.

        Args:
            heights_mm: evenly spaced z (LPS) of several planes above each other; the plane's own z by default.

        Returns:
            A grid of the shape (heights, pixels, pixels).
        """
        heights = [self.center_lps_mm[2]] if heights_mm is None else heights_mm
        pixel_mm = self.field_mm / self.pixels
        step_mm = heights[1] - heights[0] if len(heights) > 1 else 1.0
        corner = np.asarray(self.center_lps_mm)[:2] - self.field_mm / 2 + pixel_mm / 2
        return Grid.aligned(
            (len(heights), self.pixels, self.pixels), (step_mm, pixel_mm, pixel_mm), (*corner, heights[0])
        )


def nodule_planes(nodule: "Nodule", grid: Grid) -> tuple[AxialPlane, AxialPlane]:
    """Return the full slice and the close-up, on the slice of the long axis or through the box's center.

    Args:
        nodule: has a box.
        grid: the CT's grid.
    """
    low, high = np.array(nodule.box_lps_mm, float)
    center, size_mm = (low + high) / 2, float((high - low)[:2].max())
    if nodule.measurement is not None:
        center[2] = np.mean(nodule.measurement.long_axis_ends_lps_mm, axis=0)[2]
        size_mm = nodule.measurement.long_axis_mm
    return full_plane(grid, center), AxialPlane(center, max(FIELD_MM, 1.5 * size_mm))


def full_plane(grid: Grid, center: np.ndarray) -> AxialPlane:
    """Return the plane at the height of a point that shows the whole grid.

    Args:
        grid: the CT's grid.
        center: (3,) x, y, z in LPS mm.
    """
    low, high = np.array(lps_box((0, 0, 0), grid.shape, grid))
    return AxialPlane(np.array([*(low + high)[:2] / 2, center[2]]), float((high - low)[:2].max()))


def sample_ct(volume: Volume, target: Grid) -> np.ndarray:
    """Return the CT on a grid in the lung window.

    Args:
        volume: the CT.
        target: from `AxialPlane.grid`.

    Returns:
        uint8, the target's shape; black outside the CT.
    """
    box, part = _touched(volume.grid, target)
    return colors.window(resample(volume.array[box], part, target, fill=OUTSIDE_HU))


def sample_nodule(
    labels: np.ndarray, number: int, signal: np.ndarray, grid: Grid, target: Grid
) -> tuple[np.ndarray, np.ndarray]:
    """Return a nodule and the signal inside it on a grid.

    Args:
        labels: (z, y, x) integer or bool.
        number: the nodule's value in `labels`.
        signal: (z, y, x) float.
        grid: the grid of both.
        target: from `AxialPlane.grid`.

    Returns:
        How much of each pixel the nodule covers, 0 to 1, and its signal, interpolated among its own voxels only; both
        float32, the target's shape. A pixel belongs to the nodule from a coverage of 0.5.
    """
    box, part = _touched(grid, target)
    mask = labels[box] == number
    covered = resample(mask.astype(np.float32), part, target, fill=0)
    inside = resample(np.where(mask, signal[box], 0).astype(np.float32), part, target, fill=0)
    return covered, np.divide(inside, covered, out=np.zeros_like(inside), where=covered > 0)


def _touched(grid: Grid, target: Grid) -> tuple[Box, Grid]:
    """Return the box of a grid that another one touches, at least one voxel, and the grid of that box."""
    ends = target.index_to_lps(corners(np.zeros(3), np.array(target.shape) - 1))
    box = nearest_box_around_points(grid.lps_to_index(ends), grid.shape)
    return box, grid.crop(box)
