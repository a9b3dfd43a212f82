"""Enhanced multi-frame CT is read as the classic slices are, and slices of a tilted gantry are straightened."""

import numpy as np
import pydicom
import pytest
from dicom_files import ORIGIN, PIXEL_MM, SLICES, UID, a_chest, write_series
from enhanced_ct import classic_slices, write_enhanced, write_legacy
from LNHGLib.errors import InputError
from LNHGLib.image.dicom_series import find_slices
from LNHGLib.image.reader import read_volume
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLSLossless
from scipy import ndimage

PATIENT = {
    "PatientName": "Doe^Jane", "PatientBirthDate": "", "PatientSex": "F", "StudyDate": "20200304", "StudyID": "1",
    "StudyTime": "101112", "AccessionNumber": "", "ReferringPhysicianName": "", "SeriesNumber": 3, "Manufacturer": "M",
    "FrameOfReferenceUID": "1.2.98", "PositionReferenceIndicator": "", "InstanceNumber": 1, "SliceThickness": 2.0,
}  # fmt: skip


def the_error(path, name=None) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path, name)
    return str(caught.value)


@pytest.fixture
def slices(tmp_path) -> list[Dataset]:
    """A classic series, its slices in an order of their own."""
    found = classic_slices(write_series(tmp_path / "classic", name="{:02}.dcm", **PATIENT))
    return [found[i] for i in np.random.default_rng(0).permutation(SLICES)]


def same_as_classic(path, tmp_path) -> None:
    enhanced, classic = read_volume(path), read_volume(tmp_path / "classic")
    np.testing.assert_array_equal(enhanced.array, classic.array)
    assert enhanced.array.dtype == classic.array.dtype
    np.testing.assert_array_equal(enhanced.grid.affine, classic.grid.affine)
    assert enhanced.source.notes == ()
    assert (enhanced.source.patient_id, enhanced.source.series_uid) == ("P1", UID)


@pytest.mark.parametrize("write", [write_enhanced, write_legacy])
def test_enhanced_ct_is_the_classic_ct(write, slices, tmp_path):
    same_as_classic(write(slices, tmp_path / "ct" / "one.dcm"), tmp_path)
    same_as_classic(tmp_path / "ct", tmp_path)


@pytest.mark.slow
def test_a_real_scan_is_the_same_as_enhanced_ct(data_dir, tmp_path):
    """What is segmented is the same to the bit, so the label map is."""
    home = data_dir / "ct" / "lidc-idri-0063" / "dicom"
    found, classic = find_slices(home), read_volume(home)
    files = [header.path for header in found.headers[20:60]]
    some = []
    for index, file in enumerate(files, 20):
        dataset = pydicom.dcmread(file)
        dataset.PixelData = (classic.array[index] - int(dataset.RescaleIntercept)).astype("<i2").tobytes()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        dataset["PixelData"].is_undefined_length = False
        some.append(dataset)
    volume = read_volume(write_enhanced(some[::-1], tmp_path / "one.dcm"))
    np.testing.assert_array_equal(volume.array, classic.array[20:60])
    np.testing.assert_allclose(volume.grid.index_to_lps((0, 0, 0)), classic.grid.index_to_lps((20, 0, 0)))


def test_each_frame_has_its_own_rescale(slices, tmp_path):
    for number, each in enumerate(slices):
        hu = each.pixel_array.astype(int) - 1024
        each.RescaleSlope, each.RescaleIntercept = (1, -1024) if number % 2 else (1, -1500 - number)
        each.PixelData = (hu - each.RescaleIntercept).astype("<i2").tobytes()
    same_as_classic(write_enhanced(slices, tmp_path / "one.dcm"), tmp_path)


def test_geometry_and_rescale_are_read_wherever_a_frame_may_say_them(slices, tmp_path):
    def swap(image: Dataset) -> None:
        shared, frames = image.SharedFunctionalGroupsSequence[0], image.PerFrameFunctionalGroupsSequence
        for name in ("PixelMeasuresSequence", "PlaneOrientationSequence", "CTImageFrameTypeSequence"):
            for frame in frames:
                frame[name] = shared[name]
            del shared[name]
        shared.PixelValueTransformationSequence = frames[0].PixelValueTransformationSequence
        for frame in frames:
            del frame.PixelValueTransformationSequence

    same_as_classic(write_enhanced(slices, tmp_path / "one.dcm", swap), tmp_path)


