"""A reader study on the disk: complete or absent, sealed, verifiable, and each package with its own session only."""

import csv
import hashlib
import json
import re
import shutil
import stat
import subprocess
from collections import Counter

import numpy as np
import pydicom
import pytest
from LNHGLib.errors import Cancelled, InputError
from LNHGLib.reader_study import blinding_key
from LNHGLib.reader_study import export as study_export
from LNHGLib.reader_study.cases import StudyCase
from LNHGLib.reader_study.export import StudyOptions, export_study
from LNHGLib.reader_study.images import RenderStyle, render
from LNHGLib.reader_study.scores import CT, CT_MAP, MODALITIES, read_scores, read_truth
from PIL import Image
from study_cases import some_cases
from study_player import session_of

CASES, READERS = 6, ("R1", "R2", "R3")
SEED = 2**70 + 1


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "new" / "study"
    export_study(some_cases(CASES), out, StudyOptions(READERS, repeats=0.2, seed=SEED, dicom=True))
    return out


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_package_holds_the_pictures_of_its_own_reads_and_nothing_else(study):
    reads = table(study / "sealed" / "reads.csv")
    assert Counter(Counter(read["readerID"] for read in reads).values()) == {14: 3}
    for reader in READERS:
        for session in (1, 2):
            package = study / "packages" / f"{reader}-session-{session}"
            mine = [read for read in reads if (read["readerID"], read["session"]) == (reader, str(session))]
            wanted = {"viewer.html", *(f"images/{read['image']}-01.png" for read in mine)}
            wanted |= {f"dicom/{read['image']}-001.dcm" for read in mine}
            assert {p.relative_to(package).as_posix() for p in package.rglob("*") if p.is_file()} == wanted
            shown = [(read["case"], read["modality"], read["repeat"]) for read in session_of(package)["reads"]]
            assert shown == [(r["caseID"], r["modalityID"], r["repeat"] == "1") for r in mine]


def test_every_picture_is_the_one_that_the_key_says(study):
    style, names = RenderStyle(), {row["caseID"]: row["result"] for row in table(study / "sealed" / "key.csv")}
    rendered = {entry.origin: render(entry.load(), style).frames for entry in some_cases(CASES)}
    for read in table(study / "sealed" / "reads.csv"):
        package = study / "packages" / f"{read['readerID']}-session-{read['session']}"
        expected = rendered[names[read["caseID"]]][read["modalityID"]][0]
        picture = np.asarray(Image.open(package / "images" / f"{read['image']}-01.png"))
        np.testing.assert_array_equal(picture, expected)
        capture = pydicom.dcmread(package / "dicom" / f"{read['image']}-001.dcm")
        np.testing.assert_array_equal(capture.pixel_array, expected)


def test_only_the_key_tells_truth_origin_and_seed(study):
    sealed = study / "sealed"
    assert {path.name for path in sealed.iterdir()} == {"key.csv", "reads.csv", "seed.json", "truth.csv"}
    assert stat.S_IMODE(sealed.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in sealed.iterdir()} == {0o600}
    truth = read_truth(sealed / "truth.csv")
    assert {row["caseID"]: int(row["truth"]) for row in table(sealed / "key.csv")} == truth
    assert json.loads((sealed / "seed.json").read_text())["seed"] == SEED
    for path in (path for path in study.rglob("*") if path.is_file() and path.parent != sealed):
        content = path.read_bytes()
        assert b"result-" not in content
        assert str(SEED).encode() not in content
        assert not re.search(rb'truth["\s]*[:,]\s*[01]', content)


def test_score_sheets_wait_for_scores_and_lie_outside_the_packages(study):
    sheets = sorted((study / "sheets").iterdir())
    assert [path.name for path in sheets[:2]] == ["R1-session-1.csv", "R1-session-2.csv"]
    scores = read_scores(sheets, complete=False)
    assert len(scores) == 42
    assert {score.score for score in scores} == {None}
    pictures = {path.name for path in study.rglob("*.png")}
    assert {row["image"] for path in sheets for row in table(path)} == pictures


