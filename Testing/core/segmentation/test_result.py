"""What a result says of its run."""

import json

import numpy as np
import pytest
import torch
from LNHGLib.files.text import json_text
from LNHGLib.image.volume import Grid, Source, Volume
from LNHGLib.segmentation.progress import Monitor
from LNHGLib.segmentation.result import make_report
from tiny_model import write_model

PROBABILITY = {"intercept": -3.0, "segmenter": 0.5, "detector": 0.25, "classifier": 1.0, "log_diameter": 0.5}
FROC = {
    "thresholds": [0.9, 0.5],
    "found": [2, 3],
    "false_per_scan": [0.0, 0.5],
    "nodules": 4,
    "scans": 2,
    "rests_on": "two scans",
}


@pytest.fixture
def report(tmp_path):
    """Return the report of a run of a model with these parts in its card."""

    def of(**parts):
        model = write_model(tmp_path / "model", **parts)
        volume = Volume(np.zeros((2, 2, 2), np.int16), Grid.aligned((2, 2, 2), (1, 1, 1), (0, 0, 0)), Source("ct"))
        return make_report(volume, model, torch.device("cpu"), {"threshold": 0.5}, Monitor())

    return of


def test_scores_of_a_card_that_makes_them_probabilities_are_said_to_be_so(report):
    assert report(probability=PROBABILITY)["score_scale"] == "probability"


def test_scores_of_an_older_card_are_the_models_own(report):
    said = report()
    assert said["score_scale"] == "model"
    assert "froc" not in said["model"]


def test_what_to_expect_goes_with_the_result(report):
    assert json.loads(json_text(report(froc=FROC)))["model"]["froc"] == FROC
