"""A tiny set of crops in the layout of the development data."""

import tomllib
from pathlib import Path

import h5py
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


def without_diameter(folder: Path, number: int) -> None:
    """Leave the diameter of a crop's nodule empty, as of a nodule that LUNA16 does not name."""
    path = folder / "crops" / "luna16_crops.csv"
    table = [line.split(",") for line in path.read_text().splitlines()]
    table[number + 1][table[0].index("luna_diameter_exact_mm")] = ""
    path.write_text("".join(",".join(row) + "\n" for row in table))


def write_scans(folder: Path, patients: dict[str, list[int]], shape: tuple[int, ...] = (60, 64, 68)) -> None:
    """Whole scans in the layout of the development data: for each patient a ball for each number of readers.

    Every scan also has a rod that no reader outlined, and is empty beyond 10 voxels from its border.
    """
    (folder / "scans").mkdir(parents=True, exist_ok=True)
    z, y, x = np.indices(shape)
    rng = np.random.default_rng(0)
    with h5py.File(folder / "scans" / "lidc_scans.h5", "w") as file:
        for number, (patient, readers) in enumerate(patients.items()):
            hu = rng.normal(-850, 20, shape)
            hu[(abs(y - 20) < 3) & (abs(x - 20) < 3) & (abs(z - 30) < 14)] = 30
            bits, nodules = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
            for k, count in enumerate(readers, 1):
                ball = (z - 30) ** 2 + (y - 40) ** 2 + (x - 20 - 14 * (k - 1)) ** 2 < 25
                hu[ball], bits[ball], nodules[ball] = 40, 2**count - 1, k
            lungs = np.zeros(shape, np.uint8)
            lungs[12:-12, 12:-12, 12:-12] = 1
            edge = np.ones(shape, bool)
            edge[4:-4, 4:-4, 4:-4] = False
            hu[edge] = -992
            group = file.create_group(f"scan-{number}")
            arrays = {"ct": (hu / 8).round() * 8, "lungs": lungs, "reader_masks": bits, "nodule": nodules}
            for name, array in arrays.items():
                group.create_dataset(name, data=array.astype(np.int16 if name == "ct" else np.uint8))
            affine = np.eye(4)
            affine[:3, :3] = np.eye(3)[::-1]
            group.attrs.update(patient_id=patient, series_uid=f"1.2.{number}", affine_index_to_lps=affine)


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
    """The shipped recipe of a network, cut down to two epochs of two steps with a tiny one."""
    config = tomllib.loads((RESOURCES / f"{branch}.toml").read_text())
    config |= {"steps": 4, "epoch_steps": 2, "batch": 2, "validate_crops": 1, "data": data_config(folder)}
    if branch == "segmenter":
        config["generator"]["width"] = config["critic"]["width"] = 2
        config["sampling"]["sides"] = [[16, 16, 16]]
        config["loss"]["adversarial_from_step"] = 1
    elif branch == "detector":
        config["detector"]["width"] = 4
        config["sampling"]["tile"] = 32
    else:
        config["classifier"]["width"] = 2
        config["data"]["scans"] = "scans/lidc_scans.h5"
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
