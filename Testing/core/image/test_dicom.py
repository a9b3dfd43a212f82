"""DICOM folders as they come from scanners, archives and USB sticks."""

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from dicom_files import ORIGIN, PIXEL_MM, SLICES, UID, a_chest, along_z, write_series, write_slice
from LNHGLib.errors import InputError
from LNHGLib.image import dicom_header, dicom_series
from LNHGLib.image.reader import read_volume
from pydicom.uid import (
    EnhancedCTImageStorage,
    MRImageStorage,
    SecondaryCaptureImageStorage,
)


def the_error(path: Path, series_uid: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path, series_uid)
    message = str(caught.value)
    assert message.startswith(str(path)), "the sentence names what is wrong"
    assert "expected" in message
    assert ";" in message, "the sentence ends with what to do"
    assert message.endswith(".")
    assert "\n" not in message
    return message


def test_slices_are_sorted_by_position_whatever_the_files_are_called(tmp_path):
    hu = a_chest()
    names = np.random.default_rng(1).permutation(SLICES)
    for i, pixels in enumerate(hu):
        write_slice(tmp_path / "in" / f"IM{names[i]}", pixels, along_z([2.0 * i])[0], InstanceNumber=int(names[i]))
    volume = read_volume(tmp_path / "in")
    np.testing.assert_array_equal(volume.array, hu)
    assert volume.array.dtype == np.int16
    np.testing.assert_allclose(volume.grid.spacing_mm, (2.0, *PIXEL_MM))
    np.testing.assert_allclose(volume.grid.index_to_lps((3, 2, 1)), ORIGIN + np.array([0.6, 1.6, 6.0]))
    source = volume.source
    assert (source.modality, source.series_uid, source.patient_id, source.notes) == ("CT", UID, "P1", ())


def test_nested_folders_and_files_of_other_kinds_are_no_obstacle(tmp_path):
    hu = a_chest()
    write_series(tmp_path / "a", hu[:5])
    write_series(tmp_path / "a" / "deep" / "er", hu[5:], along_z(10 + 2.0 * np.arange(SLICES - 5)))
    (tmp_path / "readme.txt").write_text("not an image")
    (tmp_path / "a" / "Thumbs.db").write_bytes(bytes(500))
    (tmp_path / "a" / "empty.dcm").touch()
    (tmp_path / "a" / "damaged.dcm").write_bytes(bytes(128) + b"DICM" + bytes(range(256)))
    np.testing.assert_array_equal(read_volume(tmp_path).array, hu)


def test_a_file_without_the_preamble_is_read(tmp_path):
    write_series(tmp_path)
    for path in tmp_path.iterdir():
        data = path.read_bytes()[132:]
        path.write_bytes(data)
    np.testing.assert_array_equal(read_volume(tmp_path).array, a_chest())


def test_one_file_stands_for_its_series(tmp_path):
    write_series(tmp_path, a_chest(1), name="a{}.dcm", SeriesInstanceUID="1.2.1")
    write_series(tmp_path, a_chest(2)[:11], name="b{}.dcm", SeriesInstanceUID="1.2.2")
    volume = read_volume(tmp_path / "b3.dcm")
    assert volume.source.series_uid == "1.2.2"
    np.testing.assert_array_equal(volume.array, a_chest(2)[:11])


@pytest.mark.parametrize("name", ["", "b3.dcm"])
def test_each_header_is_read_once_and_each_file_opened_once_for_it(tmp_path, monkeypatch, name):
    write_series(tmp_path, a_chest(1), name="a{}.dcm", SeriesInstanceUID="1.2.1")
    write_series(tmp_path, a_chest(2), name="b{}.dcm", SeriesInstanceUID="1.2.2")
    opened, parsed = [], []
    open_file, parse = Path.open, dicom_header.pydicom.dcmread

    def opening(path, *given, **named):
        opened.append(path)
        return open_file(path, *given, **named)

    def parsing(file, **named):
        parsed.append(file)
        return parse(file, **named)

    monkeypatch.setattr(Path, "open", opening)
    monkeypatch.setattr(dicom_header.pydicom, "dcmread", parsing)
    headers = dicom_series.find_slices(tmp_path / name, "1.2.2" if not name else None).headers
    assert sorted(opened) == sorted(tmp_path.iterdir())
    assert len(parsed) == 2 * SLICES
    assert {header.series_uid for header in headers} == {"1.2.2"}


def test_of_several_series_the_axial_ct_with_most_slices_is_taken_and_said(tmp_path):
    many = np.concatenate([a_chest(1), a_chest(2)])
    write_series(tmp_path, a_chest(), name="thick{}", SeriesInstanceUID="1.2.1", SeriesDescription="thick")
    write_series(tmp_path, many, name="thin{}", SeriesInstanceUID="1.2.2", SeriesDescription="thin")
    more = np.concatenate([many, many])
    write_series(
        tmp_path, more, ORIGIN + np.outer(np.arange(len(more)), [0, 1, 0]), "cor{}",
        SeriesInstanceUID="1.2.3", SeriesDescription="coronal", ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
    )  # fmt: skip
    write_series(tmp_path, more, name="mr{}", SeriesInstanceUID="1.2.4", Modality="MR", SOPClassUID=MRImageStorage)
    write_series(tmp_path, more, name="head{}", SeriesInstanceUID="1.2.5", BodyPartExamined="HEAD")
    volume = read_volume(tmp_path)
    assert volume.source.series_uid == "1.2.2"
    np.testing.assert_array_equal(volume.array, many)
    (note,) = volume.source.notes
    assert note.startswith("4 CT series found: took 1.2.2 (thin, 24 slices), left ")
    assert "1.2.1 (thick, 12 slices)" in note
    assert "coronal" in note


