"""nnU-Net itself, on tiny crops: our data and folds go in, its networks come out in the tables of every method."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from crop_files import write_crop_files
from LNHGLib.errors import InputError
from LNHGLib.models import folder as models
from LNHGLib.models.documents import baselines
from LNHGLib.models.registry import build_generator
from LNHGLib.segmentation import pipeline
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.baselines import nnunet_data
from LNHGTrainingLib.data.crops import load_crops
from LNHGTrainingLib.evaluation import predictors
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.torch import save_file
from small_data import COLUMNS, RESOURCES
from tiny_model import tiny_chest

pytestmark = pytest.mark.slow


ROOT = Path(__file__).parents[3]
SIDE = 16
BUDGET = ["--epochs", "2", "--iterations", "1", "--gpu-memory", "0.1", "--no-mirroring"]

needs_nnunet = pytest.mark.skipif(
    baselines.find_spec("nnunetv2") is None, reason="nnU-Net is not installed (extra baselines)"
)


def write_data(folder: Path, patients: int = 6) -> list[str]:
    """Balls in cubes of 16 mm, the last two slices unknown; the command line's part that names them."""
    z, y, x = np.mgrid[:SIDE, :SIDE, :SIDE] - SIDE // 2
    hu = np.random.default_rng(0).normal(-850, 20, (6, SIDE, SIDE, SIDE))
    balls = np.array([z**2 + y**2 + x**2 < (3 + i % 3) ** 2 for i in range(6)])
    hu[balls] = 40
    values = ((i, f"patient-{i % patients}", f"1.{i}", 0, 1, 2 + 2 * (i < 5), 8, i % 2, 0) for i in range(6))
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in values]
    folder.mkdir(parents=True, exist_ok=True)
    crops, table = folder / "crops.h5", folder / "crops.csv"
    write_crop_files(crops, table, rows, hu, 0b1111 * balls, (0, SIDE - 2, 0, SIDE, 0, SIDE))
    return ["--crops", str(crops), "--table", str(table)]


def write_raw(folder: Path, patients: int = 6) -> list[nnunet_data.Case]:
    _, crops, _, table = write_data(folder, patients)
    return nnunet_data.write_raw(Path(crops), Path(table), folder / "raw")


def test_nnunet_gets_each_crop_with_its_consensus_and_ignores_what_nobody_knows(tmp_path):
    cases = write_raw(tmp_path)
    raw = tmp_path / "raw" / nnunet_data.DATASET
    assert [case.name for case in cases] == [f"crop_{i:05d}" for i in range(5)]  # the sixth has two readers alone
    for crop in load_crops(tmp_path / "crops.h5", tmp_path / "crops.csv", [0, 1], 3):
        name = f"crop_{int(crop.row['row']):05d}"
        image = sitk.ReadImage(raw / "imagesTr" / f"{name}_0000.nii.gz")
        labels = sitk.ReadImage(raw / "labelsTr" / f"{name}.nii.gz")
        assert image.GetSpacing() == labels.GetSpacing() == (1.0, 1.0, 1.0)
        assert image.GetDirection() == labels.GetDirection()
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), crop.hu)
        found = sitk.GetArrayFromImage(labels)
        np.testing.assert_array_equal(found == 1, crop.mask & crop.known)
        np.testing.assert_array_equal(found == 2, ~crop.known)
        assert (found[-2:] == 2).all()
        assert (found == 1).any()
    said = json.loads((raw / "dataset.json").read_text())
    assert (said["labels"], said["numTraining"]) == ({"background": 0, "nodule": 1, "ignore": 2}, 5)


def test_nnunet_gets_our_folds(tmp_path):
    made = nnunet_data.splits(write_raw(tmp_path))
    assert made[0] == {"train": ["crop_00001", "crop_00003"], "val": ["crop_00000", "crop_00002", "crop_00004"]}
    assert made[1] == {"train": made[0]["val"], "val": made[0]["train"]}


def test_a_patient_in_two_folds_is_refused(tmp_path):
    with pytest.raises(InputError, match="Patient patient-0 is in fold 0 and in another, expected one"):
        write_raw(tmp_path, patients=3)
    assert not (tmp_path / "raw").exists()


