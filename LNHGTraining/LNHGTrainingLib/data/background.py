"""Whole chests to train on, at 1 mm with a lung region: scans with outlines, and CT whose lesions are unknown."""

import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from LNHGLib.image.reader import read_volume
from LNHGLib.image.volume import resample
from LNHGLib.models.card import GridSpec
from LNHGLib.segmentation.preprocessing import find_lungs, onto_grid, working_grid

from LNHGTrainingLib.config import BackgroundFile, Data
from LNHGTrainingLib.data import hard_negatives
from LNHGTrainingLib.data.crops import CropDataset, LabeledVolume, assert_disjoint, load_crops, load_negatives
from LNHGTrainingLib.data.hard_negatives import Background, Locations
from LNHGTrainingLib.data.scans import read_scans

GRID = GridSpec("spacing", (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Sources:
    """What a configuration's `data` part names.

    Attributes:
        train: nodule crops.
        validation: nodule crops of other patients.
        backgrounds: chest CTs, and whole scans of the training folds, with the indices of their lung voxels.
        negatives: locations that look like nodules and are none, of the training folds, in groups that are sampled
            equally often.
    """

    train: CropDataset
    validation: CropDataset
    backgrounds: list[Background]
    negatives: list[Locations]


def load_sources(data: Data, cache: Path) -> Sources:
    """Read the training and validation crops, the backgrounds and the negatives.

    Args:
        data: the configuration's `data` part with `folder`, where the files are.
        cache: folder for resampled backgrounds.

    Raises:
        InputError: nothing fits, or a patient is on both sides.
    """
    folder = Path(data.folder)
    files = folder / data.crops, folder / data.table
    train = load_crops(*files, data.train_folds, data.min_readers)
    validation = load_crops(*files, data.validation_folds, 3)
    if data.split == "patient":
        assert_disjoint(train, validation)
    backgrounds = load_backgrounds(folder / data.background_folder, data.background, cache)
    if data.scans:
        scans = read_scans(folder / data.scans, files[1], data.train_folds)
        backgrounds += [(scan.labeled(data.min_readers), np.argwhere(scan.lungs).astype(np.int16)) for scan in scans]
    groups = [hard_negatives.centers(load_negatives(*files, data.train_folds))]
    if data.hard_negatives:
        groups += hard_negatives.read(Path(data.hard_negatives), train, backgrounds)
    return Sources(train, validation, backgrounds, [group for group in groups if group])


def load_backgrounds(folder: Path, entries: Sequence[BackgroundFile], cache: Path) -> list[Background]:
    """Bring the backgrounds that the configuration lists to 1 mm around their lungs.

    Args:
        folder: where the files are.
        entries: their names, and the boxes in which nothing is known.
        cache: folder for the resampled arrays, so that a resumed run starts at once.

    Returns:
        (volume, lung) pairs; lung is (N, 3) int16 zyx indices.
    """
    cache.mkdir(parents=True, exist_ok=True)
    backgrounds = []
    for entry in entries:
        path = folder / entry.file
        stored = cache / f"{path.name}-{zlib.crc32(json.dumps(['averaged', entry.unknown]).encode()):08x}.npz"
        if not stored.exists():
            volume = read_volume(path)
            lungs = find_lungs(volume)
            grid = working_grid(volume, lungs, GRID, margin_mm=12.0)
            known = np.ones(volume.array.shape, np.uint8)
            for z0, z1, y0, y1, x0, x1 in entry.unknown:
                known[z0:z1, y0:y1, x0:x1] = 0
            region = resample(lungs.astype(np.uint8), volume.grid, grid, linear=False, fill=0) > 0
            known = resample(known, volume.grid, grid, linear=False, fill=0) > 0
            hu = onto_grid(volume, grid).round().astype(np.int16)
            lung = np.argwhere(region & known).astype(np.int16)
            temporary = stored.with_suffix(f".{os.getpid()}.npz")  # of several nodes, one takes the other's place
            try:
                np.savez_compressed(temporary, hu=hu, known=known, lung=lung)
                temporary.replace(stored)
            finally:
                temporary.unlink(missing_ok=True)
        with np.load(stored) as file:
            hu, known, lung = file["hu"], file["known"], file["lung"]
        backgrounds.append((LabeledVolume(hu, np.zeros(hu.shape, bool), known, path.name, {}), lung))
    return backgrounds
