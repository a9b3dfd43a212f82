import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from LNHGLib.errors import InputError
from LNHGLib.figures import preview
from LNHGLib.figures.axial_plane import AxialPlane, sample_nodule
from LNHGLib.figures.segment_style import TERMINOLOGY, segment_color
from LNHGLib.image.volume import Grid, Source, Volume, from_sitk
from LNHGLib.measurement.nodule import Nodule
from LNHGLib.measurement.signal import statistics
from LNHGLib.measurement.size import measure
from LNHGLib.results import writer as results
from LNHGLib.results.files import COLUMNS, MEASURES
from matplotlib import image as png
from matplotlib.text import Text

GOLDEN = Path(__file__).parents[1] / "data" / "preview.png"


def oblique_grid():
    c, s = np.cos(0.3), np.sin(0.3)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, -s, c], [0, c, s], [1, 0, 0]]) * (2.0, 0.8, -0.8)
    affine[:3, 3] = 30, -60, 100
    return Grid((24, 90, 100), affine)


def make_result(grid=None, centers=((10, 30, 30), (14, 60, 70)), box=True):
    """A made-up chest part: lung, a wall, and balls whose density falls from core to edge, on a grid."""
    grid = grid or Grid.aligned((24, 90, 100), (2.0, 0.8, 0.8), (-40, -36, 100))
    z, y, x = np.indices(grid.shape)
    hu = -860 + 30 * np.sin(12.9 * x + 78.2 * y + 3.1 * z)
    hu[:, 78:] = 40
    labels = np.zeros(grid.shape, np.uint16)
    for number, center in enumerate(centers, 1):
        offset = (np.stack([z, y, x], -1) - center) * grid.spacing_mm
        depth = 1 - np.linalg.norm(offset, axis=-1) / (5 + 3 * number)
        hu = np.where(depth > 0, -500 + 700 * depth, hu)
        labels[depth > 0] = number
    hu = hu.astype(np.int16)
    signal = np.where(labels > 0, np.clip((hu + 1000) / 1400, 0, 1), 0).astype(np.float32)
    nodules = [finding(number, hu, signal, labels, grid) for number in range(1, len(centers) + 1)]
    if box:
        place = np.array(grid.index_to_lps((10, 35, 70)))
        corners = (tuple(map(float, place - 5)), tuple(map(float, place + 5)))
        nodules.append(Nodule(len(centers) + 1, 0.41, "detector-box", corners, None, 0.41, None, None))
    report = {
        "model": {"name": "made-up"},
        "options": {"threshold": 0.3},
        "device": "cpu",
        "seconds": {"segment": np.float32(1.5)},
        "warnings": [],
    }
    volume = Volume(hu, grid, Source("made-up.nii.gz"))
    return SimpleNamespace(
        volume=volume, labels=labels, heterogeneity=signal, nodules=nodules, report=report, patches=[]
    )


def finding(number, hu, signal, labels, grid):
    mask = labels == number
    measured = measure(hu, grid, mask)
    inner = statistics(signal, mask, grid.spacing_mm)
    return Nodule(number, 1 - 0.2 * number, "fused", measured.box_lps_mm, 0.9, np.float32(0.8), measured, inner)


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


def test_the_picture_says_that_there_is_no_nodule_and_at_which_threshold(texts):
    preview.write_preview(make_result(centers=(), box=False), texts.path)
    assert any("No nodule found at threshold 0.30" in text for text in texts())


def test_the_picture_shows_number_score_provenance_size_and_volume(texts):
    result = make_result()
    preview.write_preview(result, texts.path)
    shown, measured = "\n".join(texts()), result.nodules[1].measurement
    assert "Nodule 2" in shown
    assert "score 0.60  ·  both branches agree" in shown
    assert f"{measured.short_axis_mm:.1f} mm  ·  {measured.volume_mm3:.0f} mm³" in shown
    assert "box only, not segmented" in shown


def test_the_picture_shows_the_eight_highest_scores_and_says_how_many_more_there_are(texts):
    result = make_result()
    box = result.nodules[2]
    result.nodules += [Nodule(n, n / 100, *list(vars(box).values())[2:]) for n in range(4, 11)]
    shown = preview.write_preview(result, texts.path)
    assert shown["nodules"] == [1, 2, 3, 10, 9, 8, 7, 6]
    assert any("2 more" in text for text in texts())


@pytest.fixture
def texts(monkeypatch, tmp_path):
    """The words in the picture drawn last, and a path to write it to."""
    figures = []
    save = preview.Figure.savefig
    monkeypatch.setattr(preview.Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1])

    def read():
        return [artist.get_text() for artist in figures[-1].findobj(Text)]

    read.path = tmp_path / "preview.png"
    return read


def test_the_picture_looks_like_the_golden_one(regenerate_golden, tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "DOTS_PER_INCH", 50)
    path = GOLDEN if regenerate_golden else tmp_path / "preview.png"
    preview.write_preview(make_result(), path)
    difference = np.abs(png.imread(path)[..., :3] - png.imread(GOLDEN)[..., :3])
    assert difference.mean() < 0.004
    assert (difference.max(-1) > 0.2).mean() < 0.004


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1), (1, -1, 1)])
def test_a_plane_shows_the_patients_right_on_the_left_and_anterior_up_in_every_array_order(order, flips):
    grid = Grid.aligned((20, 30, 40), (2.0, 1.0, 1.0), (5, -8, 50))
    array = np.zeros(grid.shape, np.float32)
    array[10, 5, 4] = 1
    marker_lps, center = grid.index_to_lps((10, 5, 4)), grid.index_to_lps((10, 15, 20))
    moved, moved_grid = _reordered(array, grid, order, flips)
    pixels = AxialPlane(center, 40.0).grid()
    image, signal = (found[0] for found in sample_nodule(moved, 1, 7 * moved, moved_grid, pixels))
    row, column = np.unravel_index(image.argmax(), image.shape)
    np.testing.assert_allclose(pixels.index_to_lps((0, row, column)), marker_lps, atol=0.2)
    assert row < 128
    assert column < 128
    np.testing.assert_allclose(signal[image > 0], 7, rtol=1e-4)


def _reordered(array, grid, order, flips):
    affine = grid.affine.copy()
    affine[:3, :3] = affine[:3, :3][:, order]
    array = array.transpose(order)
    for axis, flip in enumerate(flips):
        if flip < 0:
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
            affine[:3, axis] *= -1
            array = np.flip(array, axis)
    return array, Grid(array.shape, affine)


def test_an_existing_folder_is_not_touched_without_overwrite(tmp_path):
    out = tmp_path / "OUT"
    out.mkdir()
    (out / "report.json").write_text("old")
    with pytest.raises(InputError, match=r"OUT already exists: .*--overwrite"):
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
