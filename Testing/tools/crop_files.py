"""Writes crops in the layout of the development data, for every test that needs some."""

import csv
from pathlib import Path

import h5py
import numpy as np

WHOLE = (0, 50, 0, 50, 0, 50)


def write_crop_files(
    crops: Path, table: Path, rows: list[dict], hu: np.ndarray, reader_bits: np.ndarray, valid: tuple = WHOLE
) -> None:
    """A cube of HU and of readers' bits for each row, (N, 50, 50, 50) both; nothing else is annotated."""
    with h5py.File(crops, "w") as file:
        file["ct"], file["reader_masks"] = hu.astype(np.int16), np.asarray(reader_bits, np.uint8)
        file["other_mask"] = np.zeros(hu.shape, np.uint8)
        file["valid_extent"] = np.tile(np.array(valid, np.int16), (len(rows), 1))
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
