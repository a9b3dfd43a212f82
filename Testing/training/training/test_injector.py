"""CT-GAN of document 002: its networks, its training, and segmenters that train on what it injects."""

import re

import numpy as np
import pytest
import small_data
import torch
from LNHGLib.errors import InputError
from LNHGLib.image.volume import write_image
from LNHGTrainingLib import config as settings
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.baselines.ct_gan import SIDE, Discriminator, Equalizer, Injector, hide
from LNHGTrainingLib.config import InjectorConfig, build
from LNHGTrainingLib.data import injection
from LNHGTrainingLib.data.background import load_sources
from LNHGTrainingLib.data.crops import LabeledVolume
from LNHGTrainingLib.data.injection import NoduleInjector
from LNHGTrainingLib.data.injector_batches import COPIES, InjectorCubes, copy_of_cube, fit_equalizer
from LNHGTrainingLib.data.loading import load_steps
from LNHGTrainingLib.data.segmenter_batches import SegmenterPatches
from LNHGTrainingLib.training import checkpoint, injector, segmenter
from matplotlib.axes import Axes
from tiny_model import tiny_chest
from torch import nn

CUBE_OF_CROP = slice(9, 41)
"""The middle 32 of 50 voxels."""


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("width", [100, 40])
def test_both_networks_have_the_parameters_of_the_document(width):
    """Register R4: each is counted by itself. Kernels hold 4^3 = 64 weights for each pair of channels.

    Injector, in widths: down 1/w + 1*2 + 2*4 + 4*8 + 8*8, up 8*8 + 16*4 + 8*2 + 4*1, last 2 to one channel; biases
    1 + 2 + 4 + 8 + 8 and 8 + 4 + 2 + 1, and 1; normalizations twice 2 + 4 + 8 + 8 and twice 8 + 4 + 2 + 1.
    Discriminator: two channels to 1, then 1*2 + 2*4 + 4*8, last 8 to one; biases 1 + 2 + 4 + 8 and 1; twice 2 + 4 + 8.
    """
    with torch.device("meta"):
        counts = parameters(Injector(width)), parameters(Discriminator(width))
    pairs = 2 + 8 + 32 + 64 + 64 + 64 + 16 + 4
    assert counts[0] == 64 * (pairs * width**2 + 3 * width) + (23 + 15 + 2 * 22 + 2 * 15) * width + 1
    assert counts[1] == 64 * ((2 + 8 + 32) * width**2 + (2 + 8) * width) + (15 + 2 * 14) * width + 1
    assert counts == {100: (162_590_401, 26_948_301), 40: (26_021_761, 4_328_121)}[width]


def test_the_injector_gives_cubes_and_the_discriminator_one_value_for_each_of_eight_patches():
    cubes = torch.rand(2, 1, SIDE, SIDE, SIDE)
    made = Injector(2)(hide(cubes))
    assert made.shape == cubes.shape
    assert made.abs().max() <= 1
    assert Discriminator(2)(made, hide(cubes)).shape == (2, 1, 2, 2, 2)


def test_the_middle_of_20_voxels_is_hidden_and_nothing_else():
    cubes = torch.rand(1, 1, SIDE, SIDE, SIDE) + 0.5
    hidden = hide(cubes)
    assert (hidden == 0).sum() == 20**3
    assert torch.equal(hidden[hidden != 0], cubes[hidden != 0])
    assert not hidden[0, 0, 6:26, 6:26, 6:26].any()


def test_equalized_values_are_spread_evenly_and_can_be_undone():
    """Register M11: from -1 to 1, as far as the network's tanh goes."""
    hu, equalizer = np.random.default_rng(0).normal(-500, 100, 20000).round().astype(int), Equalizer()
    equalizer.fit(100 * np.bincount(hu + 1000, minlength=3001))
    values = equalizer.equalize(hu)
    assert np.allclose(np.quantile(values, [0.25, 0.5, 0.75]), [-0.5, 0, 0.5], atol=0.05)
    assert np.abs(equalizer.undo(values) - hu).max() < 1
    assert np.allclose(equalizer.undo(np.array([-1.0, 1.0])), [-1000, 2000])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    small_data.write_crops(folder)
    return folder


def recipe(data, **changes) -> dict:
    config = settings.read(small_data.RESOURCES / "document-002-ct-gan.toml") | {"data": small_data.data_config(data)}
    config |= {"steps": 2, "epoch_steps": 2, "batch": 2, "validate_crops": 1} | changes
    return config | {"injector": {"width": 2}, "discriminator": {"width": 2}}


