"""The same chest gives the same nodules from a tilted gantry and from enhanced CT, on the original slices."""

import highdicom as hd
import numpy as np
import pydicom
import pytest
from dicom_files import write_series
from enhanced_ct import classic_slices, write_enhanced
from LNHGLib.image.reader import read_volume
from LNHGLib.report import write
from LNHGLib.results.writer import write_result
from LNHGLib.segmentation import pipeline
from scipy import ndimage
from tiny_model import tiny_chest, with_stand_ins, write_model

PATIENT = {
    "PatientName": "Doe^Jane", "PatientBirthDate": "", "PatientSex": "F", "StudyDate": "20200304", "StudyID": "1",
    "StudyTime": "101112", "AccessionNumber": "", "ReferringPhysicianName": "", "SeriesNumber": 3, "Manufacturer": "M",
    "FrameOfReferenceUID": "1.2.98", "PositionReferenceIndicator": "", "InstanceNumber": 1, "SliceThickness": 2.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return with_stand_ins(write_model(tmp_path_factory.mktemp("tilted") / "tiny"))


@pytest.fixture(scope="module")
def chest():
    return tiny_chest(spacing_mm=(4.0, 2.0, 3.0))


@pytest.fixture(scope="module")
def labels(chest, model) -> np.ndarray:
    return pipeline.segment(chest, model).labels > 0


def write_tilted(chest, folder, pixels_per_slice: float):
    """Write slices each of which begins so many rows farther on than the one before; the chest lies in all of them."""
    (z, _, _), spacing = chest.array.shape, chest.grid.spacing_mm
    room = int(np.ceil(z * pixels_per_slice))
    wide = np.pad(chest.array, [(0, 0), (room, room), (0, 0)], constant_values=-1000).astype(np.float32)
    rows, hu, positions = chest.array.shape[1] + room, [], []
    for k, layer in enumerate(wide):
        start = k * pixels_per_slice
        moved = ndimage.shift(layer, (-start, 0), order=3, mode="nearest") if start % 1 else layer[int(start) :]
        hu.append(np.rint(moved[:rows]).astype(np.int16))
        positions.append(chest.grid.index_to_lps((k, start - room, 0)))
    return write_series(folder, hu, positions, PixelSpacing=list(spacing[1:]), **PATIENT)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


@pytest.mark.parametrize(("pixels_per_slice", "least"), [(1.0, 0.99), (0.37, 0.9)], ids=["whole pixels", "resampled"])
def test_a_tilted_gantry_gives_the_same_nodules_on_the_original_slices(
    pixels_per_slice, least, chest, model, labels, tmp_path
):
    ct = write_tilted(chest, tmp_path / "ct", pixels_per_slice)
    volume = read_volume(ct)
    assert "gantry tilt" in volume.source.notes[0]
    result = pipeline.segment(volume, model)
    row = int(np.rint(volume.grid.lps_to_index(chest.grid.index_to_lps((0, 0, 0)))[1]))
    straight = result.labels[:, row : row + labels.shape[1]] > 0
    assert dice(straight, labels) >= least
    write_result(result, tmp_path / "result")
    notes = write.write_report(write.ReportOptions(tmp_path / "result", tmp_path / "out", parts=("dicom",)))
    assert notes == []
    headers = sorted(
        (pydicom.dcmread(path) for path in ct.iterdir()), key=lambda header: header.ImagePositionPatient[2]
    )
    found = hd.seg.segread(tmp_path / "out" / write.SEG).get_pixels_by_source_instance(
        [header.SOPInstanceUID for header in headers], combine_segments=True, assert_missing_frames_are_empty=True
    )
    rows, kept = labels.shape[1], []
    for k, frame in enumerate(found):
        start = int(np.rint(volume.grid.lps_to_index(np.array(headers[k].ImagePositionPatient, float))[1]))
        wide = np.zeros((volume.grid.shape[1], labels.shape[2]), bool)
        wide[start : start + len(frame)] = frame > 0
        kept.append(wide[row : row + rows])
    assert dice(np.array(kept), labels) >= least


def test_enhanced_ct_gives_the_same_label_map(chest, model, tmp_path):
    positions = [chest.grid.index_to_lps((k, 0, 0)) for k in range(len(chest.array))]
    spacing = list(chest.grid.spacing_mm[1:])
    classic = write_series(tmp_path / "classic", chest.array, positions, PixelSpacing=spacing, **PATIENT)
    write_enhanced(classic_slices(classic), tmp_path / "enhanced" / "one.dcm")
    one, other = (pipeline.segment(read_volume(tmp_path / name), model) for name in ("classic", "enhanced"))
    assert one.labels.any()
    np.testing.assert_array_equal(other.labels, one.labels)
    np.testing.assert_array_equal(other.heterogeneity, one.heterogeneity)
