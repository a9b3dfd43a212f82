"""The truth table of the fusion contract (method facts, section 3; register U1, U2), in 3-D."""

import numpy as np
import pytest
from LNHGLib.errors import InputError
from LNHGLib.segmentation import fusion
from LNHGLib.segmentation.components import Components, close_pairs, component_scores, components
from LNHGLib.segmentation.fusion import FusionOptions, combine, fuse, link
from scipy import ndimage
from scipy.spatial.distance import cdist

SPACING = (1.0, 1.0, 1.0)
TIGHT = FusionOptions(margin_mm=0.0)


def boxes(*rows):
    return np.array(rows, float).reshape(-1, 6)


def cube(labels, number, z, y, x, size=4):
    labels[z : z + size, y : y + size, x : x + size] = number
    return labels


def empty():
    return np.zeros((20, 40, 40), np.int32)


def track(y0, x0, y1, x1, score=0.9, slices=(5, 6, 7)):
    return [(z, y0, x0, y1, x1, score) for z in slices]


def found(result):
    return [(finding.provenance, finding.labels) for finding in result.findings]


# --- linking ---


def test_boxes_of_neighboring_slices_become_one_candidate():
    (candidate,) = link(boxes(*track(10, 10, 20, 20)))
    assert candidate.box == (5, 10, 10, 8, 20, 20)


def test_no_box_gives_no_candidate():
    assert link(np.zeros((0, 6))) == []


def test_boxes_apart_in_the_slice_stay_two_candidates():
    assert len(link(boxes(*track(10, 10, 20, 20), *track(10, 25, 20, 35)))) == 2


@pytest.mark.parametrize(("slices", "count"), [((4, 6, 8), 1), ((4, 8), 1), ((4, 10), 2)])
def test_one_scanned_slice_may_be_missed_but_not_two(slices, count):
    assert len(link(boxes(*track(10, 10, 20, 20, slices=slices)), step=2)) == count


def test_a_small_box_inside_a_large_one_is_linked_in_spite_of_its_low_overlap():
    assert len(link(boxes((5, 0, 0, 30, 30, 0.9), (6, 13, 13, 17, 17, 0.9)))) == 1


def test_each_box_joins_the_track_it_overlaps_most():
    a, b = (5, 10, 10, 20, 20, 0.9), (5, 10, 16, 20, 26, 0.8)
    linked = link(boxes(a, b, (6, 10, 17, 20, 27, 0.8), (6, 10, 11, 20, 21, 0.9)))
    assert sorted(candidate.box[2] for candidate in linked) == [10, 16]


def test_two_boxes_of_one_slice_never_share_a_candidate():
    assert len(link(boxes((5, 10, 10, 20, 20, 0.9), (5, 11, 11, 21, 21, 0.8)))) == 2


def test_the_box_of_a_candidate_covers_the_slices_between_scanned_ones():
    (candidate,) = link(boxes(*track(10, 10, 20, 20, slices=(4, 6))), step=2)
    assert candidate.box == (3.5, 10, 10, 7.5, 20, 20)


def test_the_score_is_the_mean_of_the_three_best_slices():
    assert fusion.track_score(np.array([0.2, 0.9, 0.6, 0.3])) == pytest.approx(0.6)


def test_a_candidate_of_a_single_slice_scores_less_than_one_of_two():
    assert fusion.track_score(np.array([0.8])) == pytest.approx(0.68)
    assert fusion.track_score(np.array([0.8, 0.8])) == pytest.approx(0.8)


def test_candidates_come_best_first():
    assert [round(c.score, 2) for c in link(boxes(*track(0, 0, 5, 5, 0.3), *track(20, 20, 30, 30, 0.7)))] == [0.7, 0.3]


# --- components ---


def test_components_touching_at_a_corner_are_one_in_3d_and_two_by_slice():
    mask = np.zeros((4, 4, 4), bool)
    mask[1, 1, 1] = mask[2, 2, 2] = True
    assert components(mask).max() == 1
    assert components(mask, "slice").max() == 2


def test_the_segmenter_score_is_the_mean_ratio_of_the_upper_half():
    labels = np.array([[[1, 1, 1, 1, 0, 2]]])
    generated = np.array([[[0.5, 0.4, 0.1, 0.0, 9.0, 0.9]]])
    original = np.array([[[0.5, 0.5, 0.5, 0.5, 0.5, 0.6]]])
    assert component_scores(labels, generated, original) == pytest.approx([0, (1 + 0.8) / 2, 1])


def test_the_segmenter_score_of_dark_voxels_does_not_divide_by_zero():
    assert component_scores(np.array([[[1]]]), np.array([[[0.01]]]), np.array([[[0.0]]]))[1] == pytest.approx(0.2)


# --- scores ---


def test_the_combined_score_of_equal_branches_is_that_score():
    assert combine(0.7, 0.7) == pytest.approx(0.7)