def test_67_copies_are_made_of_each_nodule_as_in_the_document(data):
    crops = small_data.load(data)
    cubes = InjectorCubes(crops, fit_equalizer(crops), build(InjectorConfig, recipe(data)))
    hu, equalize = crops[0].hu, cubes.equalizer.equalize
    assert COPIES == 4 + 4 + 59
    part = (CUBE_OF_CROP,) * 3
    assert np.allclose(cubes.cube(0), equalize(hu[part]), atol=1e-3)
    assert np.allclose(cubes.cube(0, 1), equalize(hu[part])[..., ::-1], atol=1e-3)
    assert np.allclose(cubes.cube(0, 4), equalize(hu[9:41, 13:45, 13:45]), atol=1e-3)
    assert len({(copy_of_cube(n).center, copy_of_cube(n).matrix.tobytes()) for n in range(COPIES)}) == COPIES
    quarter = next(n for n in range(8, COPIES) if np.allclose(copy_of_cube(n).matrix[1, 1], 0))
    assert np.allclose(cubes.cube(0, quarter), np.rot90(equalize(hu[part]), axes=(2, 1)), atol=1e-3)
    assert torch.equal(cubes.batch(3, 2), cubes.batch(3, 2))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """Return the checkpoint of two steps, fold 1 held out."""
    out = tmp_path_factory.mktemp("ct-gan")
    injector.train(recipe(data), out)
    return out / "last.pt"


def test_training_sees_the_training_folds_alone_and_says_whom(trained):
    state = checkpoint.load(trained)
    assert state["patients"] == ["patient-0", "patient-2", "patient-4"]
    assert (trained.parent / "epochs.csv").read_text().startswith("step,difference")


def test_training_goes_on_as_if_it_had_never_stopped(trained, data, tmp_path):
    injector.train(recipe(data, steps=4, epoch_steps=2), tmp_path / "whole")
    injector.train(recipe(data), tmp_path / "parts")
    injector.train(recipe(data, steps=4, epoch_steps=2), tmp_path / "parts", resume=True)
    whole, parts = (checkpoint.load(tmp_path / name / "last.pt") for name in ("whole", "parts"))
    for network in ("injector", "ema", "discriminator", "equalizer"):
        for name, value in whole[network].items():
            assert torch.equal(value, parts[network][name]), (network, name)


def test_both_networks_learn_and_only_their_own_step_changes_them(data):
    torch.manual_seed(0)
    run = injector.InjectorRun(build(InjectorConfig, recipe(data)), torch.device("cpu"))
    batches = [(0, torch.rand(2, 1, SIDE, SIDE, SIDE))]
    before = [{k: v.clone() for k, v in n.state_dict().items()} for n in (run.injector, run.discriminator)]
    run.discriminator_step(batches)
    assert all(torch.equal(before[0][k], v) for k, v in run.injector.state_dict().items())
    changed = {k: v.clone() for k, v in run.discriminator.state_dict().items()}
    assert any(not torch.equal(before[1][k], v) for k, v in changed.items())
    run.injector_step(batches)
    assert all(torch.equal(changed[k], v) for k, v in run.discriminator.state_dict().items())
    assert any(not torch.equal(before[0][k], v) for k, v in run.injector.state_dict().items())


def test_each_network_learns_at_its_own_rate(data):
    """Register M11: the original exchanges the names of both optimizers."""
    run = injector.InjectorRun(build(InjectorConfig, recipe(data)), torch.device("cpu"))
    for network, optimizer, rate in (
        (run.injector, run.injector_optimizer, 2e-4),
        (run.discriminator, run.discriminator_optimizer, 1e-6),
    ):
        (group,) = optimizer.param_groups
        assert group["lr"] == rate
        assert {id(p) for p in group["params"]} == {id(p) for p in network.parameters()}


class Made(nn.Module):
    """Stands for a trained network: makes the same cube whatever it sees."""

    def __init__(self, cube: np.ndarray, equalizer: Equalizer) -> None:
        super().__init__()
        self.cube = torch.from_numpy(equalizer.equalize(cube))[None, None]

    def forward(self, _hidden):
        return self.cube


def ball(radius: float, hu: float) -> np.ndarray:
    z, y, x = np.indices((SIDE,) * 3) - SIDE / 2
    return np.where(z**2 + y**2 + x**2 < radius**2, hu, -900.0)


def injector_of(cube: np.ndarray) -> NoduleInjector:
    return NoduleInjector(Made(cube, Equalizer()), Equalizer())


def test_an_injected_nodule_is_where_most_was_added_and_nothing_gets_darker():
    lung = np.full((SIDE,) * 3, -860.0)
    lung[:, :4] = 40
    hu, nodule = injector_of(ball(5, 50)).inject(lung, np.zeros_like(lung))
    assert hu[16, 16, 16] > 0
    assert (hu >= lung).all()
    assert nodule.sum() == pytest.approx((ball(5, 50) > -900).sum(), rel=0.35)
    assert not nodule[:, :4].any()


