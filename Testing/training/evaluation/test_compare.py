"""Comparison of methods: statistics worked out by hand, refusals, tables."""

import json
import shutil
from math import sqrt

import numpy as np
import pytest
from evaluation_data import CARD, QUIET, empty, perfect, read_csv
from LNHGLib.errors import InputError
from LNHGLib.files.text import write_csv
from LNHGLib.stats import paired
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.evaluation import compare, run
from LNHGTrainingLib.evaluation.crops import Selection
from scipy import stats


def test_wilcoxon_of_five_positive_differences_is_two_of_thirty_two_signs():
    assert paired.wilcoxon_p(np.array([0.1, 0.2, 0.3, 0.4, 0.5])) == pytest.approx(2 / 2**5)
    assert paired.wilcoxon_p(np.array([0.1, 0.2, 0.3, 0.4, -0.5])) == pytest.approx(2 * 10 / 2**5)
    assert paired.wilcoxon_p(np.zeros(4)) == 1.0


def test_equivalence_is_the_worse_of_both_one_sided_t_tests():
    differences = np.array([0.01, 0.0, 0.02, 0.01])
    error = sqrt(0.0002 / 3) / sqrt(4)
    assert paired.tost_p(differences, 0.05) == pytest.approx(stats.t.sf((0.05 - 0.01) / error, df=3))
    assert paired.tost_p(-differences, 0.05) == pytest.approx(paired.tost_p(differences, 0.05))
    assert paired.tost_p(differences, 0.01) == pytest.approx(0.5)


def test_equivalence_needs_two_patients_and_stands_differences_without_spread():
    assert np.isnan(paired.tost_p(np.array([0.0]), 0.02))
    assert paired.tost_p(np.array([0.01, 0.01]), 0.02) == 0.0
    assert paired.tost_p(np.array([0.03, 0.03]), 0.02) == 1.0


def test_holm_steps_down_and_never_falls_back():
    assert paired.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert paired.holm([0.9, 0.8]) == [1.0, 1.0]
    first, missing = paired.holm([0.02, float("nan")])
    assert first == pytest.approx(0.02)
    assert np.isnan(missing)


def test_nodules_of_one_patient_are_one_difference():
    """A hundred like nodules of two patients are no proof of anything."""
    dice = {"a": np.full(100, 0.8), "b": np.full(100, 0.7) + np.repeat([0.0, 0.01], 50)}
    pair = compare.pairs(dice, ["P1"] * 50 + ["P2"] * 50, margin=0.02)[0]
    assert (pair["nodules"], pair["patients"]) == (100, 2)
    assert pair["wilcoxon_p"] == 0.5
    assert pair["difference"] == {"value": 0.095, "low": 0.09, "high": 0.1}


def test_p_values_are_adjusted_over_all_pairs():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.5, 0.9, 12)
    dice = {"a": base, "b": base - 0.05 - rng.uniform(0, 0.01, 12), "c": base + rng.normal(0, 0.002, 12)}
    found = {(p["first"], p["second"]): p for p in compare.pairs(dice, [str(i) for i in range(12)], margin=0.02)}
    smallest = 2 / 2**12
    assert found["a", "b"]["wilcoxon_p"] == pytest.approx(smallest, rel=1e-2)
    assert found["a", "b"]["wilcoxon_p_holm"] == pytest.approx(3 * smallest, rel=1e-2)
    assert compare.reading(found["a", "b"]) == "different"
    assert compare.reading(found["a", "c"]) == "equivalent"


def test_the_first_alone_against_the_others_is_adjusted_over_those_pairs():
    dice = {"a": np.linspace(0.5, 0.9, 12), "b": np.linspace(0.4, 0.7, 12), "c": np.linspace(0.4, 0.8, 12)}
    found = compare.pairs(dice, [str(i) for i in range(12)], margin=0.02, with_first=True)
    assert [(pair["first"], pair["second"]) for pair in found] == [("a", "b"), ("a", "c")]
    assert found[0]["wilcoxon_p_holm"] == pytest.approx(2 * found[0]["wilcoxon_p"], rel=1e-2)


@pytest.mark.parametrize(
    ("wilcoxon", "tost", "text"),
    [(0.01, 0.01, "different, within the margin"), (0.3, 0.2, "undecided"), (None, None, "undecided")],
)
def test_both_tests_are_read_together(wilcoxon, tost, text):
    assert compare.reading({"wilcoxon_p_holm": wilcoxon, "tost_p_holm": tost}) == text


def eroded(hu):
    return perfect(hu) * np.roll(perfect(hu), 1, axis=0)


@pytest.fixture
def evaluations(crops, tmp_path, no_plots):
    """The same six nodules by three methods; the names of two are the same."""
    folders = []
    for folder, name, predict in (("a", "tiny", perfect), ("b", "tiny", eroded), ("c", "blind", empty)):
        folders.append(tmp_path / folder)
        run.run_crops(CARD | {"name": name}, predict, crops, folders[-1], Selection(), QUIET)
    return folders