def test_other_crops_are_not_mixed_in(tmp_path):
    write_raw(tmp_path)
    with (tmp_path / "crops.csv").open("a") as stream:
        stream.write("\n")
    with pytest.raises(InputError, match="was made of other crops"):
        nnunet_data.write_raw(tmp_path / "crops.h5", tmp_path / "crops.csv", tmp_path / "raw")


def test_without_nnunet_one_sentence_names_the_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(baselines, "find_spec", lambda name: None)
    assert main(["nnunet", *write_data(tmp_path), str(tmp_path / "out"), "--fold", "0"]) == 2
    said = capsys.readouterr().err
    assert 'nnunetv2 is not installed, expected for nnU-Net; install the extra "baselines"' in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> tuple[Path, list[str]]:
    """A folder in which nnU-Net has planned and preprocessed, and the part of the command line that names the data."""
    folder = tmp_path_factory.mktemp("nnunet")
    files = write_data(folder)
    assert main(["nnunet", *files, *BUDGET, str(folder / "out")]) == 0
    return folder / "out", files


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory) -> tuple[Path, list[str]]:
    """The same with fold 0 trained in one go."""
    out = tmp_path_factory.mktemp("trained") / "out"
    shutil.copytree(prepared[0], out)
    assert main(["nnunet", *prepared[1], *BUDGET, str(out), "--fold", "0"]) == 0
    return out, prepared[1]


@needs_nnunet
def test_nnunet_plans_preprocesses_and_takes_our_folds(prepared):
    preprocessed = prepared[0] / "preprocessed" / nnunet_data.DATASET
    plan = json.loads((preprocessed / "nnUNetPlans.json").read_text())["configurations"]["3d_fullres"]
    assert plan["spacing"] == [1.0, 1.0, 1.0]
    held_out = [split["val"] for split in json.loads((preprocessed / "splits_final.json").read_text())]
    assert held_out == [["crop_00000", "crop_00002", "crop_00004"], ["crop_00001", "crop_00003"]]


@needs_nnunet
def test_a_trained_fold_is_scored_into_the_tables_of_every_method(trained, tmp_path, capsys):
    out, files = trained
    checkpoint = str(out / "fold-0.safetensors")
    assert main(["crossvalidate", checkpoint, str(tmp_path / "scored"), "--name", "nnU-Net", *files]) == 0
    with (tmp_path / "scored" / "nodules.csv").open(newline="") as stream:
        assert [row["series"] for row in csv.DictReader(stream)] == ["1.0", "1.2", "1.4"]
    summary = json.loads((tmp_path / "scored" / "summary.json").read_text())
    assert "3 crops of 3 patients, 1 folds by patient (fold 0: step 2, threshold" in summary["split"]
    shutil.copytree(tmp_path / "scored", tmp_path / "again")
    assert main(["compare", str(tmp_path / "scored"), str(tmp_path / "again"), str(tmp_path / "pairs")]) == 0


@needs_nnunet
@pytest.mark.parametrize("mirrored", [[], [0, 1, 2]])
def test_a_cube_is_predicted_as_nnunet_itself_does(mirrored, trained):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    path = trained[0] / "fold-0.safetensors"
    state = predictors.read_checkpoint(path)
    plan = state["config"]["generator"]["plan"] = state["config"]["generator"]["plan"] | {"mirrored_axes": mirrored}
    network, plans = build_generator(state["config"]["generator"]), PlansManager(plan["plans"])
    network.load_state_dict(state["ema"])
    itself = nnUNetPredictor(use_mirroring=bool(mirrored), device=torch.device("cpu"), allow_tqdm=False)
    parts = (plans, plans.get_configuration("3d_fullres"), [network.network.state_dict()], plan["dataset"])
    itself.manual_initialization(network.network, *parts, "nnUNetTrainer", mirrored or None)
    predict = predictors.checkpoint_predictor(state, path, "cpu")
    both = predictors.checkpoint_predictor(state, path, "cpu", rotate_180=True)
    for crop in load_crops(*map(Path, trained[1][1::2]), [0], 3):
        image, about = crop.hu[None].astype(np.float32), {"spacing": [1.0, 1.0, 1.0]}
        expected = itself.predict_single_npy_array(image, about, None, None, True)[1][1]
        assert expected.std() > 1e-3
        np.testing.assert_allclose(predict(crop.hu), expected, atol=1e-3)
        turned = predict(crop.hu[:, ::-1, ::-1])[:, ::-1, ::-1]
        np.testing.assert_allclose(both(crop.hu), (predict(crop.hu) + turned) / 2, atol=1e-6)


