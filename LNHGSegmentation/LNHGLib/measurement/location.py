"""Where a nodule lies: the number of its slice, and the lungs told apart."""

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage

from LNHGLib.image.boxes import LpsBox, box_around_mask, grow_box
from LNHGLib.image.volume import Grid
from LNHGLib.measurement.size import Measurement, axial_axis


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
    around = box_around_mask(air)
    if around is None:
        return [air]
    whole, box, depth = air, grow_box(around, (1, 1, 1), air.shape), None
    air = air[box]
    for radius_mm in (0, 2, 4, 6, 8, 10, 12):
        if radius_mm == 2:
            depth = distance_mm(~air, spacing_mm)
        labels, _ = ndimage.label(air if depth is None else depth > radius_mm)
        sizes = np.bincount(labels.ravel(), minlength=3)
        sizes[0] = 0
        second, first = sizes.argsort()[-2:]
        if sizes[second] > 0.2 * sizes[first]:
            nearer = distance_mm(labels == first, spacing_mm) <= distance_mm(labels == second, spacing_mm)
            sides = np.zeros((2, *whole.shape), bool)
            sides[(0, *box)], sides[(1, *box)] = air & nearer, air & ~nearer
            return list(sides)
    return [whole]


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
