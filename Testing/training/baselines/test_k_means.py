"""How document 001 cuts a map and counts hits, and the evaluation that does so."""

import numpy as np
import pytest
from evaluation_data import QUIET, ball, row, write_crops
from LNHGTrainingLib.baselines import k_means
from LNHGTrainingLib.evaluation import crossvalidate, markdown
from LNHGTrainingLib.evaluation.crossvalidate import Fold, InferenceOptions

NODULE = ball((25, 25, 25), 6)


def test_the_threshold_is_the_mean_of_two_centers():
    assert k_means.two_means_threshold(np.array([0.0, 0.2, 0.8, 1.0])) == pytest.approx(0.5)
    assert k_means.two_means_threshold(np.array([0.1] * 9 + [0.5])) == pytest.approx(0.3)


def test_scaling_a_slice_as_the_document_does_changes_nothing():
    image = np.random.default_rng(0).random((4, 20, 20)) + 0.6 * NODULE[23:27, 15:35, 15:35]
    scaled = (image - image.mean((1, 2), keepdims=True)) / image.std((1, 2), keepdims=True)
    assert np.array_equal(k_means.cut_slices(image), k_means.cut_slices(scaled))


def test_a_slice_of_one_value_has_no_nodule_and_any_other_has_one():
    """Register T6."""
    image = np.zeros((3, 20, 20))
    image[1] = np.random.default_rng(0).random((20, 20)) / 1000
    assert k_means.cut_slices(image).any(axis=(1, 2)).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("slices", "pixels", "hit"),
    [((25,), 4, True), ((24,), 4, True), ((26,), 9, True), ((25,), 3, False), ((23,), 9, False), ((), 0, False)],
)
def test_a_hit_is_within_one_slice_and_of_more_than_three_pixels(slices, pixels, hit):
    mask = np.zeros(NODULE.shape, bool)
    for z in slices:
        mask[z, 25, 25 : 25 + pixels] = True
    assert k_means.hits(mask, NODULE) is hit


def test_what_touches_the_nodule_in_one_pixel_is_no_hit():
    mask = np.zeros(NODULE.shape, bool)
    mask[25, 25, 31:40] = True
    assert (mask & NODULE).sum() == 1
    assert not k_means.hits(mask, NODULE)


def test_an_evaluation_by_k_means_needs_no_threshold_and_counts_hits(tmp_path, monkeypatch):
    """A map far below any threshold that would be tried; the second nodule is missed."""
    crops = write_crops(tmp_path, [row(0), row(1)], [15 * ball((25, 25, 25), 5 + i) for i in range(2)])

    def faint(hu):
        return np.where(hu > -400, 0.02, 0.001) * (np.count_nonzero(hu > -400) < 700)

    fold = Fold(
        crossvalidate.cut_by_k_means(faint), 4, "a" * 64, (0, 1), (0.5,), inference=InferenceOptions(k_means=True)
    )
    monkeypatch.setattr(crossvalidate.evaluate.plots, "gallery", lambda *_: None)
    report = crossvalidate.run("001", [fold], crops, tmp_path / "out", QUIET)
    assert report["groups"]["all"]["dice_all"]["value"] == 0.5
    assert report["hits_by_slice"]["value"] == 0.5
    text = markdown.render(report)
    assert "Hit by slice: 0.500" in text
    assert "cut by K-means" in text
