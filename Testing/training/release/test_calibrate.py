import json

import numpy as np
import pytest
import torch
from crop_outputs import CARD, ball, boxes_around, cube
from LNHGLib.errors import InputError
from LNHGLib.image.volume import Grid
from LNHGLib.models.registry import build_generator
from LNHGLib.segmentation.fusion import FusionOptions
from LNHGLib.segmentation.pipeline import PreparedScan, join_branches, load_ensemble, rescore_findings
from LNHGLib.segmentation.preprocessing import normalize
from LNHGLib.segmentation.progress import Monitor
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.data.crops import LabeledVolume
from LNHGTrainingLib.evaluation.attachment import lung_of_cube
from LNHGTrainingLib.release import calibrate
from tiny_model import with_stand_ins, write_model
from torch import nn


def curve(outputs, card):
    return calibrate.detection_curve(
        [calibrate.findings(one, card) for one in outputs], FusionOptions.from_card(card["fusion"])
    )


def kinds(one):
    return [found.kind for found in calibrate.findings(one, CARD)]


def test_the_mask_threshold_is_the_one_of_best_dice():
    tight, loose = ball((25, 25, 25), 5), ball((25, 25, 25), 7)
    outputs = [cube(np.where(tight, 0.5, np.where(loose, 0.04, 0.0)), boxes_around((25, 25, 25), 6, 0.9))]
    assert calibrate.mean_dice(outputs, 0.05) == 1.0
    assert calibrate.mean_dice(outputs, 0.02) < 0.8
    assert calibrate.choose(outputs, CARD, 2)["generator"]["threshold"] == 0.05


def test_of_thresholds_of_equal_dice_the_one_of_true_volume_is_taken():
    predicted = 0.5 * ball((25, 25, 25), 5)
    predicted[25, 25, [20, 30]] = 0.04
    predicted[25, 25, [19, 31]] = 0.025
    outputs = [cube(predicted, boxes_around((25, 25, 25), 6, 0.9))]
    dices = [calibrate.mean_dice(outputs, threshold) for threshold in (0.01, 0.03, 0.05)]
    assert max(dices) - min(dices) < calibrate.EQUAL_DICE
    assert calibrate.choose_mask_threshold(outputs) == 0.03


@pytest.mark.parametrize("key", ["prune_attachments", "trim"])
def test_outlines_are_pruned_before_they_are_compared_where_the_card_asks_for_it(key):
    predicted = 0.5 * ball((25, 25, 25), 5)
    predicted[24:27, 24:27, 25:] = 0.5
    outputs = [cube(predicted, boxes_around((25, 25, 25), 6, 0.9))]
    pruning = CARD | {"generator": CARD["generator"] | {key: True}}
    plain, pruned = (calibrate.choose(outputs, card, 2)["calibration"]["dice"] for card in (CARD, pruning))
    assert plain < 0.9 < pruned
    assert calibrate.volume_bias(outputs, 0.1, prune=True) < calibrate.volume_bias(outputs, 0.1)


def test_the_mask_threshold_is_chosen_with_faint_findings_cut_lower_where_the_card_asks_for_it():
    whole, core, skirt = ball((25, 25, 25), 5), ball((25, 25, 25), 3), ball((25, 25, 25), 7)
    boxes = boxes_around((25, 25, 25), 6, 0.9)
    images = (np.where(whole, 0.6, 0.04 * skirt), np.where(core, 0.25, 0.02 * whole))
    outputs = [cube(image, boxes) for image in images]
    faint = CARD | {"generator": CARD["generator"] | {"faint_below": 0.5}}
    plain, lower = (calibrate.choose(outputs, card, 2) for card in (CARD, faint))
    assert lower["generator"]["threshold"] == 0.05
    assert plain["calibration"]["dice"] < 0.9 < lower["calibration"]["dice"] == 1.0


def test_a_hit_a_false_finding_and_what_does_not_count_are_told_apart():
    nodule = 0.7 * ball((25, 25, 25), 5)
    elsewhere = np.maximum(nodule, 0.7 * ball((10, 10, 10), 4))
    unknown = ~ball((10, 10, 10), 6)
    boxes = boxes_around((25, 25, 25), 6, 0.9)
    both = boxes + boxes_around((10, 10, 10), 5, 0.8)
    alone = curve([cube(nodule, boxes)], CARD)
    assert (alone.sensitivity[-1], alone.false_per_scan[-1]) == (1, 0)
    false = curve([cube(elsewhere, both), cube(nodule, boxes)], CARD)
    assert (false.sensitivity[-1], false.false_per_scan[-1]) == (1, 0.5)
    ignored = curve([cube(elsewhere, both, unknown)], CARD)
    assert (ignored.sensitivity[-1], ignored.false_per_scan[-1]) == (1, 0)
    no_candidates = curve([cube(nodule, [])], CARD)
    assert no_candidates.sensitivity[-1] == 0


def test_findings_are_scored_by_the_ensemble_and_found_by_its_first_member():
    """What only the second member doubts comes after what both show."""
    nodule, beside = ball((25, 25, 25), 5), ball((10, 10, 10), 4)
    boxes = boxes_around((25, 25, 25), 6, 0.9) + boxes_around((10, 10, 10), 5, 0.9)
    first = 0.6 * nodule + 0.9 * beside
    assert kinds(cube(first, boxes)) == ["false", "hit"]
    assert kinds(cube(first, boxes, ensemble_image=0.6 * nodule + 0.45 * beside)) == ["hit", "false"]


