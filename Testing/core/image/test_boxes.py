"""Boxes of voxels and boxes in the patient's space."""

import numpy as np
import pytest
from LNHGLib.image import boxes
from LNHGLib.image.boxes import box_between
from LNHGLib.image.volume import Grid

GRID = Grid.aligned((10, 20, 30), (2.0, 1.0, 0.5), (100.0, -50.0, 7.0))
OBLIQUE = Grid((8, 9, 10), [[0, 0.3, 0.7, 1], [0, 0.9, -0.2, 2], [1.5, 0, 0.1, 3], [0, 0, 0, 1]])
BOX = box_between((2, 3, 4), (5, 7, 9))


def test_grid_of_a_crop_has_the_voxels_where_the_whole_grid_has_them():
    crop = OBLIQUE.crop(BOX)
    assert crop.shape == (3, 4, 5)
    np.testing.assert_allclose(crop.index_to_lps([1, 2, 3]), OBLIQUE.index_to_lps([3, 5, 7]))
    assert OBLIQUE.crop(boxes.whole_box(OBLIQUE.shape)).matches(OBLIQUE, 1e-9)


def test_box_shifts_grows_to_the_border_and_lies_within_another():
    assert boxes.shift_box(BOX, np.array([1, -1, 0.0])) == box_between((3, 2, 4), (6, 6, 9))
    assert boxes.grow_box(BOX, 3, (10, 20, 10)) == box_between((0, 0, 1), (8, 10, 10))
    assert boxes.grow_box(BOX, (0, 1, 2), (10, 20, 30)) == box_between((2, 2, 2), (5, 8, 11))
    assert boxes.box_within(BOX, box_between((1, 1, 1), (9, 9, 9))) == box_between((1, 2, 3), (4, 6, 8))


def test_intersection_and_union_of_boxes():
    other = box_between((4, 0, 8), (9, 4, 12))
    assert boxes.box_intersection(BOX, other) == box_between((4, 3, 8), (5, 4, 9))
    assert boxes.box_intersection(BOX, boxes.shift_box(BOX, (3, 0, 0))) is None
    assert boxes.box_union([BOX, other]) == box_between((2, 0, 4), (9, 7, 12))


def test_box_around_a_mask_is_the_smallest_and_none_where_it_is_empty():
    mask = np.zeros(GRID.shape, bool)
    assert boxes.box_around_mask(mask) is None
    mask[BOX] = True
    mask[3, 4, 5] = False
    assert boxes.box_around_mask(mask) == BOX


def test_box_of_a_box_in_the_patients_space_is_the_box_itself():
    for grid in (GRID, OBLIQUE):
        start, stop = boxes.box_start(BOX), [part.stop for part in BOX]
        around = boxes.box_around_lps(boxes.lps_box(start, stop, grid), grid)
        assert boxes.box_intersection(around, BOX) == BOX
    assert boxes.lps_box(start, stop, GRID) == ((101.75, -47.5, 10.0), (104.25, -43.5, 16.0))
    assert boxes.box_of_edges((2.0, 3.0, 4.0, 5.0, 7.0, 9.0)) == BOX


def test_margin_around_a_box_in_the_patients_space_is_in_mm():
    low, high = GRID.index_to_lps([5, 10, 15]), GRID.index_to_lps([5, 10, 15])
    assert boxes.box_around_lps((low, high), GRID, 2.0) == box_between((4, 8, 11), (7, 13, 20))


def test_box_covering_another_grid_holds_all_its_voxels_and_is_none_where_they_do_not_meet():
    assert boxes.box_covering(GRID.crop(BOX), GRID) == boxes.grow_box(BOX, 1, GRID.shape)
    far = Grid.aligned((3, 3, 3), (1.0, 1.0, 1.0), (900.0, 0.0, 0.0))
    assert boxes.box_covering(far, GRID) is None


@pytest.mark.parametrize(
    ("points", "box"),
    [
        ([[2.2, 3.0, 4.9], [3.1, 3.0, 5.0]], box_between((2, 3, 4), (5, 4, 6))),
        ([[-9.0, -9.0, -9.0]], box_between((0, 0, 0), (1, 1, 1))),
        ([[99.0, 5.5, 99.0]], box_between((9, 5, 29), (10, 7, 30))),
    ],
)
def test_nearest_box_around_points_has_a_voxel_even_where_all_lie_outside(points, box):
    assert boxes.nearest_box_around_points(np.array(points), GRID.shape) == box
    inside = (np.array(points) >= 0).all() and (np.array(points) < GRID.shape).all()
    assert boxes.box_around_points(np.array(points), GRID.shape) == (box if inside else None)
