"""Crops as a raw data set of nnU-Net (version 2), and the patient folds as its splits.

What the reference does not say (padding, other lesions) gets nnU-Net's ignore label: it is neither learned from nor
counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from LNHGLib.errors import InputError, quoted, shown
from LNHGLib.files.atomic import atomic_folder
from LNHGLib.files.checksum import file_sha256
from LNHGLib.files.damage import explain_damage
from LNHGLib.files.text import read_json, write_json
from LNHGLib.image.volume import Grid, write_image

from LNHGTrainingLib.data.crops import load_crops
from LNHGTrainingLib.evaluation import crops as evaluate_crops

DATASET = "Dataset001_LNHG"
LABELS = {"background": 0, "nodule": 1, "ignore": 2}
ENDING = ".nii.gz"
SOURCE = "lnhg"
"""Key in nnU-Net's dataset.json of what the data were made of."""


@dataclass(frozen=True)
class Case:
    """A crop's name in nnU-Net's files, its patient and the fold that holds it out."""

    name: str
    patient: str
    fold: int


def write_raw(crops: Path, table: Path, raw: Path, readers: int = 3) -> list[Case]:
    """Write images and labels as NIfTI at 1 mm, once: what is there already is kept if it is of the same crops.

    Args:
        crops: HDF5 file laid out like `luna16_crops.h5`.
        table: Its table, with folds by patient.
        raw: Folder of nnU-Net's raw data sets.
        readers: Fewest readers of a nodule.

    Raises:
        InputError: the folder holds other crops, or the folds cannot be used.
    """
    rows = evaluate_crops.select_rows(table, evaluate_crops.Selection(min_readers=readers))
    cases = [_case(row) for row in rows]
    splits(cases)
    source = {"crops": file_sha256(crops), "table": file_sha256(table), "min_readers": readers}
    folder = raw / DATASET
    if folder.exists():
        with explain_damage(folder, "name another OUT"):
            there = read_json(folder / "dataset.json").get(SOURCE)
        if there != source:
            raise InputError(
                f"{folder} was made of other crops ({quoted(there)}), expected {quoted(source)}; name another OUT."
            )
        return cases
    with atomic_folder(folder, what="The raw data") as part:
        for name in ("imagesTr", "labelsTr"):
            (part / name).mkdir()
        for fold in fold_numbers(cases):
            for crop in load_crops(crops, table, [fold], readers):
                grid = Grid.aligned(crop.hu.shape, evaluate_crops.SPACING_MM, (0.0, 0.0, 0.0))
                name = _case(crop.row).name
                labels = np.where(crop.known, crop.mask, LABELS["ignore"]).astype(np.uint8)
                write_image(crop.hu, grid, part / "imagesTr" / f"{name}_0000{ENDING}")
                write_image(labels, grid, part / "labelsTr" / f"{name}{ENDING}")
        description = {"channel_names": {"0": "CT"}, "labels": LABELS, "numTraining": len(cases), "file_ending": ENDING}
        write_json(part / "dataset.json", description | {SOURCE: source})
    return cases


def _case(row: dict[str, str]) -> Case:
    if not row.get("fold"):
        raise InputError(f"Row {row['row']} of the table has no fold, expected one by patient; run lnhg-train folds.")
    return Case(f"crop_{int(row['row']):05d}", row["patient_id"], int(row["fold"]))


def fold_numbers(cases: Sequence[Case]) -> list[int]:
    """Return the folds in nnU-Net's order."""
    return sorted({case.fold for case in cases})


def splits(cases: Sequence[Case]) -> list[dict[str, list[str]]]:
    """Return the content of nnU-Net's `splits_final.json`: one entry for each fold, in the order of `fold_numbers`.

    Raises:
        InputError: there is one fold alone, or a patient is in two.
    """
    numbers = fold_numbers(cases)
    if len(numbers) < 2:
        raise InputError(f"All crops are of fold {numbers[0]}, expected two folds or more; run lnhg-train folds.")
    entries = []
    for number in numbers:
        held_out = [case for case in cases if case.fold == number]
        trained = [case for case in cases if case.fold != number]
        shared = sorted({case.patient for case in held_out} & {case.patient for case in trained})
        if shared:
            raise InputError(
                f"Patient {shown(shared[0])} is in fold {number} and in another, expected one; split by patient."
            )
        entries.append({"train": [case.name for case in trained], "val": [case.name for case in held_out]})
    return entries
