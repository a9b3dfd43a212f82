"""DICOM SEG and SR: written, read back by highdicom and pydicom, validated, refused."""

import json
import shutil
import subprocess
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import report_data
import SimpleITK as sitk
from LNHGLib.errors import InputError
from LNHGLib.image.dicom_geometry import SliceGrid
from LNHGLib.image.dicom_series import Slices
from LNHGLib.image.volume import Grid
from LNHGLib.report import write
from LNHGLib.report.dicom_source import OriginalSeries, find_series, onto_slices
from pydicom.sr.codedict import codes
from report_data import ORIENTATIONS, Scan, make_nodules, make_scan, reordered, write_dicom, write_result

VALIDATOR = "dciodvfy"
LPS_TOLERANCE_MM = 1e-3


def written(scan: Scan, result_scan: Scan, folder: Path, **changes) -> Path:
    """The folder with SEG and SR of a result that is stored as `result_scan`."""
    ct = write_dicom(scan, folder / "ct")
    result = write_result(result_scan, folder / "result", ct, **changes)
    notes = write.write_report(write.ReportOptions(result, folder / "out", parts=("dicom",)))
    assert notes == []
    return folder / "out"


@pytest.fixture(scope="module")
def scan() -> Scan:
    return make_scan()


@pytest.fixture(scope="module")
def out(scan: Scan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(scan, scan, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def segmentation(out: Path) -> hd.seg.Segmentation:
    return hd.seg.segread(out / write.SEG)


@pytest.fixture(scope="module")
def groups(out: Path) -> dict[str, dict]:
    """The SR's volumetric groups and line groups by tracking identifier."""
    sr = hd.sr.srread(out / write.SR)
    assert isinstance(sr.content, hd.sr.MeasurementReport)
    found: dict[str, dict] = {}
    for group in sr.content.get_volumetric_roi_measurement_groups():
        found.setdefault(group.tracking_identifier, {})["volume"] = group
    for group in sr.content.get_image_measurement_groups():
        found.setdefault(group.tracking_identifier, {})["lines"] = group
    return found


def numbers(group, name, derivation=None) -> list[float]:
    return [
        measured.value
        for measured in group.get_measurements()
        if measured.name == name and measured.derivation == derivation
    ]


def world_voxels(seg: hd.seg.Segmentation, number: int) -> set[tuple[int, ...]]:
    """A segment's voxels by their LPS position in thousandths of a mm, from the SEG's own geometry."""
    found = set()
    orientation = np.array(
        seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient, float
    )
    row_mm, column_mm = map(float, seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing)
    for frame, group in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        home = group if "SegmentIdentificationSequence" in group else seg.SharedFunctionalGroupsSequence[0]
        if home.SegmentIdentificationSequence[0].ReferencedSegmentNumber != number:
            continue
        origin = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        rows, columns = np.nonzero(frame)
        points = origin + np.outer(columns * column_mm, orientation[:3]) + np.outer(rows * row_mm, orientation[3:])
        found |= {tuple(point) for point in np.rint(points * 100).astype(int).tolist()}
    return found


def expected_voxels(scan: Scan, number: int) -> set[tuple[int, ...]]:
    points = scan.grid.index_to_lps(np.argwhere(scan.labels == number))
    return {tuple(point) for point in np.rint(points * 100).astype(int).tolist()}


@pytest.mark.parametrize("name", ORIENTATIONS)
@pytest.mark.parametrize(("order", "flips"), [((0, 1, 2), ()), ((0, 1, 2), (0, 2)), ((2, 0, 1), (1,))])
def test_every_voxel_comes_back_at_its_place_in_the_patient(name, order, flips, tmp_path):
    scan = make_scan(ORIENTATIONS[name])
    out = written(scan, reordered(scan, order, flips), tmp_path)
    seg = hd.seg.segread(out / write.SEG)
    assert seg.number_of_segments == 2
    for number in (1, 2):
        found, expected = world_voxels(seg, number), expected_voxels(scan, number)
        assert len(found) == len(expected) > 100
        assert np.abs(np.array(sorted(found)) - sorted(expected)).max() <= 2, "within 0.02 mm"


def test_highdicom_gives_back_the_labels_slice_by_slice(segmentation, scan, out):
    slices = [pydicom.dcmread(file, stop_before_pixels=True) for file in (out.parent / "ct").iterdir()]
    slices.sort(key=lambda each: float(each.ImagePositionPatient[2]))
    uids = [each.SOPInstanceUID for each in slices]
    labels = segmentation.get_pixels_by_source_instance(
        uids, combine_segments=True, assert_missing_frames_are_empty=True, ignore_spatial_locations=False
    )
    np.testing.assert_array_equal(labels, scan.labels)


def test_segments_say_what_they_are_and_who_made_them(segmentation):
    assert segmentation.segmentation_type == hd.seg.SegmentationTypeValues.BINARY
    for number in (1, 2):
        segment = segmentation.get_segment_description(number)
        assert segment.segment_label == f"Nodule {number}"
        kind = segment.segmented_property_type
        assert (kind.value, kind.scheme_designator) == ("786838002", "SCT")
        assert segment.algorithm_type == hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC
        algorithm = segment.algorithm_identification
        assert (algorithm.name, algorithm.version) == ("LNHG", "0.1.0")
        assert algorithm.parameters["threshold"] == "0.35"
        assert algorithm.parameters["model"].startswith("made-up")


def test_segmentation_refers_to_the_original_slices_and_keeps_patient_and_frame_of_reference(segmentation):
    assert (segmentation.PatientID, segmentation.StudyInstanceUID) == ("P-1234", report_data.STUDY)
    assert segmentation.FrameOfReferenceUID == report_data.FRAME
    (series,) = segmentation.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == report_data.SERIES
    assert len(series.ReferencedInstanceSequence) == len(list(Path(segmentation.filename).parents[1].glob("ct/*")))


def test_report_gives_back_every_number_of_the_measurement(groups, scan):
    for nodule in make_nodules(scan)[:2]:
        group, m = groups[f"LNHG nodule {nodule.number}"]["volume"], nodule.measurement
        mean, deviation = codes.SCT.Mean, codes.SCT.StandardDeviation
        for found, expected in (
            (numbers(group, codes.SCT.LongAxis), m.long_axis_mm),
            (numbers(group, codes.SCT.ShortAxis), m.short_axis_mm),
            (numbers(group, codes.SCT.Volume), m.volume_mm3),
            (numbers(group, codes.DCM.AttenuationCoefficient, mean), m.mean_hu),
            (numbers(group, codes.DCM.AttenuationCoefficient, deviation), m.sd_hu),
        ):
            assert found == [pytest.approx(expected, abs=5e-5)]


def test_report_names_units_type_provenance_and_algorithm_by_codes(groups):
    group = groups["LNHG nodule 1"]["volume"]
    units = {measured.name.meaning: measured.unit.value for measured in group.get_measurements()}
    assert (units["Long axis"], units["Volume"], units["Attenuation Coefficient"]) == ("mm", "mm3", "[hnsf'U]")
    answers = {each.name.value: each.value.value for each in group.get_qualitative_evaluations()}
    assert (answers["ATTENUATION"], answers["PROVENANCE"], answers["READER"]) == ("SOLID", "FUSED", "NONE")
    assert group.finding_type.value == "786838002"
    (site,) = group.finding_sites
    assert site.topographical_modifier is None
    assert site.laterality == codes.SCT.Right


def test_report_points_at_the_segment_of_the_same_nodule(groups, segmentation):
    for number in (1, 2):
        group = groups[f"LNHG nodule {number}"]["volume"]
        (reference,) = group.referenced_segment[0].ReferencedSOPSequence
        assert reference.ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
        described = segmentation.get_segment_description(reference.ReferencedSegmentNumber)
        assert described.tracking_id == group.tracking_identifier
        assert described.tracking_uid == group.tracking_uid


@pytest.mark.parametrize("name", ["axial", "oblique"])
def test_axes_are_lines_at_the_ends_that_were_measured(name, tmp_path):
    scan = make_scan(ORIENTATIONS[name])
    out = written(scan, scan, tmp_path)
    sr = hd.sr.srread(out / write.SR)
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in (tmp_path / "ct").iterdir()]
    slices = {header.SOPInstanceUID: header for header in headers}
    lines = [group for group in sr.content.get_image_measurement_groups() if len(group.get_measurements()) == 2]
    for group, nodule in zip(lines, make_nodules(scan), strict=False):
        m = nodule.measurement
        ends = {"Long axis": m.long_axis_ends_lps_mm, "Short axis": m.short_axis_ends_lps_mm}
        for measured in group.get_measurements():
            (line,) = measured.referenced_coordinates
            np.testing.assert_allclose(_in_space(line, slices), ends[measured.name.meaning], atol=0.01)


def _in_space(line, slices: dict) -> np.ndarray:
    if isinstance(line, hd.sr.Scoord3DContentItem):
        return line.value
    header = slices[line.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID]
    to_lps = hd.spatial.ImageToReferenceTransformer.for_image(header)
    return to_lps(line.value)


def test_finding_of_the_detector_alone_is_listed_and_has_no_segment(groups, segmentation):
    group = groups["LNHG nodule 3"]
    assert "volume" not in group
    assert all(segmentation.get_segment_description(n).tracking_id != "LNHG nodule 3" for n in (1, 2))
    answers = {each.name.value: each.value.value for each in group["lines"].get_qualitative_evaluations()}
    assert answers["PROVENANCE"] == "DETECTORBOX"
    (score,) = group["lines"].get_measurements()
    assert score.value == pytest.approx(0.41)


@pytest.fixture(scope="module")
def probable(scan: Scan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SEG and SR of a result whose scores are probabilities."""
    return written(scan, scan, tmp_path_factory.mktemp("probable"), score_scale="probability")


def test_score_of_an_older_result_is_the_models_own_number_by_the_projects_code(groups, segmentation):
    (score,) = [each for each in groups["LNHG nodule 1"]["volume"].get_measurements() if each.name.value == "SCORE"]
    assert (score.value, score.unit.value) == (pytest.approx(0.8), "1")
    segment = segmentation.get_segment_description(1)
    assert segment.SegmentDescription == "Score 0.80"
    assert segment.algorithm_identification.parameters["score scale"] == "model"


def test_probability_is_the_certainty_of_the_finding_in_percent(probable):
    sr, name = hd.sr.srread(probable / write.SR), codes.DCM.CertaintyOfFinding
    found = {}
    content = sr.content
    for group in (*content.get_volumetric_roi_measurement_groups(), *content.get_image_measurement_groups()):
        for each in group.get_measurements():
            assert each.name.value != "SCORE"
            if each.name == name:
                found[group.tracking_identifier] = (each.value, each.unit.value)
    assert found == {
        "LNHG nodule 1": (pytest.approx(80.0), "%"),
        "LNHG nodule 2": (pytest.approx(60.0), "%"),
        "LNHG nodule 3": (pytest.approx(41.0), "%"),
    }


def test_segments_say_the_probability_and_that_it_is_one(probable):
    segmentation = hd.seg.segread(probable / write.SEG)
    segments = [segmentation.get_segment_description(number) for number in (1, 2)]
    assert [segment.SegmentDescription for segment in segments] == ["Probability 0.80", "Probability 0.60"]
    assert segments[0].algorithm_identification.parameters["score scale"] == "probability"


def test_rejected_findings_are_in_neither_and_the_readers_part_is_said(scan, tmp_path):
    entry = {"by": "user", "time": "2026-01-01T00:00:00"}
    changes = {
        1: {"kept": False},
        2: {"name": "Apex", "history": [{"action": "found", **entry}, {"action": "edited", **entry}]},
    }
    out = written(scan, scan, tmp_path, changes=changes)
    seg = hd.seg.segread(out / write.SEG)
    assert seg.number_of_segments == 1
    segment = seg.get_segment_description(1)
    assert (segment.segment_label, segment.algorithm_type.value) == ("Apex", "SEMIAUTOMATIC")
    assert world_voxels(seg, 1) == expected_voxels(scan, 2)
    names = {group.tracking_identifier for group in hd.sr.srread(out / write.SR).content.get_image_measurement_groups()}
    assert names == {"LNHG nodule 2", "LNHG nodule 3"}


def test_drawn_nodule_is_manual_and_needs_no_score(scan, tmp_path):
    drawn = {"history": [{"action": "drawn", "by": "user", "time": ""}], "score": None, "provenance": "manual"}
    out = written(scan, scan, tmp_path, changes={1: {**drawn, "heterogeneity": None}})
    segments = [hd.seg.segread(out / write.SEG).get_segment_description(n) for n in (1, 2)]
    manual = next(segment for segment in segments if segment.tracking_id == "LNHG nodule 1")
    assert manual.algorithm_type == hd.seg.SegmentAlgorithmTypeValues.MANUAL
    assert "SegmentDescription" not in manual


def test_tracking_identifiers_stay_when_the_same_result_is_written_again(out, groups, tmp_path):
    write.write_report(write.ReportOptions(out.parent / "result", tmp_path / "again", parts=("dicom",)))
    again = hd.seg.segread(tmp_path / "again" / write.SEG)
    assert again.get_segment_description(1).tracking_uid == groups["LNHG nodule 1"]["volume"].tracking_uid
    assert again.SOPInstanceUID != hd.seg.segread(out / write.SEG).SOPInstanceUID


def test_only_box_findings_make_a_report_without_a_segmentation(scan, tmp_path):
    result = write_result(
        scan, tmp_path / "result", write_dicom(scan, tmp_path / "ct"), changes={1: {"kept": False}, 2: {"kept": False}}
    )
    notes = write.write_report(write.ReportOptions(result, tmp_path / "out", parts=("dicom",)))
    assert any("none of the kept findings is outlined" in note for note in notes)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [write.SR]


def errors(file: Path) -> list[str]:
    run = subprocess.run([VALIDATOR, str(file)], capture_output=True, text=True, check=False)
    return [line for line in (run.stdout + run.stderr).splitlines() if line.startswith("Error")]


needs_validator = pytest.mark.skipif(
    shutil.which(VALIDATOR) is None, reason=f"{VALIDATOR} is missing: install Debian's dicom3tools"
)


@needs_validator
@pytest.mark.parametrize("name", [write.SEG, write.SR])
def test_dciodvfy_finds_no_error(out, name):
    assert errors(out / name) == []


@needs_validator
def test_dciodvfy_finds_an_error_that_is_planted(out, tmp_path):
    broken = pydicom.dcmread(out / write.SEG)
    del broken.SegmentSequence[0].SegmentedPropertyTypeCodeSequence
    broken.save_as(tmp_path / "broken.dcm")
    assert errors(tmp_path / "broken.dcm")


def the_refusal(tmp_path: Path, result: Path, **options) -> str:
    with pytest.raises(InputError) as caught:
        write.write_report(write.ReportOptions(result, tmp_path / "out", parts=("dicom",), **options))
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*")), "nothing half-written stays"
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_another_series_is_refused_by_its_uid(scan, tmp_path):
    other = write_dicom(scan, tmp_path / "other", SeriesInstanceUID="1.2.3.4")
    result = write_result(scan, tmp_path / "result", tmp_path / "ct.nii.gz")
    assert report_data.SERIES in the_refusal(tmp_path, result, dicom=other)


def test_a_series_shifted_by_one_slice_is_refused(scan, tmp_path):
    up = scan.grid.affine @ np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    moved = Scan(Grid(scan.grid.shape, up), scan.hu, scan.labels)
    ct = write_dicom(moved, tmp_path / "ct")
    result = write_result(scan, tmp_path / "result", ct)
    assert "lie up to 2 mm away" in the_refusal(tmp_path, result)


def test_fewer_slices_are_refused(scan, tmp_path):
    ct = write_dicom(scan, tmp_path / "ct")
    result = write_result(scan, tmp_path / "result", ct)
    first = min(ct.iterdir(), key=lambda file: pydicom.dcmread(file).ImagePositionPatient[2])
    first.unlink()
    assert "voxels (slices, rows, columns)" in the_refusal(tmp_path, result)


def test_another_reconstruction_at_the_same_place_is_refused_where_the_result_names_no_series(scan, tmp_path):
    other = Scan(scan.grid, scan.hu + 40, scan.labels)
    ct = write_dicom(other, tmp_path / "ct")
    result = write_result(scan, tmp_path / "result", tmp_path / "gone.nii.gz", series_uid=None)
    assert "HU there" in the_refusal(tmp_path, result, dicom=ct)


def test_slices_of_two_frames_of_reference_are_refused(scan, tmp_path):
    ct = write_dicom(scan, tmp_path / "ct")
    file = next(ct.iterdir())
    dataset = pydicom.dcmread(file)
    dataset.FrameOfReferenceUID = "1.2.3"
    dataset.save_as(file)
    result = write_result(scan, tmp_path / "result", ct)
    assert "more than one frame of reference" in the_refusal(tmp_path, result)


def test_series_without_a_frame_of_reference_is_refused(scan, tmp_path):
    ct = write_dicom(scan, tmp_path / "ct", FrameOfReferenceUID=None)
    result = write_result(scan, tmp_path / "result", ct)
    assert "without FrameOfReferenceUID" in the_refusal(tmp_path, result)


def test_ct_that_was_no_dicom_is_refused_with_what_to_give(scan, tmp_path):
    ct = tmp_path / "ct.nrrd"
    ct.write_bytes(b"NRRD0004 and so on")
    result = write_result(scan, tmp_path / "result", ct)
    sentence = the_refusal(tmp_path, result)
    assert "is no DICOM series" in sentence
    assert "--dicom" in sentence


def test_ct_that_is_gone_is_refused_with_what_to_give(scan, tmp_path):
    result = write_result(scan, tmp_path / "result", tmp_path / "gone")
    assert "--dicom" in the_refusal(tmp_path, result)


def test_result_without_the_voxels_of_a_nodule_is_refused(scan, tmp_path):
    ct = write_dicom(scan, tmp_path / "ct")
    empty = Scan(scan.grid, scan.hu, np.where(scan.labels == 2, 0, scan.labels))
    write_result(scan, tmp_path / "result", ct)
    rows = json.loads((tmp_path / "result" / "report.json").read_text())
    report_data.write_image(empty.labels, empty.grid, tmp_path / "result" / "labelmap.nii.gz")
    assert len(rows["nodules"]) == 3
    assert "no voxels of nodule 2" in the_refusal(tmp_path, tmp_path / "result")


def test_a_turned_result_does_not_fit_the_slices(scan):
    header = pydicom.Dataset()
    header.SeriesInstanceUID = "1.2"
    for degrees, sentence in ((45, "turned"), (10, "lie up to")):
        turned = report_data.make_grid(report_data.turned(degrees) @ report_data.AXIAL)
        grid = Grid(scan.grid.shape, turned.affine)
        place = SliceGrid(grid, grid.shape[1:], np.zeros((grid.shape[0], 2)))
        series = OriginalSeries(Path(), (), Slices("1.2", [], place, []), [header])
        with pytest.raises(InputError, match=sentence):
            onto_slices(scan.labels, scan.grid, series)


def test_real_ct_keeps_voxels_and_passes_the_validator(data_dir, tmp_path):
    """On the part of a real CT that holds a nodule, for speed: the whole one takes a minute on a busy machine."""
    home = data_dir / "ct" / "lidc-idri-0063"
    part = slice(56, 78)
    files = find_series(home / "dicom").files[part]
    (tmp_path / "ct").mkdir()
    for file in files:
        shutil.copy(file, tmp_path / "ct")
    series = find_series(tmp_path / "ct")
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(home / "mask_labels.nii.gz")))[part]
    labels = np.select([labels == 2, labels == 4], [1, 2], 0).astype(np.uint16)
    scan = Scan(series.grid, series.read().array, labels)
    result = write_result(scan, tmp_path / "result", tmp_path / "ct", series.series_uid, {3: {"kept": False}})
    write.write_report(write.ReportOptions(result, tmp_path / "out", parts=("dicom",)))
    seg = hd.seg.segread(tmp_path / "out" / write.SEG)
    uids = [each.SOPInstanceUID for each in series.slices]
    found = seg.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True)
    np.testing.assert_array_equal(found, labels)
    if shutil.which(VALIDATOR):
        assert errors(tmp_path / "out" / write.SEG) + errors(tmp_path / "out" / write.SR) == []
