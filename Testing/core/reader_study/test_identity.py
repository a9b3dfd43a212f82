"""No identity leaves: whatever names, dates and UIDs a CT carries, a reader study made of it carries none of them."""

import logging

import planted
import pydicom
import pytest
from LNHGLib.__main__ import main
from PIL import Image, PngImagePlugin
from tiny_model import tiny_chest, write_model

pytestmark = pytest.mark.slow


STUDY_PARTS = {".png", ".dcm", ".html", ".json", ".csv", ".txt"}


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return planted.write_series(tmp_path_factory.mktemp("scan"), tiny_chest())


@pytest.fixture(scope="module")
def result(tmp_path_factory, scan):
    folder = tmp_path_factory.mktemp("results")
    model = write_model(folder.parent / "identity-model").folder
    assert main(["segment", str(scan), str(folder / "case-1"), "--model", str(model), "--device", "cpu"]) == 0
    return folder


def test_the_search_finds_what_is_planted(scan, result, tmp_path):
    """Else the next test would prove nothing."""
    file = sorted(scan.iterdir())[0]
    found = planted.found_in(file)
    for needle in ("plant", planted.UID_ROOT, planted.DATE, planted.TIME, "777.125"):
        assert any(needle in text for text in found), needle
    header = pydicom.dcmread(file)
    texts = [element for element in header.iterall() if element.VR in planted.MADE and element.tag.group >= 8]
    assert len(texts) > 1500
    hidden = [element for element in texts if not planted.search(str(element.value).encode())]
    assert {element.keyword for element in hidden} <= planted.NEEDED
    assert any("report.json" in text for text in planted.found_in(result))
    note = PngImagePlugin.PngInfo()
    note.add_text("comment", "PLANT00100010", zip=True)
    Image.new("L", (4, 4)).save(tmp_path / "a.png", pnginfo=note)
    assert planted.found_in(tmp_path / "a.png")
    (tmp_path / "b.html").write_bytes("xPLANT00100010".encode("utf-16"))
    assert planted.found_in(tmp_path / "b.html")


@pytest.mark.parametrize("layout", ["strip", "stack"])
def test_no_byte_of_a_study_and_no_word_on_the_console_tells_who_the_patient_is(
    result, scan, tmp_path, capsys, caplog, layout
):
    study, folders = tmp_path / "study", (str(scan.parent), str(result))
    caplog.set_level(logging.DEBUG)
    assert (
        main(["reader-study", "export", str(result), str(study), "--readers", "2", "--dicom", "--layout", layout]) == 0
    )
    files = [path for path in study.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == STUDY_PARTS
    assert planted.found_in(study, folders) == []
    told = capsys.readouterr()
    assert planted.search((told.out + told.err + caplog.text).encode(), folders) == []
    for path in study.rglob("*.dcm"):
        header = pydicom.dcmread(path)
        assert not [element for element in header.iterall() if element.tag.is_private]
        assert planted.search(str(header).encode(), folders) == []
        assert path.read_bytes()[:128] == bytes(128)


def test_a_failure_leaves_nothing_behind(result, scan, tmp_path):
    elsewhere = scan.rename(scan.with_name("moved"))
    try:
        assert main(["reader-study", "export", str(result), str(tmp_path / "study")]) == 2
        assert list(tmp_path.iterdir()) == []
    finally:
        elsewhere.rename(scan)
