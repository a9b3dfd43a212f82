"""A tiny set of crops in the layout of the development data."""

import csv
from pathlib import Path

import h5py
import numpy as np

COLUMNS = ["row", "patient_id", "usable", "n_readers_usable", "luna_diameter_exact_mm", "fold", "scan_test"]


def write_crops(folder: Path, count: int = 6) -> None:
    """`count` cubes with a bright ball each, marked by four readers; patient and fold differ from crop to crop."""
    (folder / "crops").mkdir(parents=True)
    rng = np.random.default_rng(0)
    z, y, x = np.mgrid[:50, :50, :50] - 25
    with h5py.File(folder / "crops" / "luna16_crops.h5", "w") as file:
        ct = rng.normal(-850, 20, (count, 50, 50, 50))
        masks = np.zeros(ct.shape, np.uint8)
        for i in range(count):
            ball = z**2 + y**2 + x**2 < (5 + i) ** 2
            ct[i][ball] = 40
            masks[i][ball] = 0b1111
        file["ct"], file["reader_masks"] = ct.astype(np.int16), masks
        file["other_mask"] = np.zeros(ct.shape, np.uint8)
        file["valid_extent"] = np.tile(np.array([0, 50] * 3, np.int16), (count, 1))
    with (folder / "crops" / "luna16_crops.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for i in range(count):
            writer.writerow([i, f"patient-{i}", 1, 4, 2 * (5 + i), i % 2, 0])


def data_config(folder: Path) -> dict:
    return {
        "folder": str(folder),
        "crops": "crops/luna16_crops.h5",
        "table": "crops/luna16_crops.csv",
        "train_folds": [0],
        "validation_folds": [1],
        "min_readers": 3,
        "background_folder": "background",
        "background": [],
    }
