"""Systems of the other documents: each trains by its recipe, becomes a model that segments a CT, and is scored."""

from pathlib import Path

import numpy as np
import pytest
import small_data
import torch
from LNHGLib.models import folder as models
from LNHGLib.models.classifier import ResNet48
from LNHGLib.models.documents.mgi_cnn import MgiCnn
from LNHGLib.segmentation import pipeline
from LNHGTrainingLib import config as settings
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.config import NoduleNetConfig, SegmenterConfig, build
from LNHGTrainingLib.data.segmenter_batches import Batch
from LNHGTrainingLib.training import checkpoint, classifier, nodulenet, segmenter
from PIL import Image
from tiny_model import tiny_chest, write_model
from torchvision.models import vgg16

RECIPES = {
    "segmenter-paper": 2, "document-001-nasnet": 4, "document-002-unet": 2, "document-004-unet": 4, "nodulenet": 3,
    "monai-unet": 4,
}  # fmt: skip
"""With the least width of each."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    small_data.write_crops(folder)
    return folder


def recipe(name: str, data, fold: int = 1) -> dict:
    """Return a recipe cut down to two steps of a tiny network on small patches; all else is as shipped."""
    config = settings.read(small_data.RESOURCES / f"{name}.toml") | {"data": small_data.data_config(data)}
    config |= {"steps": 2, "epoch_steps": 2, "batch": 2, "validate_crops": 1}
    config["generator"]["width"] = RECIPES[name]
    config["sampling"]["sides"] = [[min(side, 32) for side in config["sampling"]["sides"][0]]]
    if name == "segmenter-paper":
        config["critic"] |= {"width": 2, "slab": config["sampling"]["sides"][0]}
        config["loss"]["perceptual_network"] = str(write_vgg16(data / "vgg16.pt"))
    return settings.hold_out(config, fold)


def write_vgg16(path: Path) -> Path:
    """Write the convolutions of VGG-16 with random weights, unless they are there."""
    if not path.exists():
        features = vgg16(weights=None, init_weights=False).features.state_dict()
        torch.save({f"features.{name}": value for name, value in features.items()}, path)
    return path


SLOW = {name: [pytest.mark.slow] for name in ("segmenter-paper", "document-001-nasnet")}


@pytest.fixture(scope="module", params=[pytest.param(name, marks=SLOW.get(name, [])) for name in RECIPES])
def trained(request, data, tmp_path_factory):
    """Return a recipe's name and its checkpoint after two steps."""
    if request.param == "monai-unet":
        pytest.importorskip("monai", reason="MONAI is not installed (extra baselines)")
    out = tmp_path_factory.mktemp(request.param)
    branch = nodulenet if request.param == "nodulenet" else segmenter
    branch.train(recipe(request.param, data), out)
    return request.param, out / "last.pt"


def test_a_first_stage_is_trained_exported_and_segments_a_scan(trained, tmp_path):
    name, path = trained
    """With a coarser look for masses, which a card may name for any network."""
    out, card = tmp_path / "model", tmp_path / "card.toml"
    masses = "\n[masses]\nfactor = 2\nthreshold = 0.5\nmin_diameter = 20\n"
    card.write_text((small_data.RESOURCES / "document-model.toml").read_text() + masses)
    command = ["export", str(path), "none", "--config", str(card), "--set", f"name={name}", str(out)]
    assert main([*command, "--set", "grid.spacing_mm=[4.0, 4.0, 4.0]"]) == 0
    model = models.load(str(out))
    assert (model.name, model.spec.detector, model.spec.fusion.weight) == (name, None, 0)
    assert model.spec.masses.factor == 2
    result = pipeline.segment(tiny_chest(spacing_mm=(8.0, 4.0, 4.0)), model, threshold=0.0)
    assert all(nodule.provenance == "segmenter" for nodule in result.nodules)
    assert np.isfinite(result.heterogeneity).all()


def test_a_first_stage_is_scored_on_crops_by_the_command_of_all_methods(trained, data, tmp_path):
    files = ("--crops", data / "crops" / "luna16_crops.h5", "--table", data / "crops" / "luna16_crops.csv")
    command = ["crossvalidate", trained[1], tmp_path / "out", "--name", trained[0], *files]
    assert main([str(part) for part in command]) == 0
    assert "fold 1: step 2, threshold" in (tmp_path / "out" / "summary.md").read_text()


