"""Scores that are probabilities: the regression, what is held out, the card's parts, and the whole command."""

import csv
import json

import numpy as np
import pytest
import small_data
from LNHGLib.errors import InputError
from LNHGLib.models import folder as models
from LNHGLib.segmentation.calibration import expectation
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.release import probability, scan_findings
from LNHGTrainingLib.release.scan_findings import ScoredFinding, detections
from tiny_model import write_model

FLOOR = 0.1


def finding(patient="A", on=(), touches=False, scores=(0.5, 0.5, 0.5), diameter=5.0, scan=None) -> ScoredFinding:
    return ScoredFinding(
        scan or patient, patient, "fused", *scores, diameter, (0, 0, 0), tuple(on), touches or bool(on)
    )


def made_up(count=1500, seed=0):
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
    found = detections(rows, np.array([0.4, 0.9, 0.8, 0.7, 0.6]), {"A": 1, "B": 2})
    assert found.scores.tolist() == [0.9, 0.7, 0.6]
    assert found.hits.tolist() == [True, False, True]
    assert found.scans.tolist() == [0, 0, 1]


def test_card_says_what_to_expect_at_each_threshold(tmp_path):
    rows = [finding(on=[1]), finding(), finding("B", on=[1]), finding("B")]
    found = detections(rows, np.array([0.9, 0.7, 0.6, 0.2]), {"A": 1, "B": 1})
    part = probability.froc_part(found, "two scans")
    froc = write_model(tmp_path / "model", froc=part).spec.froc
    assert [expectation(froc, t).found for t in (0.95, 0.8, 0.65, 0.5, 0.1)] == [0, 1, 1, 2, 2]
    assert [expectation(froc, t).false_per_scan for t in (0.95, 0.8, 0.65, 0.1)] == [0, 0, 0.5, 1.0]
    assert (froc.nodules, froc.scans, froc.rests_on) == (2, 2, "two scans")


def test_crops_show_nodules_and_whole_scans_what_is_found_falsely():
    rows = [finding("A", on=[1], scan="crop 0"), finding("B"), finding("C"), finding("D", on=[1], scan="crop 1")]
    places = {"B": 0, "C": 0, "crop 0": 1, "crop 1": 1, "crop 2": 1}
    found = detections(rows, np.array([0.9, 0.8, 0.4, 0.3]), places, [True, True, False, False, False])
    part = probability.froc_part(found, "two scans")
    assert part["found"] == [1, 1, 1, 2]
    assert part["false_per_scan"] == [0, 0.5, 1, 1]
    assert (part["nodules"], part["scans"]) == (3, 2)


def test_nodules_of_a_weight_count_as_often():
    rows = made_up(300)
    often = [row for row in rows for _ in range(3 if row.on else 1)]
    weighed, repeated = probability.fit(rows, FLOOR, 3.0), probability.fit(often, FLOOR)
    assert weighed.classifier == pytest.approx(repeated.classifier, abs=1e-3)
    assert weighed.intercept == pytest.approx(repeated.intercept, abs=1e-3)
    shown = {id(rows): probability.probabilities(rows, weighed, FLOOR)}
    trust = probability.reliability(rows, shown[id(rows)], 3.0)
    again = probability.reliability(often, probability.probabilities(often, weighed, FLOOR))
    for key in ("slope", "brier", "brier_of_a_constant"):
        assert trust[key]["value"] == pytest.approx(again[key]["value"], abs=1e-3)
    assert trust["expected_calibration_error"]["value"] == pytest.approx(
        again["expected_calibration_error"]["value"], abs=0.02
    )


def test_regressions_are_compared_by_cross_entropy():
    rows = [finding(on=[1]), finding("B"), finding("C", touches=True)]
    scores = np.array([0.8, 0.4, 0.999])
    assert probability.cross_entropy(rows, scores) == pytest.approx(-np.log([0.8, 0.6]).mean())
    weighted = -np.average(np.log([0.8, 0.6]), weights=[3, 1])
    assert probability.cross_entropy(rows, scores, 3.0) == pytest.approx(weighted)


