"""Metrics by kind of nodule and by patient, worked out by hand."""

from dataclasses import fields, replace

import numpy as np
import pytest
from LNHGTrainingLib.evaluation import summary
from LNHGTrainingLib.evaluation.crops import NoduleScore
from LNHGTrainingLib.evaluation.matching import Finding, FindingMatch, ReferenceNodule, whole_scan_dice
from LNHGTrainingLib.evaluation.scans import CaseScore, ScanFinding, ScanNodule, ScanResults

SCORE = NoduleScore("P1", "1.2", "0", 8.0, 4, 5.0, 0, 0, 1, 0.8, 1.0, 90.0, 100.0, -0.1, 0.75)


@pytest.mark.parametrize(
    ("diameter", "group"),
    [(5.99, "under 6 mm"), (6.0, "6 to 10 mm"), (9.99, "6 to 10 mm"), (10.0, "10 mm and over")],
)
def test_size_groups_share_no_nodule(diameter, group):
    sizes = ("under 6 mm", "6 to 10 mm", "10 mm and over")
    groups = summary.by_group([replace(SCORE, diameter_mm=diameter)])
    assert [name for name in sizes if name in groups] == [group]


def test_groups_by_type_attachment_and_readers_hold_their_nodules():
    scores = [
        replace(SCORE, dice=0.2, texture=1.0, juxta_pleural=1, readers=3),
        replace(SCORE, dice=0.6, texture=3.0, juxta_vascular=1, patient="P2"),
        replace(SCORE, dice=0.7, texture=float("nan"), juxta_pleural=1, juxta_vascular=1, patient="P3"),
    ]
    groups = {name: (g["nodules"], g["dice_all"]["value"]) for name, g in summary.by_group(scores).items()}
    expected = {
        "all": (3, 0.5), "6 to 10 mm": (3, 0.5), "ground-glass (texture up to 2)": (1, 0.2),
        "part-solid (texture 2 to 4)": (1, 0.6), "juxta-pleural": (2, 0.45), "juxta-vascular": (2, 0.65),
        "3 readers": (1, 0.2), "4 readers": (2, 0.65),
    }  # fmt: skip
    assert groups.keys() == expected.keys()
    assert all(groups[name] == pytest.approx(expected[name]) for name in groups)


def test_a_patients_mean_counts_once_however_many_nodules_it_has():
    missed = replace(SCORE, found=0, dice=0.0)
    scores = [SCORE, replace(SCORE, dice=0.6), missed, replace(SCORE, patient="P2", dice=0.9)]
    found = summary.segmentation_metrics(scores)
    assert found["dice_all"]["value"] == pytest.approx((0.8 + 0.6 + 0 + 0.9) / 4)
    assert found["dice_per_patient"]["value"] == pytest.approx(((0.8 + 0.6 + 0) / 3 + 0.9) / 2)
    assert found["dice_found_per_patient"]["value"] == pytest.approx(((0.8 + 0.6) / 2 + 0.9) / 2)
    assert found["human_loo_dice_per_patient"]["value"] == pytest.approx(0.75)


def reference(label, mask, readers):
    box = tuple(slice(int(c.min()), int(c.max()) + 1) for c in np.nonzero(mask))
    return ReferenceNodule(label, box, np.stack([mask[box]] * readers), np.zeros(3), 5.0)


def test_whole_scan_dice_counts_false_voxels_and_spares_nodules_of_few_readers():
    labels = np.zeros((1, 10, 10), np.uint16)
    counted, few = np.zeros(labels.shape, bool), np.zeros(labels.shape, bool)
    counted[0, :4, 0], few[0, :4, 5] = True, True
    labels[0, :4, 0], labels[0, :4, 5], labels[0, :4, 9] = 1, 2, 3
    nodules = [reference(1, counted, 4), reference(2, few, 1)]
    outcomes = {1: ("hit", 1), 2: ("ignored", 2), 3: ("false", None)}
    matches = [
        FindingMatch(Finding(number, 0.9, "fused", np.zeros(3), np.zeros(3)), outcome, nodule, "", "", None)
        for number, (outcome, nodule) in outcomes.items()
    ]
    assert whole_scan_dice(matches, labels, nodules) == pytest.approx(2 * 4 / (8 + 4))
    assert whole_scan_dice(matches[:2], labels, nodules) == 1.0
    assert whole_scan_dice([], labels, nodules) == 0.0
    assert np.isnan(whole_scan_dice(matches, labels, nodules[1:]))


def scan_nodule(label, case, **changes):
    values = {field.name: getattr(SCORE, field.name) for field in fields(SCORE)}
    return ScanNodule(**values | {"nodule": label, **changes}, case=case, counts=1, finding=1, score=0.9)


def scan_finding(case, score, outcome, nodule):
    return ScanFinding(case, 1, score, "fused", outcome, outcome, "", nodule, nodule, int(score >= 0.5), 0.0, 0.0, 0.0)


def test_the_cpm_of_a_group_shares_the_false_findings_and_ignores_hits_on_the_others():
    nodules = [scan_nodule("1", "a", diameter_mm=4.0), scan_nodule("2", "a"), scan_nodule("1", "b")]
    findings = [
        scan_finding("a", 0.9, "hit", 2), scan_finding("b", 0.8, "false", None), scan_finding("a", 0.7, "hit", 1),
    ]  # fmt: skip
    cases = [CaseScore("a", "P1", 0.8, 1.0, 1.0), CaseScore("b", "P1", 0.6, 1.0, 1.0)]
    found = summary.scan_metrics(ScanResults(0.5, nodules, findings, cases))
    groups = {name: (g["nodules"], g["cpm"]["value"]) for name, g in found["detection_by_group"].items()}
    assert groups["under 6 mm"] == (1, pytest.approx(5 / 7, abs=1e-4))  # found after half a false finding a scan
    assert groups["6 to 10 mm"] == (2, 0.5)  # one of two, before any false finding
    assert groups["all"] == (3, pytest.approx((2 * 1 / 3 + 5 * 2 / 3) / 7, abs=1e-4))
    assert found["scan_dice"] == {"value": 0.7, "low": None, "high": None}
    point = found["operating_point"]["consensus"]
    assert [round(point[name]["value"], 4) for name in ("precision", "sensitivity", "f1")] == [0.6667] * 3
