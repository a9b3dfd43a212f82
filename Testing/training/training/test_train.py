import copy
import tomllib
from pathlib import Path

import numpy as np
import pytest
import small_data
import torch
from LNHGLib.errors import InputError
from LNHGLib.models import folder as models
from LNHGLib.models.registry import build_generator
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.config import DetectorConfig, SegmenterConfig, build
from LNHGTrainingLib.data.segmenter_batches import Batch
from LNHGTrainingLib.release.export import export
from LNHGTrainingLib.training import checkpoint, detector, segmenter, validate
from LNHGTrainingLib.training import run as training_run
from LNHGTrainingLib.training.sigterm import StopSignal
from safetensors.torch import load_file
from tiny_model import write_model

pytestmark = pytest.mark.slow


RESOURCES = Path(__file__).parents[3] / "LNHGTraining" / "Resources"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    small_data.write_crops(path)
    return path


@pytest.fixture
def segmenter_config(folder):
    return small_data.training_config("segmenter", folder)


@pytest.fixture
def detector_config(folder):
    return small_data.training_config("detector", folder)


def weights(path: Path, part: str) -> dict:
    return checkpoint.load(path)[part]


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("train", "parts"),
    [(segmenter.train, ("generator", "ema", "critic")), (detector.train, ("detector", "ema"))],
)
def test_resume_equals_uninterrupted(request, tmp_path, train, parts):
    config = request.getfixturevalue("segmenter_config" if "critic" in parts else "detector_config")
    train(config, tmp_path / "whole")
    train(config | {"steps": 2}, tmp_path / "halves")
    train(config, tmp_path / "halves", resume=True)
    for part in parts:
        assert equal(weights(tmp_path / "whole" / "last.pt", part), weights(tmp_path / "halves" / "last.pt", part))


def test_a_run_leaves_its_log(segmenter_config, tmp_path):
    segmenter.train(segmenter_config, tmp_path / "run")
    lines = (tmp_path / "run" / "epochs.csv").read_text().splitlines()
    assert lines[0].startswith("step,dice,best")
    assert [line.split(",")[0] for line in lines[1:]] == ["2", "4"]
    assert list((tmp_path / "run" / "tensorboard").iterdir())


@pytest.mark.parametrize("train", [segmenter.train, detector.train])
def test_training_leaves_the_processs_arithmetic_as_it_was(request, tmp_path, monkeypatch, train):
    config = request.getfixturevalue("segmenter_config" if train is segmenter.train else "detector_config")
    least, seen = np.array([5e-324]), []
    monkeypatch.setattr(training_run.Run, "finished", lambda run: seen.append((least * 1)[0]) or True)
    train(config, tmp_path / "run")
    assert set(seen) == {0.0}
    assert (least * 1)[0] > 0


def batch_of(value: float) -> Batch:
    image = torch.full((2, 1, 16, 16, 16), 0.2)
    mask = torch.zeros_like(image)
    mask[..., 4:10, 4:10, 4:10] = 1
    image = image + mask * value
    return Batch(image, image * mask, mask, torch.ones_like(image), torch.zeros(len(image), dtype=torch.bool))


def test_the_critic_sees_the_reference_as_real(segmenter_config, monkeypatch):
    """Register L4: the original called the critic step with both images exchanged."""
    run = segmenter.SegmenterRun(build(SegmenterConfig, segmenter_config), torch.device("cpu"))
    seen = {}
    monkeypatch.setattr(
        segmenter, "critic_loss", lambda critic, **given: seen.update(given) or critic(given["real"]).mean()
    )
    batch = batch_of(0.5)
    run.critic_step([(0, batch)])
    assert torch.equal(seen["real"], batch.target)
    assert not torch.equal(seen["fake"], batch.target)


def test_the_critic_step_leaves_the_generator_alone(segmenter_config):
    """Register L16: nor its running statistics."""
    run = segmenter.SegmenterRun(build(SegmenterConfig, segmenter_config), torch.device("cpu"))
    before = copy.deepcopy(run.generator.state_dict())
    run.critic_step([(0, batch_of(0.5))])
    assert equal(before, run.generator.state_dict())


def test_the_generator_step_leaves_the_critic_alone(segmenter_config):
    """Register L2: the adversarial term is -E[D(G)], and moves the generator only."""
    run = segmenter.SegmenterRun(build(SegmenterConfig, segmenter_config), torch.device("cpu"))
    run.step = 1
    before = copy.deepcopy(run.critic.state_dict())
    terms = run.generator_step([(0, batch_of(0.5))])
    assert equal(before, run.critic.state_dict())
    assert all(p.grad is None for p in run.critic.parameters())
    assert terms["adversarial"] != 0


