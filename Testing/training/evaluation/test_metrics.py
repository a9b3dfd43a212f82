"""Metrics against cases worked out by hand."""

import numpy as np
import pytest
from LNHGTrainingLib.evaluation import matching, metrics
from LNHGTrainingLib.evaluation.metrics import Detections


def box(shape, *ranges):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in ranges)] = True
    return mask


def test_dice_of_half_overlapping_boxes_is_one_half():
    a, b = box((4, 4, 4), (0, 2), (0, 2), (0, 2)), box((4, 4, 4), (1, 3), (0, 2), (0, 2))
    assert metrics.dice(a, b) == 0.5
    assert metrics.dice(a, a) == 1.0
    assert metrics.dice(a, np.zeros_like(a)) == 0.0
    assert metrics.dice(np.zeros_like(a), np.zeros_like(a)) == 1.0


def test_volume_error_is_signed_and_relative_to_the_reference():
    a, b = box((6, 6, 6), (0, 3), (0, 2), (0, 2)), box((6, 6, 6), (0, 2), (0, 2), (0, 2))
    assert metrics.volume_error(a, b) == pytest.approx(0.5)
    assert metrics.volume_error(np.zeros_like(b), b) == -1.0
    with pytest.raises(ValueError, match="at least one voxel"):
        metrics.volume_error(a, np.zeros_like(a))


def test_hd95_measures_millimeters_along_anisotropic_axes():
    a, b = box((12, 12, 12), (2, 5), (2, 5), (2, 5)), box((12, 12, 12), (4, 7), (2, 5), (2, 5))
    assert metrics.hd95_mm(a, b, (2.5, 0.7, 0.7)) == pytest.approx(5.0)
    assert metrics.hd95_mm(a.transpose(2, 1, 0), b.transpose(2, 1, 0), (2.5, 0.7, 0.7)) == pytest.approx(1.4)


def test_hd95_is_symmetric_and_zero_for_equal_masks():
    a, b = box((10, 10, 10), (1, 4), (1, 9), (1, 4)), box((10, 10, 10), (2, 6), (1, 5), (3, 4))
    spacing = (2.0, 1.0, 0.5)
    assert metrics.hd95_mm(a, a, spacing) == 0.0
    assert metrics.hd95_mm(a, b, spacing) == metrics.hd95_mm(b, a, spacing) > 0


def test_hd95_ignores_a_stray_twentieth_of_the_surface_but_not_more():
    reference = box((5, 40, 40), (2, 3), (0, 30), (0, 30))
    few, many = reference.copy(), reference.copy()
    few[4, :10, 0] = True
    many[4, :30, :30] = True
    assert metrics.hd95_mm(few, reference, (1.0, 1.0, 1.0)) == 0.0
    assert metrics.hd95_mm(many, reference, (1.0, 1.0, 1.0)) == 2.0


def test_hd95_does_not_exist_without_a_mask():
    a = box((4, 4, 4), (0, 2), (0, 2), (0, 2))
    assert np.isnan(metrics.hd95_mm(a, np.zeros_like(a), (1.0, 1.0, 1.0)))


def test_leave_one_out_compares_each_reader_with_the_half_consensus_of_the_others():
    a, b = box((1, 1, 4), (0, 1), (0, 1), (0, 2)), box((1, 1, 4), (0, 1), (0, 1), (1, 3))
    # others of a: {a, b} -> union; others of b: {a, a} -> a
    expected = (metrics.dice(a, a | b) * 2 + metrics.dice(b, a)) / 3
    assert metrics.leave_one_out_dice(np.stack([a, a, b])) == pytest.approx(expected)
    assert np.isnan(metrics.leave_one_out_dice(np.stack([a])))


@pytest.fixture
def worked_example():
    """Two scans, three nodules: hits at 0.9 and 0.4, false at 0.8 (first scan), 0.4 and 0.3 (second)."""
    return Detections(
        scores=np.array([0.9, 0.8, 0.4, 0.4, 0.3]),
        hits=np.array([True, False, True, False, False]),
        scans=np.array([0, 0, 1, 1, 1]),
        nodules=np.array([2, 1]),
    )


def test_froc_of_a_worked_example(worked_example):
    curve = metrics.froc(worked_example)
    np.testing.assert_allclose(curve.thresholds, [np.inf, 0.9, 0.8, 0.4, 0.3])
    np.testing.assert_allclose(curve.sensitivity, [0, 1 / 3, 1 / 3, 2 / 3, 2 / 3])
    np.testing.assert_allclose(curve.false_per_scan, [0, 0, 0.5, 1.0, 1.5])


def test_froc_does_not_depend_on_the_order_of_the_findings(worked_example):
    turn = np.array([4, 2, 0, 3, 1])
    turned = Detections(
        worked_example.scores[turn], worked_example.hits[turn], worked_example.scans[turn], worked_example.nodules
    )
    np.testing.assert_allclose(metrics.froc(turned).sensitivity, metrics.froc(worked_example).sensitivity)


def test_cpm_averages_the_sensitivity_at_seven_rates_without_interpolation(worked_example):
    curve = metrics.froc(worked_example)
    assert metrics.sensitivity_at(curve, 0.99) == pytest.approx(1 / 3)
    assert metrics.cpm(curve) == pytest.approx((3 * 1 / 3 + 4 * 2 / 3) / 7)


