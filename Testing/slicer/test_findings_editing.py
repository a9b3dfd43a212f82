"""Findings after the Segment Editor, after saving and loading, and on a CT of full size."""

import slicer_host

slicer_host.start()

import time

import fakes
import numpy as np
import pytest
import slicer
import vtk
from LNHGLib.image.volume import Grid
from LNHGLib.measurement import signal as heterogeneity
from LNHGLib.measurement import size
from LNHGSegmentationLib.Findings.Findings import Findings, isEdited
from LNHGSegmentationLib.Findings.FindingsDisplay import FindingsDisplay
from LNHGSegmentationLib.Findings.SegmentEditing import EditWatch
from LNHGSegmentationLib.Scene import SceneResults, SignalStore
from LNHGSegmentationLib.Scene.Geometry import RAS_TO_LPS, ZYX_TO_IJK, gridAt
from LNHGSegmentationLib.Scene.SegmentVoxels import Crop, union
from test_volume_exchange import add_linear_transform
from vtk.util.numpy_support import vtk_to_numpy

TURN = np.array([[0.0, -1, 0, 4], [1, 0, 0, 5], [0, 0, 1, 6], [0, 0, 0, 1]])
SIGNAL = np.broadcast_to(np.linspace(0.1, 0.9, fakes.SHAPE[2], dtype=np.float32), fakes.SHAPE)


@pytest.fixture(params=[None, TURN], ids=["plain", "turned"])
def findings(request, a_ct, tmp_path):
    if request.param is not None:
        add_linear_transform(a_ct, request.param)
    return Findings(fakes.make_result_nodes(a_ct, tmp_path).segmentation)


@pytest.fixture
def watched(findings):
    """Findings whose edits are followed; `edits` holds the numbers of each."""
    watched = findings
    watched.edits = []
    watched.display = FindingsDisplay(findings)
    watch = EditWatch(findings, watched.edits.append)
    watched.watch = watch
    yield watched
    watch.stop()


def mask_of(findings, number: int) -> np.ndarray:
    segment = findings.row(number)["segment_id"]
    return slicer.util.arrayFromSegmentBinaryLabelmap(findings.segmentation, segment, findings.volumeNode) > 0


def paint(findings, segment: str, mask: np.ndarray) -> None:
    """Replace a segment as scripts and the Segment Editor do."""
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        mask.astype(np.uint8), findings.segmentation, segment, findings.volumeNode
    )


def grown(mask: np.ndarray) -> np.ndarray:
    """A mask one voxel larger in the slices."""
    larger = mask.copy()
    for axis in (1, 2):
        for shift in (-1, 1):
            larger |= np.roll(mask, shift, axis)
    return larger


def world_grid(findings) -> Grid:
    parent = findings.volumeNode.GetParentTransformNode()
    turn = np.eye(4) if parent is None else TURN
    return Grid(fakes.SHAPE, RAS_TO_LPS @ turn @ fakes.IJK_TO_RAS @ ZYX_TO_IJK)


def assert_fresh(findings, number: int) -> None:
    """Row and map equal what the core computes from the finding's mask on the whole CT."""
    mask, row, grid = mask_of(findings, number), findings.row(number), world_grid(findings)
    ct = slicer.util.arrayFromVolume(findings.volumeNode)
    for key, value in vars(size.measure(ct, grid, mask)).items():
        if isinstance(value, str):
            assert row["measurement"][key] == value
        else:
            np.testing.assert_allclose(row["measurement"][key], value, rtol=1e-9, atol=1e-9, err_msg=key)
    expected = heterogeneity.statistics(SIGNAL, mask, grid.spacing_mm)
    assert row["heterogeneity"] == pytest.approx(expected, rel=1e-5)
    findings.display.update(findings.reported())
    shown = slicer.util.arrayFromVolume(SceneResults.heterogeneityOf(findings.segmentation))
    np.testing.assert_allclose(shown[mask], SIGNAL[mask], rtol=1e-6)


