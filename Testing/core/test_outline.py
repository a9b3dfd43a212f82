"""Outlines from two looks, with a generator that is blind to the right end of every bright row."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from LNHGLib import outline
from LNHGLib.fusion import Finding
from LNHGLib.inference import run_generator
from torch import nn

SHAPE = (48, 64, 64)


class _Lopsided(nn.Module):
    """Draws what is bright, but misses the right end of every bright row: a half turn puts it right."""

    halo, multiple = (0, 0, 0), 1

    def forward(self, x):
        left, _, right = nn.functional.pad(x > 0.5, (1, 1)).unfold(-1, x.shape[-1], 1).unbind(-2)
        return x * (x > 0.5) * ~(left & ~right)


look = partial(run_generator, _Lopsided())


def ball(center, radius):
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    return (z - center[0]) ** 2 + (y - center[1]) ** 2 + (x - center[2]) ** 2 <= radius**2


def finding(*labels):
    return Finding("segmenter" if labels else "detector-box", 0.9, 0.9, None, labels, (0, 0, 0, 1, 1, 1))


@pytest.fixture
def drawn():
    """CT, nodule image and components of two nodules, as one look draws them."""
    ct = (0.8 * (ball((20, 20, 20), 5) | ball((24, 44, 44), 4))).astype(np.float32)
    generated = look(ct)
    labels = np.zeros(SHAPE, np.int32)
    labels[(generated > 0) & (np.arange(64) < 32)] = 1
    labels[(generated > 0) & (np.arange(64) >= 32)] = 2
    return ct, generated, labels


def redraw(drawn, findings):
    outline.redraw(*drawn, findings, look, 0.1)


def test_two_looks_are_the_same_turned_or_not():
    ct = np.random.default_rng(0).random((8, 16, 16), np.float32)
    twice = outline.two_looks(look)
    np.testing.assert_allclose(twice(ct[:, ::-1, ::-1]), twice(ct)[:, ::-1, ::-1], rtol=1e-6)
    assert not np.allclose(look(ct[:, ::-1, ::-1]), look(ct)[:, ::-1, ::-1])


def test_an_outline_gets_what_a_single_look_missed(drawn):
    ct, generated, labels = drawn
    before = labels == 1
    redraw(drawn, [finding(1), finding(2)])
    assert before.sum() < (labels == 1).sum()
    np.testing.assert_array_equal(labels > 0, ct > 0.5)
    np.testing.assert_array_equal(labels == 2, ct * (labels == 2) > 0.5)
    assert generated[20, 20, 25] == pytest.approx(0.4)


def test_the_box_holds_the_new_outline_as_the_ct_is_drawn_from_it(drawn):
    first, second = finding(1), finding()
    outer = (10.0, 16.0, 16.0, 26.0, 25.0, 24.0)
    redrawn = outline.redraw(*drawn, [replace(first, box=outer), second], look, 0.1)
    assert redrawn == [replace(first, box=(10.0, 15.0, 15.0, 26.0, 26.0, 26.0)), second]


def test_findings_of_several_components_become_one(drawn):
    labels = drawn[2]
    labels[(labels == 1) & (np.arange(64) > 20)] = 3
    redraw(drawn, [finding(1, 3)])
    assert set(np.unique(labels)) == {0, 1, 2}
    assert (labels == 1).sum() == ball((20, 20, 20), 5).sum()


def test_a_neighbor_keeps_its_voxels(drawn):
    ct, generated, labels = drawn
    ct[ball((20, 20, 27), 2)] = generated[ball((20, 20, 27), 2)] = 0.8
    labels[:] = 0
    labels[ball((20, 20, 20), 5)] = 1
    labels[ball((20, 20, 27), 2)] = 2
    other = labels == 2
    redraw(drawn, [finding(1), finding(2)])
    assert (labels == 2)[other].all()


def test_what_is_not_kept_and_boxes_alone_stay(drawn):
    labels = drawn[2]
    before = labels.copy()
    redraw(drawn, [finding(), finding(2)])
    np.testing.assert_array_equal(labels == 1, before == 1)


def test_an_outline_that_grows_out_of_what_the_second_look_sees_stays(drawn):
    """A cut by the border of its view would be a straight edge, as of a piece of the mediastinum."""
    ct, _, labels = drawn
    ct[:, 18:23, 24:] = 0.8  # what the first look did not show
    before = labels.copy()
    redraw(drawn, [finding(1)])
    np.testing.assert_array_equal(labels, before)


def test_an_outline_that_the_mean_does_not_show_stays(drawn):
    ct, generated, labels = drawn
    ct[ball((20, 20, 20), 5)] = 0.0
    generated[ball((20, 20, 20), 5)] = 0.15
    before, image = labels.copy(), generated.copy()
    redraw(drawn, [finding(1)])
    np.testing.assert_array_equal(labels, before)
    np.testing.assert_array_equal(generated, image)


def test_a_vessel_is_trimmed_from_a_nodule_and_the_nodule_stays():
    nodule, vessel = ball((20, 20, 20), 6), np.zeros(SHAPE, bool)
    vessel[19:22, 19:22, 20:] = True
    kept = outline.trimmed(nodule | vessel, (20, 20, 20), (1, 1, 1))
    assert (kept & nodule).sum() == nodule.sum()
    assert not kept[..., 31:].any()
    assert 0 < (kept & ~nodule).sum() < 40


def test_a_nodule_on_a_thick_wall_keeps_its_own_side():
    nodule, wall = ball((20, 20, 20), 5), np.zeros(SHAPE, bool)
    wall[18:23, :, 26:28] = True
    kept = outline.trimmed(nodule | wall, (20, 20, 20), (1, 1, 1))
    assert kept[nodule].all()
    assert not kept[:, :8].any()
    assert not kept[:, 33:].any()


@pytest.mark.parametrize("radius", [1, 2, 4.5, 9])
def test_a_round_nodule_is_not_trimmed(radius):
    nodule = ball((20, 20, 20), radius)
    assert np.array_equal(outline.trimmed(nodule, (20, 20, 20), (1, 1, 1)), nodule)


def test_trimming_goes_by_millimeters_and_by_the_place():
    two = ball((20, 20, 9), 4) | ball((20, 20, 28), 8) | ball((20, 20, 16), 1.5)
    small = outline.trimmed(two, (20, 20, 9), (1, 1, 1))
    large = outline.trimmed(two, (20, 20, 28), (1, 1, 1))
    assert small[20, 20, 9]
    assert large.sum() > 5 * ball((20, 20, 20), 4).sum()
    thick = outline.trimmed(ball((20, 20, 20), 6)[::3], (7, 20, 20), (3, 1, 1))
    assert np.array_equal(thick, ball((20, 20, 20), 6)[::3])


def test_nothing_and_what_fills_the_volume_stay_as_they_are():
    assert not outline.trimmed(np.zeros((5, 5, 5), bool), (2, 2, 2), (1, 1, 1)).any()
    assert outline.trimmed(np.ones((5, 5, 5), bool), (2, 2, 2), (1, 1, 1)).all()