def test_froc_without_findings_or_without_nodules_stays_defined():
    nothing = Detections(np.array([]), np.array([], bool), np.array([], int), np.array([2]))
    assert metrics.cpm(metrics.froc(nothing)) == 0.0
    healthy = Detections(np.array([0.5]), np.array([False]), np.array([0]), np.array([0]))
    assert np.isnan(metrics.cpm(metrics.froc(healthy)))
    np.testing.assert_allclose(metrics.froc(healthy).false_per_scan, [0, 1])


def test_froc_counts_a_scan_sampled_twice_as_two_scans(worked_example):
    curve = metrics.froc(worked_example, np.array([2, 0]))
    assert curve.sensitivity[-1] == pytest.approx(0.5)
    assert curve.false_per_scan[-1] == pytest.approx(1.0)


def test_interval_repeats_with_its_seed_and_holds_the_mean():
    values = np.random.default_rng(1).uniform(size=40)
    patients = [f"p{i // 2}" for i in range(40)]
    first, again = (metrics.mean_interval(values, patients, seed=3) for _ in range(2))
    assert first == again != metrics.mean_interval(values, patients, seed=4)
    assert first.value == pytest.approx(values.mean())
    assert first.low < first.value < first.high


def test_interval_widens_when_nodules_of_a_patient_are_alike():
    values = np.repeat(np.random.default_rng(2).normal(size=20), 10)
    alone = metrics.mean_interval(values, [str(i) for i in range(200)])
    together = metrics.mean_interval(values, [str(i // 10) for i in range(200)])
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    covered = 0
    for trial in range(100):
        patient = np.repeat(rng.normal(size=40), 3)
        interval = metrics.mean_interval(patient + rng.normal(size=120), [str(i // 3) for i in range(120)], seed=trial)
        covered += interval.low <= 0 <= interval.high
    assert 88 <= covered <= 99


def test_interval_leaves_out_what_was_not_measured():
    interval = metrics.mean_interval(np.array([1.0, np.nan, 1.0]), ["a", "b", "c"])
    assert (interval.value, interval.low, interval.high) == (1.0, 1.0, 1.0)
    assert np.isnan(metrics.mean_interval(np.array([np.nan]), ["a"]).value)


def test_detection_metrics_put_an_interval_by_scan_on_each_rate(worked_example):
    found = metrics.detection_metrics(worked_example, seed=0)
    assert found["cpm"]["low"] <= found["cpm"]["value"] <= found["cpm"]["high"]
    assert found["sensitivity_at"]["1"]["value"] == pytest.approx(2 / 3)
    assert list(found["sensitivity_at"]) == ["0.125", "0.25", "0.5", "1", "2", "4", "8"]


def test_scans_of_one_patient_are_sampled_together(worked_example):
    """Register U5: two scans of one patient leave nothing to sample from, so there is no interval."""
    cpm = metrics.detection_metrics(worked_example, ["P1", "P1"])["cpm"]
    apart = metrics.detection_metrics(worked_example, ["P1", "P2"])["cpm"]
    assert cpm["value"] == apart["value"]
    assert np.isnan(cpm["low"])
    assert np.isnan(cpm["high"])
    assert apart["low"] < apart["high"]


def test_precision_recall_and_f1_of_the_papers_external_set():
    """Register U9: table S1, LNHG: 422 found, 75 false, 8 missed."""
    rates = metrics.precision_recall_f1(np.array([400, 22]), np.array([70, 5]), np.array([402, 28]))
    assert [round(100 * rates[name].value, 2) for name in ("precision", "recall", "f1")] == [84.91, 98.14, 91.05]
    assert rates["recall"].low == pytest.approx(22 / 28)
    nothing = metrics.precision_recall_f1(np.array([0]), np.array([0]), np.array([3]))
    assert np.isnan(nothing["precision"].value)
    assert (nothing["recall"].value, nothing["f1"].value) == (0.0, 0.0)


def test_matching_protocol_states_the_number_of_readers_it_uses():
    assert f"at least {matching.MIN_READERS} readers" in matching.PROTOCOL


SHROUT_FLEISS = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
"""Shrout and Fleiss (1979, Psychol Bull 86:420), table 2: six targets, four judges."""


def test_icc_is_that_of_shrout_and_fleiss_and_of_a_case_by_hand():
    names = [f"P{number}" for number in range(6)]
    found = metrics.icc_interval(np.array(SHROUT_FLEISS, float), names)
    assert round(found.value, 2) == 0.29
    assert found.low < found.value < found.high <= 1
    # means 1.5, 3.5, 5.5 and 3, 4: mean squares 8 of cases, 1.5 of repeats, 0 of the rest; 8 / (8 + 2 * 1.5 / 3)
    assert metrics.icc_interval(np.array([[1, 2], [3, 4], [5, 6.0]]), names[:3]).value == pytest.approx(8 / 9)


def test_the_interval_of_the_icc_samples_patients_and_leaves_out_what_was_measured_once():
    scores = np.array(SHROUT_FLEISS, float)
    apart = metrics.icc_interval(scores, list("ABCDEF"))
    fivefold = np.repeat(scores, 5, axis=0)
    together, each = (
        metrics.icc_interval(fivefold, names) for names in (sorted("ABCDEF" * 5), list(map(str, range(30))))
    )
    assert together.value == each.value
    assert together.high - together.low > 1.5 * (each.high - each.low)
    assert metrics.icc_interval(np.vstack([scores, [[np.nan] * 4]]), list("ABCDEFG")) == apart
    one = metrics.icc_interval(scores, ["A"] * 6)
    assert one.value == apart.value
    assert np.isnan([one.low, one.high]).all()
    assert np.isnan(metrics.icc_interval(np.full((3, 2), np.nan), list("ABC")).value)
