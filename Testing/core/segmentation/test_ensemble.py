"""The ensemble, with a generator that is blind to the right end of every bright row."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from LNHGLib.segmentation import ensemble
from LNHGLib.segmentation.ensemble import Ensemble
from LNHGLib.segmentation.fusion import Finding, FusionOptions, combine
from LNHGLib.segmentation.tiled_inference import run_generator
from tiny_model import write_model
from torch import nn

SHAPE = (48, 64, 64)


class _Lopsided(nn.Module):
    """Shows what is bright, but misses the right end of every bright row: a rotation by 180 degrees puts it right."""

    halo, multiple = (0, 0, 0), 1

    def forward(self, x):
        left, _, right = nn.functional.pad(x > 0.5, (1, 1)).unfold(-1, x.shape[-1], 1).unbind(-2)
        return x * (x > 0.5) * ~(left & ~right)


predict = partial(run_generator, _Lopsided())
rotated = ensemble.rotated_180(predict)


def ball(center, radius):
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    return (z - center[0]) ** 2 + (y - center[1]) ** 2 + (x - center[2]) ** 2 <= radius**2


def finding(*labels):
    return Finding("fused", 0.9, 0.9, 0.8, labels, (0, 0, 0, 1, 1, 1))


@pytest.fixture
def drawn():
    """CT, nodule image and components of two nodules, as the first member shows them."""
    ct = (0.8 * (ball((20, 20, 20), 5) | ball((24, 44, 44), 4))).astype(np.float32)
    generated = predict(ct)
    labels = np.zeros(SHAPE, np.int32)
    labels[(generated > 0) & (np.arange(64) < 32)] = 1
    labels[(generated > 0) & (np.arange(64) >= 32)] = 2
    return ct, generated, labels


def rescore(drawn, findings, others=(rotated,)):
    return ensemble.rescore_with_ensemble(*drawn, findings, Ensemble(predict, others), FusionOptions())


def refine(drawn, findings):
    """Return the nodule image, the component numbers and the findings after refining."""
    _ct, generated, labels = drawn
    patches = rescore(drawn, findings)
    return ensemble.refine_outlines(generated, labels, list(patches), patches, 0.1)


def test_the_mean_with_the_rotated_ct_is_the_same_rotated_or_not():
    ct = np.random.default_rng(0).random((8, 16, 16), np.float32)
    mean = Ensemble(predict, [rotated]).predict_mean
    np.testing.assert_allclose(mean(ct[:, ::-1, ::-1]), mean(ct)[:, ::-1, ::-1], rtol=1e-6)
    assert not np.allclose(predict(ct[:, ::-1, ::-1]), predict(ct)[:, ::-1, ::-1])


def test_an_outline_gets_what_a_single_member_missed(drawn):
    ct, _generated, labels = drawn
    before = labels == 1
    generated, labels, _findings = refine(drawn, [finding(1), finding(2)])
    assert before.sum() < (labels == 1).sum()
    np.testing.assert_array_equal(labels > 0, ct > 0.5)
    np.testing.assert_array_equal(labels == 2, ct * (labels == 2) > 0.5)
    assert generated[20, 20, 25] == pytest.approx(0.4)


def test_the_box_holds_the_new_outline_as_the_ct_is_drawn_from_it(drawn):
    outer = (10.0, 16.0, 16.0, 26.0, 25.0, 24.0)
    _image, _labels, refined = refine(drawn, [replace(finding(1), box=outer)])
    assert [one.box for one in refined] == [(10.0, 15.0, 15.0, 26.0, 26.0, 26.0)]


def test_findings_of_several_components_become_one(drawn):
    labels = drawn[2]
    labels[(labels == 1) & (np.arange(64) > 20)] = 3
    _image, labels, _findings = refine(drawn, [finding(1, 3)])
    assert set(np.unique(labels)) == {0, 1, 2}
    assert (labels == 1).sum() == ball((20, 20, 20), 5).sum()


def test_a_neighbor_keeps_its_voxels(drawn):
    ct, generated, labels = drawn
    ct[ball((20, 20, 27), 2)] = generated[ball((20, 20, 27), 2)] = 0.8
    labels[:] = 0
    labels[ball((20, 20, 20), 5)] = 1
    labels[ball((20, 20, 27), 2)] = 2
    other = labels == 2
    _image, labels, _findings = refine(drawn, [finding(1), finding(2)])
    assert (labels == 2)[other].all()


def test_what_is_not_kept_stays(drawn):
    labels = drawn[2]
    before = labels.copy()
    _image, labels, _findings = refine(drawn, [finding(2)])
    np.testing.assert_array_equal(drawn[2], before)
    np.testing.assert_array_equal(labels == 1, before == 1)


def test_an_outline_that_grows_out_of_what_the_members_see_stays(drawn):
    """A cut by the border of their field would be a straight edge, as of a piece of the mediastinum."""
    ct, _, labels = drawn
    ct[:, 18:23, 24:] = 0.8  # what the first member did not show
    before = labels.copy()
    _image, labels, _findings = refine(drawn, [finding(1)])
    np.testing.assert_array_equal(labels, before)


def test_an_outline_that_the_mean_does_not_show_stays(drawn):
    ct, generated, labels = drawn
    ct[ball((20, 20, 20), 5)] = 0.0
    generated[ball((20, 20, 20), 5)] = 0.15
    image, refined, _findings = refine(drawn, [finding(1)])
    np.testing.assert_array_equal(refined, labels)
    np.testing.assert_array_equal(image, generated)


def test_all_members_give_a_finding_its_score(drawn):
    """What the second generator does not see, although the first one did, loses; the best comes first."""
    ct, generated, labels = drawn
    ct[labels == 1] = generated[labels == 1] = 0.7
    first, other = rescore(drawn, [finding(1), finding(2)], [lambda part: np.where(part > 0.75, part, 0)])
    assert (first.labels, other.labels) == ((2,), (1,))
    assert (first.segmenter_score, other.segmenter_score) == pytest.approx((1.0, 0.5))
    assert other.score == pytest.approx(combine(0.5, 0.8))
    assert other.detector_score == 0.8


def test_components_of_one_finding_count_by_their_voxels(drawn):
    ct, _generated, labels = drawn
    image = np.where(labels == 1, ct, 0)
    both = ensemble.rescore(finding(1, 2), labels, image, ct, FusionOptions(weight=0.0))
    fraction = (labels == 1).sum() / (labels > 0).sum()
    assert both.segmenter_score == pytest.approx(fraction)
    assert both.score == pytest.approx(fraction)


def test_without_further_members_scores_and_outlines_stay(drawn):
    _ct, generated, labels = drawn
    patches = rescore(drawn, [finding(1)], [])
    assert [one.segmenter_score for one in patches] == pytest.approx([1.0])
    alone = finding()
    _image, refined, findings = ensemble.refine_outlines(generated, labels, [*patches, alone], patches, 0.1)
    assert findings[1:] == [alone]
    np.testing.assert_array_equal(refined, labels)


@pytest.mark.parametrize(("rotate", "second", "members"), [(False, False, 0), (True, False, 1), (True, True, 2)])
def test_a_card_asks_for_its_members(tmp_path, rotate, second, members):
    model = write_model(tmp_path / "model", second=second)
    model.card["generator"]["half_turn"] = rotate  # as older cards call it
    predictor = Ensemble.of(model.spec, model.generator(), model.second_generator())
    assert len(predictor.others) == members
    ct = np.random.default_rng(0).random((4, 16, 16), np.float32)
    images = [predictor.predict(ct), *(other(ct) for other in predictor.others)]
    np.testing.assert_allclose(predictor.predict_mean(ct), np.mean(images, axis=0), atol=1e-6)
