"""Trimmed outlines of drawn shapes."""

import numpy as np
import pytest
from LNHGLib.segmentation import attachments

SHAPE = (48, 64, 64)


def ball(center, radius):
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    return (z - center[0]) ** 2 + (y - center[1]) ** 2 + (x - center[2]) ** 2 <= radius**2


def test_a_vessel_is_trimmed_from_a_nodule_and_the_nodule_stays():
    nodule, vessel = ball((20, 20, 20), 6), np.zeros(SHAPE, bool)
    vessel[19:22, 19:22, 20:] = True
    kept = attachments.prune_mask(nodule | vessel, (20, 20, 20), (1, 1, 1))
    assert (kept & nodule).sum() == nodule.sum()
    assert not kept[..., 31:].any()
    assert 0 < (kept & ~nodule).sum() < 40


def test_a_nodule_on_a_thick_wall_keeps_its_own_side():
    nodule, wall = ball((20, 20, 20), 5), np.zeros(SHAPE, bool)
    wall[18:23, :, 26:28] = True
    kept = attachments.prune_mask(nodule | wall, (20, 20, 20), (1, 1, 1))
    assert kept[nodule].all()
    assert not kept[:, :8].any()
    assert not kept[:, 33:].any()


@pytest.mark.parametrize("radius", [1, 2, 4.5, 9])
def test_a_round_nodule_is_not_trimmed(radius):
    nodule = ball((20, 20, 20), radius)
    assert np.array_equal(attachments.prune_mask(nodule, (20, 20, 20), (1, 1, 1)), nodule)


def test_trimming_goes_by_millimeters_and_by_the_place():
    two = ball((20, 20, 9), 4) | ball((20, 20, 28), 8) | ball((20, 20, 16), 1.5)
    small = attachments.prune_mask(two, (20, 20, 9), (1, 1, 1))
    large = attachments.prune_mask(two, (20, 20, 28), (1, 1, 1))
    assert small[20, 20, 9]
    assert large.sum() > 5 * ball((20, 20, 20), 4).sum()
    thick = attachments.prune_mask(ball((20, 20, 20), 6)[::3], (7, 20, 20), (3, 1, 1))
    assert np.array_equal(thick, ball((20, 20, 20), 6)[::3])


def test_nothing_and_what_fills_the_volume_stay_as_they_are():
    assert not attachments.prune_mask(np.zeros((5, 5, 5), bool), (2, 2, 2), (1, 1, 1)).any()
    assert attachments.prune_mask(np.ones((5, 5, 5), bool), (2, 2, 2), (1, 1, 1)).all()


def test_components_are_trimmed_in_place_each_at_its_signal():
    vessel = np.zeros(SHAPE, bool)
    vessel[19:22, 19:22, 20:] = True
    nodule, other = ball((20, 20, 20), 6), ball((36, 40, 40), 3)
    labels = np.where(nodule | vessel, 1, 0) + np.where(other, 2, 0) + np.where(np.roll(vessel, 20, 0), 3, 0)
    labels = attachments.prune_attachments(labels, {1, 2, 9}, nodule * 0.9 + vessel * 0.1 + other * 0.9, (1, 1, 1))
    assert (labels[nodule] == 1).all()
    assert not (labels[..., 31:] == 1).any()
    assert np.array_equal(labels == 2, other)
    assert np.array_equal(labels == 3, np.roll(vessel, 20, 0))


def test_the_parts_of_a_component_are_trimmed_one_by_one():
    first, second = ball((20, 20, 12), 4), ball((20, 20, 40), 7)
    labels = np.where(first | second, 1, 0)
    labels = attachments.prune_attachments(labels, {1}, (first | second) * 0.5, (1, 1, 1))
    assert np.array_equal(labels > 0, first | second)
