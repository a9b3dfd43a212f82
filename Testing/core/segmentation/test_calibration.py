"""Scores that are probabilities, against values computed by hand, and what a card says to expect."""

import subprocess
import sys
from pathlib import Path

import pytest
from LNHGLib.models.card import FrocSpec, ProbabilitySpec
from LNHGLib.segmentation import calibration
from LNHGLib.segmentation.calibration import Expectation

NOTHING = ProbabilitySpec(intercept=0.0, segmenter=0.0, detector=0.0, classifier=0.0, log_diameter=0.0)
FROC = FrocSpec((0.9, 0.5, 0.1), (2, 3, 4), (0.0, 0.5, 2.0), 4, 2, "two scans")


def probability(segmenter=0.5, detector=0.5, classifier=0.5, diameter_mm=1.0, floor=0.1, **factors):
    spec = ProbabilitySpec(**{**vars(NOTHING), **factors})
    return calibration.probability(spec, segmenter, detector, classifier, diameter_mm, floor)


def test_without_any_factor_the_intercept_alone_speaks():
    assert probability() == 0.5
    assert probability(intercept=1.0) == pytest.approx(0.7310586)
    assert probability(intercept=-800.0) == pytest.approx(0.0)


@pytest.mark.parametrize("part", ["segmenter", "detector", "classifier"])
def test_a_score_counts_by_its_logit_and_its_factor(part):
    assert probability(**{part: 0.8}) == 0.5  # no factor, no weight
    factor = {f"{part}": 2.0}
    spec = ProbabilitySpec(**{**vars(NOTHING), **factor})
    scores = {"segmenter": 0.5, "detector": 0.5, "classifier": 0.5, part: 0.8}
    assert calibration.probability(spec, **scores, diameter_mm=1.0, floor=0.1) == pytest.approx(16 / 17)  # odds 4 ** 2


def test_all_parts_together_are_the_sum_of_their_log_odds():
    spec = ProbabilitySpec(intercept=-1.0, segmenter=0.5, detector=0.25, classifier=1.0, log_diameter=2.0)
    # -1 + 0.5 ln(0.6/0.4) + 0.25 ln(0.3/0.7) + ln(0.9/0.1) + 2 ln 3 = 3.3853572
    assert calibration.probability(spec, 0.6, 0.3, 0.9, 3.0, 0.1) == pytest.approx(0.9672437657)


@pytest.mark.parametrize("part", ["segmenter", "detector", "classifier"])
def test_a_part_that_found_nothing_counts_as_the_floor(part):
    spec = ProbabilitySpec(**{**vars(NOTHING), part: 1.0})
    scores = {"segmenter": 0.5, "detector": 0.5, "classifier": 0.5, part: None}
    assert calibration.probability(spec, **scores, diameter_mm=1.0, floor=0.2) == pytest.approx(0.2)


def test_the_diameter_counts_by_its_logarithm():
    spec = ProbabilitySpec(**{**vars(NOTHING), "log_diameter": 1.0})
    assert calibration.probability(spec, None, None, None, 9.0, 0.5) == pytest.approx(0.9)


@pytest.mark.parametrize(("score", "expected"), [(0.0, 1e-4), (1.0, 1 - 1e-4)])
def test_a_certain_part_is_held_off_from_certainty(score, expected):
    spec = ProbabilitySpec(**{**vars(NOTHING), "classifier": 1.0})
    assert calibration.probability(spec, None, None, score, 1.0, 0.5) == pytest.approx(expected)


def test_the_sphere_of_a_volume_has_its_diameter():
    assert calibration.sphere_diameter_mm(523.5988) == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (0.95, Expectation(0, 0.0)),
        (0.9, Expectation(2, 0.0)),
        (0.51, Expectation(2, 0.0)),
        (0.5, Expectation(3, 0.5)),
        (0.3 - 0.2 + 0.4, Expectation(3, 0.5)),  # 0.5 of a slider that adds up tenths
        (0.2, Expectation(3, 0.5)),
        (0.1, Expectation(4, 2.0)),
        (0.0, Expectation(4, 2.0)),
    ],
)
def test_what_to_expect_is_what_all_findings_from_the_threshold_on_gave(threshold, expected):
    assert calibration.expectation(FROC, threshold) == expected


def test_asking_what_to_expect_needs_no_torch():
    code = "import sys; from LNHGLib.segmentation import calibration; sys.exit('torch' in sys.modules)"
    folder = Path(calibration.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=folder, check=False).returncode == 0
