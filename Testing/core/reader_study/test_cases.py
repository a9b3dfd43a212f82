"""Which nodules of which results a study takes, and how it finds and checks their CTs; by the command line."""

import csv
import json
import shutil
from pathlib import Path

import pydicom
import pytest
from cohort_data import write_dicom, write_file, zip_folder
from LNHGLib.__main__ import main
from LNHGLib.errors import InputError
from LNHGLib.reader_study.cases import CaseSelection, find_study_cases, read_case_list, write_scene_case
from pydicom.uid import SecondaryCaptureImageStorage
from study_cases import a_nodule, write_result

UID = "1.2.3.4"


@pytest.fixture
def results(tmp_path):
    """Three results: of a file, of a DICOM series, and of a zipped series with a second series beside it."""
    nodule, ct = a_nodule(), tmp_path / "ct"
    other = a_nodule(seed=3).volume
    other.array[...] = other.array[:, ::-1]
    write_result(tmp_path / "out" / "a", write_file(ct / "a.nii.gz", nodule.volume), nodule)
    write_result(tmp_path / "out" / "b", write_dicom(ct / "b", nodule.volume, UID), nodule, UID)
    write_dicom(ct / "c" / "1", other, "1.2.9")
    write_dicom(ct / "c" / "2", nodule.volume, UID)
    write_result(tmp_path / "out" / "c", zip_folder(ct / "c", ct / "c.zip"), nodule, UID)
    return tmp_path / "out"


def export(results, out, *options):
    return main(["reader-study", "export", str(results), str(out), "--readers", "1", *map(str, options)])


def key(study: Path):
    with (study / "sealed" / "key.csv").open(newline="") as file:
        return [(row["result"], row["nodule"], row["truth"]) for row in csv.DictReader(file)]


def test_files_series_and_archives_are_read_again(results):
    reference = a_nodule()
    for entry in find_study_cases([results]):
        nodule = entry.load()
        assert (nodule.volume.array == reference.volume.array).all()
        assert (nodule.mask == reference.mask).all()
        assert nodule.signal[reference.mask] == pytest.approx(reference.signal[reference.mask])


def test_the_command_makes_a_study_that_verifies(results, tmp_path, capsys):
    assert export(results, tmp_path / "study", "--seed", "4", "--layout", "strip", "--ends", "no", "yes") == 0
    told = capsys.readouterr()
    assert "3 cases, 8 reads for R1 in" in told.out
    assert key(tmp_path / "study") == [("a", "1", ""), ("b", "1", ""), ("c", "1", "")]
    seal = told.out.split()[-1]
    assert main(["reader-study", "verify", str(tmp_path / "study")]) == 0
    assert capsys.readouterr().out.split()[-1] == seal
    with (tmp_path / "study" / "packages" / "R1-session-1" / "viewer.html").open("a") as file:
        file.write(" ")
    assert main(["reader-study", "verify", str(tmp_path / "study")]) == 2
    assert "viewer.html" in capsys.readouterr().err


def test_the_best_segmented_nodule_is_taken_unless_a_list_says_otherwise(tmp_path):
    nodule = a_nodule()
    ct = write_file(tmp_path / "ct.nii.gz", nodule.volume)
    kinds = {"0.5": "fused", "0.9": "detector-box", "0.8": "segmenter"}
    write_result(tmp_path / "out" / "p", ct, nodule, **kinds)
    write_result(tmp_path / "out" / "q", ct, nodule, **{"0.9": "detector-box"})
    assert [(entry.origin, entry.nodule) for entry in find_study_cases([tmp_path / "out"])] == [("p", 3)]
    (tmp_path / "list.csv").write_text("result,nodule,truth\np,1,1\np,,0\n")
    entries = find_study_cases([tmp_path / "out"], selections=read_case_list(tmp_path / "list.csv"))
    assert [(entry.nodule, entry.truth) for entry in entries] == [(1, 1), (3, 0)]
    for selection, words in (
        (CaseSelection("p", 2, None), "no segmented nodule 2, expected one of"),
        (CaseSelection("q", None, None), "no segmented nodule"),
        (CaseSelection("r", None, None), "'r', which is not among the 2"),
    ):
        with pytest.raises(InputError, match=words):
            find_study_cases([tmp_path / "out"], selections=[selection])
    with pytest.raises(InputError, match="chosen twice"):
        find_study_cases([tmp_path / "out"], selections=[CaseSelection("p", 1, 1), CaseSelection("p", 1, 0)])


@pytest.mark.parametrize(
    "text", ["case\na\n", "result,nodule,truth\na,x,1\n", "result,truth\na,2\n", "result\n", "\xff"]
)
def test_a_wrong_case_list_is_refused(tmp_path, text):
    (tmp_path / "list.csv").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"list\.csv"):
        read_case_list(tmp_path / "list.csv")


