"""The number of a nodule's slice."""

import numpy as np
from LNHGLib.image.volume import Grid
from LNHGLib.measurement.location import slice_number

UPRIGHT = Grid.aligned((50, 65, 90), (5, 4, 4), (-140, -130, 100))


def test_slices_are_numbered_from_one_in_the_stored_order():
    flipped = Grid(UPRIGHT.shape, UPRIGHT.affine @ np.array([[-1, 0, 0, 49], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    lowest = ((0, 0, 98), (5, 5, 102))
    assert slice_number(lowest, None, UPRIGHT) == 1
    assert slice_number(lowest, None, flipped) == 50
    assert slice_number(((0, 0, 343), (5, 5, 346)), None, UPRIGHT) == 50
