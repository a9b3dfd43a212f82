"""`--set` and the ablations that it makes of the shipped recipes."""

import math
import re
import shlex
from pathlib import Path

import pytest
import small_data
import torch
from LNHGLib.errors import InputError
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.config import (
    ClassifierConfig,
    DetectorConfig,
    InjectorConfig,
    NoduleNetConfig,
    SegmenterConfig,
    build,
    override,
    read,
    to_table,
)
from LNHGTrainingLib.data.segmenter_batches import Batch
from LNHGTrainingLib.training import detector as train_detector
from LNHGTrainingLib.training import segmenter

ROOT = Path(__file__).parents[2]
CONFIG = {"seed": 1, "target": "intensity", "loss": {"mse": 1.0, "deep": {"on": True}}, "folds": [1, 2]}


def test_settings_replace_values_and_leave_the_rest():
    changed = override(CONFIG, ["loss.mse=0", "target=binary", "loss.deep.on = false", "folds=[0]"])
    assert changed == {"seed": 1, "target": "binary", "loss": {"mse": 0.0, "deep": {"on": False}}, "folds": [0]}
    assert CONFIG["loss"]["mse"] == 1.0


def test_a_later_setting_wins():
    assert override(CONFIG, ["seed=2", "seed=3"])["seed"] == 3


def documented_commands() -> list[list[str]]:
    """All trainings and exports that the pages name with a recipe of ours."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    blocks = (
        block for page in pages for block in re.findall(r"^```.*?\n(.*?)^```", page.read_text(), re.DOTALL | re.M)
    )
    lines = (line for block in blocks for line in block.replace("\\\n", " ").splitlines())
    return [shlex.split(line) for line in lines if "--config LNHGTraining/" in line]


@pytest.mark.parametrize("words", documented_commands(), ids=" ".join)
def test_settings_of_documented_commands_are_in_their_recipes(words):
    recipe, settings = (
        words[words.index("--config") + 1],
        [words[i + 1] for i, word in enumerate(words) if word == "--set"],
    )
    changed = override(read(ROOT / recipe), settings)
    assert all(setting.partition("=")[0].split(".")[0] in changed for setting in settings)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("loss.mes=0", r"loss\.mes: no 'mes' here, expected one of mse, deep"),
        ("seed.x=0", r"no 'seed' here"),
        ("seed", r"'seed' has no value, expected key=value"),
        ("seed=many", r"seed is 'many', expected a value like 1"),
        ("loss=0", r"loss is 0, expected a value like"),
    ],
)
def test_a_wrong_setting_is_named(setting, message):
    with pytest.raises(InputError, match=message):
        override(CONFIG, [setting])


def test_a_wrong_setting_ends_the_command_with_status_2(tmp_path, capsys):
    recipe = str(small_data.RESOURCES / "segmenter.toml")
    assert main(["train", "segmenter", "--config", recipe, "--data", str(tmp_path), "--set", "x=1", str(tmp_path)]) == 2
    assert "--set x: no 'x' here" in capsys.readouterr().err


class SmallPerceptual(torch.nn.Module):
    """In place of VGG-19, which takes long to build."""

    def __init__(self, weights: str) -> None:
        super().__init__()
        assert weights == "imagenet"

    def forward(self, fake, real):
        return (fake - real).abs().mean()


@pytest.fixture(autouse=True)
def small_perceptual(monkeypatch):
    monkeypatch.setattr(segmenter, "Perceptual", SmallPerceptual)


def run(*settings: str, recipe: str = "segmenter-paper.toml") -> segmenter.SegmenterRun:
    """The recipe's run with small networks."""
    config = override(read(small_data.RESOURCES / recipe), ["generator.width=2", "critic.width=2", *settings])
    config["critic"].pop("slab", None)
    return segmenter.SegmenterRun(build(SegmenterConfig, config), torch.device("cpu"))


def terms(*settings: str) -> dict[str, float]:
    """The weighted terms that move the generator on one batch."""
    ablated = run(*settings)
    image = torch.rand(1, 1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    mask = (image > 0.5).float()
    found = ablated.generator_terms(Batch(image, image * mask, mask, torch.ones_like(image), torch.zeros(1).bool()))
    return {name: getattr(ablated.config.loss, name) * term.item() for name, term in found.items()}


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ((), {"mse", "perceptual", "adversarial"}),
        (("loss.perceptual=0",), {"mse", "adversarial"}),
        (("loss.mse=0",), {"perceptual", "adversarial"}),
        (("loss.perceptual=0", "loss.adversarial=0"), {"mse"}),
    ],
    ids=["LNHG", "L-MSE", "L-VGG", "pure MSE"],
)
def test_ablated_losses_leave_only_the_others(settings, left):
    assert {name for name, value in terms(*settings).items() if value} == left


def test_l_mse_needs_no_perceptual_network():
    assert run().perceptual is not None
    assert run("loss.perceptual=0").perceptual is None


