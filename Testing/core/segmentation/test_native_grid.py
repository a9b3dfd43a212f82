"""Nodules brought back to the CT's voxels: nothing stray, nothing shared, nothing lost."""

import numpy as np
import pytest
from LNHGLib.image.boxes import lps_box
from LNHGLib.image.volume import Grid
from LNHGLib.segmentation.native_grid import outline

WORK = Grid.aligned((30, 30, 30), (1.0, 1.0, 1.0), (5.0, -20.0, 100.0))


def blobs(*boxes, value=0.5):
    labels = np.zeros(WORK.shape, np.int32)
    for number, (z, y, x, size) in enumerate(boxes, 1):
        labels[z : z + size, y : y + size, x : x + size] = number
    return labels, np.where(labels > 0, value, 0).astype(np.float32)


def box(z, y, x, size):
    return (z, y, x, z + size, y + size, x + size)


def volume_mm3(found, target):
    return found.mask.sum() * target.voxel_volume_mm3


def test_on_the_same_grid_the_outline_is_the_component():
    labels, signal = blobs((10, 12, 14, 5))
    found = outline(labels, (1,), box(10, 12, 14, 5), signal, WORK, WORK)
    full = np.zeros(WORK.shape, bool)
    full[found.box] = found.mask
    np.testing.assert_array_equal(full, labels == 1)
    np.testing.assert_array_equal(found.signal, np.where(found.mask, 0.5, 0))


@pytest.mark.parametrize("spacing", [(0.6, 0.5, 0.5), (2.5, 0.7, 0.7)])
def test_on_another_grid_the_volume_is_kept(spacing):
    labels, signal = blobs((8, 8, 8, 12))
    target = Grid.aligned((60, 60, 60), spacing, (4.3, -20.4, 99.1))
    found = outline(labels, (1,), box(8, 8, 8, 12), signal, WORK, target)
    assert volume_mm3(found, target) == pytest.approx(12**3, rel=0.12)


@pytest.mark.parametrize("value", [0.02, 0.9])
def test_the_outline_does_not_grow_with_the_signal(value):
    labels, signal = blobs((8, 8, 8, 12), value=value)
    target = Grid.aligned((120, 120, 120), (0.25, 0.25, 0.25), (5.1, -20.1, 100.1))
    found = outline(labels, (1,), box(8, 8, 8, 12), signal, WORK, target)
    assert volume_mm3(found, target) == pytest.approx(12**3, rel=0.03)


def test_another_component_beside_it_is_not_taken():
    labels, signal = blobs((10, 10, 10, 4), (10, 10, 15, 4))
    target = Grid.aligned((60, 60, 60), (0.5, 0.5, 0.5), (5.0, -20.0, 100.0))
    found = outline(labels, (1,), box(10, 10, 10, 4), signal, WORK, target)
    full = np.zeros(target.shape, bool)
    full[found.box] = found.mask
    where = np.rint(WORK.lps_to_index(target.index_to_lps(np.argwhere(full)))).astype(int)
    assert set(np.unique(labels[tuple(where.T)])) <= {0, 1}


def test_components_that_were_joined_are_outlined_together():
    labels, signal = blobs((10, 10, 10, 4), (10, 10, 15, 4))
    found = outline(labels, (1, 2), (10, 10, 10, 14, 14, 19), signal, WORK, WORK)
    assert found.mask.sum() == 128


def test_a_nodule_between_two_thick_slices_takes_the_nearest_voxels():
    labels, signal = blobs((12, 10, 10, 2))
    target = Grid.aligned((4, 30, 30), (9.0, 1.0, 1.0), (5.0, -20.0, 100.0))
    found = outline(labels, (1,), box(12, 10, 10, 2), signal, WORK, target)
    assert found.mask.sum() == 4


def test_a_nodule_outside_the_target_has_no_outline():
    labels, signal = blobs((10, 10, 10, 4))
    target = Grid.aligned((10, 10, 10), (1.0, 1.0, 1.0), (500.0, 0.0, 0.0))
    assert outline(labels, (1,), box(10, 10, 10, 4), signal, WORK, target) is None


def test_a_box_in_voxel_edges_becomes_a_box_in_the_world():
    assert lps_box((0, 0, 0), (2, 3, 4), WORK) == ((4.5, -20.5, 99.5), (8.5, -17.5, 101.5))


def test_a_part_of_a_grid_keeps_its_place_in_the_world():
    part = WORK.crop((slice(3, 9), slice(4, 9), slice(5, 9)))
    np.testing.assert_allclose(part.index_to_lps([1, 1, 1]), WORK.index_to_lps([4, 5, 6]))
