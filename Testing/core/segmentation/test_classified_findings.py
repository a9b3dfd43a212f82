"""A model with a classifier: its findings have probabilities, and the ensemble looks at what can be kept alone."""

import numpy as np
import pytest
from LNHGLib.segmentation import pipeline
from LNHGLib.segmentation.calibration import probability, sphere_diameter_mm
from LNHGLib.segmentation.ensemble import Ensemble
from LNHGLib.segmentation.point_prompt import segment_at
from tiny_model import BlobDetector, centers_lps_mm, gate_generator, tiny_chest, with_stand_ins, write_model

PROBABILITY = {"intercept": -1.0, "segmenter": 0.4, "detector": 0.2, "classifier": 1.5, "log_diameter": 0.7}


class Blind(BlobDetector):
    """Sees nothing but the largest blob."""

    def forward(self, images):
        found = super().forward(images)
        for one in found:
            sizes = (one["boxes"][:, 2:] - one["boxes"][:, :2]).prod(1)
            for name in ("boxes", "scores"):
                one[name] = one[name][sizes > 30]
        return found


class Asked(BlobDetector):
    """Must not be asked."""

    def forward(self, images):
        raise AssertionError(f"asked for {len(images)} slices")


@pytest.fixture(scope="module")
def chest():
    return tiny_chest()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("classified") / "tiny", classifier=True, probability=PROBABILITY)


def segment(chest, model, threshold=0.0):
    return pipeline.segment(chest, model, threshold=threshold)


def test_a_model_without_a_detector_scores_by_its_segmenter_alone(chest, tmp_path):
    model = write_model(tmp_path / "tiny", detector=False)
    result = segment(chest, model)
    assert result.report["fusion"]["state"].startswith("no detector looked")
    assert len(result.nodules) == 3
    for nodule in result.nodules:
        assert (nodule.provenance, nodule.detector_score) == ("segmenter", None)
        assert nodule.score == pytest.approx(nodule.segmenter_score, abs=1e-6)


def test_of_two_stages_the_second_decides(chest, tmp_path):
    model = write_model(tmp_path / "tiny", detector=False, classifier=True)
    result = segment(chest, model)
    assert result.report["score_scale"] == "model"  # no probability: nothing calibrated it
    assert len(result.nodules) == 3
    assert [nodule.score for nodule in result.nodules] == [nodule.classifier_score for nodule in result.nodules]
    (shown,) = segment_at(chest, model, tuple(centers_lps_mm(chest)[0])).nodules
    assert shown.score == shown.classifier_score


def test_report_says_what_became_of_boxes_of_the_detector_alone(chest, model, monkeypatch):
    run_detector, far = pipeline.run_detector, [[4.0, 2, 2, 9, 9, 0.9]]
    monkeypatch.setattr(pipeline, "run_detector", lambda *given, **more: np.vstack([run_detector(*given, **more), far]))
    result = segment(chest, with_stand_ins(model))
    assert len(result.nodules) == 3
    assert all(nodule.provenance != "detector-box" for nodule in result.nodules)
    assert result.report["fusion"]["state"].endswith("candidates without a component are left out")


def test_score_is_the_probability_of_all_parts_and_the_size(chest, model):
    result = segment(chest, with_stand_ins(model))
    assert result.report["score_scale"] == "probability"
    assert len(result.nodules) == 3
    for nodule in result.nodules:
        assert 0 < nodule.classifier_score < 1
        diameter = sphere_diameter_mm(nodule.measurement.volume_mm3)
        parts = nodule.segmenter_score, nodule.detector_score, nodule.classifier_score
        expected = probability(model.spec.probability, *parts, diameter, 0.1)
        assert nodule.score == pytest.approx(expected, abs=0.05)  # of the diameter on the CT's own voxels
    scores = [nodule.score for nodule in result.nodules]
    assert scores == sorted(scores, reverse=True)


def test_ensemble_looks_at_what_can_still_be_kept_alone(chest, model, monkeypatch):
    model, asked, predict_at = with_stand_ins(model), [], Ensemble.predict_at

    def count(self, ct_norm, boxes, **options):
        asked.append(len(boxes))
        return predict_at(self, ct_norm, boxes, **options)

    monkeypatch.setattr(Ensemble, "predict_at", count)
    nodules = segment(chest, model).nodules
    sure = [
        probability(model.spec.probability, 1.0, one.detector_score, one.classifier_score,
                    sphere_diameter_mm(one.measurement.volume_mm3), 0.1)
        for one in nodules
    ]  # fmt: skip
    between = (sorted(sure)[-1] + sorted(sure)[-2]) / 2
    kept = segment(chest, model, threshold=between).nodules
    assert asked == [3, 1]
    assert [one.score for one in kept] == [one.score for one in nodules if one.score >= between]


def test_score_of_the_segmenter_is_that_of_all_members(chest, model, tmp_path):
    first = segment(chest, with_stand_ins(model)).nodules
    blind = write_model(tmp_path / "blind", second=True, classifier=True, probability=PROBABILITY)
    both = segment(chest, with_stand_ins(blind)).nodules
    assert len(both) == len(first) == 3
    assert [one.segmenter_score for one in both] == pytest.approx([one.segmenter_score / 2 for one in first], rel=0.01)
    assert all(one.score < other.score for one, other in zip(both, first, strict=True))


def test_components_at_no_candidate_are_kept_where_the_card_says_so(chest, model, tmp_path):
    fusion = {**model.card["fusion"], "keep": "all"}
    filtered = segment(chest, with_stand_ins(model, Blind()))
    everything = write_model(tmp_path / "all", classifier=True, probability=PROBABILITY, fusion=fusion)
    kept = segment(chest, with_stand_ins(everything, Blind()))
    assert len(kept.nodules) == 3 > len([nodule for nodule in filtered.nodules if nodule.segmenter_score])
    assert {nodule.provenance for nodule in kept.nodules} == {"fused", "segmenter"}
    assert {nodule.detector_score is None for nodule in kept.nodules} == {True, False}


def test_boxes_alone_have_no_probability(chest, model):
    assert not segment(chest, with_stand_ins(model, generator=gate_generator(2.0))).nodules


def test_detector_without_a_weight_does_not_look(chest, tmp_path):
    without = write_model(tmp_path / "weightless", classifier=True, probability=PROBABILITY | {"detector": 0.0})
    result = segment(chest, with_stand_ins(without, Asked()))
    assert {nodule.provenance for nodule in result.nodules} == {"segmenter"}
    assert result.report["fusion"]["state"].startswith("no detector looked")


def test_a_place_that_a_reader_shows_has_a_probability_too(chest, model):
    result = segment_at(chest, model, tuple(centers_lps_mm(chest)[0]))
    (nodule,) = result.nodules
    assert result.report["score_scale"] == "probability"
    diameter = sphere_diameter_mm(nodule.measurement.volume_mm3)
    parts = nodule.segmenter_score, None, nodule.classifier_score
    assert nodule.score == pytest.approx(probability(model.spec.probability, *parts, diameter, 0.1), abs=0.05)


def test_a_classifier_without_a_calibration_leaves_the_scores_of_the_model(chest, tmp_path):
    plain = segment(chest, with_stand_ins(write_model(tmp_path / "plain")))
    classified = segment(chest, with_stand_ins(write_model(tmp_path / "classified", classifier=True)))
    assert classified.report["score_scale"] == "model"
    np.testing.assert_array_equal(plain.labels, classified.labels)
    assert [one.score for one in plain.nodules] == [one.score for one in classified.nodules]
    assert all(one.classifier_score is not None for one in classified.nodules)
