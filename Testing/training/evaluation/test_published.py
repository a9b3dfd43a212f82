"""The paper's tables beside ours: every number is printed, recomputed or measured, none typed."""

import numpy as np
import pytest
import result_tables
from evaluation_data import CARD, QUIET, perfect
from LNHGLib.files.text import write_json
from LNHGLib.reader_study import analysis, report
from LNHGLib.reader_study.scores import MODALITIES, Score, write_scores
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.baselines import side_by_side
from LNHGTrainingLib.evaluation import compare, plots, published, run
from LNHGTrainingLib.evaluation.crops import CropScore, Picture, Selection
from PIL import Image

RATE = {"value": 0.5, "low": 0.25, "high": 1.0}


def summary(kind: str, **changes) -> dict:
    """Return a summary of 7 nodules whose metrics are all 0.5 (0.25 to 1)."""
    whole = {"nodules": 7, "patients": 5} | dict.fromkeys(published.DICE, RATE)
    point = {"hits": 3, "false": 5, "nodules": 7} | dict.fromkeys(("precision", "sensitivity", "f1"), RATE)
    texts = {"data": {"name": "d"}, "split": "s", "protocol": "p", "bootstrap": {"seed": 3}}
    return {"kind": kind, "groups": {"all": whole}, "operating_point": {"consensus": point}} | texts | changes


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("LNHG", (84.91, 98.14, 91.05)),
        ("U-net", (66.88, 95.81, 78.78)),
        ("NoduleNet", (83.43, 97.21, 89.80)),
        ("nnU-net", (72.12, 93.26, 81.34)),
        ("L-RF", (53.04, 95.35, 68.16)),
    ],
)
def test_rates_of_table_s1_are_recomputed_from_its_corrected_counts(method, expected):
    """Register U8, U9."""
    true, false, missed, *_ = published.corrected(published.published()["table_s1"])[method]
    assert true + missed == 430
    assert tuple(round(rate, 2) for rate in published.rates(true, false, missed)) == expected


def test_the_printed_error_stays_in_the_resource():
    assert published.published()["table_s1"]["L-RF"][2] == 363


def test_gain_and_gaps_are_recomputed(capsys):
    """Register U7, U12."""
    assert main(["paper"]) == 0
    text = capsys.readouterr().out
    assert "test: 69.005 (printed 69.07); gain of LNHG over it 13.045 (printed 12.98" in text
    assert "Largest gap between training and test: U-net, 9.43" in text
    assert "| LNHG | 87.30 | 82.05 | 5.25 | - |" in text
    assert "| L-RF | 410 | 363 | 20 | 53.04 | 95.35 | 68.16 | 53.0 | 95.3 | 68.1 |" in text
    assert "JBHI.2021.3135647" in text
    assert "What ours were measured on" not in text


def test_the_external_test_and_the_readers_scores_are_as_printed(capsys):
    """Section IV of the paper; the mean of its readers is 213.6 / 3 = 71.2."""
    paper = published.published()
    printed = {"LNHG": 81.61, "U-net": 82.80, "NoduleNet": 80.53, "nnU-net": 72.17}
    assert {name: row[0] for name, row in published.methods(paper["external"]).items()} == printed
    scores = [[78.4, 15.63], [66.2, 22.07], [69.0, 10.30]]
    assert list(published.methods(paper["reader_study"]).values()) == scores
    assert main(["paper"]) == 0
    text = capsys.readouterr().out
    assert "| U-net | 82.80 | - |" in text
    assert "| reader 2 | CT and map | 66.2 (22.07) |" in text
    assert "| mean of readers, recomputed | CT and map | 71.2 (printed 71.2) |" in text
    assert "| **ours** | - | - |" in text
    assert "`lnhg reader-study analyse SCORES OUT`" in text


