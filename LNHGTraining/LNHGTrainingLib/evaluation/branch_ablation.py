"""`lnhg-train branches`: how well nodules are found by both branches fused, and by each of them alone.

The segmenter alone is the paper's ablation L-RF. The crops are those that the model was calibrated on, see `calibrate`.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from LNHGLib.files.atomic import atomic_folder
from LNHGLib.files.text import markdown_table, write_json
from LNHGLib.segmentation.fusion import FusionOptions

from LNHGTrainingLib import output_files
from LNHGTrainingLib.evaluation import metrics
from LNHGTrainingLib.evaluation.markdown import INTERVAL_NOTE, interval
from LNHGTrainingLib.evaluation.metrics import Detections
from LNHGTrainingLib.evaluation.summary import to_rounded_json
from LNHGTrainingLib.release.calibrate import CropOutputs, findings, fused_scores, scores, step_of
from LNHGTrainingLib.training.validate import LUNG_CUBES, RATES, candidates, cube_detections, sensitivities

ABOUT = (
    f"A cube of 50 mm stands for 1/{LUNG_CUBES} of two lungs. A finding with its centroid in the readers' consensus is "
    "a hit, of which the first counts; findings on other lesions or padding are left out. The segmenter alone (L-RF): "
    "every component is a finding. The detector alone: every candidate is one, by the center of its box. The mean is "
    "that of the four rates."
)
BOTH = "both branches"


def detections(outputs: Sequence[CropOutputs], card: dict) -> dict[str, Detections]:
    """Return what is found by both branches, and by each when the other one saw nothing.

    Args:
        outputs: From `calibrate.predict_crops`.
        card: Of the model.
    """
    without_boxes = [replace(one, boxes=one.boxes[:0]) for one in outputs]
    step, options = step_of(card), FusionOptions.from_card(card["fusion"])
    return {
        BOTH: cube_detections(fused_scores(findings(one, card), options) for one in outputs),
        "segmenter alone (L-RF)": cube_detections(scores(findings(one, card), options) for one in without_boxes),
        "detector alone": cube_detections(candidates(one.crop, one.boxes, step) for one in outputs),
    }


def report(found: dict[str, Detections], patients: Sequence[str], about: dict, seed: int = 0) -> dict:
    """Return sensitivities at `RATES` and their mean, and its difference to both branches', with intervals.

    Args:
        found: As from `detections`.
        patients: Of each cube.
        about: What identifies model and data.
        seed: Of the bootstrap.
    """
    names, clusters = np.unique(np.asarray(patients, str), return_inverse=True)

    def statistic(samples: np.ndarray) -> np.ndarray:
        return np.array([sampled_metrics(found, counts[clusters]) for counts in samples])

    intervals = metrics.cluster_bootstrap(len(names), statistic, seed)
    columns = [*map(str, RATES), "mean", "difference"]
    split = [intervals[start : start + len(columns)] for start in range(0, len(intervals), len(columns))]
    lines = [
        {"branches": name} | {column: asdict(one) for column, one in zip(columns, own, strict=True)}
        for name, own in zip(found, split, strict=True)
    ]
    bootstrap = {"unit": "patient", "samples": metrics.BOOTSTRAP_SAMPLES, "seed": seed}
    counts = {"nodules": len(clusters), "patients": len(names)}
    head = {"schema": 1, "kind": "branches", "about": ABOUT} | about | counts
    return to_rounded_json(head | {"bootstrap": bootstrap, "lines": lines})


def sampled_metrics(found: dict[str, Detections], counts: np.ndarray) -> list[float]:
    """Return the metrics of one bootstrap sample, one branch after the other: rates, their mean, its difference.

    Args:
        found: As from `detections`.
        counts: How often each cube is in the sample, int (cubes,).
    """
    values = [list(sensitivities(metrics.froc(one, counts)).values()) for one in found.values()]
    means = np.mean(values, axis=1)
    return np.column_stack([values, means, means - means[list(found).index(BOTH)]]).ravel().tolist()


def render(result: dict) -> str:
    """Return the report as Markdown."""
    rates = [f"at {rate} false" for rate in RATES]
    header = ["found by", "nodules", "patients", *rates, "mean", "mean minus both"]
    rows = [
        [line["branches"], result["nodules"], result["patients"], *(interval(line[str(rate)]) for rate in RATES),
         interval(line["mean"]), "-" if line["branches"] == BOTH else interval(line["difference"])]
        for line in result["lines"]
    ]  # fmt: skip
    note = INTERVAL_NOTE.format(**result["bootstrap"])
    title = f"# What each branch of {result['model']} adds: sensitivity at false findings per two lungs"
    return "\n".join([f"{title}\n", f"{result['about']}\n", markdown_table(header, rows), f"{note}\n"])


def write(result: dict, out: Path, overwrite: bool = False) -> None:
    """Write `branches.json` and `branches.md` into a folder.

    Args:
        result: Of `report`.
        out: Folder to write.
        overwrite: Replace an earlier report there.

    Raises:
        InputError: The folder holds something that must not be replaced.
    """
    with atomic_folder(out, overwrite, output_files.BRANCH_ABLATION) as folder:
        write_json(folder / "branches.json", result)
        (folder / "branches.md").write_text(render(result), encoding="utf-8")
