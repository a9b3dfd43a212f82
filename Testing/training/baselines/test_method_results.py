"""The table of all systems: every system has its row, out of the scores that its study keeps."""

import csv
from pathlib import Path

import numpy as np
import pytest
from LNHGTrainingLib.baselines import method_results, methods

STUDIES = Path(__file__).parents[3] / "Resources" / "Studies"


@pytest.fixture(scope="module")
def rows():
    """The rows by the names of their systems, as cells by the names of their columns."""
    head, _, *lines = method_results.render(STUDIES).splitlines()
    names, *cells = ([cell.strip() for cell in line.split("|")[1:-1]] for line in [head, *lines] if "|" in line)
    return {row[0]: dict(zip(names, row, strict=True)) for row in cells}


def test_every_system_and_the_readers_have_a_row(rows):
    assert list(rows) == [*(one.name for one in methods.systems()), "readers, leave-one-out"]


@pytest.mark.parametrize(
    "system", [one for one in methods.systems() if one.study and not one.row], ids=lambda s: s.name
)
def test_a_dice_is_the_mean_over_the_nodules_of_the_fold(rows, system):
    with (STUDIES / "critic" / "l-mse" / "nodules.csv").open(newline="") as stream:  # of fold 0 alone
        fold = {(row["patient"], row["series"], row["nodule"]) for row in csv.DictReader(stream)}
    with (STUDIES / system.study / "nodules.csv").open(newline="") as stream:
        dice = {(row["patient"], row["series"], row["nodule"]): float(row["dice"]) for row in csv.DictReader(stream)}
    mean = np.mean([dice[key] for key in fold])
    assert rows[system.name]["Dice, missed = 0"].startswith(f"{mean:.3f} (")


def test_scores_of_other_nodules_are_marked(rows):
    assert rows["MONAI U-Net"]["Dice, missed = 0"].endswith("(five folds)")
