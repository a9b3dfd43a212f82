"""Scores that are probabilities: the regression, what is held out, the card's parts, and the whole command."""

import json

import numpy as np
import pytest
import small_data
from LNHGLib.errors import InputError
from LNHGLib.models import folder as models
from LNHGLib.segmentation.calibration import expectation
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.release import probability
from LNHGTrainingLib.release.scan_findings import ScoredFinding, detections
from tiny_model import write_model

FLOOR = 0.1


def finding(patient="A", on=(), touches=False, scores=(0.5, 0.5, 0.5), diameter=5.0, scan=None) -> ScoredFinding:
    return ScoredFinding(
        scan or patient, patient, "fused", *scores, diameter, (0, 0, 0), tuple(on), touches or bool(on)
    )


def made_up(count=3000, seed=0):
    """Findings whose classifier says all there is to know, and whose segmenter says nothing."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        odds = rng.normal(-1, 2)
        nodule = rng.random() < 1 / (1 + np.exp(-odds))
        score = 1 / (1 + np.exp(-odds / 2))  # too timid by half
        patient = f"P{number % 10}"
        rows.append(finding(patient, [number] if nodule else [], scores=(rng.uniform(0.1, 0.9), None, score)))
    return rows


def test_regression_finds_what_the_classifier_is_worth():
    spec = probability.fit(made_up(), FLOOR)
    assert spec.classifier == pytest.approx(2, abs=0.25)
    assert spec.segmenter == pytest.approx(0, abs=0.15)
    assert spec.segmenter >= 0


def test_part_that_does_not_count_has_no_coefficient():
    rows = made_up(300)
    spec = probability.fit(rows, FLOOR, parts=("segmenter",), size=False)
    assert (spec.classifier, spec.detector, spec.log_diameter) == (0, 0, 0)
    shown = probability.probabilities(rows, spec, FLOOR)
    assert shown.std() < 0.1


def test_probabilities_of_made_up_findings_are_trustworthy():
    rows = made_up()
    shown = probability.held_out_probabilities(rows, FLOOR)
    trust = probability.reliability(rows, shown)
    assert trust["expected_calibration_error"]["value"] < 0.05
    assert trust["slope"]["value"] == pytest.approx(1, abs=0.15)
    assert trust["brier"]["value"] < trust["brier_of_a_constant"]["value"]
    assert sum(one["findings"] for one in trust["bins"]) == trust["findings"]
    bold = np.clip(shown * 1.6, 0, 0.999)
    assert probability.reliability(rows, bold)["expected_calibration_error"]["value"] > 0.1


def test_a_patients_findings_do_not_decide_their_own_probability():
    rows = made_up(200)
    turned = [finding("X", [] if n % 2 else [n], scores=(0.5, None, 0.02 if n % 2 else 0.98)) for n in range(40)]
    wrong = [finding("X", [n] if n % 2 else [], scores=(0.5, None, 0.02 if n % 2 else 0.98)) for n in range(40)]
    both = [probability.held_out_probabilities(rows + own, FLOOR)[200:] for own in (turned, wrong)]
    np.testing.assert_allclose(*both)


def test_best_finding_takes_a_nodule_and_others_on_it_are_left_out():
    rows = [finding(on=[1]), finding(on=[1]), finding(touches=True), finding(), finding("B", on=[1])]
    found = detections(rows, np.array([0.4, 0.9, 0.8, 0.7, 0.6]), ["A", "B"], [1, 2])
    assert found.scores.tolist() == [0.9, 0.7, 0.6]
    assert found.hits.tolist() == [True, False, True]
    assert found.scans.tolist() == [0, 0, 1]


def test_card_says_what_to_expect_at_each_threshold(tmp_path):
    rows = [finding(on=[1]), finding(), finding("B", on=[1]), finding("B")]
    part = probability.froc_part(rows, np.array([0.9, 0.7, 0.6, 0.2]), ["A", "B"], [1, 1], "two scans")
    froc = write_model(tmp_path / "model", froc=part).spec.froc
    assert [expectation(froc, t).found for t in (0.95, 0.8, 0.65, 0.5, 0.1)] == [0, 1, 1, 2, 2]
    assert [expectation(froc, t).false_per_scan for t in (0.95, 0.8, 0.65, 0.1)] == [0, 0, 0.5, 1.0]
    assert (froc.nodules, froc.scans, froc.rests_on) == (2, 2, "two scans")


@pytest.fixture
def study(tmp_path):
    """Two whole scans, and two models, each of which held out one of their patients."""
    data = tmp_path / "data"
    small_data.write_crops(data)
    small_data.write_scans(data, {"patient-0": [4, 2], "patient-1": [3, 3]})
    files = {"table": "crops/luna16_crops.csv", "scans": "scans/lidc_scans.h5"}

    def model(name, folds):
        recipe = {"data": files | {"train_folds": folds}}
        parts = dict.fromkeys(("generator", "detector", "classifier"), recipe)
        grid = {"kind": "spacing", "spacing_mm": [1.0, 1.0, 1.0]}
        return write_model(
            tmp_path / name, classifier=True, training=parts, grid=grid, name=name, fusion={"keep": "all"}
        )

    return data, model


def test_command_writes_the_card_and_what_it_rests_on(study, tmp_path, capsys):
    data, model = study
    final, *held_out = model("final", [0, 1]), model("without-0", [1]), model("without-1", [0])
    names = [str(one.folder) for one in held_out]
    out = tmp_path / "out"
    options = ["--model", str(final.folder), "--data", str(data), "--false-per-scan", "2"]
    assert main(["probability", *options, *names, str(out)]) == 0
    card = models.load(str(final.folder))
    report = json.loads((out / "probability.json").read_text())
    assert {"findings.csv", "probability.md", "reliability.png", "froc.png"} <= {path.name for path in out.iterdir()}
    assert (report["scans"], report["nodules"]) == (2, 3)
    assert card.spec.probability.detector >= 0
    assert card.spec.froc.nodules == 3
    assert max(card.spec.froc.found) == 3
    rate = expectation(card.spec.froc, card.spec.threshold).false_per_scan
    assert rate <= 2
    assert "without the classifier" in capsys.readouterr().out


def test_scan_that_every_model_saw_is_refused(study, tmp_path):
    data, model = study
    final = model("final", [0, 1])
    with pytest.raises(InputError, match="Every model given was trained on patient-0"):
        probability.run(final, [final], data, 1.0, 0, "cpu")


def test_detector_that_saw_a_patient_counts_for_nothing(study):
    data, model = study
    final, without_0, without_1 = model("final", [0, 1]), model("without-0", [1]), model("without-1", [0])
    without_0.card["training"]["detector"] = {"data": {"train_folds": [0, 1]}}
    made = probability.run(final, [without_0, without_1], data, 3.0, 0, "cpu")
    assert made.report["parts"] == ["segmenter", "classifier"]
    assert made.card["probability"]["detector"] == 0