def test_where_only_lung_is_made_nothing_is_injected_or_marked():
    lung = np.full((SIDE,) * 3, -860.0)
    hu, nodule = injector_of(ball(5, -850)).inject(lung, np.zeros_like(lung))
    assert not nodule.any()
    assert np.array_equal(hu, lung)


def test_a_chest_gets_a_nodule_at_a_place_of_its_lung_and_stays_as_it_is():
    hu = np.random.default_rng(1).normal(-860, 15, (48, 60, 60)).astype(np.int16)
    chest = LabeledVolume(hu, np.zeros(hu.shape, bool), np.ones(hu.shape, bool), "chest", {})
    before, lung = hu.copy(), np.array([[20, 30, 30], [2, 58, 30]], np.int16)
    for seed in range(4):  # the second place is too near to the border: moved inwards
        part, middle, made = injector_of(ball(5, 50)).inject_into(np.random.default_rng(seed), chest, lung, 40)
        assert made
        assert part.mask[tuple(middle.round().astype(int))]
        assert part.hu[tuple(middle.round().astype(int))] > -100
    assert np.array_equal(chest.hu, before)
    assert not chest.mask.any()


QUIET, NOISY = (32, 32, 32), (96, 32, 32)


@pytest.fixture
def chest_with_noise():
    """A chest that is all lung, without noise around the first place and with noise and a wall around the second."""
    hu = np.full((128, 64, 64), -860, np.int16)
    hu[64:] += np.random.default_rng(2).normal(0, 25, (64, 64, 64)).astype(np.int16)
    hu[64:, :, :32] = 40
    return LabeledVolume(hu, np.zeros(hu.shape, bool), np.ones(hu.shape, bool), "chest", {})


MIDDLE = (slice(14, 18),) * 3
"""Of a cube: there, what is made is hardly blended with the lung."""


def inject_at(chest: LabeledVolume, other: tuple) -> np.ndarray:
    """The middle of a nodule of 50 HU that is injected at the quiet place with the noise of another."""
    part, _, made = injector_of(ball(9, 50)).inject_at(chest, np.array(QUIET), np.array(other), 16)
    assert made
    return part.hu[MIDDLE]


def test_an_injected_nodule_has_the_noise_of_lung_elsewhere_in_its_chest(chest_with_noise):
    """Register M11: the original takes it from one fixed place of the scan."""
    there = chest_with_noise.hu[80:112, 16:48, 16:48].astype(float)
    noise = np.where(there < -800, there - there[there < -800].mean(), 0)[MIDDLE]
    added = inject_at(chest_with_noise, NOISY) - inject_at(chest_with_noise, QUIET)
    np.testing.assert_allclose(added, noise, rtol=0.25, atol=0.5)
    assert np.abs(added[..., 2:]).mean() > 10
    assert np.abs(added[..., :2]).max() < 0.01  # a wall is no noise


def test_where_the_noise_should_come_from_no_lung_there_is_none(chest_with_noise):
    """Register M11: the original's mean over no voxel is no number."""
    without = inject_at(chest_with_noise, QUIET)
    chest_with_noise.hu[64:] = 40
    np.testing.assert_allclose(inject_at(chest_with_noise, NOISY), without, atol=0.01)


def test_the_place_of_the_noise_is_chosen_anew_for_each_nodule(chest_with_noise):
    """Register M11. Two voxels of lung: both are places of nodules, and of the noise of both."""
    injected, lung = injector_of(ball(9, 50)), np.array([QUIET, NOISY], np.int16)
    parts = [injected.inject_into(np.random.default_rng(seed), chest_with_noise, lung, 16)[0] for seed in range(24)]
    assert len({part.hu.tobytes() for part in parts}) == 4


def with_chest(config: dict, monkeypatch) -> None:
    """Give every training a chest of noise as its background."""
    hu = np.random.default_rng(1).normal(-860, 15, (60, 60, 60)).astype(np.int16)
    lung = np.argwhere(np.ones((20, 20, 20), bool)).astype(np.int16) + 20
    chest = LabeledVolume(hu, np.zeros(hu.shape, bool), np.ones(hu.shape, bool), "chest", {}), lung
    monkeypatch.setattr("LNHGTrainingLib.data.background.load_backgrounds", lambda *_: [chest])
    config["sampling"] = {"sides": [[16, 16, 16]], "nodule": 0.0, "injected": 1.0}