def test_the_named_series_is_taken(tmp_path):
    write_series(tmp_path, np.concatenate([a_chest(1), a_chest(2)]), name="a{}", SeriesInstanceUID="1.2.1")
    write_series(tmp_path, a_chest(3), name="b{}", SeriesInstanceUID="1.2.2")
    volume = read_volume(tmp_path, "1.2.2")
    np.testing.assert_array_equal(volume.array, a_chest(3))
    assert volume.source.notes == ()


def test_an_unknown_series_lists_those_found(tmp_path):
    write_series(tmp_path, name="a{}", SeriesInstanceUID="1.2.1")
    write_series(tmp_path, name="b{}", SeriesInstanceUID="1.2.2", Modality="MR", SOPClassUID=MRImageStorage)
    message = the_error(tmp_path, "1.9.9")
    assert "no series 1.9.9" in message
    assert "1.2.1 (12 CT); 1.2.2 (12 MR)" in message


def test_a_localizer_inside_the_series_is_left_out_and_said(tmp_path):
    write_series(tmp_path)
    scout = [1, 0, 0, 0, 0, -1]
    write_slice(
        tmp_path / "scout", a_chest()[0], ORIGIN, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        ImageOrientationPatient=scout,
    )  # fmt: skip
    write_slice(tmp_path / "view", a_chest()[0], ORIGIN, ImageOrientationPatient=scout)
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, a_chest())
    assert volume.source.notes == ("2 image(s) of the series with another view or size were left out.",)


@pytest.mark.parametrize("view", ["coronal", "sagittal", "feet first", "oblique"])
def test_every_voxel_keeps_its_place_in_the_world_in_any_view(tmp_path, view):
    row, column = {
        "coronal": ([1, 0, 0], [0, 0, -1]),
        "sagittal": ([0, 1, 0], [0, 0, -1]),
        "feet first": ([-1, 0, 0], [0, 1, 0]),
        "oblique": ([np.cos(0.3), np.sin(0.3), 0], [-np.sin(0.3), np.cos(0.3), 0]),
    }[view]
    normal = np.cross(row, column)
    hu = a_chest()
    positions = ORIGIN + np.outer(1.5 * np.arange(SLICES), normal)
    write_series(
        tmp_path, hu[::-1], positions[::-1], ImageOrientationPatient=[float(f"{v:.8f}") for v in [*row, *column]]
    )
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, hu)
    index = np.array([7, 3, 5])
    world = positions[7] + 3 * PIXEL_MM[0] * np.array(column) + 5 * PIXEL_MM[1] * np.array(row)
    np.testing.assert_allclose(volume.grid.index_to_lps(index), world, atol=1e-4)
    assert bool(volume.source.notes) == (view in ("coronal", "sagittal"))


def test_each_slice_has_its_own_rescale(tmp_path):
    hu = a_chest()
    for i, pixels in enumerate(hu):
        intercept, slope = (-1024.0, 1.0) if i % 2 else (-2000.0, 0.5)
        write_slice(tmp_path / str(i), pixels, along_z([2.0 * i])[0], intercept=intercept, RescaleSlope=slope)
    np.testing.assert_array_equal(read_volume(tmp_path).array, hu)


