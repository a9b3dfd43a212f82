"""Networks that LNHG is compared with, and the table over folds in which each nodule is scored by the right network."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import small_data
import torch
from evaluation_data import QUIET, ball, empty, perfect, row, write_crops
from LNHGLib.errors import InputError
from LNHGLib.models.registry import build_generator
from LNHGLib.models.unet import GatedUNet, UNet
from LNHGTrainingLib import config as settings
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.evaluation import crossvalidate
from LNHGTrainingLib.evaluation.crops import CropFiles
from LNHGTrainingLib.evaluation.crossvalidate import Fold, dice_sums
from LNHGTrainingLib.training import segmenter

pytestmark = pytest.mark.slow


def fold(number: int, predict) -> Fold:
    return Fold(predict, 4, "a" * 64, (number,), (0.5,))


@pytest.fixture
def crops(tmp_path):
    rows = [row(i) for i in range(6)]
    return write_crops(tmp_path, rows, [0b1111 * ball((25, 25, 25), 3 + i) for i in range(6)])


def test_each_nodule_is_scored_by_the_network_that_held_its_patient_out(crops, tmp_path):
    """Register M7: the original tests one checkpoint on all folds."""
    report = crossvalidate.run("mixed", [fold(0, perfect), fold(1, empty)], crops, tmp_path / "out", QUIET)
    with (tmp_path / "out" / "nodules.csv").open(newline="") as stream:
        dice = {line["series"]: float(line["dice"]) for line in csv.DictReader(stream)}
    assert dice == {f"1.{i}": float(i % 2 == 0) for i in range(6)}
    assert report["groups"]["all"]["dice_all"]["value"] == 0.5
    assert report["threshold"] is None


def test_a_split_by_nodule_is_called_what_it_is(crops, tmp_path):
    leaky = [replace(fold(0, perfect), trained_on=frozenset({"P0"})), fold(1, perfect)]
    report = crossvalidate.run("leaky", leaky, crops, tmp_path / "out", QUIET)
    assert "2 folds by nodule, 1 patients on both sides, which flatters (fold 0" in report["split"]
    honest = crossvalidate.run("honest", [fold(0, perfect), fold(1, perfect)], crops, tmp_path / "two", QUIET)
    assert "2 folds by patient (fold 0" in honest["split"]


def test_the_threshold_of_a_fold_is_the_best_one_on_the_other_folds(crops, tmp_path):
    """A cut at 0.25 is right for the first fold's network and one at 0.55 for the second's."""
    low, high = (lambda hu, at=at: 0.3 * perfect(hu) + at for at in (0.1, 0.4))
    folds = [replace(fold(number, image), thresholds=(0.25, 0.55)) for number, image in enumerate((low, high))]
    report = crossvalidate.run("crossed", folds, crops, tmp_path / "out", QUIET)
    assert "fold 0: step 4, threshold 0.55, fold 1: step 4, threshold 0.25" in report["split"]
    assert "chosen on the nodules of the other folds" in report["protocol"]
    assert report["groups"]["all"]["dice_all"]["value"] < 0.1


def test_a_pruned_outline_has_no_vessel(crops, tmp_path):
    """The network predicts the nodule and a vessel that leaves it."""

    def with_vessel(hu):
        image = perfect(hu).copy()
        image[24:27, 24:27, 25:] = 1
        return image

    dice = {}
    for prune in (False, True):
        folds = [replace(fold(n, with_vessel), inference=crossvalidate.InferenceOptions(prune=prune)) for n in (0, 1)]
        report = crossvalidate.run("vessel", folds, crops, tmp_path / f"{prune}", QUIET)
        dice[prune] = report["groups"]["all"]["dice_all"]["value"]
    assert dice[True] > dice[False] + 0.05


def test_each_cube_is_predicted_once(crops, tmp_path):
    seen = []
    folds = [replace(fold(n, lambda hu: seen.append(1) or perfect(hu)), thresholds=(0.2, 0.5)) for n in (0, 1)]
    crossvalidate.run("once", folds, crops, tmp_path / "out", QUIET)
    assert len(seen) == 6


def test_the_threshold_of_a_single_fold_is_the_best_one_on_its_training_crops(tmp_path):
    small_data.write_crops(tmp_path)
    trained, thresholds = small_data.load(tmp_path), (0.1, 0.2, 0.4)
    assert dice_sums(lambda hu: 0.3 * perfect(hu) + 0.15, trained, thresholds).argmax() == 1
    segmenter.train(config(tmp_path, "lnhg-gated.toml", 0), tmp_path / "run")
    files = CropFiles(tmp_path / "crops" / "luna16_crops.h5", tmp_path / "crops" / "luna16_crops.csv")
    (only,) = crossvalidate.read_folds([tmp_path / "run" / "last.pt"], files)
    assert len(only.thresholds) == 1


def test_folds_of_different_targets_are_refused(tmp_path):
    small_data.write_crops(tmp_path)
    runs = [tmp_path / "binary", tmp_path / "intensity"]
    for number, (recipe, run) in enumerate(zip(("unet.toml", "lnhg-gated.toml"), runs, strict=True)):
        segmenter.train(config(tmp_path, recipe, number), run)
    files = CropFiles(tmp_path / "crops" / "luna16_crops.h5", tmp_path / "crops" / "luna16_crops.csv")
    with pytest.raises(InputError, match="targets binary and intensity, expected one"):
        crossvalidate.read_folds([run / "last.pt" for run in runs], files)


def config(folder, recipe: str, fold_: int) -> dict:
    read = settings.hold_out(
        settings.read(small_data.RESOURCES / recipe) | {"data": small_data.data_config(folder)}, fold_
    )
    read |= {"steps": 2, "epoch_steps": 2, "batch": 2, "validate_crops": 1}
    read["sampling"] = read["sampling"] | {"sides": [[min(side, 16) for side in read["sampling"]["sides"][0]]]}
    read["generator"] = read["generator"] | {"width": 2}
    return read


@pytest.mark.parametrize(
    "recipe",
    [
        "unet.toml",
        "monai-unet.toml",
        "lnhg-gated.toml",
        "lnhg-planes.toml",
        "lnhg-hard.toml",
        "segmenter-hard.toml",
        "unet-planes.toml",
    ],
)
def test_a_method_is_trained_and_scored_over_its_folds_by_two_commands(recipe, tmp_path, capsys):
    if recipe == "monai-unet.toml":
        pytest.importorskip("monai", reason="MONAI is not installed (extra baselines)")
    small_data.write_crops(tmp_path)
    last = []
    for number in (0, 1):
        segmenter.train(config(tmp_path, recipe, number), tmp_path / f"run-{number}")
        last.append(str(tmp_path / f"run-{number}" / "last.pt"))
    files = ["--crops", tmp_path / "crops" / "luna16_crops.h5", "--table", tmp_path / "crops" / "luna16_crops.csv"]
    assert main(["crossvalidate", *last, str(tmp_path / "out"), "--name", "U-net", *map(str, files)]) == 0
    assert "fold 0: step 2, threshold" in (tmp_path / "out" / "summary.md").read_text()
    two = [*last, str(tmp_path / "two"), "--name", "U-net, two looks", "--half-turn", "--trim", *map(str, files)]
    assert main(["crossvalidate", *two]) == 0
    for said in ("the mean of two predictions", "Outlines are trimmed"):
        assert said in (tmp_path / "two" / "summary.md").read_text()
    assert main(["compare", str(tmp_path / "out"), str(tmp_path / "two"), str(tmp_path / "both")]) == 0
    assert main(["crossvalidate", last[0], last[0], str(tmp_path / "no"), "--name", "U", *map(str, files)]) == 2
    assert "Fold 0 is held out by two checkpoints" in capsys.readouterr().err


def test_the_papers_u_net_has_its_parameters():
    assert sum(p.numel() for p in build_generator({"kind": "unet"}).parameters()) == 23_345_153


def test_the_u_net_predicts_a_slice_from_the_slab_of_three_around_it():
    torch.manual_seed(0)
    network, volume = UNet(width=2).eval(), torch.rand(1, 1, 6, 16, 16)
    with torch.inference_mode():
        whole, slab = network(volume), network(volume[:, :, 2:5])
    torch.testing.assert_close(whole[:, :, 3], slab[:, :, 1])
    assert whole.shape == volume.shape
    assert 0 < whole.min() <= whole.max() < 1


def test_lnhg_with_the_u_nets_body_predicts_the_ct_times_the_probability():
    torch.manual_seed(0)
    network, body, volume = GatedUNet(width=2).eval(), UNet(width=2).eval(), torch.rand(1, 1, 6, 16, 16)
    body.load_state_dict(network.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(network(volume), volume * body(volume))


def test_three_planes_are_the_mean_of_axial_coronal_and_sagittal_slabs():
    torch.manual_seed(0)
    network, axial = GatedUNet(width=2, planes=3).eval(), GatedUNet(width=2).eval()
    axial.load_state_dict(network.state_dict())
    volume = torch.rand(1, 1, 16, 16, 16)
    orders = [(0, 1, 2, 3, 4), (0, 1, 3, 2, 4), (0, 1, 4, 2, 3)]
    with torch.inference_mode():
        views = [axial(volume.permute(order)).permute(*map(int, np.argsort(order))) for order in orders]
        torch.testing.assert_close(network(volume), sum(views) / 3)
        torch.testing.assert_close(network(volume[:, :, 2:5]), axial(volume[:, :, 2:5]))
    assert not torch.allclose(views[0], views[1])


def test_another_number_of_planes_is_refused():
    with pytest.raises(InputError, match="`planes` is 4, expected 1, 2 or 3"):
        build_generator({"kind": "gated-unet", "planes": 4})


@pytest.mark.parametrize("kind", ["unet", "gated-unet"])
def test_folded_norms_change_nothing_that_is_predicted(kind):
    torch.manual_seed(0)
    network, volume = build_generator({"kind": kind, "width": 2}), torch.rand(1, 1, 6, 16, 16)
    network.train()(torch.rand(4, 1, 3, 16, 16))
    with torch.inference_mode():
        before = network.eval()(volume)
        network.fold_norms()
        torch.testing.assert_close(network(volume), before)
    assert not any(isinstance(module, torch.nn.BatchNorm3d) for module in network.modules())


def test_a_configuration_builds_on_others(tmp_path):
    (tmp_path / "base.toml").write_text("steps = 5\n[loss]\nmse = 1.0\ndice = 2.0\n")
    (tmp_path / "own.toml").write_text('base = "base.toml"\nseed = 1\n[loss]\nmse = 0.0\n')
    assert settings.read(tmp_path / "own.toml") == {"steps": 5, "seed": 1, "loss": {"mse": 0.0, "dice": 2.0}}
    (tmp_path / "more.toml").write_text("steps = 7\n[loss]\ndice = 3.0\n")
    (tmp_path / "both.toml").write_text('base = ["base.toml", "more.toml"]\n[loss]\nmse = 0.5\n')
    assert settings.read(tmp_path / "both.toml") == {"steps": 7, "loss": {"mse": 0.5, "dice": 3.0}}


def test_a_fold_is_held_out_and_the_others_train():
    files = {"crops": "a", "table": "b", "background_folder": "c", "background": []}
    data = {"data": {"train_folds": [1, 2], "validation_folds": [0], "min_readers": 3} | files}
    expected = {"train_folds": [0, 1], "validation_folds": [2], "min_readers": 3} | files
    assert settings.hold_out(data, 2) == {"data": expected}
    with pytest.raises(InputError, match="--fold is 7, expected one of 0, 1, 2"):
        settings.hold_out(data, 7)
