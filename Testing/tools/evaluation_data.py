"""Synthetic crops and predictors whose result is known, for the tests of the evaluation."""

import csv

import numpy as np
from crop_files import WHOLE, write_crop_files
from LNHGTrainingLib.evaluation import crops, summary
from LNHGTrainingLib.evaluation.crops import CropFiles, Selection
from LNHGTrainingLib.evaluation.crops import evaluate_crops as score_crops
from LNHGTrainingLib.evaluation.run import EvaluationOptions

QUIET = EvaluationOptions(quiet=True, data_name="synthetic nodules")
CARD = {
    "schema": 1,
    "name": "tiny",
    "description": "A model for tests.",
    "licence": "CC BY 4.0",
    "grid": {"kind": "spacing", "spacing_mm": [1, 1, 1]},
    "window_hu": [-1000, 400],
    "threshold": 0.5,
    "fusion": {},
    "generator": {"kind": "strided", "width": 2, "weights": "generator.safetensors", "threshold": 0.5},
    "detector": {
        "backbone": "light",
        "weights": "detector.safetensors",
        "slice_step_mm": 2.0,
        "min_score": 0.05,
    },
    "training": {"train_patients": ["P2", "P9"], "generator": {"loss": {"mse": 10.0}}},
    "files": {"generator.safetensors": "a" * 64, "detector.safetensors": "b" * 64},
}


def ball(center, radius, shape=(50, 50, 50)):
    axes = np.ogrid[tuple(slice(0, size) for size in shape)]
    return sum((axis - c) ** 2 for axis, c in zip(axes, center, strict=True)) <= radius**2


def row(index, **changes):
    return {
        "row": index, "patient_id": f"P{index // 2}", "series_uid": f"1.{index}", "nodule_index": 0, "usable": 1,
        "n_readers_usable": 4, "luna_diameter_exact_mm": 2.0 * (3 + index), "att_texture": 1 + index % 5,
        "fold": index % 2, "scan_test": 0,
    } | changes  # fmt: skip


def write_crops(folder, rows, reader_bits, valid=WHOLE):
    bits = np.array(reader_bits)
    files = CropFiles(folder / "crops.h5", folder / "crops.csv")
    write_crop_files(*files, rows, np.where(bits > 0, 40, -800), bits, valid)
    return files


def perfect(hu):
    return (hu > -400).astype(np.float32)


def empty(hu):
    return np.zeros(hu.shape, np.float32)


def crop_report(files, predict, **selection):
    """The metrics of all crops, without tables and plots."""
    rows = crops.select_rows(files[1], Selection(**selection))
    return summary.crop_metrics(score_crops(crops.read_crops(files[0], rows), predict, 0.5), 0.5)


def read_csv(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))
