"""Whole chest CT with every reader's outlines: what no reader outlined is a true negative.

The file is laid out like `scans/lidc_scans.h5`: a group per scan on a 1 mm grid along LPS around its lungs, with `ct`
(int16 HU), `lungs` (uint8), `reader_masks` (uint8, bit r set inside the outline of reader r) and `nodule` (uint8,
number of the nodule), each (z, y, x), and the attributes `affine_index_to_lps`, `patient_id` and `series_uid`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from LNHGLib.errors import InputError, shown
from LNHGLib.files.text import read_csv
from scipy import ndimage

from LNHGTrainingLib.data.crops import LabeledVolume

BLANK_HU = -992
"""What the file holds far from the lungs, where nothing is known."""
DATA_SETS = ("ct", "lungs", "reader_masks", "nodule")


@dataclass(frozen=True, eq=False)
class ScanNodule:
    """A nodule of a scan.

    Attributes:
        number: in the scan.
        readers: how many outlined it.
        box: slices (z, y, x) around all outlines.
        outlines: of each of its readers within the box, bool (readers, z, y, x).
    """

    number: int
    readers: int
    box: tuple[slice, slice, slice]
    outlines: np.ndarray


@dataclass(frozen=True, eq=False)
class Scan:
    """A whole scan on the 1 mm grid.

    Attributes:
        name: of the scan.
        patient: patient identifier.
        hu: int16 (z, y, x).
        lungs: where nodules are looked for, bool (z, y, x).
        nodules: all that a reader outlined.
        affine: index (z, y, x, 1) to LPS mm, (4, 4).
    """

    name: str
    patient: str
    hu: np.ndarray
    lungs: np.ndarray
    nodules: list[ScanNodule]
    affine: np.ndarray

    def labeled(self, min_readers: int) -> LabeledVolume:
        """Return the scan with the consensus of nodules of enough readers; the other nodules are not known.

        Args:
            min_readers: fewest readers of a nodule that counts.
        """
        mask, known = np.zeros(self.hu.shape, bool), self.lungs | (self.hu != BLANK_HU)
        for nodule in self.nodules:
            if nodule.readers >= min_readers:
                mask[nodule.box] |= 2 * nodule.outlines.sum(0) >= nodule.readers
            else:
                known[nodule.box] &= ~nodule.outlines.any(0)
        return LabeledVolume(self.hu, mask, known | mask, self.patient, {})


def scan_folds(table: Path) -> dict[str, int]:
    """Return the fold of every patient of a table of crops.

    Args:
        table: as for `crops.load_crops`.
    """
    return {row["patient_id"]: int(row["fold"]) for row in read_csv(table)}


def read_scans(path: Path, table: Path, folds: Sequence[int]) -> Iterator[Scan]:
    """Yield the scans of the given folds; a scan has the fold of its patient's crops.

    Args:
        path: HDF5 file laid out as said above.
        table: of the crops, with folds.
        folds: numbers of the folds.

    Raises:
        InputError: the file cannot be used, or a scan's patient has no fold.
    """
    of_patient = scan_folds(table)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(
            f"{path} cannot be read as HDF5, expected a file laid out like lidc_scans.h5; give such a file."
        ) from error
    with file:
        for name, group in file.items():
            missing = [each for each in DATA_SETS if each not in group]
            if missing or "patient_id" not in group.attrs:
                lacks = ", ".join(missing) or "the attribute patient_id"
                raise InputError(f"{path}: scan {shown(name)} lacks {lacks}; expected the layout of lidc_scans.h5.")
            patient = str(group.attrs["patient_id"])
            if patient not in of_patient:
                raise InputError(
                    f"{path}: {shown(patient)} has no fold in {table}, expected one; add the patient to the table."
                )
            if of_patient[patient] not in folds:
                continue
            bits, numbers, nodules = group["reader_masks"][:], group["nodule"][:], []
            for number, box in enumerate(ndimage.find_objects(numbers.astype(int)), 1):
                if box is not None:
                    own = np.where(numbers[box] == number, bits[box], 0)
                    outlines = [mask for reader in range(8) if (mask := (own >> reader) & 1).any()]
                    nodules.append(ScanNodule(number, len(outlines), box, np.stack(outlines).astype(bool)))
            affine = group.attrs["affine_index_to_lps"]
            yield Scan(name, patient, group["ct"][:], group["lungs"][:] > 0, nodules, affine)
