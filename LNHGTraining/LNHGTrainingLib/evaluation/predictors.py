"""Generators by name: a bundled or added model, a model folder, or a checkpoint of the segmenter's training."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from LNHGLib.models import folder
from LNHGLib.models.card import SECOND
from LNHGLib.models.registry import build_generator
from LNHGLib.segmentation.devices import choose_device
from LNHGLib.segmentation.ensemble import Ensemble, Member
from LNHGLib.segmentation.preprocessing import normalize

from LNHGTrainingLib.baselines import nnunet
from LNHGTrainingLib.evaluation.crops import Predict
from LNHGTrainingLib.evaluation.run import cube_predictor, model_predictor
from LNHGTrainingLib.training import checkpoint

CROP_GRID = {"kind": "spacing", "spacing_mm": [1.0, 1.0, 1.0]}
"""Training reads crops at 1 mm, so a checkpoint works there."""


@dataclass(frozen=True, eq=False)
class NamedPredictor:
    """A generator as a function of a cube of HU.

    Attributes:
        name: As reports call it.
        predict: The function.
        window_hu: HU that become 0 and 1.
        identity: What identifies its weights.
        held_out: Folds that it was not trained on, as far as its file says.
    """

    name: str
    predict: Predict
    window_hu: list[float]
    identity: str
    held_out: tuple[int, ...] = ()


def load_predictors(names: Sequence[str], device: str = "auto") -> list[NamedPredictor]:
    """Load generators; those of one name are numbered.

    Args:
        names: Names of models, model folders, or checkpoints (.pt; .safetensors of nnU-Net).
        device: Where to compute.

    Raises:
        InputError: There is no such model or checkpoint, or it is none of a segmenter.
    """
    loaded = []
    for name in names:
        path = Path(name)
        if path.suffix in (".pt", nnunet.SUFFIX):
            state = read_checkpoint(path)
            config = state["config"]
            predict = checkpoint_predictor(state, path, device)
            identity = checkpoint.identity(state, path)
            name, held_out = f"{path.parent.name}/{path.stem}", config.get("data", {}).get("validation_folds", ())
            loaded.append(NamedPredictor(name, predict, config["window_hu"], identity, tuple(held_out)))
        else:
            model = folder.load(name)
            files = [model.card[part]["weights"] for part in ("generator", SECOND) if part in model.card]
            identity = "; ".join(f"{file} SHA-256 {model.card['files'][file]}" for file in files)
            predict = model_predictor(model, choose_device(device))
            training = model.card.get("training", {}).get("generator", {}).get("data", {})
            held_out = tuple(training.get("validation_folds", ()))
            loaded.append(NamedPredictor(model.name, predict, model.card["window_hu"], identity, held_out))
    counts = Counter(one.name for one in loaded)
    return [
        replace(one, name=f"{one.name} ({number})") if counts[one.name] > 1 else one
        for number, one in enumerate(loaded, 1)
    ]


def read_checkpoint(path: Path) -> dict:
    """Read a checkpoint of ours or a trained fold of nnU-Net, as `checkpoint.load` gives it.

    Args:
        path: Of the file.

    Raises:
        InputError: There is none, or it is of another kind.
    """
    return nnunet.read(path) if path.suffix == nnunet.SUFFIX else checkpoint.load(path)


def checkpoint_predictor(state: dict, path: Path, device: str = "auto", rotate_180: bool = False) -> Predict:
    """Return the averaged generator of a loaded checkpoint as a function of a cube of HU.

    Args:
        state: As from `read_checkpoint`.
        path: Where it was loaded from.
        device: Where to compute.
        rotate_180: Whether the mean with what it predicts of the rotated cube is taken, see `ensemble`.

    Raises:
        InputError: It is no checkpoint of the segmenter.
    """
    checkpoint.require_segmenter(state, path)
    config = state["config"]
    generator = build_generator(config["generator"])
    generator.load_state_dict(state["ema"])
    generator = generator.to(choose_device(device), memory_format=torch.channels_last_3d).eval().requires_grad_(False)
    generator.fold_norms()
    members = [Member.of(generator)]
    if rotate_180:
        members.append(replace(members[0], rotated=True))
    if config["generator"]["kind"] == "nnunet":  # as nnU-Net itself predicts: its windows over the whole cube

        def predict(hu: np.ndarray) -> np.ndarray:
            ct_norm = normalize(hu, config["window_hu"])
            return np.mean([member.predict(ct_norm) for member in members], axis=0)

        return predict
    return cube_predictor(Ensemble(members), {"name": path.stem, "grid": CROP_GRID, "window_hu": config["window_hu"]})
