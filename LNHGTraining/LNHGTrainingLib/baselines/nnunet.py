"""nnU-Net (version 2) as a baseline: its own planning, preprocessing, network, augmentation and training, on our folds.

It runs in child processes, whose environment alone names its folders. What comes out is one file for each fold:
weights, plan and budget, which `lnhg-train crossvalidate` takes like a checkpoint of ours.
"""

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from LNHGLib.batch.lock import RunLock
from LNHGLib.errors import InputError, quoted
from LNHGLib.files.atomic import atomic_file
from LNHGLib.files.damage import explain_damage
from LNHGLib.files.text import read_json, write_json
from LNHGLib.models.documents.baselines import CONFIGURATION, require

from LNHGTrainingLib.baselines import nnunet_data
from LNHGTrainingLib.baselines.nnunet_data import DATASET, Case
from LNHGTrainingLib.paths import NNUNET_TRAINER
from LNHGTrainingLib.training.sigterm import Stopped, StopSignal

METADATA = "nnunet"
SUFFIX = ".safetensors"
POLL_S = 0.2
CASES_A_WORKER = 100
"""A process of nnU-Net's takes seconds to start."""
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
    require("nnunetv2", "nnU-Net")
    (out / "raw").mkdir(parents=True, exist_ok=True)
    with RunLock(out / "raw" / ".lock", out):
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
    trained_on = sorted({case.patient for case in cases if case.fold != fold})
    about = about | {"data": data | {"train_patients": trained_on}}
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


def read(path: Path) -> dict:
    """Read a trained fold as a checkpoint of ours is read: its network, its plan as the generator, its budget and data.

    Args:
        path: file of a trained fold.

    Raises:
        InputError: there is no such file, it is none of `train`, or nnU-Net is not installed.
    """
    from LNHGLib.models.registry import build_generator
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_model

    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})[METADATA])
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(
            f"{path} is no file of lnhg-train nnunet, expected one of a trained fold; give that file."
        ) from error
    budget, every = about["budget"], about["plans"]["configurations"]
    plans = about["plans"] | {"configurations": {CONFIGURATION: every[CONFIGURATION]}}
    mirrored = about["mirrored_axes"] if budget["mirroring"] else []
    plan = {"plans": plans, "dataset": about["dataset"], "mirrored_axes": mirrored}
    generator = build_generator({"kind": "nnunet", "plan": plan})
    load_model(generator.network, path)
    seen = plans["foreground_intensity_properties_per_channel"]["0"]
    config = {
        "generator": {"kind": "nnunet", "threshold": 0.5, "plan": plan},
        "window_hu": [seen["percentile_00_5"], seen["percentile_99_5"]],  # what nnU-Net cuts the CT to
        "target": "binary",
        "data": about["data"],
        **budget,
    }
    return {"step": budget["epochs"] * budget["iterations"], "ema": generator.state_dict(), "config": config}
