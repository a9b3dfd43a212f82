"""One series is one acquisition of one patient: several under one UID are told apart, or refused."""

import numpy as np
import pytest
from cohort_data import zip_folder
from dicom_files import SLICES, UID, a_chest, along_z, write_series, write_slice
from LNHGLib.batch import segment_case
from LNHGLib.batch.discover import find_cases
from LNHGLib.errors import InputError
from LNHGLib.image.reader import read_volume
from pydicom.uid import XRay3DAngiographicImageStorage

LONG = np.concatenate([a_chest(1), a_chest(2)[:3]])
EVEN = along_z(2.0 * np.arange(len(LONG)))
BETWEEN = along_z(1.0 + 2.0 * np.arange(SLICES))
DIFFERENCES = {
    "patient": {"PatientID": "P2"},
    "patient's name alone": {"PatientName": "Roe^Richard"},
    "study": {"StudyInstanceUID": "1.2.4"},
    "frame of reference": {"FrameOfReferenceUID": "1.2.99"},
    "acquisition": {"AcquisitionNumber": 2},
    "time point": {"TemporalPositionIdentifier": 2},
    "trigger": {"TriggerTime": 400.0},
    "kernel": {"ConvolutionKernel": "B80f"},
    "type": {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]},
    "content time": {"ContentTime": "130500"},
}
COMMON = {
    "PatientName": "Doe^Jane", "FrameOfReferenceUID": "1.2.98", "AcquisitionNumber": 1, "TriggerTime": 0.0,
    "TemporalPositionIdentifier": 1, "ConvolutionKernel": "B30f", "ContentTime": "130000",
}  # fmt: skip


def the_error(path, name=None) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path, name)
    sentence = str(caught.value)
    assert len(sentence.replace(str(path), "").replace(UID, "")) <= 200
    return sentence


@pytest.mark.parametrize("positions", [BETWEEN, EVEN[:SLICES]], ids=["interleaved", "same places"])
@pytest.mark.parametrize("tags", DIFFERENCES.values(), ids=DIFFERENCES)
def test_the_longer_of_two_volumes_is_taken_and_the_other_can_be_chosen(tags, positions, tmp_path):
    write_series(tmp_path, LONG, EVEN, "a{}.dcm", **COMMON)
    write_series(tmp_path, a_chest(5), positions, "b{}.dcm", **(COMMON | tags))
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, LONG)
    (note,) = volume.source.notes
    assert note.startswith("The series holds 2 volumes: took ")
    mine = volume.source.series_uid
    other = note.rpartition("--series ")[2].removesuffix(").")
    assert {mine, other} == {f"{UID}#1", f"{UID}#2"}
    np.testing.assert_array_equal(read_volume(tmp_path, other).array, a_chest(5))
    np.testing.assert_array_equal(read_volume(tmp_path, mine).array, LONG)
    np.testing.assert_array_equal(read_volume(tmp_path / "b3.dcm").array, a_chest(5))


def test_two_breath_holds_without_numbers_are_told_by_the_pause_between_their_times(tmp_path):
    for i, hu in enumerate(LONG):
        write_slice(tmp_path / f"a{i}", hu, EVEN[i], AcquisitionTime=f"1300{i:02}.5")
    for i, hu in enumerate(a_chest(5)):
        write_slice(tmp_path / f"b{i}", hu, BETWEEN[i], AcquisitionTime=f"1305{i:02}")
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, LONG)
    assert "2 volumes" in volume.source.notes[0]


@pytest.mark.parametrize("tags", [{"PatientID": "P2"}, {"AcquisitionNumber": 2}], ids=["patient", "acquisition"])
def test_a_few_slices_of_another_are_refused(tags, tmp_path):
    write_series(tmp_path, LONG[:12], along_z(2.0 * np.arange(12)), "a{}", **COMMON)
    write_series(tmp_path, LONG[12:], along_z([5.0, 7.0, 9.0]), "b{}", **(COMMON | tags))
    assert f"mixes slices of more than one {'patient' if 'PatientID' in tags else 'acquisition'}" in the_error(tmp_path)


def test_slices_of_two_patients_that_go_on_end_to_end_are_not_joined(tmp_path):
    write_series(tmp_path, LONG, EVEN, "a{}", **COMMON)
    write_series(tmp_path, a_chest(5), along_z(2.0 * (len(LONG) + np.arange(SLICES))), "b{}", PatientID="P2")
    np.testing.assert_array_equal(read_volume(tmp_path).array, LONG)