def test_cases_of_a_scene_are_read_back_in_their_order(tmp_path):
    nodule = a_nodule()
    write_scene_case(tmp_path / "case-00000.npz", "CT two", 5, nodule, [])
    write_scene_case(tmp_path / "case-00001.npz", "CT one", 2, a_nodule(seed=1), [tmp_path / "no.dcm"])
    cases = find_study_cases([tmp_path])
    assert [(case.origin, case.nodule, case.truth) for case in cases] == [("CT two", 5, None), ("CT one", 2, None)]
    found = cases[0].load()
    assert (found.volume.array == nodule.volume.array).all()
    assert found.volume.grid.matches(nodule.volume.grid)
    assert (found.mask == nodule.mask).all()
    assert (found.signal == nodule.signal).all()


def test_a_moved_ct_is_found_below_the_folder_named(results, tmp_path):
    (tmp_path / "ct").rename(tmp_path / "archive")
    with pytest.raises(InputError, match="name the folder that holds it with --ct"):
        find_study_cases([results])[0].load()
    for entry in find_study_cases([results], tmp_path / "archive"):
        entry.load()
    (tmp_path / "new").mkdir()
    (tmp_path / "archive").rename(tmp_path / "new" / "ct")
    for entry in find_study_cases([results], tmp_path / "new"):
        entry.load()


def test_another_ct_in_the_place_of_the_right_one_is_refused(results, tmp_path):
    volume = a_nodule().volume
    write_file(
        tmp_path / "ct" / "a.nii.gz",
        type(volume)(volume.array[2:], type(volume.grid)((22, 80, 80), volume.grid.affine), volume.source),
    )
    with pytest.raises(InputError, match="does not fit the result"):
        find_study_cases([results])[0].load()


def test_folders_without_results_and_incomplete_ones_are_refused(results, tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        find_study_cases([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="holds no result"):
        find_study_cases([tmp_path / "ct"])
    shutil.copytree(results / "a", tmp_path / "more" / "a")
    with pytest.raises(InputError, match="Two results are called a"):
        find_study_cases([results, tmp_path / "more"])
    shutil.copytree(results / "a", results / ".hidden" / "x")
    assert len(find_study_cases([results])) == 3
    (results / "a" / "labelmap.nii.gz").unlink()
    with pytest.raises(InputError, match=r"lacks labelmap\.nii\.gz"):
        find_study_cases([results])


def changed(folder: Path, **tags):
    for file in sorted(folder.iterdir())[3:4]:
        dataset = pydicom.dcmread(file)
        for tag, value in tags.items():
            setattr(dataset, tag, value)
        dataset.save_as(file)


def test_burned_in_annotation_is_refused_unless_the_user_insists(results, tmp_path, capsys):
    changed(tmp_path / "ct" / "b", BurnedInAnnotation="YES")
    assert export(results, tmp_path / "study", "--dicom") == 2
    assert "says that it has burned-in annotation" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()
    assert not list(tmp_path.glob(".lnhg-*"))
    assert export(results, tmp_path / "study", "--dicom", "--force-burned-in") == 0
    captures = [pydicom.dcmread(path) for path in (tmp_path / "study").rglob("*.dcm")]
    assert {capture.BurnedInAnnotation for capture in captures} == {"YES"}
    assert json.loads((tmp_path / "study" / "study.json").read_text())["burned_in_annotation_taken"] is True


def test_a_secondary_capture_in_the_series_is_refused_and_one_beside_it_is_not(results, tmp_path):
    beside = sorted((tmp_path / "ct" / "b").iterdir())[0]
    copy = pydicom.dcmread(beside)
    copy.SOPClassUID, copy.SeriesInstanceUID = SecondaryCaptureImageStorage, "9.9"
    copy.save_as(beside.with_name("capture"))
    entry = find_study_cases([results])[1]
    entry.load()
    copy.SeriesInstanceUID = UID
    copy.save_as(beside.with_name("capture"))
    with pytest.raises(InputError, match="is a secondary capture"):
        find_study_cases([results])[1].load()
    find_study_cases([results], force=True)[1].load()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--readers", "a,a"], "different names"),
        (["--repeats", "0.9"], "share of repeats"),
        (["--layout", "cube"], "layout is 'cube'"),
        (["--signal-range", "1", "0"], "signal range"),
        (["--cases", "nowhere.csv"], "cannot be read"),
        (["--seed", "x"], "invalid int value"),
    ],
)
def test_wrong_options_end_with_2_and_one_sentence(results, tmp_path, capsys, options, words):
    assert export(results, tmp_path / "study", *options) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("lnhg: ")
    assert words in told
    assert not (tmp_path / "study").exists()