def test_methods_are_drawn_side_by_side_on_what_they_held_out(trained, data, tmp_path, capsys):
    files = ("--crops", data / "crops" / "luna16_crops.h5", "--table", data / "crops" / "luna16_crops.csv")
    methods, out = [f"{trained[0]}={trained[1]}", f"again={trained[1]}"], tmp_path / "figure.png"
    assert main([str(part) for part in ["figure", *methods, out, *files, "--fold", 1]]) == 0
    width, height = Image.open(out).size
    assert width > 3 * 200 < 3 * height
    for other, fold, sentence in (
        (tmp_path / "other.png", 0, "held out the folds [1], expected fold 0"),
        (tmp_path / "other.jpg", 1, "expected a name that ends with .png"),
        (out, 1, "exists already"),
    ):
        assert main([str(part) for part in ["figure", *methods, other, *files, "--fold", fold]]) == 2
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["maps", "steps"])
def test_maps_are_drawn_side_by_side_on_what_was_held_out(kind, trained, data, tmp_path, capsys):
    files = ("--crops", data / "crops" / "luna16_crops.h5", "--table", data / "crops" / "luna16_crops.csv")
    command = ["figure", "--kind", kind, *files, "--device", "cpu", f"one={trained[1]}", f"two={trained[1]}"]
    assert main([str(part) for part in [*command, tmp_path / "figure.png", "--fold", 1]]) == 0
    width, height = Image.open(tmp_path / "figure.png").size
    assert width > 3 * 200 < 3 * height
    assert main([str(part) for part in [*command, tmp_path / "other.png", "--fold", 0]]) == 2
    assert "held out the folds [1], expected fold 0" in capsys.readouterr().err
    assert not (tmp_path / "other.png").exists()


def run_of(name: str, data) -> segmenter.SegmenterRun:
    return segmenter.SegmenterRun(build(SegmenterConfig, recipe(name, data)), torch.device("cpu"))


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("segmenter-paper", {"mse": 1.0, "perceptual": 1.0, "adversarial": 0.1}),
        ("document-001-nasnet", {"cross_entropy": 1.0, "generalized_dice": 1.0}),
        ("document-002-unet", {"batch_dice": 1.0}),
        ("document-004-unet", {"dice": 1.0}),
    ],
)
def test_a_recipe_has_the_losses_of_its_document(name, terms, data):
    run = run_of(name, data)
    found = run.generator_terms(segmenter.SegmenterPatches(small_data.load(data), [], [], run.config).batch(0, 2))
    weights = {term: getattr(run.config.loss, term) for term in found}
    assert {term: weight for term, weight in weights.items() if weight} == terms
    assert run.adversarial() == ("adversarial" in terms)


def test_a_recipe_has_the_optimizer_of_its_document(data):
    descent = run_of("document-002-unet", data).generator_optimizer
    assert isinstance(descent, torch.optim.SGD)
    assert (descent.defaults["momentum"], descent.defaults["nesterov"]) == (0.9, True)
    adam = run_of("document-004-unet", data).generator_optimizer
    assert isinstance(adam, torch.optim.Adam)
    assert adam.defaults["weight_decay"] == 1e-5
    assert run_of("document-001-nasnet", data).config.loss.nodule_weight == 7


def test_the_steps_of_nodulenet_learn_one_after_the_other(data):
    """Boxes from the start, their classes from 65 of 200 epochs on, outlines from 80; the rate falls at 100 and 160."""
    config = recipe("nodulenet", data) | {"steps": 200}
    run = nodulenet.NoduleNetRun(build(NoduleNetConfig, config), torch.device("cpu"))
    batch = run.batches(small_data.load(data), [], [], run.config).batch(0, 2)
    seen = {}
    for run.step in (0, 64, 65, 79, 80, 99, 100, 160):
        seen[run.step] = run.train_step([(0, batch)])
    names = {step: len(values) - 1 for step, values in seen.items()}
    assert names == {0: 2, 64: 2, 65: 4, 79: 4, 80: 5, 99: 5, 100: 5, 160: 5}
    assert "outline" in seen[80]
    rates = [seen[step]["rate"] for step in (0, 99, 100, 160)]
    assert rates == pytest.approx([1e-2, 1e-2, 1e-3, 1e-4])
    descent = run.optimizer.defaults
    assert (descent["momentum"], descent["weight_decay"], descent["nesterov"]) == (0.9, 1e-4, False)