def test_compressed_frames_are_read_and_a_damaged_one_is_refused(slices, tmp_path):
    def compress(image: Dataset, spoil: bool = False) -> None:
        frames = []
        for each in slices:
            one = pydicom.dcmread(tmp_path / "classic" / f"{int((each.ImagePositionPatient[2] + 300) / 2):02}.dcm")
            one.compress(JPEGLSLossless)
            frames.append(next(pydicom.encaps.generate_frames(one.PixelData, number_of_frames=1)))
        if spoil:
            frames[5] = frames[5][: len(frames[5]) // 2]
        image.PixelData = encapsulate(frames)
        image["PixelData"].VR = "OB"
        image.file_meta = pydicom.dataset.FileMetaDataset()
        image.file_meta.TransferSyntaxUID = JPEGLSLossless

    same_as_classic(write_enhanced(slices, tmp_path / "one.dcm", compress), tmp_path)
    path = write_enhanced(slices, tmp_path / "two" / "two.dcm", lambda image: compress(image, spoil=True))
    assert "two.dcm has pixels that cannot be read" in the_error(path)


def test_too_few_frames_of_pixels_are_refused(slices, tmp_path):
    def cut(image: Dataset) -> None:
        image.PixelData = image.PixelData[:-400]

    assert "one.dcm has pixels that cannot be read" in the_error(write_enhanced(slices, tmp_path / "one.dcm", cut))


def test_frames_of_a_localizer_are_left_out_and_time_points_told_apart(slices, tmp_path):
    def localizer(image: Dataset) -> None:
        kind = Dataset()
        kind.FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]
        image.PerFrameFunctionalGroupsSequence[0].CTImageFrameTypeSequence = [kind]

    volume = read_volume(write_enhanced([slices[0], *slices], tmp_path / "one.dcm", localizer))
    assert volume.array.shape[0] == SLICES
    assert volume.source.notes == ("1 image(s) of the series with another view or size were left out.",)

    def phases(image: Dataset) -> None:
        for number, frame in enumerate(image.PerFrameFunctionalGroupsSequence):
            frame.FrameContentSequence[0].TemporalPositionIndex = number // SLICES + 1

    def acquisitions(image: Dataset) -> None:
        for number, frame in enumerate(image.PerFrameFunctionalGroupsSequence):
            frame.FrameContentSequence[0].FrameAcquisitionNumber = number // SLICES + 1

    two = []
    for each in (*slices, *slices):
        two.append(pydicom.dcmread(each.filename))
        two[-1].PixelData = (two[-1].pixel_array + (len(two) > SLICES)).astype("<i2").tobytes()
    volume = read_volume(write_enhanced(two, tmp_path / "two" / "one.dcm", acquisitions))
    assert volume.source.series_uid == f"{UID}#1"
    np.testing.assert_array_equal(volume.array, a_chest())
    path = write_enhanced(slices * 3, tmp_path / "4d" / "one.dcm", phases)
    assert "is a 4-D series of 3 time points" in the_error(path)
    np.testing.assert_array_equal(read_volume(path, f"{UID}#3").array, a_chest())


def test_an_enhanced_ct_without_groups_says_what_is_missing(slices, tmp_path):
    def strip(image: Dataset) -> None:
        for frame in image.PerFrameFunctionalGroupsSequence:
            del frame.PlanePositionSequence

    assert "12 CT without position" in the_error(write_enhanced(slices, tmp_path / "one.dcm", strip))

    def lose(image: Dataset) -> None:
        del image.PerFrameFunctionalGroupsSequence[-1]

    assert "1 multi-frame CT" in the_error(write_enhanced(slices, tmp_path / "two" / "two.dcm", lose))


@pytest.mark.parametrize("degrees", [3.0, -20.0])
def test_a_tilted_gantry_is_straightened_and_every_voxel_stays_in_its_place(degrees, tmp_path):
    angle = np.radians(degrees)
    row, column = np.array([1.0, 0, 0]), np.array([0, np.cos(angle), np.sin(angle)])
    shape = (SLICES, 60, 40)
    positions = ORIGIN + np.outer(2.5 * np.arange(SLICES), [0, 0, 1])
    field = lambda points: np.rint(-400 + 450 * np.sin(points @ [0.11, 0.09, 0.07]))  # noqa: E731
    index = np.moveaxis(np.indices(shape[1:]), 0, -1)
    hu = np.array(
        [field(p + index[..., :1] * PIXEL_MM[0] * column + index[..., 1:] * PIXEL_MM[1] * row) for p in positions]
    )
    write_series(tmp_path, hu, positions, ImageOrientationPatient=[float(f"{v:.8f}") for v in [*row, *column]])
    volume = read_volume(tmp_path)
    assert f"A gantry tilt of {abs(degrees):.1f} degrees was straightened" in volume.source.notes[0]
    axes = volume.grid.affine[:3, :3] / volume.grid.spacing_mm
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    assert volume.grid.spacing_mm == pytest.approx((2.5 * np.cos(angle), *PIXEL_MM))
    expected = field(volume.grid.index_to_lps(np.moveaxis(np.indices(volume.array.shape), 0, -1)))
    seen = ndimage.binary_erosion(volume.array > -1024, np.ones((1, 5, 5)))
    assert seen.mean() > 0.5
    assert np.abs(volume.array - expected)[seen].max() <= 4
    places = find_slices(tmp_path).place
    back = places.on_slices(volume.array)
    assert back.shape == shape
    assert np.abs(back - hu)[:, 2:-2].mean() < 15, "by at most half a pixel from where it was"


def test_whole_pixels_of_tilt_are_shifted_without_changing_a_value(tmp_path):
    wide = np.pad(np.repeat(a_chest(), 3, axis=1), [(0, 0), (0, SLICES), (0, 0)], mode="reflect")
    rows = wide.shape[1] - SLICES
    positions = ORIGIN + np.outer(np.arange(SLICES), [0, PIXEL_MM[0], 2.0])
    write_series(tmp_path, [layer[k : k + rows] for k, layer in enumerate(wide)], positions)
    volume = read_volume(tmp_path)
    for k, layer in enumerate(wide):
        np.testing.assert_array_equal(volume.array[k, k : k + rows], layer[k : k + rows])
        assert (np.delete(volume.array[k], np.arange(k, k + rows), axis=0) == -1024).all()
    np.testing.assert_array_equal(find_slices(tmp_path).place.on_slices(volume.array)[3], wide[3, 3 : 3 + rows])


def test_more_tilt_than_a_gantry_has_is_refused(tmp_path):
    write_series(tmp_path, positions=ORIGIN + np.outer(np.arange(SLICES), [0, 2.0, 2.0]))
    assert "45.0 degrees off their normal, more than a gantry tilts" in the_error(tmp_path)
