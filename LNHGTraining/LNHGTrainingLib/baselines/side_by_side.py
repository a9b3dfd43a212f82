"""`lnhg-train figure`: what methods outline on the same nodules that none of them saw, one of each type."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from LNHGLib.errors import InputError
from LNHGLib.files.atomic import atomic_file
from LNHGLib.models import folder
from LNHGLib.segmentation.runtime import choose_runtime

from LNHGTrainingLib.evaluation import crops as evaluate_crops
from LNHGTrainingLib.evaluation import plots
from LNHGTrainingLib.evaluation.crops import CropFiles, Picture, Selection
from LNHGTrainingLib.evaluation.crossvalidate import read_folds
from LNHGTrainingLib.evaluation.run import model_predictor
from LNHGTrainingLib.evaluation.summary import GROUPS

TYPES = {
    "solid": "solid (texture from 4)",
    "part-solid": "part-solid (texture 2 to 4)",
    "ground-glass": "ground-glass (texture up to 2)",
    "juxta-pleural": "juxta-pleural",
    "juxta-vascular": "juxta-vascular",
}
"""Rows of the figure and the groups that their nodules are taken from."""


def draw(methods: Mapping[str, Path], files: CropFiles, fold: int, out: Path, device: str, readers: int = 3) -> None:
    """Draw the outlines of methods on the nodule of middle size of each type, in a picture.

    Args:
        methods: checkpoints of the segmenter or model folders, by the names in the figure.
        files: crops and their table.
        fold: whose nodules are drawn.
        out: PNG to write.
        device: where to compute.
        readers: fewest readers of a nodule.

    Raises:
        InputError: a method did not hold the fold out.
    """
    rows = evaluate_crops.select_rows(files.table, Selection((fold,), readers))
    known = [one for one in evaluate_crops.read_crops(files.crops, rows) if one.reference.any()]
    scores = [evaluate_crops.score_crop(one, np.zeros_like, 0.5).score for one in known]
    chosen, texts = [], []
    for text, group in [*TYPES.items(), ("nodule", "all")]:
        members = [number for number, score in enumerate(scores) if GROUPS[group](score) and number not in chosen]
        if members and (group != "all" or not chosen):  # where nothing is known of types
            chosen.append(sorted(members, key=lambda number: scores[number].diameter_mm)[len(members) // 2])
            texts.append(text)
    pictures: dict[str, list[Picture]] = {}
    for name, path in methods.items():
        if path.is_file():
            (one,) = read_folds([path], files, device)
            held_out, (predict, threshold, prune) = one.held_out, (one.predict, one.thresholds[0], False)
        else:
            model = folder.load(str(path))
            held_out = model.card.get("training", {}).get("generator", {}).get("data", {}).get("validation_folds", [])
            predict = model_predictor(model, choose_runtime(device, model))
            threshold, prune = model.spec.generator.threshold, model.spec.generator.prune_attachments
        if fold not in held_out:
            raise InputError(
                f"{path} held out the folds {list(held_out)}, expected fold {fold}; give --fold or another one."
            )
        pictures[name] = [evaluate_crops.score_crop(known[number], predict, threshold, prune) for number in chosen]
    with atomic_file(out) as part:
        plots.side_by_side(pictures, texts, part)