class _FarSighted(nn.Module):
    """Shows what is bright, the brighter the more of it lies within a field's reach, in the phase of its strides."""

    halo, multiple = (48, 48, 48), 8

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.context = build_generator({"kind": "strided", "width": 2}).eval()

    def forward(self, x):
        return (x > 0.5) * x * (0.6 + 0.3 * torch.sin(self.context.residual(x)))


def test_a_candidate_has_the_score_in_its_cube_that_it_has_in_the_scan(tiny):
    """Calibration on the cube, and the pipeline on a scan that holds it, ask the same members about the same field."""
    hu = np.random.default_rng(8).normal(-850, 30, (80, 86, 94)).astype(np.int16)
    start = (11, 20, 26)
    there = tuple(slice(s, s + 50) for s in start)
    hu[there][ball((25, 25, 25), 5)] = 20
    hu[40:60, :10] = 40  # a wall outside of the cube
    crop = LabeledVolume(hu[there], ball((25, 25, 25), 5), np.ones((50, 50, 50), bool), "p", {})
    model = with_stand_ins(tiny, generator=_FarSighted())
    model.card["generator"]["rotate_180"] = True
    (one,) = calibrate.predict_crops(model, [crop])
    (in_cube,) = calibrate.findings(one, model.card)
    assert in_cube.kind == "hit"

    scan = PreparedScan(Grid.aligned(hu.shape, (1, 1, 1), (0, 0, 0)), normalize(hu), np.ones(hu.shape, bool))
    predictor = load_ensemble(model, torch.device("cpu"), Monitor())
    boxes = one.boxes + np.array([*start, *start[1:], 0])
    image, options = predictor.predict(scan.ct_norm, scan.lungs), model.spec.fusion
    step, threshold = calibrate.step_of(model.card), model.spec.generator.threshold
    joined = join_branches(scan, image, boxes, step, threshold, options)
    scored, _patches = rescore_findings(scan, joined, predictor, options)
    ((before,), (in_scan,)) = joined.fusion.findings, scored.fusion.findings
    assert in_cube.finding.score == pytest.approx(in_scan.score, abs=1e-5)
    assert in_scan.segmenter_score != pytest.approx(before.segmenter_score, abs=1e-3)


def test_the_threshold_admits_no_more_false_findings_than_asked():
    nodule = 0.7 * ball((25, 25, 25), 5)
    elsewhere = np.maximum(nodule, 0.7 * ball((10, 10, 10), 4))
    hit = boxes_around((25, 25, 25), 6, 0.6)
    outputs = [cube(elsewhere, boxes_around((10, 10, 10), 5, 0.5) + hit), *[cube(nodule, hit)] * 19]
    strict, loose = (calibrate.choose(outputs, CARD, rate) for rate in (1, 2))
    scores = curve(outputs, strict).thresholds[1:]
    assert strict["threshold"] == pytest.approx(scores[0], abs=1e-3)
    assert loose["threshold"] == pytest.approx(scores[1], abs=1e-3)
    assert strict["calibration"]["sensitivity_at"] == {"1": 1.0, "2": 1.0, "4": 1.0, "8": 1.0}
    assert CARD["threshold"] == 0.5
    with pytest.raises(InputError, match="allow more"):
        calibrate.choose([cube(elsewhere, boxes_around((10, 10, 10), 5, 0.9))], CARD, 1)


def test_the_lung_of_a_cube_holds_its_nodule_and_not_the_thick_wall():
    hu = np.full((50, 50, 50), -850)
    hu[ball((25, 25, 20), 6)] = 20
    hu[:, :, 35:] = 40
    lung = lung_of_cube(hu)
    assert lung[25, 25, 20]
    assert lung[5, 5, 5]
    assert not lung[25, 25, 45]


def test_only_patients_left_out_of_training_are_predicted(tiny, tmp_path):
    crops = calibrate.validation_crops(tiny, tmp_path / "data")
    assert {crop.patient for crop in crops} == {"patient-1", "patient-3", "patient-5"}
    outputs = calibrate.predict_crops(with_stand_ins(tiny), crops)
    assert calibrate.choose(outputs, tiny.card, 2)["calibration"]["sensitivity_at"]["2"] == 1.0


def test_the_command_rewrites_the_card_and_drops_metrics_of_the_old_thresholds(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(type(tiny), "detector", lambda self, device: with_stand_ins(self).detector())
    assert main(["calibrate", "--model", str(tiny.folder), "--data", str(tmp_path / "data"), "--device", "cpu"]) == 0
    card = json.loads((tiny.folder / "model.json").read_text())
    assert card["calibration"]["crops"] == 3
    assert "results" not in card
    assert "sensitivity_at.2" in (tiny.folder / "README.md").read_text()


def test_a_model_that_names_no_validation_folds_is_refused(tmp_path, capsys):
    model = write_model(tmp_path / "tiny")
    assert main(["calibrate", "--model", str(model.folder), "--data", str(tmp_path)]) == 2
    assert "names no validation folds" in capsys.readouterr().err
