"""Further looks, with a generator that is blind to the right end of every bright row."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from LNHGLib.segmentation import ensemble
from LNHGLib.segmentation.fusion import Finding, FusionOptions, combine
from LNHGLib.segmentation.tiled_inference import run_generator
from torch import nn

SHAPE = (48, 64, 64)


class _Lopsided(nn.Module):
    """Draws what is bright, but misses the right end of every bright row: a half turn puts it right."""

    halo, multiple = (0, 0, 0), 1

    def forward(self, x):
        left, _, right = nn.functional.pad(x > 0.5, (1, 1)).unfold(-1, x.shape[-1], 1).unbind(-2)
        return x * (x > 0.5) * ~(left & ~right)


look = partial(run_generator, _Lopsided())
turned = ensemble.half_turned(look)


def ball(center, radius):
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    return (z - center[0]) ** 2 + (y - center[1]) ** 2 + (x - center[2]) ** 2 <= radius**2


def finding(*labels):
    return Finding("fused", 0.9, 0.9, 0.8, labels, (0, 0, 0, 1, 1, 1))


@pytest.fixture
def drawn():
    """CT, nodule image and components of two nodules, as one look draws them."""
    ct = (0.8 * (ball((20, 20, 20), 5) | ball((24, 44, 44), 4))).astype(np.float32)
    generated = look(ct)
    labels = np.zeros(SHAPE, np.int32)
    labels[(generated > 0) & (np.arange(64) < 32)] = 1
    labels[(generated > 0) & (np.arange(64) >= 32)] = 2
    return ct, generated, labels


def look_again(drawn, findings, others=(turned,)):
    return ensemble.look_again(*drawn, findings, others, FusionOptions())


def redraw(drawn, findings):
    _ct, generated, labels = drawn
    views = look_again(drawn, findings)
    return ensemble.redraw(generated, labels, list(views), views, 0.1)


def test_two_looks_are_the_same_turned_or_not():
    ct = np.random.default_rng(0).random((8, 16, 16), np.float32)
    twice = ensemble.mean_look(look, [turned])
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
    outer = (10.0, 16.0, 16.0, 26.0, 25.0, 24.0)
    redrawn = redraw(drawn, [replace(finding(1), box=outer)])
    assert [one.box for one in redrawn] == [(10.0, 15.0, 15.0, 26.0, 26.0, 26.0)]


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


def test_what_is_not_kept_stays(drawn):
    labels = drawn[2]
    before = labels.copy()
    redraw(drawn, [finding(2)])
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


def test_all_looks_give_a_finding_its_score(drawn):
    """What the second generator does not see, although the first one did, loses; the best comes first."""
    ct, generated, labels = drawn
    ct[labels == 1] = generated[labels == 1] = 0.7
    first, other = look_again(drawn, [finding(1), finding(2)], [lambda part: np.where(part > 0.75, part, 0)])
    assert (first.labels, other.labels) == ((2,), (1,))
    assert (first.segmenter_score, other.segmenter_score) == pytest.approx((1.0, 0.5))
    assert other.score == pytest.approx(combine(0.5, 0.8))
    assert other.detector_score == 0.8


def test_components_of_one_finding_count_by_their_voxels(drawn):
    ct, _generated, labels = drawn
    image = np.where(labels == 1, ct, 0)
    both = ensemble.rescored(finding(1, 2), labels, image, ct, FusionOptions(weight=0.0))
    share = (labels == 1).sum() / (labels > 0).sum()
    assert both.segmenter_score == pytest.approx(share)
    assert both.score == pytest.approx(share)


def test_without_further_looks_scores_and_outlines_stay(drawn):
    _ct, generated, labels = drawn
    before = labels.copy()
    views = look_again(drawn, [finding(1)], [])
    assert [one.segmenter_score for one in views] == pytest.approx([1.0])
    alone = finding()
    assert ensemble.redraw(generated, labels, [*views, alone], views, 0.1)[1:] == [alone]
    np.testing.assert_array_equal(labels, before)


def test_a_card_asks_for_its_looks():
    assert ensemble.further(look, None, {}) == []
    assert ensemble.further(look, None, {"generator": {"half_turn": False}}) == []
    assert ensemble.further(look, turned, {"generator": {}}) == [turned]
    assert ensemble.further(look, turned, {"generator": {"half_turn": True}})[1:] == [turned]