def test_the_adversarial_term_is_minus_the_critics_mean(segmenter_config):
    run = segmenter.SegmenterRun(build(SegmenterConfig, segmenter_config), torch.device("cpu"))
    run.step = 1
    run.generator.eval()
    batch = batch_of(0.5)
    with torch.no_grad():
        terms = run.generator_terms(batch)
        assert terms["adversarial"].item() == pytest.approx(
            -run.critic(run.generator(batch.image)).mean().item(), rel=1e-5
        )


def test_training_lowers_the_loss(segmenter_config):
    run = segmenter.SegmenterRun(build(SegmenterConfig, segmenter_config), torch.device("cpu"))
    segmenter.set_rate(run.generator_optimizer, 1e-2)
    losses = [run.generator_step([(0, batch_of(0.5))])["dice"] for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]


def test_the_perceptual_term_can_be_another_network_or_off(segmenter_config):
    segmenter_config["loss"]["perceptual_network"] = "random"
    run = segmenter.SegmenterRun(build(SegmenterConfig, segmenter_config), torch.device("cpu"))
    assert "perceptual" in run.generator_terms(batch_of(0.5))
    segmenter_config["loss"]["perceptual_network"] = "off"
    run = segmenter.SegmenterRun(build(SegmenterConfig, segmenter_config), torch.device("cpu"))
    assert "perceptual" not in run.generator_terms(batch_of(0.5))


@pytest.mark.parametrize("name", ["segmenter-paper.toml", "segmenter.toml"])
def test_shipped_segmenter_recipes_build(name):
    config = tomllib.loads((RESOURCES / name).read_text())
    config["loss"]["perceptual_network"] = "off"
    run = segmenter.SegmenterRun(build(SegmenterConfig, config), torch.device("cpu"))
    assert config["loss"]["penalty"] == 10
    if "paper" in name:
        assert (config["loss"]["mse"], config["loss"]["perceptual"], config["loss"]["adversarial"]) == (1.0, 1.0, 0.1)
        assert sum(p.numel() for p in run.generator.parameters()) == 2_326_273


@pytest.mark.parametrize("name", ["detector-paper.toml", "detector.toml"])
def test_shipped_detector_recipes_build(name):
    config = tomllib.loads((RESOURCES / name).read_text())
    assert (
        detector.DetectorRun(build(DetectorConfig, config), torch.device("cpu")).detector.roi_heads.score_thresh
        == config["detector"]["min_score"]
    )


HALF = 2.0**-11
"""What a number changes by, at most, as a part of itself, when it is rounded to float16."""


def stored_in_half(path, before):
    """Whether a file holds weights rounded to float16, and counters as they are."""
    stored = load_file(path)
    assert stored.keys() == before.keys()
    for name, value in before.items():
        assert stored[name].dtype == (torch.float16 if value.is_floating_point() else value.dtype)
        torch.testing.assert_close(stored[name].to(value.dtype), value, rtol=HALF, atol=1e-7)
    return True


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(InputError, match=r"last\.pt does not exist"):
        checkpoint.load(tmp_path / "last.pt")


def test_checkpoints_become_a_model_folder(segmenter_config, detector_config, tmp_path):
    first = segmenter.train(segmenter_config, tmp_path / "segmenter")
    second = detector.train(detector_config, tmp_path / "detector")
    config = tomllib.loads((RESOURCES / "lnhg-1mm.toml").read_text())
    model = export(first, second, config, tmp_path / "lnhg-1mm")
    assert models.load(tmp_path / "lnhg-1mm").card == model.card
    assert stored_in_half(model.folder / "generator.safetensors", weights(first, "ema"))
    assert stored_in_half(model.folder / "detector.safetensors", weights(second, "ema"))
    for name, value in model.detector().state_dict().items():
        assert value.dtype == weights(second, "ema")[name].dtype
        torch.testing.assert_close(value, weights(second, "ema")[name], rtol=HALF, atol=1e-7)
    assert model.card["training"]["train_patients"] == ["patient-0", "patient-2", "patient-4"]
    assert model.card["training"]["generator"]["loss"]["perceptual_network"] == "off"
    assert str(tmp_path) not in (tmp_path / "lnhg-1mm" / "model.json").read_text()
    assert len({path.stat().st_mode for path in model.folder.iterdir()}) == 1  # others may read the weights as well
    gone = tmp_path / "gone.pt"
    with pytest.raises(InputError, match="exists already"):
        export(gone, gone, config, tmp_path / "lnhg-1mm")


