"""nnU-Net (version 2) as a baseline: its own planning, preprocessing, network, augmentation and training, on our folds.

It runs in child processes, whose environment alone names its folders. What comes out is one file for each fold:
weights, plan and budget, which `lnhg-train crossvalidate` takes like a checkpoint of ours.
"""

import json
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from LNHGLib.batch.lock import RunLock
from LNHGLib.errors import InputError, quoted
from LNHGLib.files.atomic import atomic_file
from LNHGLib.files.damage import explain_damage
from LNHGLib.files.text import read_json, write_json

from LNHGTrainingLib.baselines import nnunet_data
from LNHGTrainingLib.baselines.nnunet_data import DATASET, Case
from LNHGTrainingLib.evaluation.crops import SPACING_MM, Predict
from LNHGTrainingLib.paths import NNUNET_TRAINER
from LNHGTrainingLib.training.sigterm import Stopped, StopSignal

CONFIGURATION = "3d_fullres"
METADATA = "nnunet"
SUFFIX = ".safetensors"
POLL_S = 0.2
CASES_A_WORKER = 100
"""A process of nnU-Net's takes seconds to start."""
NODULE = nnunet_data.LABELS["nodule"]
PLAN = "from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry as f; f()"
TRAIN = "from nnunetv2.run.run_training import run_training_entry as f; f()"
"""nnU-Net's commands, run by this Python whether or not its scripts are on the PATH."""


@dataclass(frozen=True)
class Budget:
    """How long to train, with nnU-Net's own numbers; without `mirroring`, predictions take an eighth of the time."""

    epochs: int = 1000
    iterations: int = 250
    seed: int = 0
    mirroring: bool = True


def require() -> None:
    """Refuse to begin without nnU-Net.

    Raises:
        InputError: says which extra to install.
    """
    if find_spec("nnunetv2") is None:
        raise InputError(
            "The package nnunetv2 is not installed, expected for nnU-Net; "
            'install the extra "baselines", as in pip install "slicer-lnhg[baselines]".'
        )