def test_ours_stand_beside_the_papers_by_type(crops, tmp_path, no_plots, capsys):
    run.run_crops(CARD, lambda hu: perfect(hu) * ((hu > 0).sum() > 500), crops, tmp_path / "a", Selection(), QUIET)
    assert main(["paper", str(tmp_path / "a")]) == 0
    text = capsys.readouterr().out
    assert "| - | - | - | - | **tiny** | 6 | 100.00 (100.00 to 100.00) | 66.67 (" in text
    assert "| **tiny** | found only | " in text
    assert "| their nodules | number | 2 | 0 | 0 | 3 |" in text
    assert "synthetic nodules" in text
    assert str(tmp_path) not in text


def test_whole_scans_enter_table_s1_and_the_external_test():
    ours = published.Ours([compare.Evaluation("tiny", summary("scans"), {})])
    paper = published.published()
    table, _ = published.table_s1(paper["table_s1"], ours)
    assert "| **tiny** | 3 | 5 | 4 | 50.00 (25.00 to 100.00) |" in table
    table, _ = published.external_table(paper["external"], ours)
    assert "| - | - | **tiny** | 7 | 50.00 (25.00 to 100.00) | 50.00 (25.00 to 100.00) |" in table
    table, _ = published.table_one(paper["table_1"], ours)
    assert "tiny" not in table


def test_an_evaluation_stands_in_the_row_of_the_papers_method():
    evaluations = [compare.Evaluation(name, summary("crops"), {}) for name in ("other", "ours")]
    ours = published.Ours(evaluations, beside={"ours": "NoduleNet"})
    table, _ = published.table_one(published.published()["table_1"], ours)
    assert "| NoduleNet | 86.39 | 81.22 | 5.17 | **ours** | 7 | 50.00 (" in table
    assert table.splitlines()[-1].startswith("| - | - | - | - | **other** | 7 |")
    table, _ = published.table_two(published.published()["table_2"], ours)  # which has no NoduleNet
    assert [line.split(" | ")[0] for line in table.splitlines()[-6:]] == [
        "| **ours**", "| **ours**", "| **other**", "| **other**", "| the readers themselves", "| their nodules",
    ]  # fmt: skip


def test_the_studies_give_all_systems_of_the_paper():
    ours = published.of_studies(result_tables.STUDIES)
    in_table_one = published.methods(published.published()["table_1"])
    assert set(ours.beside.values()) == set(in_table_one)
    assert [one.name for one in ours.of("scans")] == ["LNHG, bundled"]
    table, _ = published.table_s2(published.published()["table_s2"], ours)
    assert "| Faster R-CNN on LUNA16, test | 75.00 | 82.53 | 78.59 |" in table
    assert "(crops of fold 0) |" in table


def test_a_reader_study_of_ours_stands_beside_the_papers(tmp_path, monkeypatch, capsys):
    cells = [(reader, case, modality) for reader in "AB" for modality in MODALITIES for case in range(4)]
    scores = [
        Score(reader, f"{case}", modality, 20.0 * case + 10 * (modality == "CT+map"), 3, 9.0, 1, number, False)
        for number, (reader, case, modality) in enumerate(cells, 1)
    ]
    write_scores(tmp_path / "scores.csv", scores)
    monkeypatch.setattr(report.plots, "save", lambda *_: [])
    report.write(analysis.analyze(scores), [tmp_path / "scores.csv"], tmp_path / "study")
    assert main(["paper", "--reader-study", str(tmp_path / "study")]) == 0
    text = capsys.readouterr().out
    assert "| **A** | CT | 30.0 (25.82) |" in text  # the SD of 0, 20, 40, 60 is sqrt(2000 / 3)
    assert "| **B** | CT+map | 40.0 (25.82) |" in text
    assert "No radiologist has read" not in text


def test_a_folder_without_an_analysis_is_refused(tmp_path, capsys):
    write_json(tmp_path / "analysis.json", {"readers": [{"reader": "A"}]})
    for folder in (tmp_path, tmp_path / "nothing"):
        assert main(["paper", "--reader-study", str(folder)]) == 2
        assert "expected a folder that lnhg reader-study analyse wrote" in capsys.readouterr().err


