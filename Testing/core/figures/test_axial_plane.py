import numpy as np
import pytest
from LNHGLib.figures.axial_plane import AxialPlane, sample_nodule
from LNHGLib.image.volume import Grid


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1), (1, -1, 1)])
def test_a_plane_shows_the_patients_right_on_the_left_and_anterior_up_in_every_array_order(order, flips):
    grid = Grid.aligned((20, 30, 40), (2.0, 1.0, 1.0), (5, -8, 50))
    array = np.zeros(grid.shape, np.float32)
    array[10, 5, 4] = 1
    marker_lps, center = grid.index_to_lps((10, 5, 4)), grid.index_to_lps((10, 15, 20))
    moved, moved_grid = _reordered(array, grid, order, flips)
    pixels = AxialPlane(center, 40.0).grid()
    image, signal = (found[0] for found in sample_nodule(moved, 1, 7 * moved, moved_grid, pixels))
    row, column = np.unravel_index(image.argmax(), image.shape)
    np.testing.assert_allclose(pixels.index_to_lps((0, row, column)), marker_lps, atol=0.2)
    assert row < 128
    assert column < 128
    np.testing.assert_allclose(signal[image > 0], 7, rtol=1e-4)


def _reordered(array, grid, order, flips):
    affine = grid.affine.copy()
    affine[:3, :3] = affine[:3, :3][:, order]
    array = array.transpose(order)
    for axis, flip in enumerate(flips):
        if flip < 0:
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
            affine[:3, axis] *= -1
            array = np.flip(array, axis)
    return array, Grid(array.shape, affine)
