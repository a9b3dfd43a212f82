"""What a reader does to findings: each an undoable step, kept in the scene, measured like a fresh computation."""

import slicer_host

slicer_host.start()

import fakes
import numpy as np
import pytest
import slicer
from LNHGLib.image.volume import Grid
from LNHGLib.measurement import size
from LNHGSegmentationLib.Findings.Findings import Findings, isEdited
from LNHGSegmentationLib.Scene.Geometry import RAS_TO_LPS, ZYX_TO_IJK
from LNHGSegmentationLib.Scene.SegmentVoxels import Crop


@pytest.fixture
def findings(a_ct, tmp_path):
    """The two findings of the fake core, scores 0.9 and 0.8."""
    return Findings(fakes.make_result_nodes(a_ct, tmp_path).segmentation)


def voxels(findings, number: int) -> np.ndarray:
    """A finding's mask on the whole CT, by Slicer's own export."""
    segment = findings.row(number)["segment_id"]
    return slicer.util.arrayFromSegmentBinaryLabelmap(findings.segmentation, segment, findings.volumeNode) > 0


def fresh(findings, mask: np.ndarray) -> dict:
    """The core's measurements of a mask on the whole CT."""
    grid = Grid(mask.shape, RAS_TO_LPS @ fakes.IJK_TO_RAS @ ZYX_TO_IJK)
    return vars(size.measure(slicer.util.arrayFromVolume(findings.volumeNode), grid, mask))


def assert_measured(row: dict, expected: dict) -> None:
    assert row["measurement"]["attenuation"] == expected.pop("attenuation")
    for key, value in expected.items():
        np.testing.assert_allclose(row["measurement"][key], value, rtol=1e-9, err_msg=key)


def test_rows_know_name_segment_and_who_found_them(findings):
    first, second = findings.rows()
    assert (first["number"], first["name"], first["segment_id"], first["kept"]) == (1, "Nodule 1", "Nodule_1", True)
    assert second["score"] == pytest.approx(0.8)
    assert second["history"][0]["action"] == "found"
    assert not isEdited(second)


def test_threshold_hides_low_scores_but_never_the_readers_own_work(findings):
    assert [row["number"] for row in findings.shown(0.85)] == [1]
    box = (slice(2, 5), slice(2, 6), slice(2, 6))
    findings.add(Crop(box, np.ones((3, 4, 4), bool)))
    assert [row["number"] for row in findings.shown(0.85)] == [1, 3]
    findings.threshold = 0.85
    assert [row["number"] for row in findings.shown()] == [1, 3]


def test_rejected_finding_stays_in_the_list_but_does_not_count(findings):
    findings.reject(1)
    assert [row["number"] for row in findings.rows()] == [1, 2]
    assert [row["number"] for row in findings.reported()] == [2]
    findings.keep(1)
    assert [row["number"] for row in findings.reported()] == [1, 2]


def test_rename_reaches_the_segment(findings):
    findings.rename(2, " right upper lobe ")
    assert findings.row(2)["name"] == "right upper lobe"
    assert findings.segmentation.GetSegmentation().GetSegment("Nodule_2").GetName() == "right upper lobe"
    with pytest.raises(ValueError, match="empty"):
        findings.rename(2, " ")


def test_merge_joins_voxels_into_the_better_finding_and_measures_it(findings):
    both = voxels(findings, 1) | voxels(findings, 2)
    assert findings.merge([2, 1]) == 1
    assert [row["number"] for row in findings.rows()] == [1]
    np.testing.assert_array_equal(voxels(findings, 1), both)
    assert_measured(findings.row(1), fresh(findings, both))
    assert findings.segments.ids() == ["Nodule_1"]
    assert isEdited(findings.row(1))


def test_merge_of_one_is_refused(findings):
    with pytest.raises(ValueError, match="two or more"):
        findings.merge([1])
    assert not findings.steps.done


def test_split_parts_separate_pieces(findings):
    one, two = voxels(findings, 1), voxels(findings, 2)
    findings.merge([1, 2])
    assert findings.split(1) == [1, 3]
    np.testing.assert_array_equal(voxels(findings, 1), two if two.sum() > one.sum() else one)
    np.testing.assert_array_equal(voxels(findings, 3), one if two.sum() > one.sum() else two)
    assert_measured(findings.row(3), fresh(findings, voxels(findings, 3)))


def test_split_cuts_two_touching_balls_at_the_waist(findings):
    index = np.stack(np.indices((15, 15, 30)), -1) * [2.5, 0.8, 0.8]
    balls = [np.linalg.norm(index - [17, 6, x], axis=-1) < 4.5 for x in (6, 14)]
    number = findings.add(Crop((slice(4, 19), slice(5, 20), slice(10, 40)), balls[0] | balls[1]))
    parts = findings.split(number)
    assert len(parts) == 2
    for part in parts:
        mask = voxels(findings, part)[4:19, 5:20, 10:40]
        assert max((mask & ball).sum() / (mask | ball).sum() for ball in balls) > 0.8


def test_round_finding_is_not_split(findings):
    with pytest.raises(ValueError, match="waist"):
        findings.split(2)


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.reject(1),
        lambda f: f.rename(1, "hilar"),
        lambda f: f.merge([1, 2]),
        lambda f: f.add(Crop((slice(2, 5),) * 3, np.ones((3, 3, 3), bool))),
        lambda f: (f.merge([1, 2]), f.split(1)),
    ],
    ids=["reject", "rename", "merge", "add", "merge and split"],
)
def test_undo_and_redo_bring_back_rows_and_voxels(findings, change):
    def state():
        return findings.rows(), {each: voxels_of(findings, each) for each in findings.segments.ids()}

    before = state()
    change(findings)
    after = state()
    while findings.undo():
        pass
    assert_same(state(), before)
    while findings.redo():
        pass
    assert_same(state(), after)


def voxels_of(findings, segment: str):
    crop = findings.segments.read(segment)
    return crop and (crop.box, crop.array.tolist(), findings.segments.state(segment).name)


def assert_same(state, expected) -> None:
    assert state[0] == expected[0]
    assert state[1] == expected[1]


def test_a_change_that_fails_leaves_everything_as_it_was(findings, monkeypatch):
    before = findings.rows(), findings.segments.ids()
    monkeypatch.setattr("LNHGSegmentationLib.Findings.FindingMeasures.measure", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        findings.merge([1, 2])
    assert (findings.rows(), findings.segments.ids()) == before
    assert not findings.steps.done


def test_undo_memory_is_bounded(findings):
    findings.steps.maxSteps = 3
    for index in range(5):
        findings.rename(1, f"name {index}")
    undone = []
    while step := findings.undo():
        undone.append(step)
    assert len(undone) == 3
    assert findings.row(1)["name"] == "name 1"