@needs_nnunet
def test_a_trained_fold_becomes_a_model_that_segments_a_scan_and_is_evaluated(trained, tmp_path):
    card, out = RESOURCES / "document-model.toml", tmp_path / "model"
    command = ["export", str(trained[0] / "fold-0.safetensors"), "none", "--config", str(card), str(out)]
    assert main([*command, "--set", "name=nnu-net", "--set", "grid.spacing_mm=[4.0, 4.0, 4.0]"]) == 0
    model = models.load(str(out))
    assert model.card["training"]["train_patients"] == ["patient-1", "patient-3"]
    assert model.card["training"]["generator"]["checkpoint_step"] == 2
    result = pipeline.segment(tiny_chest(spacing_mm=(8.0, 4.0, 4.0)), model, threshold=0.0)
    assert np.isfinite(result.heterogeneity).all()
    score = ["evaluate", "--model", str(out), *trained[1], "--folds", "0", str(tmp_path / "scored")]
    assert main(score) == 0
    with (tmp_path / "scored" / "nodules.csv").open(newline="") as stream:
        assert [row["series"] for row in csv.DictReader(stream)] == ["1.0", "1.2", "1.4"]


@needs_nnunet
def test_a_plan_that_names_anything_else_is_refused(trained):
    """nnU-Net would import and call it, and a model's card is a file from anywhere."""
    spec = predictors.read_checkpoint(trained[0] / "fold-0.safetensors")["config"]["generator"]
    architecture = spec["plan"]["plans"]["configurations"]["3d_fullres"]["architecture"]
    architecture["arch_kwargs"]["norm_op"] = "os.system"
    with pytest.raises(InputError, match=r"The plan names 'os\.system', expected a U-Net as nnU-Net plans it"):
        build_generator(spec)


@needs_nnunet
def test_a_file_without_patients_becomes_no_model(trained, tmp_path, capsys):
    """As those of older versions are: whether a scan was trained on could not be told."""
    path = tmp_path / "old.safetensors"
    with safe_open(trained[0] / "fold-0.safetensors", "pt") as file:
        about = json.loads(file.metadata()["nnunet"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    del about["data"]["train_patients"]
    save_file(tensors, path, {"nnunet": json.dumps(about)})
    card = str(RESOURCES / "document-model.toml")
    assert main(["export", str(path), "none", "--config", card, str(tmp_path / "model")]) == 2
    assert "names no patients" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


@needs_nnunet
def test_a_stopped_training_goes_on_to_the_same_network(prepared, trained, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(prepared[0], out)
    command = ["nnunet", *prepared[1], *BUDGET, str(out), "--fold", "0"]
    paths = os.pathsep.join(str(ROOT / name) for name in ("LNHGSegmentation", "LNHGTraining"))
    process = subprocess.Popen(
        [sys.executable, "-m", "LNHGTrainingLib", *command], env=os.environ | {"PYTHONPATH": paths}
    )
    while process.poll() is None and not list(out.glob("results/*/*/fold_0/checkpoint_latest.pth")):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    assert not (out / "fold-0.safetensors").exists()
    assert main(command) == 0
    one, two = (load_file(path / "fold-0.safetensors") for path in (trained[0], out))
    for name, weights in one.items():
        np.testing.assert_array_equal(two[name], weights, err_msg=name)


@needs_nnunet
def test_a_fold_keeps_its_budget_and_a_wrong_one_is_refused(trained, capsys):
    out, files = trained
    assert main(["nnunet", *files, *BUDGET, "--epochs", "3", str(out), "--fold", "0"]) == 2
    assert "'epochs': 2" in capsys.readouterr().err
    assert main(["nnunet", *files, *BUDGET, str(out), "--fold", "7"]) == 2
    assert "--fold is 7, expected one of 0, 1" in capsys.readouterr().err