@pytest.mark.parametrize(("weight", "expected"), [(0.0, 0.3), (1.0, 0.9)])
def test_the_weight_moves_the_score_from_the_segmenter_to_the_detector(weight, expected):
    assert combine(0.3, 0.9, weight) == pytest.approx(expected)


def test_the_floor_stands_for_an_absent_branch():
    assert combine(None, 0.9, 0.5, 0.2) == pytest.approx(combine(0.2, 0.9, 0.5, 0.2))
    assert combine(0.9, None, 0.5, 0.2) < combine(0.9, 0.5, 0.5, 0.2)


def test_certain_branches_keep_the_score_finite():
    assert 0 < combine(0.0, 0.0) < combine(1.0, 0.0) < combine(1.0, 1.0) < 1


# --- the filter ---


def test_a_component_at_a_candidate_stays_with_the_scores_of_both():
    result = fuse(cube(empty(), 1, 5, 12, 12), [0, 0.6], link(boxes(*track(10, 10, 20, 20, 0.8))), SPACING, TIGHT)
    (finding,) = result.findings
    assert (finding.provenance, finding.labels, finding.box) == ("fused", (1,), (5, 12, 12, 9, 16, 16))
    assert (finding.segmenter_score, finding.detector_score) == (0.6, pytest.approx(0.8))
    assert finding.score == pytest.approx(combine(0.6, 0.8))


def test_a_component_away_from_all_candidates_is_dropped():
    labels = cube(cube(empty(), 1, 5, 12, 12), 2, 5, 30, 30)
    result = fuse(labels, [0, 0.6, 0.9], link(boxes(*track(10, 10, 20, 20))), SPACING, TIGHT)
    assert found(result) == [("fused", (1,))]
    assert result.dropped_components == 1


def test_without_any_candidate_the_components_stay_as_the_segmenters():
    labels = cube(cube(empty(), 1, 5, 12, 12), 2, 5, 30, 30)
    result = fuse(labels, [0, 0.6, 0.9], [], SPACING, TIGHT)
    assert found(result) == [("segmenter", (2,)), ("segmenter", (1,))]
    assert "fallback A" in result.state
    assert result.findings[0].detector_score is None


def test_candidates_that_touch_nothing_drop_every_component_and_say_so():
    result = fuse(cube(empty(), 1, 5, 30, 30), [0, 0.9], link(boxes(*track(10, 10, 20, 20))), SPACING, TIGHT)
    assert found(result) == [("detector-box", ())]
    assert "none touches" in result.state


def test_without_components_a_candidate_is_a_box_and_never_a_segmentation():
    result = fuse(empty(), [0], link(boxes(*track(10, 10, 20, 20))), SPACING, TIGHT)
    (finding,) = result.findings
    assert (finding.provenance, finding.labels, finding.segmenter_score) == ("detector-box", (), None)
    assert "fallback B" in result.state


def test_nothing_in_either_branch_gives_no_finding():
    assert fuse(empty(), [0], [], SPACING).findings == []


@pytest.mark.parametrize(("overlap", "kept"), [("touch", True), ("strict", False)])
def test_a_component_reaching_into_a_box_stays_only_by_touch(overlap, kept):
    labels = cube(empty(), 1, 5, 12, 12, size=6)
    result = fuse(
        labels, [0, 0.6], link(boxes(*track(10, 10, 20, 13, slices=(7,)))), SPACING, FusionOptions(overlap, margin_mm=0)
    )
    assert ((1,) in [finding.labels for finding in result.findings]) == kept


def test_a_component_whose_centroid_is_inside_stays_by_strict():
    options = FusionOptions("strict", margin_mm=0)
    result = fuse(cube(empty(), 1, 5, 12, 12), [0, 0.6], link(boxes(*track(10, 10, 20, 20))), SPACING, options)
    assert found(result) == [("fused", (1,))]


@pytest.mark.parametrize(("margin_mm", "spacing", "kept"), [(3.0, 1.0, True), (2.0, 1.0, False), (3.0, 2.0, False)])
def test_the_margin_enlarges_boxes_by_millimeters(margin_mm, spacing, kept):
    labels = cube(empty(), 1, 5, 12, 22)
    result = fuse(
        labels, [0, 0.6], link(boxes(*track(10, 10, 20, 20))), (1, spacing, spacing), FusionOptions(margin_mm=margin_mm)
    )
    assert (("fused", (1,)) in found(result)) == kept


def test_a_component_above_the_candidates_slices_is_not_touched():
    labels = cube(empty(), 1, 12, 12, 12)
    assert ("fused", (1,)) not in found(fuse(labels, [0, 0.6], link(boxes(*track(10, 10, 20, 20))), SPACING, TIGHT))


def test_a_component_between_two_scanned_slices_is_touched():
    labels = cube(empty(), 1, 5, 12, 12, size=1)
    candidates = link(boxes(*track(10, 10, 20, 20, slices=(4, 6))), step=2)
    assert found(fuse(labels, [0, 0.6], candidates, SPACING, TIGHT)) == [("fused", (1,))]