def test_training_begins_with_a_models_networks(segmenter_config, detector_config, tmp_path):
    first, second = (
        segmenter.train(segmenter_config, tmp_path / "s"),
        detector.train(detector_config, tmp_path / "d"),
    )
    model = export(first, second, tomllib.loads((RESOURCES / "lnhg-1mm.toml").read_text()), tmp_path / "tiny")
    start = {"start": str(model.folder), "seed": 5}
    for config, typed, kind, part in (
        (segmenter_config, SegmenterConfig, segmenter.SegmenterRun, "generator"),
        (detector_config, DetectorConfig, detector.DetectorRun, "detector"),
    ):
        run = kind(build(typed, config | start), torch.device("cpu"))
        assert not equal(getattr(run, part).state_dict(), model.weights(part))
        run.begin(tmp_path / "new", resume=True)
        assert equal(getattr(run, part).state_dict(), model.weights(part))
        assert equal(run.ema.state_dict(), model.weights(part))
    again = segmenter.train(segmenter_config | start, tmp_path / "again")
    card = export(again, second, tomllib.loads((RESOURCES / "lnhg-1mm.toml").read_text()), tmp_path / "other").card
    assert card["training"]["generator"]["start"] == "tiny"
    resumed = segmenter.SegmenterRun(build(SegmenterConfig, segmenter_config | start), torch.device("cpu"))
    resumed.begin(tmp_path / "again", resume=True)
    assert equal(resumed.generator.state_dict(), weights(tmp_path / "again" / "last.pt", "generator"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"window_hu": [-1000.0, 300.0]}, r"window \[-1000.0, 400.0\] HU, expected \[-1000.0, 300.0\]"),
        ({"generator": {"kind": "strided", "width": 3, "threshold": 0.1}}, "expected .*'width': 3"),
        ({"start": "nowhere"}, "nowhere"),
    ],
)
def test_a_model_to_begin_with_must_fit(change, said, segmenter_config, tmp_path):
    spec = {key: value for key, value in segmenter_config["generator"].items() if key != "threshold"}
    model = write_model(tmp_path / "tiny", generator=spec | {"threshold": 0.1, "weights": "generator.safetensors"})
    with pytest.raises(InputError, match=said):
        segmenter.train(segmenter_config | {"start": str(model.folder)} | change, tmp_path / "run")


def test_a_checkpoint_becomes_a_models_second_generator(segmenter_config, detector_config, tmp_path, capsys):
    paths = segmenter.train(segmenter_config, tmp_path / "s"), detector.train(detector_config, tmp_path / "d")
    config = tomllib.loads((RESOURCES / "lnhg-1mm.toml").read_text())
    model = export(*paths, config, tmp_path / "one")
    body = {"kind": "gated-unet", "width": 2, "planes": 3}
    other = segmenter.train(segmenter_config | {"generator": body | {"threshold": 0.1}}, tmp_path / "other")
    assert main(["second", "--model", str(model.folder), "--name", "both", str(other), str(tmp_path / "two")]) == 0
    both = models.load(tmp_path / "two")
    assert (both.name, both.card["description"]) == ("both", model.card["description"])
    assert both.card["second_generator"] == body | {"weights": "second_generator.safetensors"}
    assert stored_in_half(both.folder / "second_generator.safetensors", weights(other, "ema"))
    assert both.card["training"]["second_generator"]["checkpoint_step"] == checkpoint.load(other)["step"]
    assert {**both.card["files"], **model.card["files"]} == both.card["files"]
    assert "gated-unet" in (both.folder / "README.md").read_text()
    narrow = segmenter_config | {"data": segmenter_config["data"] | {"train_folds": [1], "validation_folds": [0]}}
    third = segmenter.train(narrow, tmp_path / "third")
    assert main(["second", "--model", str(model.folder), str(third), str(tmp_path / "three")]) == 2
    assert "held out folds [0]" in capsys.readouterr().err
    assert main(["second", "--model", str(model.folder), str(paths[1]), str(tmp_path / "three")]) == 2
    assert "holds no generator" in capsys.readouterr().err
    assert not (tmp_path / "three").exists()


@pytest.mark.gpu
def test_both_branches_train_on_cuda(segmenter_config, detector_config, tmp_path):
    segmenter.train(segmenter_config, tmp_path / "segmenter", device="cuda")
    detector.train(detector_config, tmp_path / "detector", device="cuda")
    assert (tmp_path / "segmenter" / "best.pt").exists()


def test_a_validation_crop_may_have_no_diameter_of_luna16(tmp_path):
    small_data.write_crops(tmp_path)
    small_data.without_diameter(tmp_path, 4)
    crops = small_data.load(tmp_path).spread(6)
    assert "" in {crop.row["luna_diameter_exact_mm"] for crop in crops}
    network = build_generator({"kind": "strided", "width": 4})
    with StopSignal() as stop:
        scores = validate.dice_by_size(network, crops, [-1000.0, 400.0], 0.1, stop)
    assert np.isfinite(scores["dice"])
