"""Side and slice of a nodule, in every orientation of the CT, also where the lungs touch."""

import itertools

import numpy as np
import pytest
from LNHGLib.image.volume import Grid
from LNHGLib.measurement.location import Sides, slice_number
from LNHGLib.phantom.chest import make_phantom
from LNHGLib.segmentation.preprocessing import find_lungs

UPRIGHT = Grid.aligned((50, 65, 90), (5, 4, 4), (-140, -130, 100))
ORDERS = list(itertools.product(itertools.permutations(range(3)), itertools.product((False, True), repeat=3)))[::7]


def lungs(touching: bool = False) -> np.ndarray:
    """Two ellipses around x = -30 and x = 110, the patient's middle being at 40."""
    points = UPRIGHT.index_to_lps(np.moveaxis(np.indices(UPRIGHT.shape), 0, -1))
    x, y, _ = np.moveaxis(points, -1, 0)
    mask = np.zeros(UPRIGHT.shape, bool)
    for middle in (-30, 110):
        mask |= ((x - middle) / 50) ** 2 + (y / 70) ** 2 <= 1
    return mask | ((np.abs(x - 40) < 60) & (np.abs(y) < 5)) if touching else mask


def reordered(mask: np.ndarray, order, flips) -> tuple[np.ndarray, Grid]:
    """The same mask with its axes in another order and direction."""
    steps, start = np.eye(4), np.zeros(3)
    for axis, flip in enumerate(flips):
        if flip:
            steps[axis, axis], start[axis] = -1, mask.shape[axis] - 1
    steps[:3, 3] = start
    shuffle = np.eye(4)
    shuffle[:3, :3] = np.eye(3)[list(order)].T
    array = mask[tuple(slice(None, None, -1 if flip else 1) for flip in flips)].transpose(order)
    return array, Grid(array.shape, UPRIGHT.affine @ steps @ shuffle)


@pytest.mark.parametrize(("order", "flips"), ORDERS)
@pytest.mark.parametrize("touching", [False, True])
def test_side_is_the_patients_whatever_the_order_of_the_voxels(order, flips, touching):
    sides = Sides.of(*reordered(lungs(touching), order, flips))
    assert sides.side((10, 0, 200)) == "right"  # left of the scanner's middle, right of the patient's
    assert sides.side((75, 0, 200)) == "left"
    assert sides.side((150, 40, 120)) == "left"
    assert sides.midline_x_lps_mm == pytest.approx(40, abs=6)


def test_lungs_that_do_not_come_apart_are_divided_by_the_midline():
    one = np.zeros(UPRIGHT.shape, bool)
    one[5:45, 10:50, 20:70] = True
    sides = Sides.of(one, UPRIGHT)
    assert sides.lungs is None
    middle = UPRIGHT.index_to_lps([0, 0, 44.5])[0]
    assert sides.midline_x_lps_mm == pytest.approx(middle, abs=5)
    assert sides.side((middle + 10, 0, 0)) == "left"
    assert sides.side((middle - 10, 0, 0)) == "right"


def test_every_nodule_of_the_phantom_is_told_the_side_of_its_lung():
    phantom = make_phantom()
    grid = phantom.volume.grid
    sides = Sides.of(find_lungs(phantom.volume), grid)
    middle = grid.index_to_lps((np.array(grid.shape) - 1) / 2)[0]
    for nodule in phantom.nodules:
        assert sides.side(nodule["center_lps_mm"]) == ("left" if nodule["center_lps_mm"][0] > middle else "right")


def test_slices_are_numbered_from_one_in_the_stored_order():
    flipped = Grid(UPRIGHT.shape, UPRIGHT.affine @ np.array([[-1, 0, 0, 49], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    lowest = ((0, 0, 98), (5, 5, 102))
    assert slice_number(lowest, None, UPRIGHT) == 1
    assert slice_number(lowest, None, flipped) == 50
    assert slice_number(((0, 0, 343), (5, 5, 346)), None, UPRIGHT) == 50
