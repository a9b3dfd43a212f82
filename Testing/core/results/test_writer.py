import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from LNHGLib.errors import InputError
from LNHGLib.figures import preview
from LNHGLib.figures.segment_style import TERMINOLOGY, segment_color
from LNHGLib.files.text import read_csv
from LNHGLib.image.volume import Grid, from_sitk
from LNHGLib.results import writer as results
from LNHGLib.results.files import COLUMNS, MEASURES
from made_up_result import make_result


def oblique_grid():
    c, s = np.cos(0.3), np.sin(0.3)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, -s, c], [0, c, s], [1, 0, 0]]) * (2.0, 0.8, -0.8)
    affine[:3, 3] = 30, -60, 100
    return Grid((24, 90, 100), affine)


@pytest.fixture(scope="module")
def result():
    return make_result(oblique_grid())


@pytest.fixture
def no_picture(monkeypatch):
    """Put an empty file in the picture's place: drawing is the slow part of writing."""
    monkeypatch.setattr(preview, "write_preview", lambda _, path: path.touch() or {})


@pytest.fixture(scope="module")
def folder(result, tmp_path_factory):
    out = tmp_path_factory.mktemp("results") / "OUT"
    results.write_result(result, out)
    return out


def test_exactly_the_files_of_the_contract_are_written(folder):
    assert {entry.name for entry in folder.iterdir()} == set(results.FILES)
    assert [entry.name for entry in folder.parent.iterdir()] == ["OUT"]


@pytest.mark.parametrize(("name", "field"), [("labelmap.nii.gz", "labels"), ("heterogeneity.nii.gz", "heterogeneity")])
def test_images_keep_voxels_and_geometry_of_the_input(folder, result, name, field):
    array, grid = from_sitk(sitk.ReadImage(str(folder / name)))
    expected = getattr(result, field)
    np.testing.assert_array_equal(array, expected)
    assert array.dtype == expected.dtype
    assert grid.matches(result.volume.grid, 1e-3)


def test_table_has_a_row_a_finding_and_box_only_findings_have_no_measurement(folder, result):
    with (folder / "nodules.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["provenance"] for row in rows] == ["fused", "fused", "detector-box"]
    measured = result.nodules[0].measurement
    assert float(rows[0]["volume_mm3"]) == pytest.approx(measured.volume_mm3, abs=1e-3)
    centroid = [float(rows[0][f"centroid_{axis}_lps_mm"]) for axis in "xyz"]
    np.testing.assert_allclose(centroid, measured.centroid_lps_mm, atol=1e-3)
    assert float(rows[0]["signal_entropy_bits"]) == pytest.approx(
        result.nodules[0].heterogeneity["entropy_bits"], abs=1e-3
    )
    assert {rows[2][name] for name in (*MEASURES, "signal_mean", "segmenter_score")} == {""}
    assert float(rows[2]["centroid_x_lps_mm"]) == pytest.approx(np.mean(result.nodules[2].box_lps_mm, 0)[0], abs=1e-3)


def test_report_is_versioned_and_holds_the_same_nodules_and_the_scale_of_the_picture(folder, result):
    report = json.loads((folder / "report.json").read_text())
    assert report["schema"] == 1
    assert report["device"] == "cpu"
    assert report["preview"]["color_map"] == "viridis"
    assert report["preview"]["signal_range"] == [0, 1.2]
    assert [nodule["number"] for nodule in report["nodules"]] == [1, 2, 3]
    assert report["nodules"][0]["measurement"]["long_axis_mm"] == result.nodules[0].measurement.long_axis_mm
    assert report["nodules"][0]["heterogeneity"] == result.nodules[0].heterogeneity
    assert report["nodules"][2]["measurement"] is None


@pytest.mark.parametrize("scale", ["model", "probability"])
def test_table_and_segments_say_what_the_scores_mean(no_picture, tmp_path, scale):
    result = make_result(box=False)
    result.report["score_scale"] = scale
    result.nodules[0] = replace(result.nodules[0], classifier_score=0.91)
    results.write_result(result, tmp_path / "OUT")
    rows = read_csv(tmp_path / "OUT" / "nodules.csv")
    assert [row["score_scale"] for row in rows] == [scale, scale]
    assert [row["classifier_score"] for row in rows] == ["0.91", ""]
    image = sitk.ReadImage(str(tmp_path / "OUT" / "nodules.seg.nrrd"))
    assert f"LNHG.ScoreScale:{scale}|" in image.GetMetaData("Segment0_Tags")
    report = json.loads((tmp_path / "OUT" / "report.json").read_text())
    assert report["score_scale"] == scale
    assert [nodule["classifier_score"] for nodule in report["nodules"]] == [0.91, None]


def test_report_refuses_values_that_are_not_json(no_picture, tmp_path):
    result = make_result(box=False)
    result.report["seconds"] = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        results.write_result(result, tmp_path / "OUT")
    assert not list(tmp_path.iterdir())


def test_segmentation_file_names_colors_and_codes_every_segment(folder):
    image = sitk.ReadImage(str(folder / "nodules.seg.nrrd"))
    assert image.GetMetaData("Segment1_Name") == "Nodule 2"
    assert image.GetMetaData("Segment1_LabelValue") == "2"
    assert "SCT^786838002^Lung nodule" in image.GetMetaData("Segment1_Tags")
    assert "Segment2_Name" not in image.GetMetaDataKeys()


@pytest.mark.slicer
def test_slicer_opens_the_segmentation_with_names_colors_terminology_voxels_and_geometry(folder, result):
    slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
    scene = slicer.vtkMRMLScene()
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "nodules")
    storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(folder / "nodules.seg.nrrd"))
    assert storage.ReadData(node) == 1
    segments = node.GetSegmentation()
    assert [segments.GetNthSegmentID(i) for i in range(segments.GetNumberOfSegments())] == ["Nodule_1", "Nodule_2"]
    for number in (1, 2):
        segment = segments.GetSegment(f"Nodule_{number}")
        assert segment.GetName() == f"Nodule {number}"
        np.testing.assert_allclose(segment.GetColor(), segment_color(number), atol=1e-5)
        assert _tag(slicer, segment, "TerminologyEntry") == TERMINOLOGY
        assert _tag(slicer, segment, "LNHG.Provenance") == "fused"
        assert _world_voxels(slicer, node, number) == _expected_voxels(result, number)


