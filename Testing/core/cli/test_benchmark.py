"""`lnhg benchmark`: both runtimes in turn, a row per stage, and whether they agree."""

import re

import pytest
import SimpleITK as sitk
from LNHGLib.__main__ import main
from LNHGLib.cli.benchmark import seconds_table
from tiny_model import tiny_chest, write_model


@pytest.fixture(scope="module")
def a_chest(tmp_path_factory):
    chest = tiny_chest()
    image = sitk.GetImageFromArray(chest.array)
    image.SetSpacing(chest.grid.spacing_mm[::-1])
    path = tmp_path_factory.mktemp("ct") / "chest.nii.gz"
    sitk.WriteImage(image, path)
    return path


def test_the_table_holds_medians_and_their_ratio():
    slow = [
        {"generator": 4.0, "detector": 1.0},
        {"generator": 6.0, "detector": 90.0},
        {"generator": 8.0, "detector": 2.0},
    ]
    fast = [{"generator": 2.0, "detector": 1.0}] * 3
    rows = [
        re.split(r" *\| *", line.strip("| ")) for line in seconds_table({"torch": slow, "openvino": fast}).splitlines()
    ]
    assert rows[0] == ["stage", "torch", "openvino", "torch / openvino"]
    assert rows[2:] == [
        ["generator", "6.0", "2.0", "3.00"],
        ["detector", "2.0", "1.0", "2.00"],
        ["all", "10.0", "3.0", "3.33"],
    ]


def test_one_runtime_alone_has_no_ratio():
    assert "/" not in seconds_table({"torch": [{"generator": 4.0}]})


def test_the_command_measures_both_and_says_whether_they_agree(a_chest, tmp_path, capsys):
    model = write_model(tmp_path / "tiny").folder
    assert main(["benchmark", str(a_chest), "--model", str(model), "--repeats", "1"]) == 0
    said = capsys.readouterr().out
    for stage in ("lungs", "generator", "detector", "ensemble", "all"):
        assert re.search(rf"^\| {stage} +\| +[\d.]+ +\| +[\d.]+ +\| +[\d.]+ +\|$", said, re.MULTILINE), said
    assert re.search(r"Both found \d+ nodules?: scores differ by \S+ at most, Dice [01]\.\d+\.", said)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(["--repeats", "0"], "--repeats is 0, expected 1 or more"), (["missing.nii"], "missing.nii does not exist")],
)
def test_wrong_arguments_are_refused(arguments, sentence, capsys):
    assert main(["benchmark", *arguments]) == 2
    assert sentence in capsys.readouterr().err
