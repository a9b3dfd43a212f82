"""The report's pages and table, and the command that writes them."""

import csv
import zipfile
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import report_data
from LNHGLib.__main__ import main
from LNHGLib.files.text import read_csv
from LNHGLib.image.volume import Source, Volume, write_image
from LNHGLib.report import page as report_page
from LNHGLib.report.case import read_case, write_crops
from LNHGLib.report.page import PageOptions, _Pages
from LNHGLib.report.table import write_table
from matplotlib import image as png
from matplotlib.text import Text
from report_data import make_scan, write_dicom, write_result

IDENTITY = ("Doe", "P-1234", "1950", "A77")


@pytest.fixture(scope="module")
def scan():
    return make_scan()


@pytest.fixture(scope="module")
def home(scan, tmp_path_factory):
    """A folder with the DICOM series `ct` and its result `result`."""
    home = tmp_path_factory.mktemp("page")
    write_result(scan, home / "result", write_dicom(scan, home / "ct"))
    return home


@pytest.fixture
def case(home, scan):
    return read_case(home / "result").with_volume(Volume(scan.hu, scan.grid, Source("ct")))


def texts(report_case, **options) -> list[list[str]]:
    """What stands on each page."""
    pages = _Pages(report_case, PageOptions(**options)).compose()
    return [[text.get_text() for text in page.findobj(Text) if text.get_text()] for page in pages]


def test_page_shows_findings_sizes_model_threshold_and_warning(case):
    (page,) = texts(case, case="Case 7", written=datetime(2026, 1, 2, 3, 4))
    everything = "\n".join(page)
    for expected in (
        "Case 7",
        "made-up",
        "findings of score 0.35",
        "2026-01-02 03:04",
        "NOT A MEDICAL DEVICE",
        "Research use only",
        "Fleischner Society 2017: mean",
        "Lung-RADS v2022: mean",
        "signal (relative)",
        "1 of 1",
    ):
        assert expected in everything
    m = case.nodules[0].measurement
    assert f"{m.long_axis_mm:.1f} \u00d7 {m.short_axis_mm:.1f}" in page
    assert page.count("Nodule 1") == 2, "in the table and beside its pictures"


OLD_RESULT = Path(__file__).parents[2] / "data" / "result_of_7ba109e.zip"
"""Of a tiny chest, written before scores could be probabilities."""


def test_scores_of_a_model_of_its_own_scale_are_called_scores_and_said_to_be_no_probability(case):
    (page,) = texts(case)
    assert "Score" in page
    assert "Score 0.80" in page
    assert any("the model's own scale from 0 to 1, not a probability" in text for text in page)
    assert not any(text.startswith("Probability") for text in page)


def test_scores_that_are_probabilities_are_called_so(case):
    case.report["score_scale"] = "probability"
    (page,) = texts(case)
    assert "Probability" in page
    assert "Probability 0.80" in page
    assert any("findings of probability 0.35 and more" in text for text in page)
    assert any("It says nothing of malignancy" in text for text in page)
    assert not any(text.startswith("Score") for text in page)


@pytest.mark.parametrize("scale", ["model", "probability"])
def test_table_says_what_its_scores_mean(case, tmp_path, scale):
    case.report["score_scale"] = scale
    drawn = replace(case.nodules[1], score=None, provenance="manual")
    write_table([replace(case.nodules[0], classifier_score=0.75), drawn], case.score_scale, tmp_path / "nodules.csv")
    first, second = read_csv(tmp_path / "nodules.csv")
    assert (first["score"], first["score_scale"], first["classifier_score"]) == ("0.8", scale, "0.75")
    assert (second["score"], second["score_scale"], second["classifier_score"]) == ("", "", "")


def test_result_of_an_older_version_is_read_and_keeps_its_own_scale(tmp_path):
    with zipfile.ZipFile(OLD_RESULT) as archive:
        archive.extractall(tmp_path / "result")
    old = read_case(tmp_path / "result")
    assert old.score_scale == "model"
    assert [nodule.classifier_score for nodule in old.nodules] == [None] * len(old.nodules)
    (page,) = texts(old)
    assert {"Score", f"{old.nodules[0].score:.2f}"} <= set(page)
    assert any("not a probability" in text for text in page)
    assert main(["report", str(tmp_path / "result"), str(tmp_path / "out"), "--only", "csv"]) == 0
    rows = read_csv(tmp_path / "out" / "nodules.csv")
    assert {row["score_scale"] for row in rows} == {"model"}
    assert len(rows) == len(old.nodules) > 0


def test_finding_of_the_detector_alone_is_listed_as_such(case):
    (page,) = texts(case)
    assert any("Not outlined, not measured: no size band" in text for text in page)
    assert "no signal:\nbox only, not segmented" in page


def test_case_is_a_line_to_write_on_and_no_patient_is_named_unless_asked(case):
    (page,) = texts(case)
    assert report_page.EMPTY_CASE in page
    assert not any(word in text for word in IDENTITY for text in page)


def test_more_findings_than_fit_go_on_further_pages_and_a_cut_is_stated(case, monkeypatch):
    monkeypatch.setattr(report_page, "MAX_PICTURES", 5)
    many = [*case.nodules[:2]] * 25
    full = report_page.ReportCase(many, case.labels, case.heterogeneity, case.grid, case.report, case.volume)
    pages = texts(full, case="Case 7")
    assert all(any("Case 7" in text for text in page) for page in pages), "no sheet without its case"
    assert len(pages) > 2
    summaries = [text for page in pages for text in page if text.startswith("Fleischner Society 2017: mean")]
    assert len(summaries) == 50, "a table row each"
    assert any("45 findings have no pictures here: the first 5 are shown" in text for text in pages[-1])
    assert [page[-1] for page in pages] == [f"{n} of {len(pages)}" for n in range(1, len(pages) + 1)]


