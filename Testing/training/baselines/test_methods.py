"""The list of all systems: parameters are counted in the networks, trainings are those that studies rest on."""

import json
import re
from pathlib import Path

import pytest
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.baselines import methods
from LNHGTrainingLib.config import override, read
from LNHGTrainingLib.paths import RESOURCES

STUDIES = Path(__file__).parents[3] / "Resources" / "Studies"


@pytest.fixture(scope="module")
def rows():
    """The list by the names of the systems; each row as its cells."""
    lines = methods.render().splitlines()[2:]
    return {cells[0]: cells[1:] for cells in ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)}


def test_every_system_of_the_documents_is_there(rows):
    named = ("LNHG, bundled", "L-MSE", "L-VGG", "L-RF", "U-net", "NoduleNet", "nnU-Net", "MONAI U-Net")
    assert {"LNHG, the paper's networks", *named} <= rows.keys()
    assert {row[0] for row in rows.values()} == {"000, 003", "001", "002", "004", "none"}


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("LNHG, the paper's networks", ("generator 2,326,273", "critic 1,162,305")),
        ("NoduleNet", ("generator 4,339,998",)),
        ("NASNet with global convolutions", ("generator 22,005,284",)),
        ("2-D U-net and MGI-CNN", ("generator 1,617,091", "classifier 21,440,515")),
        ("CT-GAN, which makes nodules to train on", ("injector 26,021,761", "discriminator 4,328,121")),
        ("3-D U-Net and 3-D ResNet", ("generator 125,201", "classifier 2,078,306")),
    ],
)
def test_parameters_are_those_of_the_documents(rows, name, counts):
    for count in counts:
        assert count in rows[name][1]


def test_the_bundled_model_has_all_its_networks_in_the_list(rows):
    for part in ("generator", "second generator", "detector", "classifier"):
        assert re.search(rf"\b{part} \d", rows["LNHG, bundled"][1])
        assert re.search(rf"\b{part} [\d,]+ steps", rows["LNHG, bundled"][3])


def test_what_was_not_trained_or_barely_says_so(rows):
    assert methods.trained(methods.System(name="x", document="none")) == "not trained"
    assert rows["nnU-Net"][3] == "300 steps (barely trained), 5 folds"
    assert (
        rows["3-D U-Net and 3-D ResNet"][3] == "generator 2,000 steps, classifier 400 steps (barely trained), 5 folds"
    )
    assert "detector 750 steps (barely trained)" in rows["LNHG, bundled"][3]
    assert rows["L-MSE"][3] == rows["L-VGG"][3] == "1,200 steps, 1 fold, budget A"


@pytest.mark.parametrize("system", methods.systems(), ids=lambda system: system.name)
def test_a_system_names_recipes_that_build_and_the_trainings_of_its_study(system):
    for name in system.recipes:
        override(read(RESOURCES / name), system.settings)
    assert bool(system.steps) == bool(system.folds)
    assert system.steps or system.model or not system.study
    if not system.steps or not system.study:  # CT-GAN outlines nothing
        return
    assert (
        f"fold 0: step {system.steps[0]}," in json.loads((STUDIES / system.study / "summary.json").read_text())["split"]
    )
    path = STUDIES / (system.five_folds or system.study)
    if system.row:
        (found,) = (one for one in json.loads(path.read_text())["methods"] if one["name"] == system.row)
    else:
        found = json.loads((path / "summary.json").read_text())
    assert [f"fold {n}: step {system.steps[0]}," in found["split"] for n in range(system.folds)] == [
        True
    ] * system.folds
    assert f"fold {system.folds}:" not in found["split"]


def test_the_command_prints_the_list(capsys):
    assert main(["methods"]) == 0
    assert capsys.readouterr().out == methods.render()
