"""How trainings are validated, on real networks; each test names the fault of other programs that it would find."""

import copy

import numpy as np
import pytest
import small_data
import torch
from LNHGLib.errors import InputError
from LNHGLib.models.detector import build_detector
from LNHGLib.models.registry import build_generator
from LNHGTrainingLib.config import ClassifierConfig, SegmenterConfig, build
from LNHGTrainingLib.data.candidates import SIDE, Candidates
from LNHGTrainingLib.training import checkpoint, detector, segmenter
from LNHGTrainingLib.training.classifier import ClassifierRun
from LNHGTrainingLib.training.sigterm import StopSignal
from LNHGTrainingLib.training.validate import crop_dice, crop_froc
from torch import nn

WINDOW = [-1000.0, 400.0]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    small_data.write_crops(path)
    return path


def score_outlines(network: nn.Module, crops) -> list:
    with StopSignal() as stop:
        return crop_dice(network, crops, WINDOW, 0.1, stop).tolist()


def score_boxes(network: nn.Module, crops) -> list:
    with StopSignal() as stop:
        return list(crop_froc(network, crops, WINDOW, 20, stop).values())


@pytest.mark.parametrize(
    ("build_network", "spec", "score"),
    [
        (build_generator, {"kind": "strided", "width": 2}, score_outlines),
        (build_detector, {"backbone": "light", "width": 4}, score_boxes),
    ],
)
def test_a_network_that_is_validated_learns_nothing(build_network, spec, score, folder):
    """Register L5: the original's test is a training on the test data."""
    torch.manual_seed(0)
    network = build_network(spec).train()
    before, with_gradient = copy.deepcopy(network.state_dict()), []
    network.register_forward_hook(lambda module, *_: with_gradient.append(torch.is_grad_enabled() or module.training))
    for module in network.modules():
        module.register_forward_hook(lambda *_: with_gradient.append(torch.is_grad_enabled()))
    score(network, small_data.load(folder)[:1])
    assert with_gradient
    assert not any(with_gradient)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


def test_the_best_checkpoint_is_that_of_the_best_score(folder, tmp_path):
    """Register L5: the original keeps the one of the smallest absolute loss."""
    config = small_data.training_config("segmenter", folder)
    run = segmenter.SegmenterRun(build(SegmenterConfig, config), CPU)
    for run.step, score in enumerate((0.2, 0.7, 0.0, 0.4), 1):
        run.save_if_best(score, tmp_path)
    assert [checkpoint.load(tmp_path / name)["step"] for name in ("best.pt", "last.pt")] == [2, 4]


def test_validation_looks_at_the_middle_and_is_no_matter_of_chance(folder):
    """Register N2: the original validates on a part of each cube that is chosen at random."""
    generator = build_generator({"kind": "paper", "width": 2})
    nn.init.zeros_(generator.last.weight)  # it gives the CT back
    crops, random = small_data.load(folder), torch.get_rng_state()
    with StopSignal() as stop:
        first, second = (crop_dice(generator, crops, WINDOW, 0.5, stop) for _ in range(2))
    assert first.tolist() == second.tolist() == [1.0] * len(crops)
    assert torch.equal(torch.get_rng_state(), random)


def test_a_training_does_not_write_over_that_of_another_network(folder, tmp_path):
    """Register N3: both trainings of the original write to the same files."""
    first, second = (small_data.training_config(name, folder) | {"steps": 1} for name in ("segmenter", "detector"))
    segmenter.train(first, tmp_path)
    kept = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(InputError, match="holds a training, which would be overwritten"):
        detector.train(second, tmp_path)
    assert (tmp_path / "last.pt").read_bytes() == kept


def test_a_classifier_that_always_says_no_scores_a_half(folder):
    """Register M8: where one candidate of 60 is a nodule, its accuracy would be 0.98."""
    run = ClassifierRun(build(ClassifierConfig, small_data.training_config("classifier", folder)), CPU)
    nn.init.zeros_(run.ema.head.weight)
    nn.init.constant_(run.ema.head.bias, -5.0)
    nodule = np.zeros(60, np.uint8)
    nodule[7] = 1
    found = Candidates(
        hu=np.random.default_rng(0).integers(-900, 100, (60, SIDE, SIDE, SIDE), np.int16),
        reach=np.full((60, 6), SIDE // 2, np.int8),
        nodule=nodule,
        marked=np.ones(60, bool),
        patient=np.array(["P"] * 60),
        scan=np.zeros(60, bool),
    )
    with StopSignal() as stop:
        score, metrics, _ = run.validate(found, stop, plot=False)
    assert score == metrics["auc"] == 0.5