def test_edit_refreshes_this_finding_only_and_equals_a_fresh_computation(watched, run_events):
    before, mask = watched.row(2), grown(mask_of(watched, 1))
    paint(watched, "Nodule_1", mask)
    run_events(lambda: watched.edits, limit_s=5)
    assert watched.edits == [[1]]
    np.testing.assert_array_equal(mask_of(watched, 1), mask)
    assert_fresh(watched, 1)
    assert watched.row(2) == before
    assert isEdited(watched.row(1))


def test_map_follows_an_outline_that_grows_and_shrinks(watched):
    small, large = mask_of(watched, 1), grown(mask_of(watched, 1))
    voxels = slicer.util.arrayFromVolume(SceneResults.heterogeneityOf(watched.segmentation))
    for mask in (large, small):
        paint(watched, "Nodule_1", mask)
        watched.watch.follow()
        watched.display.update(watched.reported())
        np.testing.assert_allclose(voxels[mask], SIGNAL[mask], rtol=1e-6)
        assert (voxels[~mask & ~mask_of(watched, 2)] == 0).all()


def test_many_strokes_are_followed_once_when_the_hand_rests(watched, run_events):
    mask = mask_of(watched, 1)
    for _ in range(3):
        mask = grown(mask)
        paint(watched, "Nodule_1", mask)
        slicer.app.processEvents()
    run_events(lambda: watched.edits, limit_s=5)
    assert len(watched.edits) == 1
    assert [entry["action"] for entry in watched.row(1)["history"]] == ["found", "edited"]


def test_edit_is_undone_and_redone_with_its_measures(watched):
    before, mask = watched.row(1), mask_of(watched, 1)
    paint(watched, "Nodule_1", grown(mask))
    watched.watch.follow()
    after = watched.row(1)
    assert watched.undo() == "edit in the Segment Editor"
    assert watched.row(1) == before
    np.testing.assert_array_equal(mask_of(watched, 1), mask)
    watched.redo()
    assert watched.row(1) == after
    np.testing.assert_array_equal(mask_of(watched, 1), grown(mask))


def test_restore_brings_back_the_models_voxels_after_edits(watched):
    mask = mask_of(watched, 1)
    paint(watched, "Nodule_1", grown(mask))
    watched.watch.follow()
    assert watched.restore(1) == [1]
    np.testing.assert_array_equal(mask_of(watched, 1), mask)
    assert not isEdited(watched.row(1))
    assert watched.row(1)["history"][-1]["action"] == "restored"


def test_segment_added_in_the_editor_becomes_a_finding_drawn_by_hand(watched):
    watched.segmentation.GetSegmentation().AddEmptySegment("mine", "my nodule")
    watched.watch.follow()
    mask = np.zeros(fakes.SHAPE, bool)
    mask[8:11, 12:15, 15:18] = True
    paint(watched, "mine", mask)
    watched.watch.follow()
    row = watched.row(3)
    assert (row["name"], row["provenance"], row["history"][0]["action"]) == ("my nodule", "manual", "drawn")
    assert row["measurement"]["volume_mm3"] == pytest.approx(27 * world_grid(watched).voxel_volume_mm3)
    with pytest.raises(ValueError, match="drawn by hand"):
        watched.restore(3)


def test_segment_removed_in_the_editor_counts_as_rejected_and_can_be_restored(watched):
    mask = mask_of(watched, 2)
    watched.segmentation.GetSegmentation().RemoveSegment("Nodule_2")
    watched.watch.follow()
    assert (watched.row(2)["kept"], watched.row(2)["segment_id"], watched.row(2)["measurement"]) == (False, None, None)
    watched.restore(2)
    np.testing.assert_array_equal(mask_of(watched, 2), mask)
    assert watched.row(2)["kept"]


def test_heterogeneity_is_not_told_where_the_signal_is_not_known(watched):
    mask = np.zeros(fakes.SHAPE, bool)
    mask[1:3, 2:5, 40:46] = True
    number = watched.add(Crop((slice(1, 3), slice(2, 5), slice(40, 46)), np.ones((2, 3, 6), bool)))
    assert watched.row(number)["measurement"] is not None
    assert watched.row(number)["heterogeneity"] is None