@pytest.mark.parametrize("recipe", ["segmenter-paper.toml", "segmenter.toml"])
def test_width_and_input_skip_reach_the_generator(recipe):
    assert run("generator.width=3", recipe=recipe).generator.last.in_channels == 3
    generators = [run(f"generator.input_skip={skip}", recipe=recipe).generator.eval() for skip in ("true", "false")]
    image = torch.rand(1, 1, 8, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(generators[0].residual(image) - image, generators[1].residual(image))


def test_the_target_is_the_nodules_intensity_or_its_mask(tmp_path):
    small_data.write_crops(tmp_path, count=2)
    sampling = small_data.training_config("segmenter", tmp_path)["sampling"]
    batches = {
        target: small_data.segmenter_patches(small_data.load(tmp_path), [], sampling, target=target).batch(0, 2)
        for target in ("intensity", "binary")
    }
    binary, intensity = batches["binary"], batches["intensity"]
    assert torch.equal(binary.image, intensity.image)
    assert torch.equal(binary.target, binary.mask)
    assert torch.equal(intensity.target, intensity.image * intensity.mask)
    assert binary.mask.any()


def test_bf16_leaves_the_gradient_penalty_in_fp32(monkeypatch):
    """The critic's convolutions see bf16 for its two scores and fp32 for the penalty."""
    ablated, seen = run("precision=bf16"), []
    weights = ablated.critic.features[0].forward

    def noted(x: torch.Tensor) -> torch.Tensor:
        result = weights(x)
        seen.append(result.dtype)
        return result

    monkeypatch.setattr(ablated.critic.features[0], "forward", noted)
    image = torch.rand(1, 1, 8, 16, 16)
    values = ablated.critic_step([(0, Batch(image, image, image, torch.ones_like(image), torch.zeros(1).bool()))])
    assert seen == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert all(p.grad.dtype == torch.float32 for p in ablated.critic.parameters())
    assert math.isfinite(values["critic"])


def test_bf16_hands_fp32_features_to_the_detectors_boxes(tmp_path):
    config = small_data.training_config("detector", tmp_path) | {"precision": "bf16"}
    detector = train_detector.DetectorRun(build(DetectorConfig, config), torch.device("cpu")).detector.eval()
    inside = []
    detector.backbone.body.register_forward_hook(lambda _, __, result: inside.append(result["0"].dtype))
    features = detector.backbone(torch.rand(1, 3, 64, 64))
    assert inside == [torch.bfloat16]
    assert {value.dtype for value in features.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"plane": 3}, "has no key `plane`, expected one of patience, sampling, "),
        (
            {"sampling": {"sides": [[3, 8, 8]], "plane": 3}},
            r"has no key `sampling\.plane`, expected one of planes, ",
        ),
        ({"loss": {"mse": 1.0}}, r"lacks `loss\.dice`, expected a number; add it"),
        ({"data": {}}, r"lacks `data\.crops`, expected a text; add it"),
        ({"loss": 1}, "`loss` is 1, expected a table"),
        ({"steps": 1.5}, r"`steps` is 1\.5, expected a whole number"),
        ({"steps": True}, "`steps` is True, expected a whole number"),
        ({"window_hu": "wide"}, "`window_hu` is 'wide', expected a list"),
        ({"sampling": {"sides": [[3, "a"]]}}, r"`sampling\.sides` is 'a', expected a whole number"),
        ({"sampling": {"sides": [], "planes": 4}}, r"`sampling\.planes` is 4, expected 1, 2 or 3"),
        (
            {"generator": {"kind": "gan", "threshold": 0.1}},
            r"`generator\.kind` is 'gan', expected paper, strided, unet, gated-unet, .*nasnet-gcn or monai-unet",
        ),
        ({"target": "colour"}, "`target` is 'colour', expected intensity or binary"),
        ({"precision": "fp16"}, "`precision` is 'fp16', expected auto, bf16 or fp32"),
    ],
)
def test_a_wrong_configuration_is_refused_with_the_key_before_anything_is_made(tmp_path, change, said):
    config = small_data.training_config("segmenter", tmp_path) | change
    with pytest.raises(InputError, match=said):
        segmenter.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_key_that_is_missing_ends_the_command_with_one_sentence(tmp_path, capsys):
    recipe = tmp_path / "own.toml"
    recipe.write_text("seed = 1\n[data]\ntrain_folds = [0]\n")
    command = ["train", "detector", "--config", str(recipe), "--data", str(tmp_path), str(tmp_path / "run")]
    for more, key in (([], "steps"), (["--fold", "0"], "data.crops")):
        assert main([*command, *more]) == 2
        said = capsys.readouterr().err
        assert f"lacks `{key}`" in said
        assert said.count("\n") == 1


SHIPPED = sorted(
    path
    for path in small_data.RESOURCES.glob("*.toml")
    if not path.name.startswith(("lnhg-1mm", "paper-", "hard", "document-model", "methods"))
)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_are_complete_and_come_back_from_tables(path):
    kinds = {
        "detector": DetectorConfig,
        "classifier": ClassifierConfig,
        "injector": InjectorConfig,
        "stages": NoduleNetConfig,
    }
    table = read(path)
    kind = next((kind for part, kind in kinds.items() if part in table), SegmenterConfig)
    config = build(kind, table)
    assert build(kind, to_table(config)) == config


def test_old_words_are_read(tmp_path):
    """In a recipe on a shipped one, on the command line, and in tables as older checkpoints hold them."""
    recipe = tmp_path / "own.toml"
    base = small_data.RESOURCES / "lnhg-hard.toml"
    recipe.write_text(f"base = '{base}'\nparts = 2\n[optimizer]\naverage = 0.5\n[sampling]\nhollow = 0.3\n")
    config = build(SegmenterConfig, read(recipe))
    assert (config.micro_batches, config.optimizer.ema_decay, config.sampling.cavity) == (2, 0.5, 0.3)
    again = override(read(base), ["parts=2", "optimizer.average=0.5", "sampling.hollow=0.3"])
    assert build(SegmenterConfig, again) == config
    old = to_table(config)
    old["parts"] = old.pop("micro_batches")
    old["optimizer"]["average"] = old["optimizer"].pop("ema_decay")
    old["sampling"]["hollow"] = old["sampling"].pop("cavity")
    assert build(SegmenterConfig, old) == config
