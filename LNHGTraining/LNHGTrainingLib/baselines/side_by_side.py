"""`lnhg-train figure`: what methods outline, or show as a map, on the same nodules that none of them saw."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from LNHGLib.errors import InputError
from LNHGLib.files.atomic import atomic_file
from LNHGLib.models import folder
from LNHGLib.segmentation.preprocessing import normalize
from LNHGLib.segmentation.runtime import choose_runtime

from LNHGTrainingLib.evaluation import crops as evaluate_crops
from LNHGTrainingLib.evaluation import map_metrics, plots
from LNHGTrainingLib.evaluation.crops import Crop, CropFiles, NoduleScore, Picture, Selection
from LNHGTrainingLib.evaluation.crossvalidate import read_folds
from LNHGTrainingLib.evaluation.plots import MapPicture
from LNHGTrainingLib.evaluation.predictors import load_predictors
from LNHGTrainingLib.evaluation.run import model_predictor
from LNHGTrainingLib.evaluation.summary import GROUPS

TYPES: dict[str, Callable[[NoduleScore], bool]] = {
    "solid": GROUPS["solid (texture from 4)"],
    "part-solid": GROUPS["part-solid (texture 2 to 4)"],
    "ground-glass": GROUPS["ground-glass (texture up to 2)"],
    "juxta-pleural": GROUPS["juxta-pleural"],
    "juxta-vascular": GROUPS["juxta-vascular"],
}
"""Rows of the figures of outlines and maps, and which nodules they are taken from."""

ATTACHMENTS: dict[str, Callable[[NoduleScore], bool]] = {
    "solitary": GROUPS["attached to neither"],
    "juxta-pleural": lambda score: bool(score.juxta_pleural) and not score.juxta_vascular,
    "juxta-vascular": lambda score: bool(score.juxta_vascular) and not score.juxta_pleural,
}
"""Rows of the figure of training steps, each attached to one thing alone."""


def draw(
    methods: Mapping[str, Path], files: CropFiles, selection: Selection, out: Path, device: str, kind: str = "outlines"
) -> None:
    """Draw what methods make of the nodule of middle size of each type, in a picture.

    Args:
        methods: checkpoints of the segmenter or model folders, by the names in the figure.
        files: crops and their table.
        selection: of the nodules, in one fold.
        out: PNG to write.
        device: where to compute.
        kind: "outlines"; "maps" beside the CT in the colors of the map; or "steps", the maps of one training, of which
            the last is compared with each, by attachment.

    Raises:
        InputError: a method did not hold the fold out.
    """
    rows = evaluate_crops.select_rows(files.table, selection)
    known = [one for one in evaluate_crops.read_crops(files.crops, rows) if one.reference.any()]
    scores = [evaluate_crops.score_crop(one, np.zeros_like, 0.5).score for one in known]
    chosen, texts = [], []
    for text, member in [*(ATTACHMENTS if kind == "steps" else TYPES).items(), ("nodule", GROUPS["all"])]:
        members = [number for number, score in enumerate(scores) if member(score) and number not in chosen]
        if members and (text != "nodule" or not chosen):  # where nothing is known of types
            chosen.append(sorted(members, key=lambda number: scores[number].diameter_mm)[len(members) // 2])
            texts.append(text if kind == "outlines" else f"{text}, {scores[chosen[-1]].diameter_mm:.0f} mm")
    nodules, fold = [known[number] for number in chosen], selection.folds[0]
    with atomic_file(out) as part:
        if kind == "outlines":
            plots.side_by_side(outlines(methods, files, nodules, fold, device), texts, part)
        else:
            pictures, window_hu = maps(methods, nodules, fold, device, kind)
            plots.nodule_maps(pictures, texts, window_hu, part)


def outlines(
    methods: Mapping[str, Path], files: CropFiles, nodules: Sequence[Crop], fold: int, device: str
) -> dict[str, list[Picture]]:
    """Return what each method outlines on each nodule.

    Args:
        methods: checkpoints of the segmenter or model folders, by the names in the figure.
        files: crops and their table, by which the threshold of a checkpoint is chosen.
        nodules: of the fold.
        fold: which the methods must have held out.
        device: where to compute.

    Raises:
        InputError: a method did not hold the fold out.
    """
    pictures = {}
    for name, path in methods.items():
        if path.is_file():
            (one,) = read_folds([path], files, device)
            held_out, predict, used = one.held_out, one.predict, (one.thresholds[0],)
        else:
            model = folder.load(str(path))
            held_out = model.card.get("training", {}).get("generator", {}).get("data", {}).get("validation_folds", [])
            predict = model_predictor(model, choose_runtime(device, model))
            used = model.spec.generator.outlining
        _require_held_out(path, held_out, fold)
        pictures[name] = [evaluate_crops.score_crop(nodule, predict, *used) for nodule in nodules]
    return pictures


def maps(
    methods: Mapping[str, Path], nodules: Sequence[Crop], fold: int, device: str, kind: str
) -> tuple[list[MapPicture], list[float]]:
    """Return the maps of each nodule with what is measured of them inside the readers' consensus.

    Args:
        methods: checkpoints of the segmenter or model folders, by the names in the figure.
        nodules: of the fold.
        fold: which the methods must have held out.
        device: where to compute.
        kind: "maps" begins with the CT and measures how far each map is the CT; "steps" measures how like the last map
            each one is.

    Returns:
        The nodules, and the HU that are 0 and 1 in the first method's map.

    Raises:
        InputError: a method did not hold the fold out.
    """
    generators = dict(zip(methods, load_predictors([str(path) for path in methods.values()], device), strict=True))
    for name, one in generators.items():
        _require_held_out(methods[name], one.held_out, fold)
    window_hu, pictures = next(iter(generators.values())).window_hu, []
    for nodule in nodules:
        mask = nodule.reference
        signals, notes = {name: one.predict(nodule.hu) for name, one in generators.items()}, {}
        last, ct = next(reversed(signals.values())), normalize(nodule.hu, window_hu)
        for name, signal in signals.items():
            inside = signal[mask]
            if kind == "maps":
                likeness = f"Pearson with the CT {map_metrics.correlation(inside, ct[mask]):.2f}"
                notes[name] = f"mean {inside.mean():.2f}, SD {inside.std():.2f}\n{likeness}"
            elif signal is last:
                notes[name] = "the others are\ncompared with it"
            else:
                likeness = map_metrics.similarity(signal, last, mask), map_metrics.rank_correlation(inside, last[mask])
                notes[name] = "SSIM {:.2f}\nSpearman {:.2f}".format(*likeness)
        if kind == "maps":
            notes["CT in the map's colors"] = f"mean {ct[mask].mean():.2f}, SD {ct[mask].std():.2f}"
            signals = {"CT in the map's colors": ct, **signals}
        pictures.append(MapPicture(nodule.hu, mask, signals, notes))
    return pictures, window_hu


def _require_held_out(path: Path, held_out: Sequence[int], fold: int) -> None:
    if fold not in held_out:
        raise InputError(
            f"{path} held out the folds {list(held_out)}, expected fold {fold}; give --fold or another one."
        )
