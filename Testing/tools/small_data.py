"""A tiny set of crops in the layout of the development data."""

import tomllib
from pathlib import Path

import numpy as np
from crop_files import write_crop_files
from LNHGTrainingLib.config import DetectorConfig, SegmenterConfig, build
from LNHGTrainingLib.data.crops import CropDataset, load_crops
from LNHGTrainingLib.data.detector_batches import DetectorSlices
from LNHGTrainingLib.data.segmenter_batches import SegmenterPatches

RESOURCES = Path(__file__).parents[2] / "LNHGTraining" / "Resources"
COLUMNS = [
    "row",
    "patient_id",
    "series_uid",
    "nodule_index",
    "usable",
    "n_readers_usable",
    "luna_diameter_exact_mm",
    "fold",
    "scan_test",
]


def write_crops(folder: Path, count: int = 6) -> None:
    """`count` cubes with a bright ball each, marked by four readers; patient and fold differ from crop to crop."""
    (folder / "crops").mkdir(parents=True)
    z, y, x = np.mgrid[:50, :50, :50] - 25
    hu = np.random.default_rng(0).normal(-850, 20, (count, 50, 50, 50))
    balls = np.array([z**2 + y**2 + x**2 < (5 + i) ** 2 for i in range(count)])
    hu[balls] = 40
    values = ((i, f"patient-{i}", f"1.{i}", 0, 1, 4, 2 * (5 + i), i % 2, 0) for i in range(count))
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in values]
    files = (folder / "crops" / name for name in ("luna16_crops.h5", "luna16_crops.csv"))
    write_crop_files(*files, rows, hu, 0b1111 * balls)


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


def training_config(branch: str, folder: Path) -> dict:
    """The shipped recipe of "segmenter" or "detector", cut down to two epochs of two steps with tiny networks."""
    config = tomllib.loads((RESOURCES / f"{branch}.toml").read_text())
    config |= {"steps": 4, "epoch_steps": 2, "batch": 2, "validate_crops": 1, "data": data_config(folder)}
    if branch == "segmenter":
        config["generator"]["width"] = config["critic"]["width"] = 2
        config["sampling"]["sides"] = [[16, 16, 16]]
        config["loss"]["adversarial_from_step"] = 1
    else:
        config["detector"]["width"] = 4
        config["sampling"]["tile"] = 32
    return config


def load(folder: Path) -> CropDataset:
    """The training crops."""
    data = data_config(folder)
    return load_crops(folder / data["crops"], folder / data["table"], data["train_folds"], data["min_readers"])


def segmenter_patches(crops, backgrounds, sampling, seed=0, *, negatives=(), target="intensity") -> SegmenterPatches:
    """Patches of these volumes; the rest of the configuration is the shipped recipe's."""
    changes = {"sampling": sampling, "seed": seed, "target": target}
    config = build(SegmenterConfig, training_config("segmenter", Path()) | changes)
    return SegmenterPatches(crops, backgrounds, negatives, config)


def detector_slices(crops, backgrounds, sampling, seed=0, *, negatives=()) -> DetectorSlices:
    """Slices of these volumes, 2 mm apart; the rest of the configuration is the shipped recipe's."""
    config = training_config("detector", Path()) | {"sampling": sampling, "seed": seed}
    return DetectorSlices(crops, backgrounds, negatives, build(DetectorConfig, config))
