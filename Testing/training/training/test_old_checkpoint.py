"""A checkpoint that the version of commit b361d9c wrote (one step, recipe lnhg-hard.toml, networks of width 1).

Its bytes lie in a file that holds no code: where each tensor lies in a buffer, whose four bytes of each number are
apart, so that they pack well.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import small_data
import torch
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.config import SegmenterConfig, build
from LNHGTrainingLib.evaluation.predictors import checkpoint_predictor
from LNHGTrainingLib.training import checkpoint
from LNHGTrainingLib.training.segmenter import SegmenterRun

ROOT = Path(__file__).parents[3]
OLD_SETTINGS = [
    *("batch=1", "validate_crops=1", "data.background=[]", "data.train_folds=[0]", "data.validation_folds=[1]"),
    *("epoch_steps=1", "steps=2", "data.hard_negatives=", "generator.width=1", "critic.width=1", "parts=2"),
    *("sampling.sides=[[3,16,16]]", "loss.adversarial_from_step=0", "sampling.hollow=0.5", "optimizer.average=0.995"),
]


def unpacked(part, data: bytes):
    if not isinstance(part, dict):
        return part
    ((kind, value),) = part.items()
    if kind == "tensor":
        start, stop, dtype, shape = value
        return torch.from_numpy(np.frombuffer(data[start:stop], dtype).reshape(shape).copy())
    if kind == "dict":
        return {key: unpacked(item, data) for key, item in value}
    items = [unpacked(item, data) for item in value]
    return tuple(items) if kind == "tuple" else items


@pytest.fixture
def old(tmp_path) -> dict:
    """The old state, which lies as `last.pt` in a run's folder beside the data."""
    with np.load(ROOT / "Testing" / "data" / "checkpoint_of_b361d9c.npz") as file:
        state = unpacked(json.loads(str(file["tree"])), file["planes"].T.tobytes())
    assert {"average", "stale"} < state.keys()
    assert {"parts", "optimizer", "sampling"} < state["config"].keys()
    (tmp_path / "run").mkdir()
    torch.save(state, tmp_path / "run" / "last.pt")
    return state


def test_an_old_checkpoint_is_restored_whole(old, tmp_path):
    state = checkpoint.load(tmp_path / "run" / "last.pt")
    config = build(SegmenterConfig, state["config"])
    assert (config.micro_batches, config.sampling.cavity, config.optimizer.ema_decay) == (2, 0.5, 0.995)
    run = SegmenterRun(config, torch.device("cpu"))
    run.restore(tmp_path / "run" / "last.pt")
    for part, name in (("generator", "generator"), ("ema", "average"), ("critic", "critic")):
        assert all(torch.equal(value, old[name][key]) for key, value in getattr(run, part).state_dict().items())
    assert (run.step, run.best, run.epochs_without_improvement) == (1, old["best"], old["stale"])
    assert torch.equal(torch.get_rng_state(), old["random"])
    moments = run.generator_optimizer.state_dict()["state"][0]
    assert torch.equal(moments["exp_avg"], old["generator_optimizer"]["state"][0]["exp_avg"])


def test_an_old_command_goes_on_from_an_old_checkpoint(old, tmp_path):
    small_data.write_crops(tmp_path / "data")
    recipe = str(small_data.RESOURCES / "lnhg-hard.toml")
    settings = [word for setting in OLD_SETTINGS for word in ("--set", setting)]
    command = ["train", "segmenter", "--config", recipe, "--data", str(tmp_path / "data"), "--resume", *settings]
    assert main([*command, str(tmp_path / "run")]) == 0
    state = checkpoint.load(tmp_path / "run" / "last.pt")
    assert (state["step"], state["config"]["micro_batches"]) == (2, 2)
    assert any(not torch.equal(value, old["generator"][key]) for key, value in state["generator"].items())


def test_an_old_checkpoint_predicts_with_its_averaged_weights(old, tmp_path):
    path = tmp_path / "run" / "last.pt"
    hu = np.random.default_rng(0).normal(-500, 300, (16, 16, 16)).astype(np.int16)
    image = checkpoint_predictor(checkpoint.load(path), path, "cpu")(hu)
    torch.save(old | {"generator": {}}, path)
    assert np.array_equal(checkpoint_predictor(checkpoint.load(path), path, "cpu")(hu), image)
    torch.save(old | {"average": old["generator"]}, path)
    assert not np.array_equal(checkpoint_predictor(checkpoint.load(path), path, "cpu")(hu), image)