def test_a_segmenter_trains_on_injected_nodules_which_are_flagged_and_counted(trained, data, tmp_path, monkeypatch):
    config = small_data.training_config("segmenter", data) | {"steps": 2}
    with_chest(config, monkeypatch)
    config["data"]["injector"] = str(trained)
    counts, step = [], segmenter.SegmenterRun.train_step
    monkeypatch.setattr(NoduleInjector, "inject", injector_of(ball(5, 50)).inject)  # two steps make no nodule

    def counted(self, batches):
        assert all(batch.injected.all() for _, batch in batches)
        assert all(batch.mask.any() for _, batch in batches)
        values = step(self, batches)
        counts.append(values["injected"])
        return values

    monkeypatch.setattr(segmenter.SegmenterRun, "train_step", counted)
    segmenter.train(config, tmp_path / "run")
    assert counts == [2.0, 2.0]


def test_workers_inject_the_same_nodules(trained, data, monkeypatch):
    config = small_data.training_config("segmenter", data)
    with_chest(config, monkeypatch)
    config["data"]["injector"] = str(trained)
    monkeypatch.setattr("LNHGTrainingLib.data.injection.MIN_ADDED_HU", 0.0)  # two steps make little
    typed = build(settings.SegmenterConfig, config)
    chests = load_sources(typed.data, trained.parent).backgrounds
    patches = SegmenterPatches(small_data.load(data), chests, [], typed)
    own, others = (list(load_steps(patches, range(2), 2, 1, workers)) for workers in (0, 1))
    for one, other in zip(own, others, strict=True):
        assert torch.equal(one[0][1].image, other[0][1].image)
        assert torch.equal(one[0][1].injected, other[0][1].injected)


def test_other_patches_are_not_flagged(data):
    batch = small_data.segmenter_patches(small_data.load(data), [], {"sides": [[16, 16, 16]], "nodule": 1.0}).batch(
        0, 3
    )
    assert not batch.injected.any()
    assert batch.to(torch.device("cpu")).injected.shape == (3,)


def test_an_injector_that_saw_patients_of_the_validation_is_refused(trained, data, monkeypatch):
    """Register M12."""
    config = small_data.training_config("segmenter", data)
    with_chest(config, monkeypatch)
    config["data"] |= {"injector": str(trained), "train_folds": [1], "validation_folds": [0]}
    with pytest.raises(InputError, match=r"3 patients of the validation folds \(patient-0"):
        injection.load(build(settings.Data, config["data"]))


def test_a_checkpoint_of_another_network_is_refused(data, tmp_path):
    checkpoint.save(tmp_path / "other.pt", {"config": {"generator": {}}})
    config = small_data.data_config(data) | {"injector": str(tmp_path / "other.pt")}
    with pytest.raises(InputError, match="holds no injector"):
        injection.load(build(settings.Data, config))


def test_nodules_of_no_fitting_size_are_refused(data, tmp_path):
    config = recipe(data) | {"sampling": {"diameter_mm": [1.0, 2.0]}}
    with pytest.raises(InputError, match="no nodule of 1 to 2 mm"):
        injector.train(config, tmp_path)


def test_the_recipe_trains_by_the_command_of_all_networks(data, tmp_path, capsys):
    recipe_file = small_data.RESOURCES / "document-002-ct-gan.toml"
    changes = ("steps=2", "epoch_steps=2", "batch=2", "validate_crops=1", "injector.width=2", "discriminator.width=2")
    changes += ("data.train_folds=[0]", "data.validation_folds=[1]")
    command = ["train", "injector", "--config", recipe_file, "--data", data, tmp_path / "run"]
    assert main([str(part) for part in command] + [part for change in changes for part in ("--set", change)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "run" / "best.pt")


def test_the_command_shows_what_is_put_into_a_ct(trained, tmp_path, capsys, monkeypatch):
    chest = tiny_chest(spacing_mm=(4.0, 4.0, 4.0))
    write_image(chest.array, chest.grid, tmp_path / "ct.nii.gz")
    monkeypatch.setattr(NoduleInjector, "inject", injector_of(ball(5, 50)).inject)
    said, set_label = [], Axes.set_xlabel
    monkeypatch.setattr(Axes, "set_xlabel", lambda axes, text, **how: (said.append(text), set_label(axes, text, **how)))
    assert main(["inject", str(tmp_path / "ct.nii.gz"), str(trained), str(tmp_path / "out.png")]) == 0
    assert "6 nodules at " in capsys.readouterr().out
    assert len(said) == 6
    assert all(re.fullmatch(r"\+\d{3} HU in \d+ mm³", text) for text in said)
    assert (tmp_path / "out.png").read_bytes()[1:4] == b"PNG"
