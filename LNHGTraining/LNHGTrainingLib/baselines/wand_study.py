"""`lnhg-train wand`: labels by a click beside the readers' outlines, on nodules whose middle and diameter are known."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from LNHGLib.errors import InputError
from LNHGLib.files.atomic import atomic_folder
from LNHGLib.files.text import markdown_table, write_csv, write_json

from LNHGTrainingLib import output_files
from LNHGTrainingLib.baselines.wand import ball, label_nodule, trace_as_document, trace_closed
from LNHGTrainingLib.data.crops import CUBE
from LNHGTrainingLib.evaluation import metrics
from LNHGTrainingLib.evaluation.crops import Crop
from LNHGTrainingLib.evaluation.map_study import SIZES
from LNHGTrainingLib.evaluation.markdown import INTERVAL_NOTE, interval
from LNHGTrainingLib.evaluation.summary import GROUPS, to_rounded_json

CENTER = (CUBE // 2,) * 3
MARKED = slice(CENTER[0] - 1, CENTER[0] + 2)
"""The slice of the click and its two neighbors, which the document labels."""
LABELS = {
    "ball of the diameter": lambda hu, diameter: ball(hu.shape, CENTER, diameter),
    "wand of document 001": lambda hu, diameter: label_nodule(hu, CENTER, diameter, trace_as_document, shrinks=False),
    "wand, closed contour": lambda hu, diameter: label_nodule(hu, CENTER, diameter, trace_closed),
}
METRICS = {
    "dice_slices": "Dice, three slices",
    "area": "their area / the readers'",
    "dice": "Dice, 3-D",
    "volume": "volume / the readers'",
}
ABOUT = (
    "Each label is made of the CT and of the middle and diameter that LUNA16 names, at 1 mm, and compared with the "
    "voxels inside at least half of the readers' outlines. Document 001 labels the slice of the click and its two "
    "neighbors; in 3-D each slice is labelled that a ball of the diameter reaches. Every nodule counts, also one "
    "that a label misses. The readers themselves: each against the half consensus of the others."
)


@dataclass(frozen=True)
class LabelRow:
    """A label of a nodule, a row of `wand.csv`; NaN where no reader outlined the three slices."""

    patient: str
    series: str
    nodule: str
    diameter_mm: float
    label: str
    dice_slices: float
    area: float
    dice: float
    volume: float
    human_loo_dice: float


def measure(crops: Iterable[Crop]) -> list[LabelRow]:
    """Label each nodule in every way and compare it with the readers.

    Args:
        crops: with LUNA16's middle in the middle of the cube; those without a diameter or a reference are left out.

    Raises:
        InputError: none is left.
    """
    rows = []
    for crop in crops:
        diameter = float(crop.row.get("luna_diameter_exact_mm") or 0)
        if not (diameter and crop.reference.any()):
            continue
        readers = metrics.leave_one_out_dice(crop.readers)
        about = crop.row["patient_id"], crop.row["series_uid"], crop.row["nodule_index"], diameter
        marked = crop.reference[MARKED]
        for name, label in LABELS.items():
            mask = label(crop.hu, diameter) & crop.valid
            slices = (float("nan"),) * 2
            if marked.any():
                slices = metrics.dice(mask[MARKED], marked), float(mask[MARKED].sum() / marked.sum())
            whole = metrics.dice(mask, crop.reference), float(mask.sum() / crop.reference.sum())
            rows.append(LabelRow(*about, name, *slices, *whole, readers))
    if not rows:
        raise InputError("None of the crops has a reference and a diameter, expected one at least; choose others.")
    return rows


def report(rows: list[LabelRow], data: str, seed: int = 0) -> dict:
    """Return means with patient-cluster bootstrap intervals, one line for each label and size.

    Args:
        rows: of `measure`.
        data: what the crops are.
        seed: of the bootstrap.
    """
    lines = []
    for size in SIZES:
        for name in LABELS:
            part = [row for row in rows if row.label == name and GROUPS[size](row)]
            if not part:
                continue
            patients = [row.patient for row in part]
            line = {"label": name, "size": size, "nodules": len(part), "patients": len(set(patients))}
            for key in (*METRICS, "human_loo_dice"):
                values = np.array([getattr(row, key) for row in part])
                line[key] = asdict(metrics.mean_interval(values, patients, seed))
            lines.append(line)
    bootstrap = {"unit": "patient", "samples": metrics.BOOTSTRAP_SAMPLES, "seed": seed}
    head = {"schema": 1, "kind": "wand", "about": ABOUT, "data": data, "bootstrap": bootstrap}
    return to_rounded_json(head | {"lines": lines})


def render(result: dict) -> str:
    """Return the report as Markdown."""
    rows = []
    for line in result["lines"]:
        numbers = [interval(line[key], 2 if key in ("area", "volume") else 3) for key in METRICS]
        rows.append([line["size"], line["label"], line["nodules"], *numbers])
        if line["label"] == [*LABELS][-1]:
            rows.append([line["size"], "the readers themselves", line["nodules"], "-", "-"])
            rows[-1] += [interval(line["human_loo_dice"]), "-"]
    table = markdown_table(["nodules", "label", "n", *METRICS.values()], rows)
    note = INTERVAL_NOTE.format(**result["bootstrap"])
    return "\n".join(["# Labels by a click\n", f"{result['about']}\n", table, f"{note} {result['data']}.\n"])


def write(result: dict, rows: list[LabelRow], out: Path, overwrite: bool = False) -> None:
    """Write `wand.csv`, `wand.json` and `wand.md` into a folder.

    Args:
        result: of `report`.
        rows: of `measure`.
        out: folder to write.
        overwrite: replace an earlier study there.

    Raises:
        InputError: the folder holds something that must not be replaced.
    """
    with atomic_folder(out, overwrite, output_files.WAND) as folder:
        write_csv(folder / "wand.csv", map(asdict, rows), [field.name for field in fields(LabelRow)], decimals=4)
        write_json(folder / "wand.json", result)
        (folder / "wand.md").write_text(render(result), encoding="utf-8")
