"""Make a model folder from the checkpoints of both branches, or of a model and another network."""

from collections.abc import Mapping
from pathlib import Path

from LNHGLib.errors import InputError
from LNHGLib.files.atomic import atomic_folder
from LNHGLib.files.checksum import file_sha256
from LNHGLib.files.text import write_json
from LNHGLib.models import folder as models
from LNHGLib.models.card import SCHEMA, SECOND
from LNHGLib.models.classifier import build_classifier
from LNHGLib.models.detector import build_detector
from LNHGLib.models.registry import build_generator
from safetensors.torch import load, save
from torch import Tensor, nn

from LNHGTrainingLib.data.crops import load_crops, patients
from LNHGTrainingLib.evaluation.predictors import read_checkpoint
from LNHGTrainingLib.release import model_card
from LNHGTrainingLib.training import checkpoint

MEASURED = ("calibration", "results", "froc", "probability", "bfloat16")
"""Keys of a card that hold for its networks alone."""
KEPT = (
    "threshold",
    "faint_below",
    "rotate_180",
    "half_turn",
    "prune_attachments",
    "trim",
    "min_score",
    "slice_step_mm",
)
"""Keys of a part that say how its network is used; a network in its place is used in the same way."""
NETWORKS = ("generator", "detector", "classifier", "window_hu")


def export(segmenter: Path, detector: Path | None, config: dict, out: Path) -> models.Model:
    """Write `model.json`, README.md and safetensors weights of the averaged networks into `out`, in one step.

    Weights are stored in float16: half the bytes, and no outline changes by what is rounded off.

    Args:
        segmenter: Checkpoint of the segmenter, or a fold of nnU-Net.
        detector: Checkpoint of the detector; None for a system without one.
        config: The card's parts that training does not know (see Resources/lnhg-1mm.toml); `generator` and `detector`
            there override the training configurations'.
        out: Folder to write; must not exist.

    Raises:
        InputError: A checkpoint is missing, the windows of the branches differ, or `out` exists.
    """
    _require_new(out)
    states = {"generator": read_checkpoint(segmenter)}
    if detector is not None:
        states["detector"] = checkpoint.load(detector)
    windows = [state["config"]["window_hu"] for state in states.values()]
    if windows[0] != windows[-1]:
        raise InputError(
            f"The branches were trained with windows {windows[0]} and {windows[1]} HU; expected one window."
        )
    with atomic_folder(out, what="The model") as folder:
        card = {"schema": SCHEMA, **config, "window_hu": windows[0], "files": {}}
        for part, state in states.items():
            name, build = f"{part}.safetensors", build_detector if part == "detector" else build_generator
            card[part] = state["config"][part] | config.get(part, {}) | {"weights": name}
            _save(build(card[part]), state["ema"], folder / name)
            card["files"][name] = file_sha256(folder / name)
        card["training"] = config.get("training", {}) | {part: _recipe(state) for part, state in states.items()}
        card["training"]["train_patients"] = _train_patients(states["generator"]["config"]["data"], segmenter)
        write_json(folder / models.CARD, card)
        model_card.write_readme(folder, card)
        models.verify(folder)
    return models.verify(out)


def add_part(model: models.Model, part: str, path: Path, out: Path, texts: dict | None = None) -> models.Model:
    """Write the model with the network of a checkpoint, new or in place of its own, into `out`, in one step.

    The card's thresholds stay for `calibrate` to choose anew; what was measured is left out. All weights are stored in
    float16.

    Args:
        model: It stays as it is.
        part: "generator", "second_generator", "detector" or "classifier".
        path: Checkpoint, of the same window as the model and, for a further generator, the same held-out folds.
        out: Folder to write; must not exist.
        texts: Another `name`, `description` and so on for the card.

    Raises:
        InputError: The checkpoint does not fit, or `out` exists.
    """
    _require_new(out)
    state, table = checkpoint.load(path), "generator" if part == SECOND else part
    if table not in state["config"] or "ema" not in state:
        raise InputError(f"{path} holds no {table}, expected a checkpoint of one; give another.")
    card = {key: value for key, value in model.card.items() if key not in MEASURED} | (texts or {})
    held_out = card.get("training", {}).get("generator", {}).get("data", {}).get("validation_folds")
    met = state["config"]["window_hu"], state["config"]["data"]["validation_folds"]
    expected = card["window_hu"], held_out if part == SECOND else met[1]
    if met != expected:
        raise InputError(
            f"{path} has the window {met[0]} HU and held out folds {met[1]}, expected {expected[0]} and "
            f"{expected[1]} as {model.name}; train on the same data."
        )
    build = {"detector": build_detector, "classifier": build_classifier}.get(part, build_generator)
    name = f"{part}.safetensors"
    kept = {key: value for key, value in card.get(part, {}).items() if key in KEPT}
    spec = {key: value for key, value in state["config"][table].items() if key not in KEPT} | kept
    with atomic_folder(out, what="The model") as folder:
        for file in card["files"]:
            (folder / file).write_bytes(save(rounded(load((model.folder / file).read_bytes()))))
        _save(build(spec), state["ema"], folder / name)
        card[part] = spec | {"weights": name}
        card["files"] = {file: file_sha256(folder / file) for file in {**card["files"], name: ""}}
        if part == "classifier":  # it sorts what lies at no box of the detector, too
            card["fusion"] = card["fusion"] | {"keep": "all"}
        card["training"] = card.get("training", {}) | {part: _recipe(state)}
        model_card.write(folder, card)
        models.verify(folder)
    return models.verify(out)


def _train_patients(data: dict, path: Path) -> list[str]:
    """Return the patients of the folds that a configuration trains on; nnU-Net's file names them."""
    if "train_patients" in data:
        return data["train_patients"]
    if "folder" not in data:
        raise InputError(f"{path} names no patients, as older files of nnU-Net; train again with another OUT.")
    files = (Path(data["folder"]) / data[key] for key in ("crops", "table"))
    return sorted(patients(load_crops(*files, data["train_folds"], data["min_readers"])))


def _require_new(out: Path) -> None:
    if out.exists():
        raise InputError(f"{out} exists already; expected a new folder: remove it or choose another name.")


def _save(network: nn.Module, state: dict, path: Path) -> None:
    network.load_state_dict(state)
    path.write_bytes(save(rounded(network.state_dict())))


def rounded(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights by name in float16; counters stay whole, and a tensor too large for float16 stays as it is."""
    halves = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    return {name: (half if half.isfinite().all() else weights[name]).contiguous() for name, half in halves.items()}


def _recipe(state: dict) -> dict:
    """Return how a branch was trained: its configuration, the checkpoint's step, the best validation score so far."""
    config = {key: value for key, value in state["config"].items() if key not in NETWORKS}
    config["data"] = {key: value for key, value in config["data"].items() if key not in ("folder", "train_patients")}
    for table, key in ((config, "start"), (config["data"], "hard_negatives")):  # names tell; paths are the machine's
        if key in table:
            table[key] = Path(table[key]).name
    if "models" in config:
        config["models"] = [Path(name).name for name in config["models"]]
    best = {"best_validation_score": round(state["best"], 4)} if "best" in state else {}
    return {"checkpoint_step": state["step"], **best, **config}
