"""The README's pictures, composed of real Slicer views of a tiny chest."""

import slicer_host

slicer_host.start()

import json
from dataclasses import dataclass
from pathlib import Path

import close_up
import composition
import numpy as np
import pytest
import screenshots
import slicer
import stage as stage_module
import tiny_model
import views
from LNHGLib.figures.segment_style import segment_color
from LNHGLib.image.volume import write_image
from LNHGTrainingLib.evaluation.scans import AnnotatedScan, reference_nodules
from scipy import ndimage

SIZE = (320, 240)
FIELD_MM = 120.0
VOXEL_MM = 3.0
SHOWN = 1  # in the patient's right lung


@dataclass(frozen=True, eq=False)
class Scene:
    """The tiny chest with a result on a stage."""

    stage: stage_module.Stage
    case: AnnotatedScan
    result: Path


def spheres(volume, shrink_mm=0.0) -> np.ndarray:
    """Return the tiny chest's nodules as labels."""
    points = volume.grid.index_to_lps(np.moveaxis(np.indices(volume.grid.shape), 0, -1).astype(float))
    labels = np.zeros(volume.grid.shape, np.uint16)
    for number, (center, (_, radius)) in enumerate(
        zip(tiny_model.centers_lps_mm(volume), tiny_model.NODULES, strict=True), start=1
    ):
        shrunk = shrink_mm if number > 1 else 0.0
        labels[np.linalg.norm(points - center, axis=-1) < radius - shrunk] = number
    return labels


def row(number: int, center_lps_mm: list[float]) -> dict:
    """Return what the report says of a nodule."""
    box = [[value - 8 for value in center_lps_mm], [value + 8 for value in center_lps_mm]]
    measured = {
        "centroid_lps_mm": center_lps_mm,
        "box_lps_mm": box,
        "long_axis_mm": 16.0,
        "short_axis_mm": 15.5,
        "volume_mm3": 2144.0,
        "mean_hu": 30.0,
        "sd_hu": 5.0,
        "attenuation": "solid",
    }
    return {"number": number, "score": 0.9, "provenance": "fused", "box_lps_mm": box, "measurement": measured}


def write_result(folder: Path, volume) -> None:
    labels = spheres(volume, shrink_mm=2.0)
    write_image(labels, volume.grid, folder / "labelmap.nii.gz")
    signal = np.where(labels > 0, np.linspace(0.1, 0.9, labels.shape[2]), 0).astype(np.float32)
    write_image(signal, volume.grid, folder / "heterogeneity.nii.gz")
    report_rows = [row(number, center) for number, center in enumerate(tiny_model.centers_lps_mm(volume).tolist(), 1)]
    report = {"nodules": report_rows, "model": {"name": "tiny"}, "options": {"threshold": 0.5}}
    (folder / "report.json").write_text(json.dumps(report))


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Scene:
    slicer.mrmlScene.Clear()
    volume, result = tiny_model.tiny_chest(), tmp_path_factory.mktemp("result")
    write_result(result, volume)
    sizes = dict.fromkeys(screenshots.SIZES, SIZE)
    stage = stage_module.Stage("tiny-chest", volume, result, sizes)
    stage.go_to(SHOWN, FIELD_MM)
    nodules = reference_nodules([spheres(volume)] * 3, volume.grid, {})
    yield Scene(stage, AnnotatedScan("tiny-chest", "P1", "1.2", volume, nodules), result)
    slicer.mrmlScene.Clear()


def points_of(panel: composition.Panel, center_lps_mm: np.ndarray) -> np.ndarray:
    """Return the LPS position of each pixel of an axial panel."""
    height, width = panel.picture.shape[:2]
    x = (np.arange(width) + 0.5 - width / 2) * panel.mm_per_pixel
    y = (np.arange(height) + 0.5 - height / 2) * panel.mm_per_pixel
    return center_lps_mm + np.stack([*np.meshgrid(x, y), np.zeros((height, width))], -1)


def depth_mm(scene: Scene, points: np.ndarray) -> np.ndarray:
    """Return how deep in the shown finding points near its border lie; negative outside."""
    mask, grid = scene.stage.labels == SHOWN, scene.stage.volume.grid
    inside, outside = (ndimage.distance_transform_edt(each, grid.spacing_mm) for each in (mask, ~mask))
    return ndimage.map_coordinates((inside - outside) / 2, np.moveaxis(grid.lps_to_index(points), -1, 0), order=1)


def test_outline_runs_along_the_border_of_the_mask_all_around(scene):
    panel = scene.stage.slice_panel("Axial", "")
    color = 255 * np.array(segment_color(SHOWN))
    drawn = np.abs(panel.picture - color).max(-1) < 60
    points = points_of(panel, scene.stage.center_lps_mm)
    assert np.abs(depth_mm(scene, points[drawn])).max() < VOXEL_MM / 2
    x, y, _ = (points[drawn] - scene.stage.center_lps_mm).T
    sectors = np.floor(np.arctan2(y, x) / (np.pi / 8)).astype(int)
    assert len(set(sectors)) == 16


def test_map_fills_the_mask_and_nothing_else(scene):
    plain, colored = (scene.stage.slice_panel("Axial", "", overlay=shown) for shown in (False, True))
    changed = (plain.picture != colored.picture).any(-1)
    depth = depth_mm(scene, points_of(plain, scene.stage.center_lps_mm))
    assert changed[depth > 1].all()
    assert not changed[depth < -1].any()


