"""The scans of a cohort are found whatever they are called, and every one becomes exactly one case."""

import shutil
from pathlib import Path

import pytest
from cohort_data import a_block, write_broken, write_dicom, write_file, zip_folder
from LNHGLib.batch import case_names, content, discover, segment_case
from LNHGLib.batch.case import FAILED, READY, SKIPPED, Case
from LNHGLib.batch.discover import find_cases
from LNHGLib.errors import InputError

OUT = Path("no-such-out")


@pytest.fixture(scope="module")
def block():
    return a_block()


def found(*inputs, out=OUT) -> dict[str, Case]:
    return {case.id: case for case in find_cases([str(each) for each in inputs], Path(out)).cases}


def read(case: Case, scratch: Path):
    scratch.mkdir()
    return segment_case.read_case(case, scratch)


def test_a_tree_gives_a_case_for_each_series_zip_and_volume(tmp_path, block):
    write_dicom(tmp_path / "P01" / "study", block, "1.2.1")
    zip_folder(write_dicom(tmp_path / "tmp", block, "1.2.2"), tmp_path / "zips" / "P02.zip")
    write_file(tmp_path / "P03.nii.gz", block)
    write_file(tmp_path / "more" / "P04.nrrd", block)
    write_file(tmp_path / "P05.mhd", block)
    (tmp_path / "notes.txt").write_text("none")
    cases = found(tmp_path)
    assert list(cases) == ["P01-study", "P03", "P05", "more-P04", "zips-P02"]
    assert {case.state for case in cases.values()} == {READY}
    for number, case in enumerate(cases.values()):
        volume = read(case, tmp_path / f"scratch{number}")
        assert (volume.array == block.array).all(), case.id
        assert volume.grid.matches(block.grid)
        assert volume.source.path == str(case.path)


def test_series_are_told_apart_by_uid_in_one_folder_and_joined_across_folders(tmp_path, block):
    other = a_block(seed=1)
    write_dicom(tmp_path / "a", block, "1.2.1", name="{}", slices=range(7))
    write_dicom(tmp_path / "b", block, "1.2.1", name="x{}.dat", slices=range(7, 12))
    write_dicom(tmp_path / "a", other, "1.2.2", name="y{}")
    cases = sorted(found(tmp_path).values(), key=lambda case: case.series_uid)
    assert [len(case.files) for case in cases] == [12, 12]
    assert (read(cases[0], tmp_path / "s0").array == block.array).all()
    assert (read(cases[1], tmp_path / "s1").array == other.array).all()


def test_a_zip_with_two_series_and_a_volume_gives_three_cases(tmp_path, block):
    write_dicom(tmp_path / "x" / "a", block, "1.2.1")
    write_dicom(tmp_path / "x" / "b", a_block(seed=1), "1.2.2")
    write_file(tmp_path / "x" / "c.mhd", block)
    zip_folder(tmp_path / "x", tmp_path / "all.zip")
    cases = found(tmp_path)
    assert len(cases) == 3
    assert "all-x-c" in cases
    for number, case in enumerate(cases.values()):
        assert read(case, tmp_path / f"s{number}").array.shape == block.array.shape


def test_localizers_are_skipped_with_a_reason_and_indexes_are_no_case(tmp_path, block):
    write_dicom(tmp_path / "P01", block, "1.2.1")
    write_dicom(tmp_path / "scout", block, "1.2.9", slices=[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(100))
    cases = found(tmp_path)
    assert {id_: case.state for id_, case in cases.items()} == {"P01": READY, "scout": SKIPPED}
    assert "1 localizer" in cases["scout"].reason


def test_hidden_files_earlier_results_and_out_itself_are_left_aside(tmp_path, block):
    write_file(tmp_path / "P01.nii.gz", block)
    write_file(tmp_path / "out" / "cases" / "x.nii.gz", block)
    write_file(tmp_path / "earlier" / "labelmap.nii.gz", block)
    for name in discover.RESULT_FILES:
        (tmp_path / "earlier" / name).touch()
    (tmp_path / "._P01.nii.gz").write_bytes(b"AppleDouble")
    (tmp_path / "nodules.seg.nrrd").write_bytes(b"NRRD")
    cohort_ = find_cases([str(tmp_path)], tmp_path / "out")
    assert [case.id for case in cohort_.cases] == ["P01"]
    assert cohort_.notes == [
        "Left aside: 1 file(s) of other kinds.",
        "Left aside: 1 folder(s) with results of LNHG.",
    ]


def test_a_linked_folder_is_entered_and_a_ring_of_links_ends(tmp_path, block):
    write_file(tmp_path / "real" / "P01.nii.gz", block)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "ring").symlink_to(tmp_path / "in")
    assert list(found(tmp_path / "in")) == ["linked-P01"]