def prepare(out: Path, crops: Path, table: Path, readers: int = 3, memory_gb: float | None = None) -> list[Case]:
    """Write nnU-Net's raw data set, let it plan and preprocess, and give it our folds; what is done is kept.

    Args:
        out: Folder of all of nnU-Net's files.
        crops: HDF5 file laid out like `luna16_crops.h5`.
        table: Its table, with folds by patient.
        readers: Fewest readers of a nodule.
        memory_gb: Of the GPU that nnU-Net plans patch and batch for; None: its own default, 8.

    Raises:
        InputError: `out` holds other data or another plan, or another run is at it.
    """
    require()
    (out / "raw").mkdir(parents=True, exist_ok=True)
    with RunLock(out / "raw" / ".lock"):
        _keep(out / "plan.json", {"gpu_memory_gb": memory_gb, "min_readers": readers})
        cases = nnunet_data.write_raw(crops, table, out / "raw", readers)
        preprocessed = out / "preprocessed" / DATASET
        if not (preprocessed / "splits_final.json").exists():  # written last
            shutil.rmtree(preprocessed, ignore_errors=True)
            target = [] if memory_gb is None else ["-gpu_memory_target", f"{memory_gb:g}"]
            workers = str(max(1, min(os.cpu_count() or 1, len(cases) // CASES_A_WORKER)))
            _call(out, PLAN, ["-d", "1", "-c", CONFIGURATION, "-npfp", workers, "-np", workers, "--no_pbar", *target])
            with atomic_file(preprocessed / "splits_final.json") as part:
                write_json(part, nnunet_data.splits(cases))
    return cases


def train(out: Path, cases: list[Case], fold: int, budget: Budget, device: str = "cpu") -> Path:
    """Train on all folds but one, going on from the last checkpoint if there is one.

    Args:
        out: As prepared.
        cases: As from `prepare`.
        fold: The fold of the table that is held out.
        budget: Stated in the file that is written.
        device: "cpu" or "cuda".

    Returns:
        The file that `lnhg-train crossvalidate` takes.

    Raises:
        InputError: there is no such fold, or it was begun with another budget.
        Stopped: on SIGTERM, with a checkpoint of the last whole epoch.
    """
    folds = nnunet_data.fold_numbers(cases)
    if fold not in folds:
        raise InputError(f"--fold is {fold}, expected one of {', '.join(map(str, folds))}; give one of these.")
    data = {"train_folds": [number for number in folds if number != fold], "validation_folds": [fold]}
    about = {"schema": 1, "budget": asdict(budget), "data": data}
    _keep(out / f"fold-{fold}.json", about)
    weights = (out / f"fold-{fold}{SUFFIX}").absolute()
    if not weights.exists():
        arguments = [DATASET, CONFIGURATION, str(folds.index(fold)), "-tr", "BudgetTrainer", "-device", device, "--c"]
        settings = {"epochs": budget.epochs, "iterations": budget.iterations, "seed": budget.seed}
        named = {"LNHG_NNUNET": json.dumps(settings | {"weights": str(weights), "about": about})}
        if device == "cpu":  # the network takes all the time there is, and patches sampled in one process repeat
            named["nnUNet_n_proc_DA"] = "0"
        _call(out, TRAIN, arguments, named)
    return weights


def _keep(path: Path, value: dict) -> None:
    """Note what a folder was begun with, and refuse to go on with anything else."""
    if not path.exists():
        with atomic_file(path) as part:
            write_json(part, value)
    with explain_damage(path, "name another OUT"):
        there = read_json(path)
    if there != value:
        raise InputError(
            f"{path} says that this was begun with {quoted(there)}, expected {quoted(value)}; name another OUT."
        )


def _call(out: Path, code: str, arguments: list[str], named: dict[str, str] | None = None) -> None:
    """Run one of nnU-Net's commands in a process of its own, and end it when this one is told to stop."""
    folders = {f"nnUNet_{name}": str((out / name).absolute()) for name in ("raw", "preprocessed", "results")}
    folders["nnUNet_extTrainer"] = str(NNUNET_TRAINER)
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], env=os.environ | folders | (named or {}))
    try:
        with StopSignal() as stop:
            while process.poll() is None and not stop.given:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_S)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if stop.given:
        raise Stopped("Stopped by SIGTERM; the same command goes on after the last whole epoch.")
    if process.returncode:
        raise RuntimeError(f"nnU-Net ended with status {process.returncode}; the reason is above")


def load(path: Path, device: str = "auto") -> tuple[Predict, int, dict]:
    """Load a trained fold, with nnU-Net's own preprocessing, sliding window and, unless left out, mirroring.

    Args:
        path: File of a trained fold.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Returns:
        Probability of a nodule for a cube of HU; iterations trained; configuration as a checkpoint has.

    Raises:
        InputError: there is no such file, or it is none of `train`.
    """
    from LNHGLib.segmentation.devices import choose_device
    from safetensors import SafetensorError, safe_open

    require()
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})[METADATA])
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(
            f"{path} is no file of lnhg-train nnunet, expected one of a trained fold; give that file."
        ) from error

    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    from safetensors.torch import load_model

    budget, plans, where = about["budget"], PlansManager(about["plans"]), choose_device(device)
    configuration = plans.get_configuration(CONFIGURATION)
    heads = plans.get_label_manager(about["dataset"]).num_segmentation_heads
    network = nnUNetTrainer.build_network_architecture(plans, configuration, 1, heads, enable_deep_supervision=False)
    load_model(network, path)
    options = {"device": where, "perform_everything_on_device": where.type == "cuda", "allow_tqdm": False}
    with redirect_stdout(sys.stderr):  # it has something to say about every device
        predictor = nnUNetPredictor(use_mirroring=budget["mirroring"], **options)
    parts = (network, plans, configuration, [network.state_dict()], about["dataset"], "nnUNetTrainer")
    predictor.manual_initialization(*parts, about["mirrored_axes"])

    def predict(hu: np.ndarray) -> np.ndarray:
        image, properties = hu[None].astype(np.float32), {"spacing": list(SPACING_MM)}
        return predictor.predict_single_npy_array(image, properties, None, None, True)[1][NODULE]

    config = {"data": about["data"], "target": "binary"}
    return predict, budget["epochs"] * budget["iterations"], config
