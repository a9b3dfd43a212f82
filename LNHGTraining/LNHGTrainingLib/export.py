"""Make a model folder from the checkpoints of both branches."""

import json
import tempfile
from pathlib import Path

from LNHGLib import models
from LNHGLib.checksum import file_sha256
from LNHGLib.detector import build_detector
from LNHGLib.errors import InputError
from safetensors.torch import save_file
from torch import nn

from LNHGTrainingLib import card as model_card
from LNHGTrainingLib import checkpoint
from LNHGTrainingLib.data import load_crops, patients
from LNHGTrainingLib.methods import build_generator


def export(segmenter: Path, detector: Path, config: dict, out: Path) -> models.Model:
    """Write `model.json`, README.md and safetensors weights of the averaged networks into `out`, in one step.

    Args:
        segmenter: checkpoint of the segmenter.
        detector: checkpoint of the detector.
        config: the card's parts that training does not know (see Resources/lnhg-1mm.toml); `generator` and `detector`
            there override the training configurations'.
        out: folder to write; must not exist.

    Raises:
        InputError: a checkpoint is missing, the windows of the branches differ, or `out` exists.
    """
    if out.exists():
        raise InputError(f"{out} exists already; expected a new folder: remove it or choose another name.")
    states = {"generator": checkpoint.load(segmenter), "detector": checkpoint.load(detector)}
    windows = [state["config"]["window_hu"] for state in states.values()]
    if windows[0] != windows[1]:
        raise InputError(
            f"The branches were trained with windows {windows[0]} and {windows[1]} HU; expected one window."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".exporting-", dir=out.parent) as temporary:
        folder = Path(temporary) / out.name
        folder.mkdir()
        _write(states, config, windows[0], folder)
        models.verify(folder)
        folder.rename(out)
    return models.verify(out)


def _write(states: dict[str, dict], config: dict, window_hu: list[float], folder: Path) -> None:
    card = {"schema": models.SCHEMA, **config, "window_hu": window_hu, "files": {}}
    for part, build in (("generator", build_generator), ("detector", build_detector)):
        name = f"{part}.safetensors"
        card[part] = states[part]["config"][part] | config.get(part, {}) | {"weights": name}
        _save(build(card[part]), states[part]["average"], folder / name)
        card["files"][name] = file_sha256(folder / name)
    card["training"] = config.get("training", {}) | {part: _recipe(state) for part, state in states.items()}
    card["training"]["train_patients"] = _train_patients(states["generator"]["config"]["data"])
    (folder / models.CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    model_card.write_readme(folder, card)


def _save(network: nn.Module, state: dict, path: Path) -> None:
    network.load_state_dict(state)
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)


def _recipe(state: dict) -> dict:
    """How a branch was trained: its configuration, the step of the checkpoint and its validation score."""
    config = {key: value for key, value in state["config"].items() if key not in ("generator", "detector", "window_hu")}
    config["data"] = {key: value for key, value in config["data"].items() if key != "folder"}
    return {"checkpoint_step": state["step"], "validation_score": round(state["best"], 4), **config}


def _train_patients(data: dict) -> list[str]:
    folder = Path(data["folder"])
    crops = load_crops(folder / data["crops"], folder / data["table"], data["train_folds"], data["min_readers"])
    return sorted(patients(crops))
