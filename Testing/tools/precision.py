"""Measure whether the bundled model finds and outlines in bfloat16 what it does in float32.

    python Testing/tools/precision.py DATA            # crops and training scans -> Resources/Studies/precision.json
    python Testing/tools/precision.py DATA bfloat16   # this alone anew

Needs a CPU that computes in bfloat16. Testing/tools/result_tables.py writes the table into docs/.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from LNHGLib.errors import InputError
from LNHGLib.files.text import markdown_table, read_json, write_json
from LNHGLib.models import folder
from LNHGLib.models.folder import OPENVINO, OPENVINO_BF16
from LNHGTrainingLib.data.crops import load_crops
from LNHGTrainingLib.data.scans import read_scans, scan_folds
from LNHGTrainingLib.evaluation import crops as crop_scores
from LNHGTrainingLib.evaluation import metrics
from LNHGTrainingLib.evaluation.matching import MIN_READERS
from LNHGTrainingLib.evaluation.run import model_predictor
from LNHGTrainingLib.release.probability import probabilities
from LNHGTrainingLib.release.scan_findings import detections, search, without_probability
from tqdm import tqdm

STUDY = Path(__file__).parents[2] / "Resources" / "Studies" / "precision.json"
NAMES = {OPENVINO: "float32", OPENVINO_BF16: "bfloat16"}
FOLD = 0


def measure(data: Path, names: Sequence[str], before: dict) -> dict:
    """Return Dice on the crops of a fold that no network saw, and what is found in them and falsely in whole scans.

    Args:
        data: folder with `crops/` and `scans/`.
        names: of `NAMES`, what is measured.
        before: report that has the others.
    """
    from LNHGLib.models import openvino_network

    if not openvino_network.has_bfloat16():
        raise InputError("This CPU has no bfloat16, expected one that does; measure on another computer.")
    model, table = folder.load(), data / "crops" / "luna16_crops.csv"
    rows = crop_scores.select_rows(table, crop_scores.Selection(min_readers=MIN_READERS, folds=(FOLD,)))
    outlined = list(crop_scores.read_crops(data / "crops" / "luna16_crops.h5", rows))
    scans = list(read_scans(data / "scans" / "lidc_scans.h5", table, sorted(set(scan_folds(table).values()))))
    labeled = load_crops(data / "crops" / "luna16_crops.h5", table, [FOLD], MIN_READERS)
    report = {"schema": 1, "kind": "precision", "model": model.name, "nodules": len(rows), "scans": len(scans)}
    for where, name in NAMES.items():
        if name not in names:
            report[name] = before[name]
            continue
        predict = model_predictor(model, where)
        scored = [
            crop_scores.score_crop(crop, predict, *model.spec.generator.outlining)
            for crop in tqdm(outlined, desc=name, disable=None)
        ]
        uncut = without_probability(model)
        found, places = search(scans, [uncut] * len(scans), labeled, uncut, where)
        scores = probabilities(found, model.spec.probability, model.spec.fusion.floor)
        curve = metrics.froc(detections(found, scores, places, [not count for count in places.values()]))
        report[name] = {
            "dice": float(np.mean([one.score.dice for one in scored])),
            "hd95_mm": float(np.nanmean([one.score.hd95_mm for one in scored])),
            "found": sum(one.score.found for one in scored),
            "cpm": metrics.cpm(curve),
            "sensitivity": {f"{rate:g}": metrics.sensitivity_at(curve, rate) for rate in metrics.CPM_RATES},
        }
    return report


def render(report: dict) -> str:
    """Return the table of a report."""
    rates = list(report["float32"]["sensitivity"])
    lines = []
    for name in NAMES.values():
        one = report[name]
        values = [one["dice"], one["cpm"], *one["sensitivity"].values()]
        lines.append([name, *(f"{value:.4f}" for value in values)])
    a, b = ([one["dice"], one["cpm"], *one["sensitivity"].values()] for one in (report["float32"], report["bfloat16"]))
    lines.append(["difference", *(f"{y - x:+.4f}" for x, y in zip(a, b, strict=True))])
    return markdown_table(["computed in", "Dice", "CPM", *(f"at {rate}" for rate in rates)], lines)


if __name__ == "__main__":
    write_json(STUDY, measure(Path(sys.argv[1]), sys.argv[2:] or list(NAMES.values()), read_json(STUDY)))
