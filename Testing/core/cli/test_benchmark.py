"""`lnhg benchmark`: both runtimes in turn, a row per stage, and whether they agree."""

import json
import re

import pytest
import SimpleITK as sitk
import torch
from LNHGLib.__main__ import main
from LNHGLib.cli import benchmark
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


@pytest.mark.slow
def test_half_precision_and_the_published_networks_are_measured_too(a_chest, tmp_path, capsys, monkeypatch):
    for name, value in {"SLAB": (3, 16, 16), "SLICE": (3, 64, 64), "PROPOSALS": 5}.items():
        monkeypatch.setattr(benchmark, name, value)
    model, out = write_model(tmp_path / "tiny").folder, tmp_path / "measured.json"
    words = ["benchmark", str(a_chest), "--model", str(model), "--repeats", "1", "--half", "--published"]
    assert main([*words, "--out", str(out)]) == 0
    said, report = capsys.readouterr().out, json.loads(out.read_text())
    assert list(report["seconds"]) == ["torch half", "torch", "openvino"]
    assert benchmark.render(report) == said
    for name in ("torch half", "torch"):
        assert re.search(rf"^{name} and openvino found", said, re.MULTILINE), said
    assert report["agreement"]["torch"]["dice"] > 0.999
    assert "times as fast." in said


def test_half_precision_is_what_torch_computes_in():
    a = torch.rand(4, 4)
    with benchmark.half_precision("cpu"):
        assert (a @ a).dtype == torch.bfloat16
    assert (a @ a).dtype == torch.float32


def test_the_published_networks_see_each_slab_and_each_slice():
    report = {"slices": 133, "published": {"slab": 5.0, "slice": 4.0}}
    report["seconds"] = {"torch": [{"all of it": 70.0}], "openvino": [{"lungs": 1.0, "generator": 22.0}] * 3}
    sentence = benchmark.published_sentence(report)
    assert "45 slabs of 5.00 s and 133 slices of 4.00 s, 757 s in all" in sentence
    assert "openvino's 23.0 s are 32.9 times as fast" in sentence


def test_the_published_networks_are_the_papers():
    generator = benchmark.published_generator()
    assert sum(values.numel() for values in generator.parameters()) == 2_326_273
    assert benchmark.published_detector().rpn.post_nms_top_n() == 300


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(["--repeats", "0"], "--repeats is 0, expected 1 or more"), (["missing.nii"], "missing.nii does not exist")],
)
def test_wrong_arguments_are_refused(arguments, sentence, capsys):
    assert main(["benchmark", *arguments]) == 2
    assert sentence in capsys.readouterr().err
