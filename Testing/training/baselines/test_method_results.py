"""The table of all systems: every system has its row, out of the scores that its study keeps."""

import csv
from pathlib import Path

import numpy as np
import pytest
from LNHGTrainingLib.baselines import method_results, methods

STUDIES = Path(__file__).parents[3] / "Resources" / "Studies"


@pytest.fixture(scope="module")
def rows():
    """Return the rows by the names of their systems, as cells by the names of their columns."""
    head, _, *lines = method_results.render(STUDIES).splitlines()
    names, *cells = ([cell.strip() for cell in line.split("|")[1:-1]] for line in [head, *lines] if "|" in line)
    return {row[0]: dict(zip(names, row, strict=True)) for row in cells}


def test_every_system_and_the_readers_have_a_row(rows):
    assert list(rows) == [*(one.name for one in methods.systems()), "readers, leave-one-out"]


def dice_of(study: str) -> dict[tuple[str, ...], float]:
    """Return the Dice of each nodule of a study by what names it."""
    with (STUDIES / study / "nodules.csv").open(newline="") as stream:
        return {(row["patient"], row["series"], row["nodule"]): float(row["dice"]) for row in csv.DictReader(stream)}


@pytest.mark.parametrize("system", [one for one in methods.systems() if one.study], ids=lambda one: one.name)
def test_a_dice_is_the_mean_over_the_nodules_of_the_fold(rows, system):
    dice = dice_of(system.study)
    mean = np.mean([dice[key] for key in dice_of("critic/l-mse")])  # of fold 0 alone
    assert rows[system.name]["Dice, missed = 0"].startswith(f"{mean:.3f} (")


@pytest.mark.parametrize("system", [one for one in methods.systems() if one.study], ids=lambda one: one.name)
def test_five_folds_have_a_column_of_their_own(rows, system):
    shown = rows[system.name]["Dice over five folds"]
    if system.folds < 2:
        assert shown == "-"
    elif system.row:
        text = (STUDIES / system.five_folds).read_text()
        assert f'"value": 0.{shown[2:5]}' in text
    else:
        dice = dice_of(system.five_folds or system.study)
        assert len(dice) == 951
        assert shown.startswith(f"{np.mean(list(dice.values())):.3f} (")


def test_what_five_folds_found_is_marked(rows):
    """The whole scans of five folds are seven, of fold 0 one."""
    assert rows["2-D U-net and MGI-CNN"]["sensitivity at 1 false a scan"].endswith(" (five folds)")
    assert rows["LNHG, bundled"]["sensitivity at 1 false a scan"].endswith(")")
    assert "five" not in rows["LNHG, bundled"]["sensitivity at 1 false a scan"]