@pytest.fixture
def drawn(monkeypatch) -> list:
    """Return the names and the kind of what is drawn, in place of drawing."""
    calls = []

    def draw(methods, files, selection, out, device, kind):
        calls.append((list(methods), selection.folds, kind))
        out.write_bytes(b"picture")

    monkeypatch.setattr(side_by_side, "draw", draw)
    return calls


def test_tables_and_pictures_come_from_one_command(drawn, tmp_path, capsys):
    command = ["paper", "--out", tmp_path / "out", "--crops", "a.h5", "--table", "a.csv", "--fold", 2]
    command += ["--outlines", "A=a", "B=b.pt", "--maps", "A=a", "--steps", "step 1=1.pt", "step 2=2.pt"]
    assert main([str(part) for part in command]) == 0
    assert drawn == [
        (["A", "B"], (2,), "outlines"), (["A"], (2,), "maps"), (["step 1", "step 2"], (2,), "steps"),
    ]  # fmt: skip
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "paper.md", "outlines.png", "maps.png", "steps.png",
    }  # fmt: skip
    text = (tmp_path / "out" / "paper.md").read_text()
    assert "## Table I: " in text
    assert "](outlines.png)" in text
    assert capsys.readouterr().out == f"{text}{tmp_path / 'out'}\n"
    assert main([str(part) for part in command]) == 2
    assert "already exists" in capsys.readouterr().err
    assert main(["paper", "--out", str(tmp_path / "out"), "--overwrite"]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["paper.md"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--maps", "A=a", "--out", "OUT"], "--maps needs --out, --crops and --table"),
        (["EVALUATION", "--studies", "FOLDER"], "expected one of them"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, sentence, drawn, capsys):
    assert main(["paper", *options]) == 2
    assert sentence in capsys.readouterr().err
    assert drawn == []


def picture(mask: np.ndarray) -> Picture:
    """Return the picture of a ball of 8 mm in a cube of noise, with what a method marks there."""
    hu = np.random.default_rng(0).normal(-850, 30, (40, 40, 40)).astype(np.int16)
    z, y, x = np.indices(hu.shape) - 20
    score = CropScore("P", "1", "0", 8.0, 3, 5.0, 0, 0, 1, 0.5, 1.0, 1.0, 1.0, 0.0, 0.8, 0)
    return Picture(score, hu, mask, z**2 + y**2 + x**2 <= 16)


@pytest.mark.parametrize(("methods", "columns", "lines"), [(3, 4, 1), (12, 7, 2), (14, 5, 3)])
def test_many_methods_go_into_further_lines_of_a_nodule(methods, columns, lines, tmp_path, monkeypatch):
    titles, set_title = [], plots.Axes.set_title
    monkeypatch.setattr(
        plots.Axes, "set_title", lambda axes, text, **options: (titles.append(text), set_title(axes, text, **options))
    )
    nothing, elsewhere = np.zeros((40, 40, 40), bool), np.zeros((40, 40, 40), bool)
    elsewhere[24] = True
    masks = [nothing, elsewhere, *[np.ones((40, 40, 40), bool)] * (methods - 2)]
    drawn = {f"M{number}": [picture(mask)] * 2 for number, mask in enumerate(masks)}
    plots.side_by_side(drawn, ["solid", "part-solid"], tmp_path / "out.png")
    assert titles[:4] == ["readers", "M0\nnothing outlined", "M1\nDice 0.50, in other slices", "M2\nDice 0.50"]
    width, height = Image.open(tmp_path / "out.png").size
    assert width == pytest.approx(plots.DPI * (1.5 * columns + 0.34), abs=2)
    assert height == pytest.approx(plots.DPI * 2 * (1.86 * lines + 0.14), abs=2)
