"""Nodule crops with the readers' outlines, read from the HDF5 files that `lnhg-train prepare` writes.

This is the only module that reads such a file; what it must hold is said at `open_crops`. Arrays are zyx at 1 mm.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from LNHGLib.errors import InputError, shown
from LNHGLib.files.text import read_csv
from LNHGLib.segmentation.calibration import sphere_diameter_mm

CUBE = 50
"""Voxels of a cube along each axis."""
DATA_SETS = ("ct", "reader_masks", "other_mask", "valid_extent")
MAX_CROPS_IN_MEMORY = 1024
"""Cubes that stay in memory once read, half a gigabyte: unpacking one takes longer than sampling a patch of it."""


@dataclass(frozen=True, eq=False)
class LabeledVolume:
    """A CT volume with its reference.

    Attributes:
        hu: int16 (z, y, x).
        mask: bool (z, y, x), 50 % consensus of the readers (register U19).
        known: bool (z, y, x), False where the reference does not say (other or unlisted lesions).
        patient: patient identifier.
        row: the table's row; empty for a background.
    """

    hu: np.ndarray
    mask: np.ndarray
    known: np.ndarray
    patient: str
    row: dict


@dataclass(frozen=True, eq=False)
class StoredCrop:
    """A cube as its file holds it.

    Attributes:
        hu: int16 (z, y, x).
        reader_bits: uint8 (z, y, x), bit r set inside the outline of reader r.
        others: uint8 (z, y, x), 1 where other lesions lie or nothing is known.
        extent: int16 (6,), z0, z1, y0, y1, x0, x1 of the part that is not padding.
    """

    hu: np.ndarray
    reader_bits: np.ndarray
    others: np.ndarray
    extent: np.ndarray

    @property
    def valid(self) -> np.ndarray:
        """Where the cube is not padding: bool (z, y, x)."""
        z0, z1, y0, y1, x0, x1 = self.extent
        valid = np.zeros(self.hu.shape, bool)
        valid[z0:z1, y0:y1, x0:x1] = True
        return valid


def consensus(bits: np.ndarray, readers: int) -> np.ndarray:
    """Return the voxels inside at least half of the readers' outlines: bool of the shape of `bits`.

    Args:
        bits: uint8 of any shape, bit r set inside the outline of reader r.
        readers: number of readers.
    """
    votes = np.zeros(bits.shape, np.uint8)
    for reader in range(8):
        votes += (bits >> reader) & 1
    return 2 * votes >= readers


def missing_data_sets(path: Path) -> list[str]:
    """Return the data sets of `open_crops` that a file lacks.

    Raises:
        InputError: it is no HDF5 file.
    """
    try:
        with h5py.File(path, "r") as file:
            return [name for name in DATA_SETS if name not in file]
    except OSError as error:
        raise InputError(
            f"{path} cannot be read as HDF5, expected a file laid out like luna16_crops.h5; give such a file."
        ) from error


def open_crops(path: Path, rows: Sequence[dict] = ()) -> h5py.File:
    """Open a file of crops: `ct`, `reader_masks` and `other_mask` (N, z, y, x), and `valid_extent` (N, 6).

    An index of prepared data whose scans were left behind is refused: HDF5 would read zeros without a word.

    Args:
        path: HDF5 file laid out like `luna16_crops.h5`, or the index of prepared data.
        rows: rows of its table that will be read.

    Raises:
        InputError: it is no HDF5 file, lacks a data set or a file of its scans, or is shorter than its table.
    """
    if missing := missing_data_sets(path):
        raise InputError(f"{path} lacks the data sets {', '.join(missing)}; expected the layout of luna16_crops.h5.")
    file = h5py.File(path, "r")
    try:
        count, last = len(file["ct"]), max((int(row["row"]) for row in rows), default=-1)
        if last >= count:
            raise InputError(f"{path} holds {count} crops, the table names row {last}; give the table of this file.")
        sources = file["ct"].virtual_sources() if file["ct"].is_virtual else []
        left = sorted({part.file_name for part in sources if not (Path(path).parent / part.file_name).is_file()})
        if left:
            raise InputError(
                f"{path} shows cubes of {left[0]} and {len(left) - 1} more file(s) that are not beside it; "
                "copy the whole folder of prepared data."
            )
    except InputError:
        file.close()
        raise
    return file


def read_crop(file: h5py.File, row: dict) -> StoredCrop:
    """Read the cube of a row of the table.

    Args:
        file: as from `open_crops`.
        row: of its table.
    """
    return StoredCrop(*(file[name][int(row["row"])] for name in DATA_SETS))


class CropDataset(Sequence[LabeledVolume]):
    """The cubes of a table's rows, read when asked for, by each process from a file that it opens itself.

    Args:
        path: HDF5 file as for `open_crops`.
        rows: rows of its table.
    """

    def __init__(self, path: Path, rows: list[dict]) -> None:
        self.path, self.rows = Path(path), rows
        self._kept: dict[int, LabeledVolume] = {}
        self._file: h5py.File | None = None
        self._process = -1

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int | slice) -> "LabeledVolume | CropDataset":
        if isinstance(number, slice):
            return CropDataset(self.path, self.rows[number])
        if number in self._kept:
            return self._kept[number]
        if self._file is None or self._process != os.getpid():  # a forked worker must not use its parent's handle
            self._file, self._process = open_crops(self.path, self.rows), os.getpid()
        row = self.rows[number]
        stored, readers = read_crop(self._file, row), int(row["n_readers_usable"])
        mask = consensus(stored.reader_bits, readers) if readers else np.zeros(stored.hu.shape, bool)
        known = ((stored.others == 0) | mask) & stored.valid
        crop = LabeledVolume(stored.hu, mask, known, row["patient_id"], row)
        if len(self._kept) < MAX_CROPS_IN_MEMORY:
            self._kept[number] = crop
        return crop

    def spread(self, count: int) -> "CropDataset":
        """Return every n-th crop, so that about `count` are left, and not fewer."""
        return self[:: max(1, len(self) // count)]

    def __getstate__(self) -> dict:
        return {"path": self.path, "rows": self.rows, "_kept": {}, "_file": None, "_process": -1}


def nodule_diameter_mm(row: Mapping[str, str], voxels: int) -> float:
    """Return the diameter of a crop's nodule: LUNA16's, or that of the ball of its volume where LUNA16 names none.

    Args:
        row: of the table of crops.
        voxels: of the consensus, at 1 mm.
    """
    return float(row.get("luna_diameter_exact_mm") or sphere_diameter_mm(float(voxels)))


def load_crops(crops: Path, table: Path, folds: list[int], min_readers: int = 1) -> CropDataset:
    """Return the usable crops of the given folds; crops kept for testing (`scan_test`) never come back.

    Args:
        crops: HDF5 file as for `open_crops`.
        table: its table, with folds.
        folds: numbers of the folds.
        min_readers: fewest readers of a nodule.

    Raises:
        InputError: no crop fits, or the file cannot be used.
    """
    rows = [
        row
        for row in read_csv(Path(table))
        if row["usable"] == "1"
        and row["scan_test"] == "0"
        and int(row["fold"]) in folds
        and int(row["n_readers_usable"]) >= min_readers
    ]
    if not rows:
        raise InputError(f"{table} holds no usable crop of folds {folds}; expected at least one; check the folds.")
    open_crops(crops, rows).close()
    return CropDataset(crops, rows)


def load_negatives(crops: Path, table: Path, folds: list[int]) -> CropDataset:
    """Return the cubes of the given folds at candidates that are no nodules, as `lnhg-train prepare luna16` makes them.

    Args:
        crops: HDF5 file as for `open_crops`.
        table: its table, with folds.
        folds: numbers of the folds.

    Raises:
        InputError: the file cannot be used.
    """
    rows = [row for row in read_csv(Path(table)) if row.get("kind") == "negative"]
    rows = [row for row in rows if row["scan_test"] == "0" and int(row["fold"]) in folds]
    open_crops(crops, rows).close()
    return CropDataset(crops, rows)


def patients(crops: CropDataset) -> set[str]:
    """Return the patients behind the crops."""
    return {row["patient_id"] for row in crops.rows}


def assert_disjoint(train: CropDataset, validation: CropDataset) -> None:
    """Refuse a patient on both sides of a split (register U5).

    Args:
        train: crops of one side.
        validation: crops of the other.

    Raises:
        InputError: names the shared patients.
    """
    shared = sorted(patients(train) & patients(validation))
    if shared:
        raise InputError(
            f"{len(shared)} patients ({shown(shared[0])}, ...) are in training and validation, expected none; "
            "split by patient."
        )