@pytest.fixture
def study(tmp_path):
    """Two whole scans, crops of two folds; a model that held fold 1 out, one whose classifier held fold 0 out."""
    data = tmp_path / "data"
    small_data.write_crops(data)
    small_data.write_scans(data, {"patient-0": [4, 2], "patient-1": [3, 3]})
    files = {
        name: f"{name}/lidc_scans.h5" if name == "scans" else f"crops/luna16_crops.{end}"
        for name, end in (("table", "csv"), ("scans", ""), ("crops", "h5"))
    }

    def model(name, held_out, **recipes):
        seen = {"data": {"train_folds": [0], "validation_folds": [1]}}
        own = {"data": files | {"train_folds": [1 - held_out], "validation_folds": [held_out]}}
        parts = {"generator": seen, "detector": seen, "classifier": own} | recipes
        grid = {"kind": "spacing", "spacing_mm": [1.0, 1.0, 1.0]}
        return write_model(
            tmp_path / name, classifier=True, training=parts, grid=grid, name=name, fusion={"keep": "all"}
        )

    return data, model


def test_command_writes_the_card_and_what_it_rests_on(study, tmp_path, capsys):
    data, model = study
    final, other = model("final", 1), model("other", 0)
    out = tmp_path / "out"
    options = ["--model", str(final.folder), "--data", str(data), "--false-per-scan", "2"]
    assert main(["probability", *options, str(other.folder), str(out)]) == 0
    card = models.load(str(final.folder))
    report = json.loads((out / "probability.json").read_text())
    assert {"findings.csv", "probability.md", "reliability.png", "froc.png"} <= {path.name for path in out.iterdir()}
    assert (report["scans"], report["nodules"], report["nodules_per_scan"]) == (2, 3, 1.5)
    parts, size = probability.REGRESSIONS[report["regression"]]
    assert report["cross_entropy"][report["regression"]] == min(report["cross_entropy"].values())
    assert {"the segmenter's own score", "both branches without a classifier"} <= set(report["found"])
    for part in probability.PARTS:
        assert (getattr(card.spec.probability, part) == 0) or part in parts
    assert size or card.spec.probability.log_diameter == 0
    assert card.spec.froc.nodules == 3
    assert max(card.spec.froc.found) == 3
    assert expectation(card.spec.froc, card.spec.threshold).false_per_scan <= 2
    rows = list(csv.DictReader((out / "findings.csv").open()))
    assert "detector-box" not in {row["provenance"] for row in rows}  # as in the pipeline
    assert {row["scan"] for row in rows if row["outcome"] == "nodule"} == {"crop 0", "crop 1", "crop 2"}
    assert {row["scan"] for row in rows if row["outcome"] == "false"} == {"scan-0", "scan-1"}
    assert "without the classifier" in capsys.readouterr().out


def test_what_is_larger_than_any_outline_and_touches_none_is_left_out(study, monkeypatch):
    data, model = study
    score_scan = scan_findings.score_scan

    def with_mass(scan, *options):
        larger = [finding(scan.patient, scan=scan.name, diameter=diameter) for diameter in (29.0, 36.0)]
        return [*score_scan(scan, *options), *larger]

    monkeypatch.setattr(scan_findings, "score_scan", with_mass)
    made = probability.run(model("final", 1), [model("other", 0)], data, 4.0, 0, "cpu")
    assert sorted(row.diameter_mm for row in made.rows if row.diameter_mm > 20) == [29.0, 29.0]


def test_scan_that_every_classifier_saw_is_refused(study):
    data, model = study
    final = model("final", 1)
    with pytest.raises(InputError, match="Every classifier given was trained on patient-0"):
        probability.run(final, [final], data, 1.0, 0, "cpu")


def test_crops_that_a_network_saw_take_no_part(study):
    data, model = study
    final = model("final", 1, detector={"data": {"train_folds": [0, 1]}})
    with pytest.raises(InputError, match="2 whole scans and 0 folds that no network of final saw"):
        probability.run(final, [model("other", 0)], data, 1.0, 0, "cpu")


def test_generator_that_was_trained_on_the_whole_scan_is_refused(study):
    data, model = study
    seen = {"data": {"train_folds": [0], "validation_folds": [1], "scans": "scans/lidc_scans.h5"}}
    final, other = model("final", 1, generator=seen), model("other", 0, generator=seen)
    with pytest.raises(InputError, match="The generator of other was trained on the whole scan of patient-0"):
        probability.run(final, [other], data, 1.0, 0, "cpu")