def test_captures_carry_the_deidentification_profile_and_no_time(study):
    captures = [pydicom.dcmread(path) for path in sorted(study.rglob("*.dcm"))]
    uids = [capture.SOPInstanceUID for capture in captures]
    assert len(set(uids)) == len({capture.SeriesInstanceUID for capture in captures}) == len(captures) == 42
    assert len({(capture.StudyInstanceUID, capture.PatientID) for capture in captures}) == 6
    for capture in captures:
        (code,) = capture.DeidentificationMethodCodeSequence
        assert (code.CodeValue, code.CodingSchemeDesignator) == ("113100", "DCM")
        assert (capture.PatientIdentityRemoved, capture.BurnedInAnnotation) == ("YES", "NO")
        assert capture.LongitudinalTemporalInformationModified == "REMOVED"
        assert capture.file_meta.MediaStorageSOPInstanceUID == capture.SOPInstanceUID
        timed = [element for element in capture.iterall() if element.VR in ("DA", "TM", "DT") and element.value]
        assert not timed
        assert max(len(str(element.value)) for element in capture.iterall() if element.VR == "LO") <= 64
    orders = {(c.PatientID, c.SeriesNumber) for c in captures}
    assert len(orders) == 42


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy is missing: install Debian's dicom3tools")
def test_dciodvfy_finds_no_error_in_a_capture(study, tmp_path):
    path = next(study.rglob("*.dcm"))
    assert errors_of(path) == []
    broken = pydicom.dcmread(path)
    del broken.ConversionType
    broken.save_as(tmp_path / "broken.dcm")
    assert errors_of(tmp_path / "broken.dcm")


def errors_of(path):
    told = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    return [line for line in (told.stdout + told.stderr).splitlines() if line.startswith("Error")]


def test_the_same_seed_gives_the_same_bytes_and_names_do_not_depend_on_the_cases(tmp_path, study):
    again = tmp_path / "again"
    export_study(some_cases(CASES), again, StudyOptions(READERS, repeats=0.2, seed=SEED, dicom=True))
    assert bytes_of(again) == bytes_of(study)
    others = [
        StudyCase(f"other-{index}", 7, entry.load, entry.truth) for index, entry in enumerate(some_cases(CASES)[::-1])
    ]
    export_study(others, tmp_path / "others", StudyOptions(READERS, repeats=0.2, seed=SEED))
    names = [[row["caseID"] for row in table(out / "sealed" / "key.csv")] for out in (study, tmp_path / "others")]
    assert names[0] == names[1]
    export_study(some_cases(2), tmp_path / "drawn", StudyOptions(("R1",)))
    assert json.loads((tmp_path / "drawn" / "sealed" / "seed.json").read_text())["seed"] > 2**64


def bytes_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_any_change_of_the_study_shows(tmp_path):
    out = tmp_path / "study"
    outcome = export_study(some_cases(2), out, StudyOptions(("R1",)))
    assert outcome.sha256 == hashlib.sha256((out / "study.json").read_bytes()).hexdigest()
    count = sum(path.is_file() for path in out.rglob("*"))
    assert blinding_key.verify(out) == count - 1
    for path in sorted(path for path in out.rglob("*") if path.is_file() and path.name != "study.json"):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(InputError, match="was changed"):
            blinding_key.verify(out)
        path.write_bytes(content)
    (out / "sealed").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"sealed/key\.csv .*is missing, and 3 more"):
        blinding_key.verify(out)
    assert blinding_key.verify(out, tmp_path / "elsewhere") == count - 1
    (out / "packages" / "R1-session-1" / "truth.txt").touch()
    with pytest.raises(InputError, match=r"truth\.txt .*was added"):
        blinding_key.verify(out, tmp_path / "elsewhere")
    for damaged in ("", "{", "[1]", "null", '{"sha256": 1}', '{"sha256": [1]}'):
        (tmp_path / "study.json").write_text(damaged)
        with pytest.raises(InputError, match="is no reader study"):
            blinding_key.verify(tmp_path)