def test_real_segment_editor_logic_with_overwriting_keeps_findings_apart(watched):
    """Slicer's own editor logic: painting over another finding takes voxels from it; both are measured anew."""
    editor = slicer.vtkSlicerSegmentEditorLogic()
    editor.SetMRMLScene(slicer.mrmlScene)
    editor.SetMRMLApplicationLogic(slicer.app.applicationLogic())
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    editor.SetSegmentEditorNode(node)
    editor.SetSegmentationNode(watched.segmentation)
    editor.SetSourceVolumeNode(watched.volumeNode)
    editor.SetCurrentSegmentID("Nodule_1")
    node.SetOverwriteMode(node.OverwriteAllSegments)
    two = mask_of(watched, 2)
    editor.ResetModifierLabelmapToDefault()
    editor.UpdateMaskLabelmap()
    stroke = two & (np.indices(fakes.SHAPE)[2] < 33)
    modifier = editor.GetModifierLabelmap()
    voxels = vtk_to_numpy(modifier.GetPointData().GetScalars())
    voxels.reshape(fakes.SHAPE)[:] = stroke
    modifier.Modified()
    editor.ModifySegmentByLabelmap(watched.segmentation, "Nodule_1", modifier, editor.ModificationModeAdd, False, False)
    watched.watch.follow()
    assert sorted(watched.edits[0]) == [1, 2]
    np.testing.assert_array_equal(mask_of(watched, 2), two & ~stroke)
    for number in (1, 2):
        assert_fresh_measures(watched, number)


def assert_fresh_measures(findings, number: int) -> None:
    ct = slicer.util.arrayFromVolume(findings.volumeNode)
    expected = size.measure(ct, world_grid(findings), mask_of(findings, number))
    measured = findings.row(number)["measurement"]
    assert measured["volume_mm3"] == pytest.approx(expected.volume_mm3)
    assert measured["mean_hu"] == pytest.approx(expected.mean_hu)
    np.testing.assert_allclose(measured["long_axis_ends_lps_mm"], expected.long_axis_ends_lps_mm)


def test_saved_and_loaded_scene_has_the_same_table_voxels_and_provenance(watched, tmp_path):
    paint(watched, "Nodule_1", grown(mask_of(watched, 1)))
    watched.watch.follow()
    watched.rename(2, "hilar")
    watched.reject(2)
    watched.add(Crop((slice(2, 5),) * 3, np.ones((3, 3, 3), bool)))
    watched.threshold = 0.85
    rows, places = watched.rows(), {row["number"]: places_of(watched, row["number"]) for row in watched.rows()}
    watched.watch.stop()
    assert slicer.mrmlScene.WriteToMRB(str(tmp_path / "case.mrb"))
    slicer.mrmlScene.Clear()
    assert slicer.mrmlScene.ReadFromMRB(str(tmp_path / "case.mrb"))
    loaded = Findings(SceneResults.results()[0])
    assert loaded.rows() == rows
    assert loaded.threshold == 0.85
    for number, expected in places.items():
        assert places_of(loaded, number) == expected
    loaded.restore(1)
    assert len(places_of(loaded, 1)) == (fakes.make_labels() == 1).sum()
    assert places_of(loaded, 1) < places[1]


def places_of(findings, number: int) -> set:
    """Where a finding's voxels lie in the world, and the signal kept there: a loaded CT may have other axes."""
    crop = findings.crop(number)
    signal = SignalStore.read(findings.segmentation, crop.box)[crop.array]
    points = gridAt(findings.volumeNode, crop.box).index_to_lps(np.argwhere(crop.array))
    return {
        (*point, float(value))
        for point, value in zip(points.round(3).tolist(), np.nan_to_num(signal.round(5)), strict=True)
    }