def test_a_glob_and_several_files_name_cases_below_their_common_folder(tmp_path, block):
    for name in ("P1", "P2", "Q1"):
        write_file(tmp_path / name / "ct.nii.gz", block)
    assert list(found(tmp_path / "P*" / "*.nii.gz")) == ["P1-ct", "P2-ct"]
    assert list(found(tmp_path / "P1" / "ct.nii.gz", tmp_path / "Q1")) == ["P1-ct", "Q1-ct"]
    assert list(found(tmp_path / "Q1" / "ct.nii.gz")) == ["ct"]


def test_a_single_dicom_file_stands_for_its_series(tmp_path, block):
    write_dicom(tmp_path / "d", block, "1.2.1")
    (case,) = found(tmp_path / "d" / "IM0003").values()
    assert (read(case, tmp_path / "s").array == block.array).all()


def test_a_list_names_its_cases_and_reports_missing_scans(tmp_path, block):
    write_file(tmp_path / "a" / "ct.nii.gz", block)
    write_dicom(tmp_path / "d", block, "1.2.1")
    write_dicom(tmp_path / "d", a_block(seed=1), "1.2.2", name="y{}")
    zip_folder(write_dicom(tmp_path / "z", block, "1.2.3"), tmp_path / "z.zip")
    lines = [
        "\ufeffPath;Case;Series_UID",
        "a/ct.nii.gz;Ada;",
        "d;Bob;1.2.2",
        "z.zip;Cy;",
        "gone.nii.gz;Di;",
        "a/ct.nii.gz;;",
    ]
    (tmp_path / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    cases = found(tmp_path / "list.csv")
    assert {id_: case.state for id_, case in cases.items()} == {
        "Ada": READY, "Bob": READY, "Cy": READY, "Di": FAILED, "a-ct": READY,
    }  # fmt: skip
    assert cases["Di"].reason == "gone.nii.gz does not exist; correct the list."
    assert (read(cases["Bob"], tmp_path / "s1").array == a_block(seed=1).array).all()
    assert (read(cases["Cy"], tmp_path / "s2").array == block.array).all()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("ct\nx.nii", "expected a column path"),
        ("", "no rows"),
        ("path,case\nx.nii,A\ny.nii,a", "names 2 cases 'A'"),
    ],
)
def test_a_wrong_list_is_refused(content, words, tmp_path):
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(InputError, match=words):
        found(tmp_path / "list.csv")


def test_a_wrong_list_quotes_little_of_itself(tmp_path):
    (tmp_path / "list.csv").write_text(",".join(f"{'c' * 300}{number}" for number in range(30)) + "\nx.nii\n")
    with pytest.raises(InputError, match="and 26 more, expected a column path") as refused:
        found(tmp_path / "list.csv")
    assert len(str(refused.value).replace(str(tmp_path), "")) < 350


@pytest.mark.parametrize("kind", ["tree", "list"])
def test_files_that_go_away_while_they_are_counted_are_cases_all_the_same(kind, tmp_path, block, monkeypatch):
    write_dicom(tmp_path / "in" / "P01", block, "1.2.1")
    write_file(tmp_path / "in" / "b.nii.gz", block)
    (tmp_path / "list.csv").write_text("path\nin/P01\nin/b.nii.gz\n")
    below, cases_of = discover.files_below, discover._cases

    def remove():
        shutil.rmtree(tmp_path / "in")

    monkeypatch.setattr(discover, "_cases", lambda met: remove() or cases_of(met))
    monkeypatch.setattr(discover, "files_below", lambda folder: [below(folder), remove()][0])
    cases = found(tmp_path / ("in" if kind == "tree" else "list.csv"))
    assert len(cases) == 2
    assert {case.size for case in cases.values()} == {0}


@pytest.mark.parametrize(("text", "words"), [("gone", "does not exist"), ("*.zzz", "Nothing fits"), (".", "no scan")])
def test_an_input_without_scans_is_refused(text, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words):
        found(text)
    monkeypatch.undo()


def test_each_broken_scan_is_one_case_that_fails_with_its_reason(tmp_path, block):
    reasons = write_broken(tmp_path / "in", block)
    cases = found(tmp_path / "in")
    assert sorted(cases) == sorted(reasons)
    for number, (id_, case) in enumerate(cases.items()):
        reason = case.reason
        if case.state == READY:
            with pytest.raises(InputError) as caught:
                read(case, tmp_path / f"scratch{number}")
            reason = str(caught.value)
        assert reasons[id_] in reason, id_


def test_names_are_unique_fit_for_folders_and_the_same_in_every_run():
    cases = [("", "a/b c.nii.gz", ""), ("", "a/b?c.mha", ""), ("", "Ä/x", "1.2"), ("", "Ä/x", "1.3"), ("", "..", "")]
    names = case_names.unique(cases)
    assert names == case_names.unique(cases)
    assert len({name.casefold() for name in names}) == len(names)
    assert names[0].startswith("a-b_c-")
    assert names[4] == "case"
    assert len(case_names.cleaned(["x" * 300])) == case_names.MAX_LENGTH
    assert case_names.cleaned(["..", "con/fig", ".hidden"]) == "con_fig-.hidden"