def test_a_component_at_two_candidates_has_the_better_ones_score():
    candidates = link(boxes(*track(10, 10, 20, 14, 0.5), *track(10, 14, 20, 20, 0.9)))
    (finding,) = fuse(cube(empty(), 1, 5, 12, 12), [0, 0.6], candidates, SPACING, TIGHT).findings
    assert finding.detector_score == pytest.approx(0.9)


@pytest.mark.parametrize(("gap", "count"), [(1, 1), (2, 2)])
def test_components_of_one_candidate_join_within_two_millimeters(gap, count):
    labels = cube(cube(empty(), 1, 5, 12, 10), 2, 5, 12, 14 + gap)
    result = fuse(labels, [0, 0.6, 0.6], link(boxes(*track(10, 10, 20, 22))), SPACING, TIGHT)
    assert len(result.findings) == count
    assert {number for finding in result.findings for number in finding.labels} == {1, 2}


def test_joined_components_have_the_volume_weighted_score_and_the_common_box():
    labels = cube(cube(empty(), 1, 5, 12, 10), 2, 5, 12, 15, size=1)
    (finding,) = fuse(labels, [0, 0.8, 0.15], link(boxes(*track(10, 10, 20, 22))), SPACING, TIGHT).findings
    assert finding.segmenter_score == pytest.approx((64 * 0.8 + 0.15) / 65)
    assert finding.box == (5, 12, 10, 9, 16, 16)


def test_close_components_of_different_candidates_stay_apart():
    labels = cube(cube(empty(), 1, 5, 12, 10), 2, 5, 12, 15)
    candidates = link(boxes(*track(10, 10, 20, 14), *track(10, 15, 20, 20)))
    assert len(fuse(labels, [0, 0.6, 0.6], candidates, SPACING, TIGHT).findings) == 2


def test_slice_components_on_top_of_each_other_become_one_nodule_of_the_slices_with_boxes():
    mask = cube(empty(), 1, 5, 12, 12) > 0
    labels = components(mask, "slice")
    candidates = link(boxes(*track(10, 10, 20, 20, slices=(5, 6, 7))))
    result = fuse(labels, np.full(labels.max() + 1, 0.6), candidates, (2.5, 1, 1), TIGHT)
    assert found(result) == [("fused", (1, 2, 3))]


def test_components_below_the_least_volume_do_not_take_part():
    labels = cube(empty(), 1, 5, 12, 12, size=2)
    options = FusionOptions(margin_mm=0, min_volume_mm3=9)
    assert found(fuse(labels, [0, 0.6], link(boxes(*track(10, 10, 20, 20))), SPACING, options)) == [
        ("detector-box", ())
    ]


def test_a_lonely_candidate_inside_a_better_one_is_no_second_box():
    candidates = link(
        boxes(*track(10, 10, 20, 20, 0.9), *track(12, 12, 17, 17, 0.6, slices=(12,)), (6, 30, 30, 35, 35, 0.5))
    )
    nested = link(boxes(*track(10, 10, 20, 20, 0.9))) + link(boxes((6, 12, 12, 17, 17, 0.5)))
    assert len(fuse(empty(), [0], nested, SPACING, TIGHT).findings) == 1
    assert len(fuse(empty(), [0], candidates, SPACING, TIGHT).findings) == 3


def test_findings_come_best_first():
    labels = cube(cube(empty(), 1, 5, 12, 12), 2, 5, 30, 30)
    candidates = link(boxes(*track(10, 10, 20, 20, 0.5), *track(28, 28, 36, 36, 0.9), *track(0, 30, 5, 35, 0.99)))
    scores = [finding.score for finding in fuse(labels, [0, 0.5, 0.9], candidates, SPACING, TIGHT).findings]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 3


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("overlap", "near"),
        ("weight", 1.5),
        ("floor", "low"),
        ("margin_px", 5),
        ("connectivity", None),
        ("weight", True),
    ],
)
def test_a_wrong_fusion_option_is_refused_by_its_key(key, value):
    with pytest.raises(InputError, match=f"fusion.{key}"):
        FusionOptions.from_card({key: value})


@pytest.mark.parametrize("seed", range(6))
def test_close_components_are_those_with_voxels_within_reach(seed):
    rng = np.random.default_rng(seed)
    labels = components(ndimage.gaussian_filter(rng.random((16, 24, 24)), 1.0) > 0.56)
    spacing, reach = rng.uniform(0.5, 2.5, 3), rng.uniform(0.5, 6.0)
    numbers = range(1, labels.max())  # all but the last
    points = {number: np.argwhere(labels == number) * spacing for number in numbers}
    least = max(reach, float(np.linalg.norm(spacing)))
    expected = [(a, b) for a in numbers for b in numbers if a < b and cdist(points[a], points[b]).min() <= least]
    assert expected
    assert close_pairs(Components.of(labels), numbers, spacing, reach) == expected