def test_nothing_leaves_the_page(case):
    """Every text lies a quarter of an inch within the paper, for few and for many findings."""
    case.report["score_scale"] = "probability"  # the longer words
    for nodules in (case.nodules, case.nodules * 6):
        changed = report_page.ReportCase(nodules, case.labels, case.heterogeneity, case.grid, case.report, case.volume)
        for page in _Pages(changed, PageOptions(case="x" * 60)).compose():
            width, height = np.array(page.canvas.get_width_height()) - 0.25 * page.dpi
            for text in page.texts:
                box = text.get_window_extent()
                assert 0.25 * page.dpi <= box.x0 <= box.x1 <= width, text.get_text()
                assert 0.25 * page.dpi <= box.y0 <= box.y1 <= height, text.get_text()


def test_page_without_a_finding_says_so(case):
    empty = report_page.ReportCase([], case.labels * 0, case.heterogeneity, case.grid, case.report, case.volume)
    (page,) = texts(empty)
    assert "No nodule was kept." in page


def test_pictures_show_the_map_in_the_colors_and_range_of_the_result(case, tmp_path):
    (path,) = report_page.write_pages(case, tmp_path, "png", PageOptions())
    assert path.name == "report.png"
    image = png.imread(path)[..., :3]
    colored = (image.max(-1) - image.min(-1)) > 0.5
    assert colored.mean() > 0.002


def test_command_writes_everything_for_a_dicom_result(home, tmp_path, capsys):
    assert main(["report", str(home / "result"), str(tmp_path / "out"), "--page", "png"]) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"nodules.csv", "nodules_seg.dcm", "nodules_sr.dcm", "report.png"}
    assert str(tmp_path / "out") in capsys.readouterr().out
    with (tmp_path / "out" / "nodules.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["Nodule 1", "Nodule 2", "Nodule 3"]
    assert rows[0]["lung_rads_v2022_band"].startswith("solid")
    assert rows[2]["lung_rads_v2022_band"] == ""
    assert all("research use" in row["use"] for row in rows)


def test_command_names_the_patient_only_when_asked(home, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(report_page, "write_pages", lambda _case, _folder, _form, options: seen.append(options))
    for asked in ([], ["--identity"]):
        arguments = ["report", str(home / "result"), str(tmp_path / "out"), "--only", "page", "--overwrite", *asked]
        assert main(arguments) == 0
    plain, named = ([value for _name, value in options.patient] for options in seen)
    assert plain == []
    assert named == ["Doe^Jane, P-1234", "19500102, F", "20200304, A77"]


def test_command_writes_what_it_can_where_the_ct_was_no_dicom(scan, tmp_path, capsys):
    write_image(scan.hu, scan.grid, tmp_path / "ct.nrrd")
    result = write_result(scan, tmp_path / "result", tmp_path / "ct.nrrd", series_uid=None)
    assert main(["report", str(result), str(tmp_path / "out"), "--only", "csv,page"]) == 0
    assert main(["report", str(result), str(tmp_path / "out"), "--overwrite"]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"nodules.csv", "report.pdf"}
    notes = [line for line in capsys.readouterr().err.splitlines() if "note:" in line]
    assert len(notes) == 1
    assert "No DICOM SEG and SR were written" in notes[0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["RESULT", "OUT", "--only", "dicom"], "is not there any more"),
        (["RESULT", "OUT", "--only", "fax"], "expected some of csv, page, dicom"),
        (["NOTHING", "OUT"], "expected a result folder"),
        (["EMPTY", "OUT"], "holds no report.json"),
        (["RESULT", "RESULT", "--overwrite"], "OUT"),
    ],
)
def test_command_refuses_in_one_sentence_and_leaves_nothing(arguments, sentence, scan, tmp_path, capsys):
    names = {name: str(tmp_path / name.lower()) for name in ("RESULT", "OUT", "NOTHING", "EMPTY")}
    write_result(scan, tmp_path / "result", tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert main(["report", *(names.get(each, each) for each in arguments)]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("lnhg: ")
    assert sentence in last
    assert sorted(tmp_path.rglob("*")) == before


def test_voxels_handed_over_as_crops_are_the_same_case(home, scan, tmp_path):
    crops = {}
    for number in (1, 2):
        index = np.argwhere(scan.labels == number)
        box = tuple(slice(a, b + 1) for a, b in zip(index.min(0), index.max(0), strict=True))
        crops[number] = (box, scan.labels[box] == number, report_data.make_signal(scan)[box])
    (tmp_path / "report.json").write_bytes((home / "result" / "report.json").read_bytes())
    write_crops(tmp_path / "crops.npz", crops, scan.grid)
    from_crops, from_maps = read_case(tmp_path), read_case(home / "result")
    np.testing.assert_array_equal(from_crops.labels, from_maps.labels)
    np.testing.assert_allclose(from_crops.heterogeneity, from_maps.heterogeneity, atol=1e-6)
    assert from_crops.grid.matches(from_maps.grid)


def test_a_voxel_of_two_nodules_is_refused(home, scan, tmp_path, capsys):
    box = (slice(3, 6), slice(3, 6), slice(3, 6))
    whole = np.ones((3, 3, 3), bool)
    (tmp_path / "report.json").write_bytes((home / "result" / "report.json").read_bytes())
    write_crops(tmp_path / "crops.npz", {1: (box, whole, whole), 2: (box, whole, whole)}, scan.grid)
    assert main(["report", str(tmp_path), str(tmp_path.parent / "never")]) == 2
    assert "shares 27 voxels with nodule 1" in capsys.readouterr().err
