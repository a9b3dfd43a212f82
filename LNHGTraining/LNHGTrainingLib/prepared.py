"""Reads prepared data one cube at a time, each process from files that it opens itself."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from LNHGLib.errors import InputError

from LNHGTrainingLib.data import Labelled
from LNHGTrainingLib.layout import INDEX, SCANS, TABLE


class Prepared(Sequence):
    """The cubes of some rows of a table, read when asked for; each process opens the files by itself.

    Args:
        index: `volumes.h5`.
        rows: rows of its table that have a cube.
    """

    def __init__(self, index: Path, rows: list[dict]) -> None:
        self.index, self.rows = Path(index), rows
        self._file: h5py.File | None = None
        self._process = -1

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Labelled:
        row = self.rows[number]
        try:
            group = self._opened()["volumes"][row["key"]]
            parts = {name: group[name][0] for name in ("image", "mask", "other_mask")}
            z0, z1, y0, y1, x0, x1 = group["valid_extent"][()]
        except (KeyError, OSError) as error:
            raise InputError(
                f"{self.index} lacks {row['key']} or cannot be read; keep it beside its folder {SCANS}/ and its table."
            ) from error
        mask, inside = parts["mask"] > 0, np.zeros(parts["mask"].shape, bool)
        inside[z0:z1, y0:y1, x0:x1] = True
        known = ((parts["other_mask"] == 0) | mask) & inside
        return Labelled(parts["image"].astype(np.int16), mask, known, row["patient_id"], row)

    def _opened(self) -> h5py.File:
        if self._file is None or self._process != os.getpid():  # a forked worker must not use its parent's handle
            self._file, self._process = h5py.File(self.index, "r"), os.getpid()
        return self._file

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_file": None, "_process": -1}


def load_prepared(folder: Path, folds: Sequence[int], kind: str = "nodule", table: Path | None = None) -> Prepared:
    """The cubes of the given folds; those kept for testing never come back.

    Args:
        folder: What `lnhg-train prepare` wrote.
        folds: Fold numbers.
        kind: "nodule" (usable ones) or "negative".
        table: With folds, where it is not the folder's own.

    Raises:
        InputError: no cube fits.
    """
    table = table or Path(folder) / TABLE
    with table.open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["kind"] == kind and row["row"] and row["scan_test"] != "1"]
    chosen = [row for row in rows if int(row["fold"]) in folds and (kind != "nodule" or row["usable"] == "1")]
    if not chosen:
        raise InputError(
            f"{table} holds no {kind} of folds {list(folds)} among {len(rows)}; draw folds with lnhg-train folds."
        )
    return Prepared(Path(folder) / INDEX, chosen)
