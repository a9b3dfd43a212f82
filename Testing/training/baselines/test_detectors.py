"""What detectors alone mark, on boxes that can be counted by hand, and by the command."""

import numpy as np
import pytest
import small_data
import torch
from LNHGTrainingLib import config as settings
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.baselines import detectors
from LNHGTrainingLib.baselines.detectors import NamedDetector
from LNHGTrainingLib.config import DetectorConfig, build
from LNHGTrainingLib.data.crops import LabeledVolume, load_crops
from LNHGTrainingLib.training import checkpoint, detector
from LNHGTrainingLib.training.detector import DetectorRun
from tiny_model import write_model

ELSEWHERE = (5, 5, 12, 12)


@pytest.fixture
def says(monkeypatch):
    """A detector that says these rows z, y0, x0, y1, x1, score of a cube that is all lung."""

    def made(rows, step=1):
        monkeypatch.setattr(detectors, "lung_of_cube", lambda hu: np.ones(hu.shape, bool))
        boxes = np.array(rows, float).reshape(-1, 6)
        monkeypatch.setattr(detectors, "run_detector", lambda *_, **__: boxes)
        return NamedDetector("it", torch.nn.Identity(), [-1000.0, 400.0], step, 7, "its weights")

    return made


def cube(known=()) -> LabeledVolume:
    """A nodule of 10 x 8 pixels on slices 20 to 23; around `known`, lesions that nobody outlined."""
    mask = np.zeros((50, 50, 50), bool)
    mask[20:24, 20:30, 16:24] = True
    is_known = np.ones(mask.shape, bool)
    for y0, x0, y1, x1 in known:
        is_known[:, y0:y1, x0:x1] = False
    return LabeledVolume(np.full(mask.shape, -800.0, np.float32), mask, is_known, "p", {})


def test_boxes_of_a_slice_are_right_false_or_left_out(says):
    """Register M6: what is said and is not there is false, and a slice whose nodule is not marked is missed."""
    rows = [
        (20, 20, 16, 30, 24, 0.9),  # right
        (20, 21, 16, 31, 24, 0.8),  # the same nodule again
        (21, 20, 16, 25, 24, 0.9),  # half of it and no more: right
        (22, 20, 16, 24, 24, 0.9),  # less than half
        (23, 20, 16, 30, 24, 0.4),  # not sure
        (30, *ELSEWHERE, 0.9),
    ]
    counted = detectors.marked(says(rows), cube())
    assert (counted.right, counted.false, counted.slices) == (2, 3, 4)
    assert detectors.marked(says(rows), cube(known=[ELSEWHERE])).false == 2


def test_slices_between_those_that_are_scanned_do_not_count(says):
    counted = detectors.marked(says([(20, 20, 16, 30, 24, 0.9)], step=2), cube())
    assert (counted.right, counted.false, counted.slices) == (1, 0, 2)


def test_rates_are_of_all_crops_of_the_fold(says, tmp_path):
    """Register M6, N4: false boxes lower the precision alone, missed slices the recall; both are counted."""
    small_data.write_crops(tmp_path)
    crops = load_crops(tmp_path / "crops" / "luna16_crops.h5", tmp_path / "crops" / "luna16_crops.csv", [1], 3)
    report = detectors.study([says([(25, 18, 18, 33, 33, 0.9), (25, *ELSEWHERE, 0.6)])], crops, 1, "balls")
    (one,) = report["detectors"]
    assert (report["nodules"], report["patients"]) == (3, 3)
    assert one["precision"]["value"] == pytest.approx(3 / 6)
    assert one["recall"]["value"] == pytest.approx(3 / report["slices"], abs=1e-4)
    assert one["sensitivity at 1 false a scan"]["value"] == one["sensitivity at 8 false a scan"]["value"] == 1.0


@pytest.fixture
def run(tmp_path):
    small_data.write_crops(tmp_path)
    config = small_data.training_config("detector", tmp_path)
    state = DetectorRun(build(DetectorConfig, config), torch.device("cpu")).state()
    checkpoint.save(tmp_path / "last.pt", state)
    return tmp_path


def test_command_scores_checkpoints_and_models_beside_the_paper(run, capsys):
    data = {part: {"train_folds": [0], "validation_folds": [1]} for part in ("generator", "detector")}
    training = {part: {"data": own} for part, own in data.items()}
    model = write_model(run / "model", training=training)
    files = ("--crops", str(run / "crops" / "luna16_crops.h5"), "--table", str(run / "crops" / "luna16_crops.csv"))
    named = (f"mine={run / 'last.pt'}", f"bundled={model.folder}")
    assert main(["detectors", *named, str(run / "out"), *files, "--fold", "1", "--limit", "2"]) == 0
    text = capsys.readouterr().out
    assert "| mine | " in text
    assert "| bundled | " in text
    assert (run / "out" / "detectors.md").read_text().strip() in text
    assert main(["paper", "--detectors", str(run / "out")]) == 0
    text = capsys.readouterr().out
    assert "| Faster R-CNN on LUNA16, test | 75.00 | 82.53 | 78.59 |" in text
    assert "| **mine** (crops of fold 1) | " in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "count"), [("detector-paper.toml", "33,012,855"), ("detector-paper-mended.toml", "41,352,281")]
)
def test_the_papers_detectors_are_trained_by_their_recipes_and_scored(recipe, count, tmp_path, capsys):
    small_data.write_crops(tmp_path)
    config = settings.read(small_data.RESOURCES / recipe) | {"data": small_data.data_config(tmp_path)}
    config |= {"steps": 2, "epoch_steps": 2, "batch": 1, "validate_crops": 1}
    config["sampling"]["tiles"] = 1
    config["detector"] |= {"slice_step_mm": 25, "train_proposals": 20, "roi_samples": 8}
    detector.train(config, tmp_path / "run")
    files = (
        "--crops",
        str(tmp_path / "crops" / "luna16_crops.h5"),
        "--table",
        str(tmp_path / "crops/luna16_crops.csv"),
    )
    last = tmp_path / "run" / "last.pt"
    assert checkpoint.load(last)["step"] == 2
    assert main(["detectors", f"it={last}", str(tmp_path / "out"), *files, "--fold", "1", "--limit", "1"]) == 0
    assert f"| it | {count} | 2 steps" in capsys.readouterr().out


def test_a_detector_that_saw_the_fold_and_what_is_none_are_refused(run, tmp_path, capsys):
    files = ("--crops", str(run / "crops" / "luna16_crops.h5"), "--table", str(run / "crops" / "luna16_crops.csv"))
    assert main(["detectors", f"mine={run / 'last.pt'}", str(tmp_path / "out"), *files, "--fold", "0"]) == 2
    assert "does not say that it held out fold 0" in capsys.readouterr().err
    state = checkpoint.load(run / "last.pt")
    checkpoint.save(run / "other.pt", {name: value for name, value in state.items() if name != "detector"})
    assert main(["detectors", f"mine={run / 'other.pt'}", str(tmp_path / "out"), *files, "--fold", "1"]) == 2
    assert "holds no detector" in capsys.readouterr().err
    assert main(["paper", "--detectors", str(tmp_path / "nowhere")]) == 2
    assert "lnhg-train detectors wrote" in capsys.readouterr().err
