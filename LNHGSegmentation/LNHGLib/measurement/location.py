"""Where a nodule lies in words: the side of the chest and the number of its slice."""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage
from scipy.spatial import cKDTree

from LNHGLib.image.boxes import LpsBox
from LNHGLib.image.volume import Grid
from LNHGLib.measurement.size import Measurement, axial_axis

STEP_MM = 4.0
"""The lungs are told apart on voxels of about this size: a side needs no more."""

LEFT, RIGHT = "left", "right"


@dataclass(frozen=True, eq=False)
class Sides:
    """Both lungs, told apart.

    Attributes:
        midline_x_lps_mm: halfway between them; greater x is to the patient's left.
        lungs: (n, 3) LPS mm points of the left and of the right lung; None where they do not come apart.
    """

    midline_x_lps_mm: float
    lungs: tuple[np.ndarray, np.ndarray] | None

    @classmethod
    def of(cls, lungs: np.ndarray, grid: Grid) -> "Sides":
        """Tell the lungs apart.

        Args:
            lungs: boolean (z, y, x), not empty.
            grid: its geometry, in any orientation.
        """
        steps = [max(1, int(STEP_MM / spacing)) for spacing in grid.spacing_mm]
        coarse = np.ascontiguousarray(lungs[tuple(slice(None, None, step) for step in steps)])
        spacing_mm = tuple(step * spacing for step, spacing in zip(steps, grid.spacing_mm, strict=True))
        parts = [grid.index_to_lps(np.argwhere(part) * steps) for part in split_lungs(coarse, spacing_mm)]
        parts.sort(key=lambda points: -points[:, 0].mean())
        if len(parts) < 2:
            return cls(float(np.mean([parts[0][:, 0].min(), parts[0][:, 0].max()])), None)
        return cls(float(np.mean([points[:, 0].mean() for points in parts])), (parts[0], parts[1]))

    def side(self, point_lps_mm: tuple[float, float, float]) -> str:
        """Return "left" or "right": the nearer lung, or the side of the midline where the lungs do not come apart."""
        if self.lungs is None:
            return LEFT if point_lps_mm[0] > self.midline_x_lps_mm else RIGHT
        left, right = (cKDTree(points).query(point_lps_mm)[0] for points in self.lungs)
        return LEFT if left < right else RIGHT


def slice_number(
    box_lps_mm: LpsBox,
    measured: Measurement | None,
    grid: Grid,
) -> int:
    """Return the number, from 1 in the stored order, of the axial slice with the nodule's long axis.

    Args:
        box_lps_mm: the nodule's box; its center stands for the long axis where there is none.
        measured: the nodule's measurements.
        grid: the CT's own grid, in any orientation.
    """
    ends = box_lps_mm if measured is None else measured.long_axis_ends_lps_mm
    axis = axial_axis(grid)
    index = grid.lps_to_index(np.mean(ends, axis=0))[axis]
    return int(np.clip(np.rint(index), 0, grid.shape[axis] - 1)) + 1


def split_lungs(air: np.ndarray, spacing_mm: tuple[float, ...]) -> list[np.ndarray]:
    """Return the two lungs, also where they touch; one mask if there is only one lung or they do not come apart.

    Args:
        air: (z, y, x) bool, the voxels of both lungs.
        spacing_mm: voxel size in array order.

    Returns:
        Masks of the shape of `air`, the larger lung first.
    """
    depth = None
    for radius_mm in (0, 2, 4, 6, 8, 10, 12):
        if radius_mm == 2:
            depth = distance_mm(~air, spacing_mm)
        labels, _ = ndimage.label(air if depth is None else depth > radius_mm)
        sizes = np.bincount(labels.ravel(), minlength=3)
        sizes[0] = 0
        second, first = sizes.argsort()[-2:]
        if sizes[second] > 0.2 * sizes[first]:
            nearer = distance_mm(labels == first, spacing_mm) <= distance_mm(labels == second, spacing_mm)
            return [air & nearer, air & ~nearer]
    return [air]


def distance_mm(mask: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Return the distance in mm from every voxel to the nearest one of the mask, not positive inside.

    Args:
        mask: (z, y, x) bool.
        spacing_mm: voxel size in array order.

    Returns:
        (z, y, x) float32.
    """
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing_mm[::-1])
    return sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(image, False, False, True))