def test_a_fractional_rescale_keeps_its_fractions(tmp_path):
    write_series(tmp_path, a_chest() // 2 * 2 + 0.5, RescaleSlope=0.5)
    volume = read_volume(tmp_path)
    assert volume.array.dtype == np.float32
    np.testing.assert_allclose(volume.array, a_chest() // 2 * 2 + 0.5)


def test_padding_outside_the_scanner_circle_becomes_air(tmp_path):
    hu = a_chest()
    hu[:, :2, :2] = -3024
    write_series(tmp_path, hu)
    volume = read_volume(tmp_path)
    assert volume.array.min() == -1024
    assert "lowest -3024" in volume.source.notes[0]
    np.testing.assert_array_equal(volume.array[:, 2:], hu[:, 2:])


def test_missing_rescale_is_noticed(tmp_path):
    write_series(tmp_path, a_chest() + 1024, intercept=0.0, RescaleIntercept=None, RescaleSlope=None)
    assert "without rescale" in the_error(tmp_path)


def test_missing_slices_are_counted(tmp_path):
    write_series(tmp_path, positions=along_z([0, 2, 4, 6, 8, 14, 16, 18, 20, 22, 26, 28]))
    message = the_error(tmp_path)
    assert "misses 3 slice(s)" in message
    assert "a gap of 6 mm between -292 and -286 mm" in message
    assert "expected 2 mm" in message


def test_uneven_spacing_is_refused(tmp_path):
    write_series(tmp_path, positions=along_z([0, 2, 4, 6, 8, 10, 12, 14, 16, 19.3, 22.6, 25.9]))
    assert "uneven slice spacing from 2 to 3.3 mm" in the_error(tmp_path)


@pytest.mark.parametrize(
    ("distances", "noted"),
    [(2.0 * np.arange(12) + 0.004 * (np.arange(12) % 2), True), (np.round(0.625 * np.arange(12), 1), True)],
    ids=["within one percent", "rounded by the scanner"],
)
def test_slightly_uneven_spacing_is_accepted_and_said(tmp_path, distances, noted):
    write_series(tmp_path, positions=along_z(distances))
    volume = read_volume(tmp_path)
    assert volume.grid.spacing_mm[0] == pytest.approx(distances[-1] / 11)
    assert any("spacing varies" in note for note in volume.source.notes) == noted


def test_exact_duplicates_are_dropped_and_said(tmp_path):
    write_series(tmp_path)
    shutil.copytree(tmp_path, tmp_path / "copy")
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, a_chest())
    assert volume.source.notes == ("12 exact duplicate slice(s) were dropped.",)


def test_different_images_at_one_position_are_refused(tmp_path):
    write_series(tmp_path, a_chest(1), name="phase1_{}")
    write_series(tmp_path, a_chest(2), name="phase2_{}")
    message = the_error(tmp_path)
    assert "different images at the same position (-300 mm" in message
    assert "single time point" in message


def test_slices_shifted_sideways_are_refused(tmp_path):
    positions = along_z(2.0 * np.arange(SLICES))
    positions[6, 0] += 15
    write_series(tmp_path, positions=positions)
    assert "shifted sideways by up to 15.0 mm" in the_error(tmp_path)


@pytest.mark.parametrize("orientation", [[1, 0, 0, 0.5, 1, 0], [0] * 6, [2, 0, 0, 0, 2, 0], [1, 0, 0, 1, 0, 0]])
def test_an_impossible_orientation_is_refused(orientation, tmp_path):
    write_series(tmp_path, ImageOrientationPatient=orientation)
    assert "two perpendicular unit vectors" in the_error(tmp_path)


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ({"Modality": "MR", "SOPClassUID": MRImageStorage}, "12 MR"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "12 localizer"),
        ({"SOPClassUID": SecondaryCaptureImageStorage}, "12 secondary capture"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "12 secondary capture"),
        ({"SOPClassUID": EnhancedCTImageStorage}, "one image a slice"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "12 color CT"),
        ({"ImagePositionPatient": None}, "ImagePositionPatient"),
        ({"PixelSpacing": None}, "PixelSpacing"),
    ],
    ids=["MR", "localizer", "secondary capture", "screen save", "enhanced", "color", "no position", "no spacing"],
)
def test_images_that_are_no_ct_slices_are_named(tmp_path, tags, found):
    write_series(tmp_path, **tags)
    message = the_error(tmp_path)
    assert "holds no CT slices but other images" in message
    assert found in message


def test_too_few_slices_are_counted(tmp_path):
    write_series(tmp_path, a_chest()[:9])
    assert "has 9 CT slice(s), expected at least 10" in the_error(tmp_path)


def test_one_lone_slice_asks_for_the_series(tmp_path):
    write_slice(tmp_path / "one.dcm", a_chest()[0], ORIGIN)
    assert "has 1 CT slice(s)" in the_error(tmp_path / "one.dcm")


def test_an_empty_folder_is_named(tmp_path):
    assert "empty folder" in the_error(tmp_path)


def test_a_folder_without_dicom_counts_its_files(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    assert "no readable DICOM image among 1 file(s)" in the_error(tmp_path)


@pytest.mark.parametrize("keep", [0.98, 0.7])
def test_a_truncated_slice_is_named(tmp_path, keep, capfd):
    hu = np.repeat(np.repeat(a_chest(), 8, axis=1), 8, axis=2)
    write_series(tmp_path, hu)
    victim = tmp_path / "4.dcm"
    victim.write_bytes(victim.read_bytes()[: int(victim.stat().st_size * keep)])
    with pytest.raises(InputError, match=r"4\.dcm has pixels that cannot be read \(damaged, truncated"):
        read_volume(tmp_path)
    assert capfd.readouterr().err == ""


def test_a_damaged_file_is_named_even_beside_a_whole_series(tmp_path):
    write_series(tmp_path)
    (tmp_path / "damaged.dcm").write_bytes(bytes(128) + b"DICM" + bytes(range(256)))
    assert "no readable DICOM image" in the_error(tmp_path / "damaged.dcm")


def test_the_headers_of_600_slices_are_read_quickly(tmp_path):
    write_slice(tmp_path / "slice", a_chest()[0], ORIGIN)
    start = time.process_time()
    headers = [header for _ in range(600) for header in dicom_header.read_headers(tmp_path / "slice")]
    assert time.process_time() - start < 15, "seconds of processor time, which a busy machine does not change much"
    assert all(header.kind == "CT" for header in headers)