@pytest.mark.slow
def test_a_resumed_training_of_nodulenet_equals_an_uninterrupted_one(data, tmp_path):
    config = recipe("nodulenet", data) | {"steps": 4, "stages": {"classify_from": 0.0, "outline_from": 0.0}}
    config["optimizer"]["drops"] = []  # of what the number of steps sets nothing is left
    nodulenet.train(config, tmp_path / "whole")
    nodulenet.train(config | {"steps": 2}, tmp_path / "halves")
    nodulenet.train(config, tmp_path / "halves", resume=True)
    whole, halves = (checkpoint.load(tmp_path / name / "last.pt") for name in ("whole", "halves"))
    for part in ("generator", "ema"):
        assert all(torch.equal(value, halves[part][name]) for name, value in whole[part].items())


@pytest.mark.parametrize(
    ("name", "kind", "width"),
    [("document-002-mgi-cnn", MgiCnn, 2), pytest.param("document-004-resnet", ResNet48, 16, marks=pytest.mark.slow)],
)
def test_a_second_stage_is_trained_decides_in_the_model_and_is_scored(name, kind, width, data, tmp_path):
    """Register M13, N9: both stages are one model, which searches a whole CT."""
    small_data.write_scans(data, {"patient-0": [4, 2], "patient-1": [3]})
    of_fold = {"training": {"generator": {"data": {"train_folds": [0], "validation_folds": [1]}}}}
    grid = {"kind": "spacing", "spacing_mm": [1.0, 1.0, 1.0]}
    gate = write_model(tmp_path / "gate", detector=False, grid=grid, **of_fold)
    config = settings.read(small_data.RESOURCES / f"{name}.toml") | {"models": [str(gate.folder)]}
    config |= {"steps": 2, "epoch_steps": 2, "batch": 4}
    config["data"] = small_data.data_config(data) | {"scans": "scans/lidc_scans.h5"}
    config["classifier"]["width"] = width
    best = classifier.train(config, tmp_path / "run")
    assert checkpoint.load(best)["step"] == 2
    assert main(["part", "classifier", "--model", str(gate.folder), str(best), str(tmp_path / "two")]) == 0
    model = models.load(str(tmp_path / "two"))
    assert model.spec.two_stages
    assert isinstance(model.classifier(), kind)
    result = pipeline.segment(tiny_chest(), model, threshold=0.0)
    assert [nodule.score for nodule in result.nodules] == [nodule.classifier_score for nodule in result.nodules]
    files = ("--crops", data / "crops" / "luna16_crops.h5", "--table", data / "crops" / "luna16_crops.csv")
    files += ("--scans", data / "scans" / "lidc_scans.h5", "--device", "cpu")
    command = ["crossvalidate", model.folder, tmp_path / "out", "--name", name, *files]
    assert main([str(part) for part in command]) == 0
    assert "classifier without detector" in (tmp_path / "out" / "detection.md").read_text()


def test_document_001_trains_a_step_on_a_slice_of_400_pixels(data):
    run = run_of("document-001-nasnet", data)
    y, x = np.indices((400, 400))
    mask = torch.from_numpy(((y - 150) ** 2 + (x - 120) ** 2 < 8**2).astype(np.float32))[None, None, None]
    image = 0.1 + 0.6 * mask + 0.05 * torch.rand(mask.shape)
    batch = Batch(image, mask, mask, torch.ones_like(mask), torch.zeros(1, dtype=torch.bool))
    before = [p.clone() for p in run.generator.parameters()]
    losses = run.train_step([(0, batch)])
    assert losses["cross_entropy"] > 0
    assert 0 < losses["generalized_dice"] < 1
    changed = [not torch.equal(a, b) for a, b in zip(before, run.generator.parameters(), strict=True)]
    assert sum(changed) > 0.95 * len(changed)