OLD_STUDY = {
    "README.txt": "A reader study made by LNHG 0.1.0.\n",
    "sealed/key.csv": "caseID,result,nodule,truth\nKZ2T7B0QXF,a,1,1\n9HN4GDXX2C,b,2,0\n",
    "sealed/truth.csv": "caseID,truth\nKZ2T7B0QXF,1\n9HN4GDXX2C,0\n",
    "study.json": """{
 "schema": 1,
 "study": "174HHV8PJ9",
 "lnhg": "0.1.0",
 "look": {"layout": "slice", "color_map": "jet", "signal_range": [0.0, 1.0], "opacity": 1.0, "field_mm": 60.0},
 "sha256": {
  "README.txt": "6ce2c8edbd5f180d34d64f5f85c2b294bef6e4b0fa5df6d5a4c5aab098401130",
  "sealed/key.csv": "9d87f6046e696ea217cf8acbd7f45254451df84679570f2c9cbb01a50dcacf9d",
  "sealed/truth.csv": "5b7878ea0791bea1db8e6993de03fe6ea173601efef54ec840c82bddb9b3929e"
 }
}
""",
}
"""Text files of a study as the first version wrote them."""


def test_a_study_of_the_first_version_verifies_and_gives_its_truth(tmp_path):
    (tmp_path / "sealed").mkdir()
    for name, text in OLD_STUDY.items():
        (tmp_path / name).write_bytes(text.encode())
    assert blinding_key.verify(tmp_path) == 3
    assert read_truth(tmp_path / "sealed" / "truth.csv") == {"KZ2T7B0QXF": 1, "9HN4GDXX2C": 0}


def test_a_study_is_never_replaced_and_nothing_is_left_of_one_that_fails(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="already exists"):
        export_study(some_cases(1), tmp_path / "there", StudyOptions())

    def fail():
        raise InputError("damaged")

    with pytest.raises(InputError, match="damaged"):
        export_study([*some_cases(1), StudyCase("x", 1, fail)], tmp_path / "out", StudyOptions())
    with pytest.raises(Cancelled):
        export_study(some_cases(1), tmp_path / "out", StudyOptions(), cancelled=lambda: True)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_study_that_was_made_in_the_same_folder_meanwhile_stays(tmp_path):
    def meanwhile():
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "study.json").write_text("{}")
        return some_cases(1)[0].load()

    with pytest.raises(InputError, match="already exists"):
        export_study([StudyCase("x", 1, meanwhile)], tmp_path / "out", StudyOptions(("R1",)))
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "study.json"]


def test_without_truth_there_is_no_truth_file_and_forced_captures_do_not_claim_to_be_clean(tmp_path):
    options = StudyOptions(("R1",), repeats=0, dicom=True, forced=True, style=RenderStyle("stack"))
    export_study(some_cases(1, truth=False), tmp_path / "out", options)
    assert not (tmp_path / "out" / "sealed" / "truth.csv").exists()
    captures = [pydicom.dcmread(path) for path in (tmp_path / "out").rglob("*.dcm")]
    assert {capture.BurnedInAnnotation for capture in captures} == {"YES"}
    numbers = Counter(capture.SeriesInstanceUID for capture in captures)
    assert len(numbers) == 2
    for folder in (tmp_path / "out" / "packages").iterdir():
        (read,) = session_of(folder)["reads"]
        assert len(read["images"]) == numbers.most_common()[0][1] > 5
        assert all((folder / name).is_file() for name in read["images"])


def test_the_study_file_says_how_the_pictures_look(study):
    described = json.loads((study / "study.json").read_text())
    assert described["window_hu"] == {"width": 1500.0, "level": -600.0}
    assert described["modalities"] == list(MODALITIES) == [CT, CT_MAP]
    assert (described["cases"], described["repeats"], described["washout_days"]) == (6, 1, study_export.WASHOUT_DAYS)
    assert described["look"]["color_map"] == "viridis"
    assert described["look"]["signal_range"] == [0.0, 1.2]
    assert "sealed/key.csv" in described["sha256"]
