"""Detection with one branch left out, on cubes whose answer can be counted by hand, and by the command."""

import json

import numpy as np
import pytest
from crop_outputs import CARD, ball, boxes_around, cube
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.evaluation import branch_ablation
from tiny_model import with_stand_ins

NODULE, BESIDE = (25, 25, 25), (10, 10, 10)


def both_and_one_false(detector_sees_nodule=True):
    """The segmenter marks the nodule and, brighter, something beside it; the detector has a box at one of them."""
    image = 0.6 * ball(NODULE, 5) + 0.9 * ball(BESIDE, 4)
    return cube(image, boxes_around(NODULE if detector_sees_nodule else BESIDE, 6, 0.9))


def lines(outputs, patients=None):
    patients = patients or [f"p{number}" for number in range(len(outputs))]
    found = branch_ablation.detections(outputs, CARD)
    return {line["branches"]: line for line in branch_ablation.report(found, patients, {"model": "m"})["lines"]}


def test_the_detector_removes_what_the_segmenter_alone_would_show():
    outputs = [both_and_one_false() for _ in range(4)]
    both, segmenter, detector = lines(outputs).values()
    assert both["1"]["value"] == detector["1"]["value"] == 1
    assert segmenter["8"]["value"] == 0  # a false finding a cube, above the nodule, is forty per two lungs
    assert both["difference"]["value"] == 0
    assert segmenter["difference"]["value"] == -1


def test_what_the_detector_misses_only_the_segmenter_alone_has():
    both, segmenter, detector = lines([cube(0.6 * ball(NODULE, 5), [])] * 2).values()
    assert segmenter["1"]["value"] == 1
    assert both["8"]["value"] == detector["8"]["value"] == 0
    assert segmenter["difference"]["value"] == 1


def test_the_interval_samples_patients_and_not_nodules():
    good, bad = both_and_one_false(), cube(0.6 * ball(NODULE, 5), [])
    of_two = lines([good, good, bad, bad], ["a", "a", "b", "b"])[branch_ablation.BOTH]["1"]
    assert (of_two["value"], of_two["low"], of_two["high"]) == (0.5, 0, 1)
    of_one = lines([good, bad], ["a", "a"])[branch_ablation.BOTH]["1"]
    assert (of_one["value"], of_one["low"]) == (0.5, None)


def test_the_command_writes_the_table_and_leaves_the_model_alone(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(type(tiny), "detector", lambda self, device: with_stand_ins(self).detector())
    before = (tiny.folder / "model.json").read_bytes()
    out = tmp_path / "out"
    arguments = ["branches", "--model", str(tiny.folder), "--data", str(tmp_path / "data"), "--device", "cpu", str(out)]
    assert main(arguments) == 0
    assert (tiny.folder / "model.json").read_bytes() == before
    result = json.loads((out / "branches.json").read_text())
    assert (result["nodules"], result["patients"], result["model"]) == (3, 3, "tiny")
    assert result["lines"][0]["branches"] == branch_ablation.BOTH
    assert "| segmenter alone (L-RF) | 3 | 3 |" in (out / "branches.md").read_text()
    capsys.readouterr()
    assert main(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0


@pytest.mark.parametrize("times", [1, 3])
def test_a_patient_sampled_more_often_counts_more_often(times):
    outputs = [both_and_one_false(), both_and_one_false(detector_sees_nodule=False)]
    found = branch_ablation.detections(outputs, CARD)
    assert branch_ablation.sampled_metrics(found, np.array([times, 0]))[:4] == [1, 1, 1, 1]