def test_the_command_writes_a_row_a_method_and_a_row_a_pair(evaluations, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["compare", *map(str, evaluations), str(out), "--margin", "0.05"]) == 0
    report = json.loads((out / "comparison.json").read_text())
    assert [method["name"] for method in report["methods"]] == ["tiny (a)", "tiny (b)", "blind"]
    rows = {(row["first"], row["second"]): row for row in read_csv(out / "pairs.csv")}
    assert len(rows) == 6
    blind = rows["tiny (a)", "blind"]
    assert (blind["difference"], blind["nodules"], blind["patients"]) == ("1.0", "6", "3")
    assert rows["tiny (a)", "readers, leave-one-out"]["wilcoxon_p"] == "1.0"
    own = [read_csv(folder / "nodules.csv") for folder in evaluations[:2]]
    difference = np.mean([float(a["dice"]) - float(b["dice"]) for a, b in zip(*own, strict=True)])
    assert float(rows["tiny (a)", "tiny (b)"]["difference"]) == pytest.approx(difference, abs=1e-4)
    text = (out / "comparison.md").read_text()
    assert "| blind | 0.000 (0.000 to 0.000) | 0.000 (0.000 to 0.000) | - |" in text
    assert "| readers, leave-one-out | - | 1.000 (1.000 to 1.000) |" in text
    assert "margin 0.05" in text
    assert "| marked elsewhere, a cube |" in text
    assert report["methods"][2]["elsewhere"]["value"] == 0.0
    assert str(tmp_path) not in text
    assert text in capsys.readouterr().out
    assert main(["compare", *map(str, evaluations), str(out), "--with-first", "--overwrite"]) == 0
    assert [row["first"] for row in read_csv(out / "pairs.csv")] == ["tiny (a)"] * 3


def test_trainings_of_one_name_give_their_mean_and_their_spread(evaluations, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["compare", "--trainings", *map(str, evaluations), str(out)]) == 0
    tiny, blind = json.loads((out / "comparison.json").read_text())["methods"]
    one, other = (
        json.loads((folder / "summary.json").read_text())["groups"]["all"]["dice_all"]["value"]
        for folder in evaluations[:2]
    )
    assert (tiny["name"], tiny["trainings"], blind["trainings"]) == ("tiny", 2, 1)
    assert tiny["dice_all"] == pytest.approx({"mean": (one + other) / 2, "least": other, "greatest": one}, abs=1e-5)
    assert tiny["sd"] == pytest.approx((one - other) / sqrt(2), abs=1e-5)
    assert "dice_found" not in blind
    text = (out / "comparison.md").read_text()
    assert f"| blind | 1 | 0.000 | 0.000 | - | - | - | -{(one + other) / 2:.3f} |" in text
    assert text in capsys.readouterr().out
    assert not (out / "pairs.csv").exists()
    assert main(["compare", "--trainings", *map(str, evaluations[1:]), str(tmp_path / "no")]) == 2


def test_one_method_is_compared_with_the_readers(evaluations, tmp_path):
    out = tmp_path / "out"
    assert main(["compare", str(evaluations[2]), str(out)]) == 0
    (pair,) = read_csv(out / "pairs.csv")
    assert (pair["first"], pair["second"], pair["difference"]) == ("blind", compare.READERS, "-1.0")
    assert (out / "comparison.md").read_text().startswith("# 1 method on 6 nodules of 3 patients")


def test_evaluations_of_other_nodules_are_refused(evaluations, crops, tmp_path, no_plots):
    fewer = tmp_path / "fewer"
    run.run_crops(CARD, perfect, crops, fewer, Selection(limit=5), QUIET)
    with pytest.raises(InputError, match=r"scores 6 nodules and .*fewer 5, 1 of them not in both"):
        compare.read_evaluations([evaluations[0], fewer])
    table = evaluations[1] / "nodules.csv"
    table.write_text(table.read_text().replace(",123.0,", ",124.0,"))
    with pytest.raises(InputError, match=r"has reference_volume_mm3 123.0 in .* and 124.0"):
        compare.read_evaluations(evaluations)


def test_what_cannot_be_compared_is_refused(evaluations, tmp_path, capsys):
    def error(*arguments):
        assert main(["compare", *map(str, arguments)]) == 2
        return capsys.readouterr().err

    out = tmp_path / "out"
    unread = tmp_path / "unread"
    shutil.copytree(evaluations[0], unread)
    rows = read_csv(evaluations[0] / "nodules.csv")
    write_csv(unread / "nodules.csv", [row | {"human_loo_dice": ""} for row in rows], list(rows[0]))
    assert "unread is one evaluation without readers' Dice, expected two or more" in error(unread, out)
    assert "holds no summary.json" in error(evaluations[0], tmp_path, out)
    assert "--margin is 0" in error(*evaluations, out, "--margin", "0")
    assert "this command does not write" in error(*evaluations, evaluations[0], "--overwrite")
    summary = evaluations[1] / "summary.json"
    summary.write_text(summary.read_text().replace("within 5 mm", "within 9 mm"))
    assert "differ in their protocol" in error(*evaluations, out)
    summary.write_text(summary.read_text().replace('"schema": 2', '"schema": 1'))
    assert "schema 1, expected 2" in error(*evaluations, out)
    for damaged in ("[1]", "null", "{"):
        summary.write_text(damaged)
        assert "holds no summary.json and nodules.csv that can be read" in error(*evaluations, out)
    assert not out.exists()