def test_the_same_scan_twice_in_a_list_is_two_cases(tmp_path, block):
    write_file(tmp_path / "ct.nii.gz", block)
    (tmp_path / "list.csv").write_text("path\nct.nii.gz\nct.nii.gz\n")
    assert len(found(tmp_path / "list.csv")) == 2


@pytest.mark.parametrize(
    "name",
    [
        *(
            "con",
            "CON.nii.gz",
            "nul",
            "com1.scan",
            "LPT9",
            "aux",
            "\u738b" * 80,
            "\u0e2a\u0e21\u0e0a\u0e32\u0e22",
            "x" * 300,
        ),
        *("\u0645\u062d\u0645\u062f", "a\u0308" * 60, "M\udcfcller", "+1+1", "-2", " =1", "a. ", "."),
    ],
)
def test_a_name_is_one_that_every_file_system_takes(name, tmp_path):
    (made,) = case_names.unique([("", case_names.readable(Path("folder", f"{name}.nii.gz")), "")])
    assert len(made.encode()) <= case_names.MAX_BYTES
    assert made[0] not in "=+-@\t\r ." and made[-1] not in ". "  # noqa: PT018 - one name
    for whole in (made, case_names.cleaned([name]) or "case"):
        assert whole.partition(".")[0].casefold() not in ("con", "nul", "aux", "com1", "lpt9")
        (tmp_path / f"{whole}-12345678-123456789012.json.part").touch()


@pytest.mark.parametrize(
    "names",
    [
        ("A", "a"),
        ("\u00e9", "e\u0301"),
        ("stra\u00dfe", "STRASSE"),
        ("\ufb01x", "fix"),
        ("a b", "a_b"),
        ("\u212b", "\u00c5"),
    ],
)
def test_names_that_a_file_system_may_take_for_the_same_are_told_apart(names):
    made = case_names.unique([("", f"{name}.nii", "") for name in names])
    assert len({case_names.key_of(name) for name in made}) == 2
    assert made == case_names.unique([("", f"{name}.nii", "") for name in names])


def test_names_in_any_script_keep_their_letters_and_given_ones_stay():
    assert (
        case_names.cleaned(["\u0e2a\u0e21\u0e0a\u0e32\u0e22 \u0e43\u0e08"])
        == "\u0e2a\u0e21\u0e0a\u0e32\u0e22_\u0e43\u0e08"
    )
    assert case_names.unique([("a", "x.nii", ""), ("", "a.nii", "")])[0] == "a"


def test_a_scan_is_the_same_by_its_content(tmp_path):
    path = tmp_path / "a.nii"
    path.write_bytes(b"content")
    case = Case("a", "a.nii", path)
    before = content.stamp(case), content.content_sha256(case)
    path.write_bytes(b"CONTENT")
    assert content.content_sha256(case) != before[1]
    path.write_bytes(b"content")
    assert content.content_sha256(case) == before[1]
    path.unlink()
    assert (content.stamp(case), content.content_sha256(case)) == ("", "")


def test_an_archive_is_read_once_for_all_its_scans(tmp_path, monkeypatch):
    path, read = tmp_path / "all.zip", []
    path.write_bytes(b"archive")
    cases = [Case(name, f"all.zip/{name}", path, members=(name,)) for name in "abc"]
    monkeypatch.setattr(content, "file_sha256", lambda file: read.append(file) or file.read_text())
    assert len({content.content_sha256(case) for case in cases}) == 1
    assert read == [path]
    before = content.content_sha256(cases[0])
    path.write_bytes(b"another archive")
    assert content.content_sha256(cases[0]) != before
    assert read == [path, path]


def test_voxels_beside_a_header_are_content_of_the_scan(tmp_path):
    for name in ("a.mhd", "a.raw", "b.raw"):
        (tmp_path / name).write_text(name)
    case = Case("a", "a.mhd", tmp_path / "a.mhd")
    before = content.content_sha256(case)
    (tmp_path / "b.raw").write_text("other")
    assert content.content_sha256(case) == before
    (tmp_path / "a.raw").write_text("other")
    assert content.content_sha256(case) != before


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_a_list_in_the_encoding_of_a_spreadsheet_names_its_scans(tmp_path, block, encoding):
    write_file(tmp_path / "M\u00fcller.nii.gz", block)
    (tmp_path / "list.csv").write_text("path;case\nM\u00fcller.nii.gz;M\u00fcller\n", encoding=encoding)
    assert found(tmp_path / "list.csv")["M\u00fcller"].state == READY


def test_a_scan_whose_name_is_no_text_is_read(tmp_path, block):
    write_file(tmp_path / "scan.nii.gz", block)
    (tmp_path / "in").mkdir()
    (tmp_path / "scan.nii.gz").rename(tmp_path / "in" / "M\udcfcller.nii.gz")
    (case,) = found(tmp_path / "in").values()
    assert case.source == "M\\xfcller.nii.gz"
    assert (segment_case.read_case(case, tmp_path / "scratch").array == block.array).all()