def test_axial_slice_has_the_patients_right_on_the_left(scene):
    """The nodule lies 38 mm to the right of the body's middle, in the right lung."""
    panel = scene.stage.slice_panel("Axial", "", overlay=False)
    middle, side = panel.picture.shape[1] // 2, round(38 / panel.mm_per_pixel)
    row = panel.picture[panel.picture.shape[0] // 2]
    assert row[middle + side].min() > 200, "mediastinum"
    assert row[middle - side].max() < 120, "lung"
    assert panel.directions == "RLAP"


def test_other_views_name_their_sides(scene):
    assert scene.stage.slice_panel("Coronal", "").directions == "RLSI"
    assert scene.stage.slice_panel("Sagittal", "").directions == "APSI"


def test_legend_is_drawn_in_a_corner_of_the_one_view_that_asks_for_it(scene):
    without, with_legend = (scene.stage.slice_panel("Axial", "", legend=each) for each in (False, True))
    changed = (without.picture != with_legend.picture).any(-1)
    assert colorfulness(with_legend.picture)[changed].max() > 200
    assert changed.sum() > 500
    width = changed.shape[1]
    assert not changed[:, width // 3 : 2 * width // 3].any()
    assert (scene.stage.slice_panel("Axial", "").picture == without.picture).all()


def colorfulness(picture: np.ndarray) -> np.ndarray:
    return np.ptp(picture.astype(int), axis=-1)


def test_close_up_of_thick_slices_has_no_bricks():
    volume = tiny_model.tiny_chest()
    labels = spheres(volume)
    center, radius = tiny_model.centers_lps_mm(volume)[1], tiny_model.NODULES[1][1]
    near = close_up.close_up(labels, (labels > 0).astype(np.float32), volume.grid, center, 30.0)
    index = np.argwhere((near.labels == 2) & ~ndimage.binary_erosion(near.labels == 2))
    distance = np.linalg.norm(near.grid.index_to_lps(index) - center, axis=1)
    assert np.abs(distance - radius).max() < 2.5
    assert np.std(distance) < 0.8
    assert near.signal[near.labels > 0] == pytest.approx(1.0)
    assert not near.signal[near.labels == 0].any()


def test_scan_without_findings_has_an_empty_close_up():
    volume = tiny_model.tiny_chest()
    nothing = np.zeros(volume.grid.shape, np.uint16)
    assert not close_up.close_up(nothing, nothing.astype(np.float32), volume.grid, (0, 0, 0), 10.0).labels.any()


def test_finding_closest_to_its_readers_is_chosen(scene):
    found = screenshots.matches(scene.case, scene.stage.labels)
    assert found[0].number == SHOWN
    assert found[0].dice == 1.0
    assert len(found) == 3
    assert all(match.dice < 1.0 for match in found[1:])


def test_small_print_counts_findings_and_says_research_use(scene):
    report = json.loads((scene.result / "report.json").read_text())
    notes = screenshots.notes_of(scene.case, report, screenshots.matches(scene.case, scene.stage.labels))
    assert "3 of the 3 nodules" in notes[0]
    assert "3 findings" in notes[0]
    assert "Research use only" in notes[1]


def test_both_pictures_are_composed(scene, monkeypatch):
    monkeypatch.setattr(screenshots, "SMALL", (160, 120))
    monkeypatch.setattr(screenshots, "QUARTER", (160, 140))
    monkeypatch.setattr(screenshots, "PANEL_SIZE", (300, 300))
    drawn = screenshots.pictures(scene.stage, scene.case, scene.result)
    assert list(drawn) == ["LNHG-1.png", "LNHG-2.png"]
    for picture in drawn.values():
        assert colorfulness(np.asarray(picture)).max() > 200


def test_captions_and_directions_stand_where_they_belong():
    picture = np.full((200, 300, 3), 90, np.uint8)
    panel = composition.Panel(picture, "caption", "RLAP", mm_per_pixel=0.5)
    drawn = np.asarray(composition.compose("title", [[panel, panel], [panel]], ["note"]))
    assert drawn.shape[1] == 2 * 300 + composition.GAP + 2 * composition.MARGIN
    top, left = composition.TITLE + composition.CAPTION, composition.MARGIN
    inside = drawn[top : top + 200, left : left + 300].astype(int)
    for edge in (inside[80:120, :30], inside[80:120, -30:], inside[:30, 130:170], inside[-30:, 130:170]):
        assert edge.max() > 220, "a direction letter is missing"
    bar = (inside[180:190, :100] > 220).all(-1).sum(1).max()
    assert bar == pytest.approx(composition.BAR_MM / 0.5, abs=2)


def test_shrinking_averages_blocks():
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[:2, 0] = 200
    assert views.shrunk(picture, 2)[..., 0].tolist() == [[100, 0], [0, 0]]


def test_hero_picture_in_the_repository_is_large_sharp_and_small_enough():
    for path in sorted(screenshots.OUT.glob("LNHG-*.png")):
        height, width, _ = views.read_png(path).shape
        assert width == pytest.approx(1600, abs=20)
        assert 700 < height < 1300
        assert path.stat().st_size < 2**20
