"""The analysis of a reader study gives back the paper's table, and says what the scores tell and what they do not."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from LNHGLib import __main__ as cli
from LNHGLib.files.text import to_json
from LNHGLib.reader_study import analysis as study_analysis
from LNHGLib.reader_study import plots
from LNHGLib.reader_study import report as study_report
from LNHGLib.reader_study.scores import CT, CT_MAP, Score, write_scores, write_truth
from LNHGLib.reader_study.settings import Settings
from LNHGLib.stats import mrmc, roc
from matplotlib.collections import PathCollection
from scipy.stats import beta

PAPER = {"1": (78.4, 15.63), "2": (66.2, 22.07), "3": (69.0, 10.30)}
"""Mean and standard deviation of each reader in the paper, on 200 nodules (method facts, section 8)."""
PAPER_MEAN = 71.2


def drawn(generator, mean: float, sd: float, cases: int) -> np.ndarray:
    """Scores on the scale 0 to 100 from the beta distribution of this mean and standard deviation."""
    share, spread = mean / 100, sd / 100
    size = share * (1 - share) / spread**2 - 1
    return 100 * beta.rvs(share * size, (1 - share) * size, size=cases, random_state=generator)


def as_reads(reader: str, modality: str, scores, session: int = 1, repeat: bool = False) -> list[Score]:
    start = 1000 * (modality == CT_MAP) + 5000 * repeat
    return [
        Score(
            reader, f"case{index:03}", modality, float(score), 3, 10.0 + index % 7, session, start + index + 1, repeat
        )
        for index, score in enumerate(scores)
    ]


def simulated(readers: int = 3, cases: int = 60, repeats: int = 12) -> tuple[list[Score], dict[str, int]]:
    generator = np.random.default_rng(0)
    truth = {f"case{index:03}": int(index < cases // 2) for index in range(cases)}
    sick = np.array(list(truth.values()))
    reads = []
    for reader in [f"R{number}" for number in range(1, readers + 1)]:
        for modality, gain in ((CT, 12), (CT_MAP, 22)):
            scores = np.clip(40 + gain * sick + generator.normal(0, 16, cases), 0, 100).round()
            again = np.clip(scores[:repeats] + generator.normal(0, 5, repeats), 0, 100).round()
            reads += as_reads(reader, modality, scores) + as_reads(reader, modality, again, repeat=True)
    return reads, truth


def rows(study, table, **wanted):
    return [row for row in study.tables[table] if all(row[name] == value for name, value in wanted.items())]


def test_scores_drawn_with_the_papers_means_give_back_its_table():
    generator = np.random.default_rng(1)
    reads = [
        read
        for reader, (mean, sd) in PAPER.items()
        for read in as_reads(reader, CT_MAP, drawn(generator, mean, sd, 200))
    ]
    study = study_analysis.analyze(reads)
    for row in study.tables["readers"]:
        mean, sd = PAPER[row["reader"]]
        assert row["mean_low"] < mean < row["mean_high"]
        assert row["sd"] == pytest.approx(sd, rel=0.1)
        assert row["cases"] == 200
    average = rows(study, "means", holds_for=mrmc.FIXED_READERS)[0]
    assert average["value_low"] < PAPER_MEAN < average["value_high"]


def test_scores_that_have_the_papers_means_print_its_digits():
    generator, reads = np.random.default_rng(2), []
    for reader, (mean, sd) in PAPER.items():
        scores = drawn(generator, mean, sd, 200)
        for _ in range(200):
            scores = np.clip(mean + (scores - scores.mean()) * sd / scores.std(ddof=1), 0, 100)
        reads += as_reads(reader, CT_MAP, scores)
    text = study_report.markdown(study_analysis.analyze(reads), [])
    for reader, (mean, sd) in PAPER.items():
        assert re.search(rf"\| {reader} \| CT\+map \| 200 \| {mean:.1f} \(.*?\) \| {sd:.2f} \(", text)
    assert re.search(rf"\| mean of readers \| CT\+map \| 200 \| {PAPER_MEAN:.1f} \(", text)
    assert "nothing to compare" in text


def test_areas_over_readers_are_those_of_the_method_on_the_same_scores():
    reads, truth = simulated()
    study = study_analysis.analyze(reads, truth, Settings(covariance="jackknife"))
    scores = np.array([[[r.score for r in reads if (r.reader, r.modality, r.repeat) == (reader, name, False)]
                        for reader in ("R1", "R2", "R3")] for name in (CT_MAP, CT)])  # fmt: skip
    parts = roc.areas(scores.reshape(6, -1), np.array(list(truth.values()), bool))
    four = roc.jackknife_covariance(parts).reshape(2, 3, 2, 3)
    wanted = mrmc.analyze(mrmc.components(parts.area.reshape(2, 3), four), (CT_MAP, CT))
    for analysis in wanted:
        row = rows(study, "mrmc", what="difference", holds_for=analysis.kind, reader="")[0]
        assert row["name"] == "CT+map - CT"
        assert (row["value"], row["p"]) == pytest.approx((analysis.differences[0].value, analysis.p))
        assert rows(study, "mrmc", what="test", holds_for=analysis.kind)[0]["statistic"] == pytest.approx(
            analysis.statistic
        )
    assert rows(study, "mrmc", what="difference", holds_for=mrmc.RANDOM)[0]["value"] > 0.05


def test_repeats_are_compared_with_their_first_reads_and_counted_nowhere_else():
    reads, truth = simulated()
    study = study_analysis.analyze(reads, truth)
    assert {row["cases"] for row in study.tables["readers"]} == {60}
    assert study.design["repeats"] == 72
    every = rows(study, "repeats", reader="R1", modality="all")[0]
    first = {(r.case, r.modality): r.score for r in reads if r.reader == "R1" and not r.repeat}
    apart = [r.score - first[r.case, r.modality] for r in reads if r.reader == "R1" and r.repeat]
    assert every["pairs"] == 24
    assert every["bias"] == pytest.approx(np.mean(apart))
    assert every["within_sd"] == pytest.approx(np.sqrt(np.mean(np.square(apart)) / 2))
    assert every["within_sd_low"] < 5 / np.sqrt(2) < every["within_sd_high"]


def test_every_figure_has_its_interval():
    study = study_analysis.analyze(*simulated())
    for name, table in study.tables.items():
        for row in table:
            for column in [column for column in row if f"{column}_low" in row and row[column] is not None]:
                assert row[f"{column}_low"] <= row[column] <= row[f"{column}_high"], (name, column)


def test_cases_that_not_everybody_read_are_told_and_left_out():
    reads, truth = simulated()
    fewer = [read for read in reads if not (read.case in ("case000", "case059") and read.reader == "R2")]
    del truth["case058"]
    study = study_analysis.analyze(fewer, truth)
    assert study.design["complete_cases"] == 58
    assert any("2 of 60 cases were not read by every reader" in note for note in study.notes)
    assert any("truth of 1 cases is unknown" in note for note in study.notes)
    assert rows(study, "readers", reader="R2", modality=CT)[0]["cases"] == 58
    assert rows(study, "icc", modality=CT)[0]["cases"] == 58


def test_one_reader_gives_no_result_for_other_readers():
    reads, truth = simulated(readers=1)
    study = study_analysis.analyze(reads, truth)
    assert {row["holds_for"] for row in study.tables["mrmc"]} == {mrmc.FIXED_READERS}
    assert "icc" not in study.tables
    assert "kappa" not in study.tables
    assert "not defined" not in study_report.markdown(study, [])


def test_reader_without_a_mistake_gets_an_area_without_interval():
    reads, truth = simulated(readers=1)
    perfect = [replace(read, score=10.0 + 80 * truth[read.case]) for read in reads]
    study = study_analysis.analyze(perfect, truth)
    assert rows(study, "auc", modality=CT)[0]["auc"] == 1
    text = study_report.markdown(study, [])
    assert "| R1 | CT | 30 | 30 | 1.0000 |" in text
    assert json.loads(json.dumps(to_json(study.tables["auc"])))[0]["auc_low"] is None


@pytest.mark.parametrize("test", ["wilcoxon", "t", "by-normality"])
def test_report_says_how_the_test_was_chosen(test):
    text = study_report.markdown(study_analysis.analyze(simulated()[0], None, Settings(test=test)), [])
    assert re.search(r"^Compared by (a rule fixed|the .* chosen) beforehand", text, re.MULTILINE)


def test_confidence_and_seconds_are_compared_where_they_are_known():
    reads, _ = simulated()
    known = study_analysis.analyze(reads)
    assert {row["measure"] for row in known.tables["paired"]} == {"score", "confidence", "seconds"}
    unknown = study_analysis.analyze([replace(read, confidence=None, seconds=None) for read in reads])
    assert {row["measure"] for row in unknown.tables["paired"]} == {"score"}


def test_plots_show_every_read_curve_area_and_repeat():
    study = study_analysis.analyze(*simulated())
    (axes,) = plots.plot_scores(study).axes
    points = sum(len(each.get_offsets()) for each in axes.collections if isinstance(each, PathCollection))
    assert points == 2 * 3 * 60
    for axes, reader in zip(plots.plot_curves(study).axes, ("R1", "R2", "R3"), strict=True):
        assert axes.get_title() == reader
        areas = [np.trapezoid(line.get_ydata(), line.get_xdata()) for line in axes.lines[1:]]
        assert areas == pytest.approx([row["auc"] for row in rows(study, "auc", reader=reader)])
    left, right = plots.plot_areas(study).axes
    assert [label.get_text() for label in left.get_yticklabels()][:3] == ["R1", "R2", "R3"]
    shown = sorted(float(each.lines[0].get_xdata()[0]) for each in right.containers)
    differences = rows(study, "mrmc", what="difference")
    differences = [row for row in differences if row["reader"] or row["holds_for"] == mrmc.RANDOM]
    assert shown == pytest.approx(sorted(row["value"] for row in differences))
    for axes, row in zip(plots.plot_repeats(study).axes, rows(study, "repeats", modality="all"), strict=False):
        assert sum(len(each.get_offsets()) for each in axes.collections) == row["pairs"]
        levels = {line.get_ydata()[0] for line in axes.lines}
        assert {row["bias"], row["lower_limit"], row["upper_limit"]} <= levels


@pytest.fixture
def files(tmp_path):
    reads, truth = simulated()
    write_scores(tmp_path / "one.csv", [read for read in reads if read.reader == "R1"])
    write_scores(tmp_path / "others.csv", [read for read in reads if read.reader != "R1"])
    write_truth(tmp_path / "truth.csv", truth)
    return tmp_path


def analyse(files, *options) -> int:
    scores = [files / "one.csv", files / "others.csv"]
    return cli.main([str(part) for part in ["reader-study", "analyse", *scores, files / "out", *options]])


def test_command_writes_report_tables_and_pictures(files, capsys):
    assert analyse(files, "--truth", files / "truth.csv") == 0
    assert "R1, CT: " in capsys.readouterr().out
    tables = ("readers", "means", "auc", "mrmc", "paired", "kappa", "icc", "repeats")
    pictures = ("scores.png", "roc.png", "auc.png", "repeats.png")
    names = {"report.md", "analysis.json", *(f"{table}.csv" for table in tables), *pictures}
    assert {path.name for path in (files / "out").iterdir()} == names
    found = json.loads((files / "out" / "analysis.json").read_text())
    assert found["design"]["positive_cases"] == 30
    assert [row["file"] for row in found["inputs"]] == ["one.csv", "others.csv", "truth.csv"]
    with (files / "out" / "mrmc.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(row["value"]) for row in table if row["value"]] == pytest.approx(
        [row["value"] for row in found["mrmc"] if row["value"] is not None], rel=1e-5
    )
    report = (files / "out" / "report.md").read_text()
    assert all(f"({picture})" in report for picture in pictures)
    assert all(str(files) not in path.read_text(errors="replace") for path in (files / "out").iterdir())


def test_same_scores_give_the_same_bytes(files):
    assert analyse(files) == 0
    before = {path.name: path.read_bytes() for path in (files / "out").iterdir()}
    assert analyse(files) == 2
    assert analyse(files, "--overwrite") == 0
    assert {path.name: path.read_bytes() for path in (files / "out").iterdir()} == before


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        ("caseID,truth\ncase000,1\n", "1 positive and 0 negative of the 60 cases that were read"),
        ("caseID,truth\nother,1\n", "0 positive and 0 negative"),
        ("case,truth\n", "has no column caseID"),
    ],
)
def test_wrong_truth_is_refused_in_one_sentence(files, capsys, truth, words):
    (files / "truth.csv").write_text(truth)
    assert analyse(files, "--truth", files / "truth.csv") == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1
    assert not (files / "out").exists()


def test_wrong_choices_are_refused(files, capsys):
    assert analyse(files, "--categories", "1") == 2
    assert "expected 2 to 101" in capsys.readouterr().err
    assert analyse(files, "--test", "best") == 2
    lonely = as_reads("R1", CT, [50.0], repeat=True)
    write_scores(files / "one.csv", lonely)
    assert analyse(files) == 2
    assert "only as a repeat" in capsys.readouterr().err
