"""The paper's tables beside ours: every number is printed, recomputed or measured, none typed."""

import pytest
from evaluation_data import CARD, QUIET, perfect
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.evaluation import compare, published, run
from LNHGTrainingLib.evaluation.crops import Selection


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("LNHG", (84.91, 98.14, 91.05)),
        ("U-net", (66.88, 95.81, 78.78)),
        ("NoduleNet", (83.43, 97.21, 89.80)),
        ("nnU-net", (72.12, 93.26, 81.34)),
        ("L-RF", (53.04, 95.35, 68.16)),
    ],
)
def test_rates_of_table_s1_are_recomputed_from_its_corrected_counts(method, expected):
    """Register U8, U9."""
    true, false, missed, *_ = published.corrected(published.published()["table_s1"])[method]
    assert true + missed == 430
    assert tuple(round(rate, 2) for rate in published.rates(true, false, missed)) == expected


def test_the_printed_error_stays_in_the_resource():
    assert published.published()["table_s1"]["L-RF"][2] == 363


def test_gain_and_gaps_are_recomputed(capsys):
    """Register U7, U12."""
    assert main(["paper"]) == 0
    text = capsys.readouterr().out
    assert "test: 69.005 (printed 69.07); gain of LNHG over it 13.045 (printed 12.98" in text
    assert "Largest gap between training and test: U-net, 9.43" in text
    assert "| LNHG | 87.30 | 82.05 | 5.25 |" in text
    assert "| L-RF | 410 | 363 | 20 | 53.04 | 95.35 | 68.16 | 53.0 | 95.3 | 68.1 |" in text
    assert "JBHI.2021.3135647" in text
    assert "## Ours" not in text


def test_ours_stand_beside_the_papers_by_type(crops, tmp_path, no_plots, capsys):
    run.run_crops(CARD, lambda hu: perfect(hu) * ((hu > 0).sum() > 500), crops, tmp_path / "a", Selection(), QUIET)
    assert main(["paper", str(tmp_path / "a")]) == 0
    text = capsys.readouterr().out
    assert "| **tiny** (location given), found only | - | 100.00 (100.00 to 100.00) | - |" in text
    assert "| **tiny** (location given), missed = 0 | - | 66.67 (" in text
    assert "| **tiny** (location given), nodules | 2 | 0 | 0 | 3 |" in text
    assert "synthetic nodules" in text
    assert str(tmp_path) not in text


def test_whole_scans_enter_table_s1(capsys):
    rate = {"value": 0.5, "low": 0.25, "high": 1.0}
    dice = dict.fromkeys(("dice_found", "dice_all", "human_loo_dice"), rate)
    summary = {
        "kind": "scans", "groups": {"all": dice}, "data": {"name": "d"}, "split": "s", "protocol": "p",
        "bootstrap": {"seed": 3},
        "operating_point": {"consensus": {
            "hits": 3, "false": 5, "nodules": 7, "precision": rate, "sensitivity": rate, "f1": rate,
        }},
    }  # fmt: skip
    text = published.render([compare.Evaluation("tiny", summary, {})])
    assert "| **tiny** (whole scans) | 3 | 5 | 4 | 50.00 (25.00 to 100.00) |" in text