def test_acquisitions_end_to_end_are_one_volume_and_rotations_are_not_even_mentioned(tmp_path):
    for i, hu in enumerate(LONG):
        write_slice(tmp_path / "rotations" / str(i), hu, EVEN[i], AcquisitionNumber=i // 4)
        write_slice(tmp_path / "one each" / str(i), hu, EVEN[i], AcquisitionNumber=i, ContentTime=f"1300{i:02}")
    for folder in ("rotations", "one each"):
        volume = read_volume(tmp_path / folder)
        np.testing.assert_array_equal(volume.array, LONG)
        assert volume.source.notes == ()
    write_series(tmp_path / "two", a_chest(1), name="a{}", AcquisitionNumber=1)
    write_series(tmp_path / "two", a_chest(2), along_z(24 + 2.0 * np.arange(SLICES)), "b{}", AcquisitionNumber=2)
    volume = read_volume(tmp_path / "two")
    assert len(volume.array) == 2 * SLICES
    assert volume.source.notes == ("The series holds 2 acquisitions that lie end to end; they were joined.",)


def test_tags_that_only_some_slices_have_part_nothing(tmp_path):
    for i, hu in enumerate(LONG):
        tags = {"PatientName": "Doe^Jane", "FrameOfReferenceUID": "1.2.98"} if i % 2 else {}
        name = {"PatientName": "DOE^JANE^"} if i % 4 == 1 else {}
        write_slice(tmp_path / str(i), hu, EVEN[i], **(tags | name))
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, LONG)
    assert volume.source.notes == ()


def test_a_4d_series_says_what_it_is_and_one_time_point_can_be_taken(tmp_path):
    for phase in range(3):
        write_series(
            tmp_path, a_chest(phase), name=f"{phase}-{{}}", TemporalPositionIdentifier=phase + 1, **{"SeriesNumber": 4}
        )
    sentence = the_error(tmp_path)
    assert "is a 4-D series of 3 time points" in sentence
    assert f"--series {UID}#1 to #3" in sentence
    np.testing.assert_array_equal(read_volume(tmp_path, f"{UID}#2").array, a_chest(1))
    assert "no volume #4" in the_error(tmp_path, f"{UID}#4")


def test_a_dual_energy_series_says_what_it_is(tmp_path):
    for number, kv in enumerate((80, 140)):
        write_series(tmp_path, a_chest(number), name=f"{kv}-{{}}", KVP=kv)
    assert "is a dual-energy series with 2 tube voltages" in the_error(tmp_path)
    np.testing.assert_array_equal(read_volume(tmp_path, f"{UID}#2").array, a_chest(1))


@pytest.mark.parametrize(
    ("tags", "kind"),
    [
        ({"SeriesDescription": "CBCT thorax"}, "cone-beam CT"),
        ({"SOPClassUID": XRay3DAngiographicImageStorage, "Modality": "XA"}, "cone-beam CT"),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "MAT_SPECIFIC"]}, "dual-energy material map"),
        ({"RescaleType": "MGML"}, "dual-energy material map"),
        ({"SeriesDescription": "Lung Perfusion 4D"}, "perfusion CT"),
    ],
)
def test_what_is_no_plain_ct_is_named_with_the_reason(tags, kind, tmp_path):
    write_series(tmp_path, **tags)
    assert f"12 {kind}" in the_error(tmp_path)


def test_the_longest_part_of_two_spacings_is_offered_and_taken(tmp_path):
    hu = np.concatenate([a_chest(1), a_chest(2)])
    steps = np.concatenate([1.25 * np.arange(12), 15 + 2.5 * np.arange(12)])
    write_series(tmp_path, hu, along_z(steps))
    sentence = the_error(tmp_path)
    assert "misses" not in sentence
    name = sentence.rpartition("--series ")[2].removesuffix(".")
    assert "2.5 mm apart from -285 to -257.5 mm" in sentence
    volume = read_volume(tmp_path, name)
    assert volume.grid.spacing_mm[0] == pytest.approx(2.5)
    np.testing.assert_array_equal(volume.array, hu[12:])


@pytest.mark.parametrize("zipped", [False, True])
def test_two_patients_under_one_uid_are_two_cases_of_a_batch(zipped, tmp_path):
    write_series(tmp_path / "in" / "a", LONG, EVEN)
    write_series(tmp_path / "in" / "b", a_chest(5), PatientID="P2")
    if zipped:
        zip_folder(tmp_path / "in", tmp_path / "zip" / "in.zip")
    cases = find_cases([str(tmp_path / ("zip" if zipped else "in"))], tmp_path / "out").cases
    assert [case.series_uid for case in cases] == [f"{UID}#1", f"{UID}#2"]
    found = []
    for case in cases:
        (tmp_path / case.id).mkdir()
        found.append(segment_case.read_case(case, tmp_path / case.id))
    assert [volume.source.patient_id for volume in found] == ["P1", "P2"]
    np.testing.assert_array_equal(found[0].array, LONG)
    np.testing.assert_array_equal(found[1].array, a_chest(5))


def test_a_name_that_is_none_is_refused(tmp_path):
    write_series(tmp_path)
    assert "expected UID or UID#NUMBER" in the_error(tmp_path, f"{UID}#x")
    assert "expected the name of the series alone" in the_error(tmp_path, f"{UID}#2")