def test_segments_on_another_grid_are_measured_on_the_cts_voxels(watched):
    """The Segment Editor can work on finer voxels than the CT's: a block of half-size voxels is the same block."""
    mask = np.zeros(fakes.SHAPE, bool)
    mask[6:11, 9:15, 10:18] = True
    matrix = fakes.IJK_TO_RAS @ np.diag([0.5, 0.5, 0.5, 1])
    matrix[:3, 3] = (fakes.IJK_TO_RAS @ [-0.25, -0.25, -0.25, 1])[:3]
    fine = slicer.vtkOrientedImageData()
    fine.SetExtent(20, 35, 18, 29, 12, 21)
    fine.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(matrix))
    fine.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    fine.GetPointData().GetScalars().Fill(1)
    segment = watched.segmentation.GetSegmentation().GetSegment("Nodule_1")
    segment.RemoveRepresentation("Binary labelmap")
    segment.AddRepresentation("Binary labelmap", fine)
    crop = watched.crop(1)
    found = np.zeros(fakes.SHAPE, bool)
    found[crop.box] = crop.array
    np.testing.assert_array_equal(found, mask)


def test_work_per_click_stays_under_100_ms_on_a_full_ct_with_30_findings(scene, tmp_path):
    """512 x 512 x 300 voxels; the limit holds for what a click does beside Qt's own drawing."""
    findings = full_size_findings()
    display = FindingsDisplay(findings)
    watch = EditWatch(findings, lambda _numbers: None)
    display.update(findings.reported())

    def update():
        watch.sync()
        display.update(findings.reported())

    pair = neighbors(findings)

    def filtered():
        findings.threshold = 0.5
        update()

    actions = {
        "threshold": filtered,
        "reject": lambda: (findings.reject(3), update()),
        "rename": lambda: (findings.rename(4, "hilar"), update()),
        "merge": lambda: (findings.merge(pair), update()),
        "undo": lambda: (findings.undo(), update()),
        "redo": lambda: (findings.redo(), update()),
        "restore": lambda: (findings.restore(pair[0]), update()),
    }
    seconds = {name: timed(action) for name, action in actions.items()}
    watch.stop()
    assert max(seconds.values()) < 0.1, seconds


def neighbors(findings: Findings) -> list[int]:
    """The two findings whose joined box is smallest: only parts of one nodule are merged."""
    numbers = [row["number"] for row in findings.rows()]
    pairs = [(one, two) for one in numbers for two in numbers if one < two]
    return list(min(pairs, key=lambda pair: union([findings.crop(number) for number in pair]).array.size))


def timed(action) -> float:
    start = time.thread_time()
    action()
    return time.thread_time() - start


def full_size_findings() -> Findings:
    """Thirty balls of up to 20 mm in a CT of full size."""
    from LNHGSegmentationLib.Scene import ResultNodes

    shape, rng = (300, 512, 512), np.random.default_rng(0)
    ct = slicer.util.addVolumeFromArray(np.full(shape, -800, np.int16), np.diag([0.7, 0.7, 1.0, 1.0]), "CT")
    masks, around, rows, signal = {}, [], [], np.zeros(shape, np.float32)
    for number in range(1, 31):
        radius, center = int(rng.integers(4, 14)), rng.integers(40, 260, 3)
        box = tuple(slice(int(c - radius), int(c + radius + 1)) for c in center)
        ball = (np.mgrid[-radius : radius + 1, -radius : radius + 1, -radius : radius + 1] ** 2).sum(0) <= radius**2
        masks[number] = Crop(box, ball)
        wide = tuple(slice(part.start - 10, part.stop + 10) for part in box)
        around.append(Crop(wide, np.full([part.stop - part.start for part in wide], 0.5, np.float32)))
        rows.append({"number": number, "score": 1 - number / 40, "provenance": "fused"})
        signal[box][ball] = 0.5
    data = ResultNodes.ResultData({"nodules": rows}, masks, signal, around)
    return Findings(ResultNodes.insert(data, ct).segmentation)