def _tag(slicer, segment, name):
    import vtk

    value = vtk.reference("")
    assert segment.GetTag(name, value)
    return str(value)


def _world_voxels(slicer, node, number):
    """Positions of a segment's voxels as the set of rounded LPS mm."""
    from vtk.util.numpy_support import vtk_to_numpy

    image = slicer.vtkOrientedImageData()
    node.GetBinaryLabelmapRepresentation(f"Nodule_{number}", image)
    low_x, high_x, low_y, high_y, low_z, high_z = image.GetExtent()
    array = vtk_to_numpy(image.GetPointData().GetScalars())
    array = array.reshape(high_z - low_z + 1, high_y - low_y + 1, high_x - low_x + 1)
    ijk = np.argwhere(array)[:, ::-1] + (low_x, low_y, low_z)
    matrix = _matrix(image)
    ras = ijk @ matrix[:3, :3].T + matrix[:3, 3]
    return {tuple(point) for point in np.rint(10 * ras * (-1, -1, 1)).astype(int).tolist()}


def _matrix(image):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return np.array([[matrix.GetElement(i, j) for j in range(4)] for i in range(4)])


def _expected_voxels(result, number):
    points = result.volume.grid.index_to_lps(np.argwhere(result.labels == number))
    return {tuple(point) for point in np.rint(10 * points).astype(int).tolist()}


def test_no_nodule_still_gives_all_files(tmp_path):
    result = make_result(centers=(), box=False)
    results.write_result(result, tmp_path / "OUT")
    assert {entry.name for entry in (tmp_path / "OUT").iterdir()} == set(results.FILES)
    assert json.loads((tmp_path / "OUT" / "report.json").read_text())["nodules"] == []
    assert (tmp_path / "OUT" / "nodules.csv").read_text().splitlines() == [",".join(COLUMNS)]


def test_an_existing_folder_is_not_touched_without_overwrite(tmp_path):
    out = tmp_path / "OUT"
    out.mkdir()
    (out / "report.json").write_text("old")
    with pytest.raises(InputError, match=r"OUT already exists; .*--overwrite"):
        results.write_result(make_result(), out)
    assert (out / "report.json").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["OUT"]


def test_overwrite_replaces_an_earlier_result_as_a_whole(no_picture, tmp_path):
    out = tmp_path / "OUT"
    results.write_result(make_result(), out)
    results.write_result(make_result(centers=(), box=False), out, overwrite=True)
    assert json.loads((out / "report.json").read_text())["nodules"] == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["OUT"]


def test_overwrite_never_removes_files_that_are_not_results(tmp_path):
    (tmp_path / "thesis.docx").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis\.docx"):
        results.write_result(make_result(), tmp_path, overwrite=True)
    assert (tmp_path / "thesis.docx").exists()


def test_a_file_in_the_place_of_the_folder_is_refused_with_and_without_overwrite(tmp_path):
    out = tmp_path / "OUT"
    out.write_text("a file")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="is a file"):
            results.check_target(out, overwrite)


@pytest.mark.parametrize("writer", ["write_segmentation", "write_csv", "write_json", "preview.write_preview"])
def test_a_failure_midway_leaves_no_trace_and_the_earlier_result_whole(no_picture, tmp_path, monkeypatch, writer):
    def fail(*_):
        raise OSError("No space left on device")

    out = tmp_path / "deep" / "OUT"
    monkeypatch.setattr(f"LNHGLib.results.writer.{writer}", fail)
    with pytest.raises(OSError, match="No space"):
        results.write_result(make_result(), out)
    assert not list(tmp_path.iterdir())
    out.mkdir(parents=True)
    (out / "report.json").write_text("old")
    with pytest.raises(OSError, match="No space"):
        results.write_result(make_result(), out, overwrite=True)
    assert [entry.name for entry in out.parent.iterdir()] == ["OUT"]
    assert (out / "report.json").read_text() == "old"


def test_a_rename_that_fails_puts_the_earlier_result_back(no_picture, tmp_path, monkeypatch):
    out, rename = tmp_path / "OUT", Path.rename
    results.write_result(make_result(), out)

    def fail_for_the_new(self, target):
        if self.name == "new":
            raise OSError("busy")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new)
    with pytest.raises(OSError, match="busy"):
        results.write_result(make_result(centers=()), out, overwrite=True)
    assert len(json.loads((out / "report.json").read_text())["nodules"]) == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["OUT"]
