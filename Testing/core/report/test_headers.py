"""Reports of series whose headers lack something, break the standard, or are in any of DICOM's character sets."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from LNHGLib.__main__ import main
from LNHGLib.report import dicom_seg, dicom_sr, page, write
from raw_dicom import rewrite
from report_data import make_scan, write_dicom, write_result

NAMES = {  # character sets with the bytes of a name, as examples of the standard (PS3.5, H to K) have it
    "Latin-1": (b"ISO_IR 100", b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
    "Latin-2": (b"ISO_IR 101", b"W\xb1sowski^\xa3ukasz", "Wąsowski^Łukasz"),
    "Latin-5": (b"ISO_IR 148", b"\xc7avu\xfeo\xf0lu", "Çavuşoğlu"),
    "Cyrillic": (b"ISO_IR 144", b"\xbb\xee\xda\x63\x65\xdc\xd1\xe3\xe0\xd3", "Люкceмбург"),  # noqa: RUF001
    "Greek": (b"ISO_IR 126", b"\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2", "Διονυσιος"),
    "Arabic": (b"ISO_IR 127", b"\xe2\xc8\xc7\xe6\xea^\xe4\xe6\xd2\xc7\xd1", "قباني^لنزار"),
    "Hebrew": (b"ISO_IR 138", b"\xf9\xf8\xe5\xef^\xe3\xe1\xe5\xf8\xe4", "שרון^דבורה"),
    "Thai": (b"ISO_IR 166", b"\xca\xc1\xaa\xd2\xc2", "สมชาย"),
    "half-width Japanese": (b"ISO_IR 13", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
    "Japanese": (
        b"\\ISO 2022 IR 87",
        b"Yamada^Tarou=\033$B;3ED\033(B^\033$BB@O:\033(B=\033$B$d$^$@\033(B^\033$B$?$m$&\033(B",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
    ),
    "Japanese with two extensions": (
        b"ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\033$B;3ED\033(J^\033$BB@O:\033(J",
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎",
    ),
    "Korean": (
        b"\\ISO 2022 IR 149",
        b"Hong^Gildong=\033$)C\xfb\xf3^\033$)C\xd1\xce\xd4\xd7=\033$)C\xc8\xab^\033$)C\xb1\xe6\xb5\xbf",
        "Hong^Gildong=洪^吉洞=홍^길동",
    ),
    "Chinese in GB18030": (b"GB18030", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab", "Wang^XiaoDong=王^小东"),
    "Chinese in GBK": (b"GBK", b"\xcd\xf5^\xd0\xa1\xb6\xab", "王^小东"),
    "Unicode": (b"ISO_IR 192", "Wang^XiaoDong=王^小東".encode(), "Wang^XiaoDong=王^小東"),
    "Unicode that names no set": (None, "Müller^Jörg".encode(), "Müller^Jörg"),
}
FAULTY = {
    "birth date with dashes": {"PatientBirthDate": b"1950-01-01"},
    "date with points": {"StudyDate": b"2020.01.01"},
    "two dates": {"StudyDate": b"20200101\\20200102"},
    "time with colons": {"StudyTime": b"12:00:00"},
    "sex in words": {"PatientSex": b"MALE"},
    "small letter": {"PatientSex": b"m"},
    "age without a unit": {"PatientAge": b"70"},
    "weight in words": {"PatientWeight": b"seventy"},
    "control characters": {"StudyID": b"\x01\x02", "AccessionNumber": b"A\x00B"},
    "long texts": {"PatientName": b"x" * 200, "PatientID": b"y" * 200, "AccessionNumber": b"z" * 40},
    "several values": {"PatientID": b"A\\B", "PatientName": b"A\\B", "AccessionNumber": b"1\\2"},
    "too many parts of a name": {"PatientName": b"a^b^c^d^e^f^g=h=i=j"},
    "numbers that are none": {"SeriesNumber": b"3.0", "InstanceNumber": b"x"},
    "no set of that name": {"SpecificCharacterSet": b"ISO_IR 999", "PatientName": b"M\xfcller"},
    "bytes of another set": {"SpecificCharacterSet": b"ISO_IR 192", "PatientName": b"M\xfcller"},
    "unnamed bytes": {"PatientName": b"M\xfcller"},
    "long numbers": {"PatientSize": b"1.2345678901234567890"},
    "no thickness": {"SliceThickness": b""},
    "thickness of zero": {"SliceThickness": b"0"},
}


@pytest.fixture(scope="module")
def scan():
    return make_scan(np.array([[0, 0, 2.0], [0, 2.0, 0], [4.0, 0, 0]]))


@pytest.fixture(scope="module")
def home(scan, tmp_path_factory):
    """A folder with the DICOM series `ct` and its result `result`."""
    home = tmp_path_factory.mktemp("headers")
    write_result(scan, home / "result", write_dicom(scan, home / "ct"))
    return home


def reported(home: Path, tmp_path: Path, *options: str, **values: bytes | None) -> set[str]:
    """Report the series with other bytes in its headers; return the names of the files."""
    shutil.copytree(home / "ct", tmp_path / "ct")
    for file in (tmp_path / "ct").iterdir():
        rewrite(file, **values)
    arguments = ["report", home / "result", tmp_path / "out", "--dicom", tmp_path / "ct", *options]
    assert main([str(argument) for argument in arguments]) == 0
    return {path.name for path in (tmp_path / "out").iterdir()}


def objects(tmp_path: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(tmp_path / "out" / name) for name in (write.SEG, write.SR)]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_any_character_set_is_the_same_name_in_seg_and_sr(home, tmp_path, capsys, name):
    declared, written, expected = NAMES[name]
    reported(home, tmp_path, "--only", "dicom", SpecificCharacterSet=declared, PatientName=written)
    assert [str(found.PatientName) for found in objects(tmp_path)] == [expected, expected]
    assert "note" not in capsys.readouterr().err


@pytest.mark.parametrize("name", FAULTY)
def test_headers_that_break_the_standard_keep_no_part_back(home, tmp_path, capsys, name):
    assert reported(home, tmp_path, "--only", "dicom", **FAULTY[name]) == {write.SEG, write.SR}
    for found in objects(tmp_path):
        for element in found:  # what is repeated conforms
            if element.VR in ("DA", "TM", "AS", "DS", "IS") and element.value:
                pydicom.valuerep.validate_value(element.VR, str(element.value), pydicom.config.RAISE)
    notes = [line for line in capsys.readouterr().err.splitlines() if "note:" in line]
    assert len(notes) <= 1
    assert all("not as DICOM has it" in note for note in notes)


def test_a_series_without_what_seg_and_sr_must_have_gives_it_empty(home, tmp_path, capsys):
    names = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID")
    names = (*names, "AccessionNumber", "ReferringPhysicianName", "SliceThickness", "SeriesNumber", "Manufacturer")
    assert reported(home, tmp_path, "--only", "dicom", **dict.fromkeys(names)) == {write.SEG, write.SR}
    for found in objects(tmp_path):
        assert all(name in found and not found[name].value for name in names[:9])
    measures = objects(tmp_path)[0].SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(measures.SliceThickness) == 4.0
    assert "note" not in capsys.readouterr().err


def test_faults_are_told_by_name_and_pages_show_what_the_series_states(home, tmp_path, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(page, "write_pages", lambda _case, _folder, _form, options: seen.append(options.patient))
    reported(home, tmp_path, "--identity", PatientBirthDate=b"1950-01-01", PatientSex=b"MALE", PatientID=b"A\\B")
    assert "PatientBirthDate, PatientSex not as DICOM has it" in capsys.readouterr().err
    assert dict(seen[0]) == {"Patient": "Doe^Jane, A B", "Born, sex": "1950-01-01, MALE", "Study": "20200304, A77"}


def test_files_without_preamble_and_meta_information_are_taken(home, tmp_path):
    shutil.copytree(home / "ct", tmp_path / "ct")
    for file in (tmp_path / "ct").iterdir():
        bare = pydicom.Dataset(pydicom.dcmread(file))
        pydicom.dcmwrite(file, bare, implicit_vr=True, little_endian=True, enforce_file_format=False)
    arguments = [
        "report",
        str(home / "result"),
        str(tmp_path / "out"),
        "--dicom",
        str(tmp_path / "ct"),
        "--page",
        "png",
    ]
    assert main(arguments) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {write.TABLE, write.SEG, write.SR, "report.png"}


@pytest.mark.parametrize(
    ("place", "left", "words"),
    [
        ((dicom_seg, "make_segmentation"), {write.TABLE, write.SR, "report.pdf"}, "No DICOM SEG was written: "),
        ((dicom_sr, "make_report"), {write.TABLE, write.SEG, "report.pdf"}, "No DICOM SR was written: "),
        ((page, "write_pages"), {write.TABLE, write.SEG, write.SR}, "No page was written: "),
    ],
)
def test_a_part_that_fails_loses_no_other_and_leaves_nothing_half_written(
    home, tmp_path, capsys, monkeypatch, place, left, words
):
    def fail(*arguments, **_):
        for folder in arguments:
            if isinstance(folder, Path):
                (folder / "report.pdf").write_bytes(b"half")
        raise AttributeError("no such\nelement")

    monkeypatch.setattr(*place, fail)
    assert reported(home, tmp_path) == left
    notes = [line for line in capsys.readouterr().err.splitlines() if "note:" in line]
    assert len(notes) == 1
    assert f"{words}it failed unexpectedly (no such element)" in notes[0]
    if write.SR in left:
        assert pydicom.dcmread(tmp_path / "out" / write.SR).SOPClassUID == pydicom.uid.Comprehensive3DSRStorage


def test_nothing_is_written_where_the_only_part_fails(home, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(page, "write_pages", lambda *_: 1 / 0)
    arguments = ["report", str(home / "result"), str(tmp_path / "out"), "--only", "page"]
    assert main(arguments) == 2
    assert "No page was written" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["labelmap", "heterogeneity"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_map_that_was_cut_short_is_refused(home, tmp_path, capsys, name, share):
    shutil.copytree(home / "result", tmp_path / "result")
    path = tmp_path / "result" / f"{name}.nii.gz"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert main(["report", str(tmp_path / "result"), str(tmp_path / "out")]) == 2
    assert f"{name}.nii.gz is damaged" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
