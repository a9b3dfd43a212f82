"""Hard negatives: locations that a model's generators mark in training crops and backgrounds, and no reader did.

    lnhg-train mine --model lnhg-1mm --config lnhg-hard.toml --data ../shared/data runs/hard.csv

Indices are zyx at 1 mm, in the crop of a table's row or in a background as training brings it to 1 mm.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from LNHGLib.errors import InputError, shown
from LNHGLib.files.atomic import atomic_file
from LNHGLib.files.text import read_csv, write_csv
from LNHGLib.image.boxes import Box, box_within
from LNHGLib.models.folder import Model
from LNHGLib.segmentation.components import components
from LNHGLib.segmentation.ensemble import EnsemblePatch
from LNHGLib.segmentation.pipeline import MIN_COMPONENT_LUNG_FRACTION, load_ensemble
from LNHGLib.segmentation.preprocessing import normalize
from LNHGLib.segmentation.progress import Monitor
from scipy import ndimage
from tqdm import tqdm

from LNHGTrainingLib.data.crops import CUBE, CropDataset, LabeledVolume
from LNHGTrainingLib.evaluation.attachment import lung_of_cube

MIN_SIGNAL = 0.03
"""Of the nodule image, as a fraction of the window: from here up a location counts as marked. Models cut higher."""
MIN_VOXELS = 8
COLUMNS = ["crop", "background", "z", "y", "x"]

Background = tuple[LabeledVolume, np.ndarray]
"""A chest CT, and the indices (N, 3) of its lung voxels."""


@dataclass(frozen=True, eq=False)
class Location:
    """A location (z, y, x) in a volume."""

    volume: LabeledVolume
    center: tuple[float, float, float]


class Locations(Sequence[Location]):
    """Locations in volumes that are read when asked for.

    Args:
        volumes: crops or backgrounds.
        where: number of the volume, and (z, y, x) in it.
    """

    def __init__(self, volumes: Sequence[LabeledVolume], where: list[tuple[int, tuple[float, float, float]]]) -> None:
        self.volumes, self.where = volumes, where

    def __len__(self) -> int:
        return len(self.where)

    def __getitem__(self, number: int) -> Location:
        volume, center = self.where[number]
        return Location(self.volumes[volume], center)


def centers(crops: CropDataset) -> Locations:
    """Return the centers of cubes."""
    return Locations(crops, [(number, (CUBE / 2,) * 3) for number in range(len(crops))])


def sample(rng: np.random.Generator, groups: Sequence[Locations]) -> Location:
    """Choose a location of one of the groups at random, each group as likely as the others.

    Args:
        rng: source of randomness.
        groups: none of them empty.
    """
    group = groups[rng.integers(len(groups))]
    return group[rng.integers(len(group))]


def read(path: Path, crops: CropDataset, backgrounds: Sequence[Background]) -> list[Locations]:
    """Return the locations of a file that `mine` wrote; those in other crops and backgrounds are left out.

    Args:
        path: the file.
        crops: whose locations are wanted.
        backgrounds: whose locations are wanted.

    Raises:
        InputError: the file is missing or is none that `mine` writes.
    """
    numbers = {row["row"]: number for number, row in enumerate(crops.rows)}
    names = {volume.patient: number for number, (volume, _) in enumerate(backgrounds)}
    in_crops, in_backgrounds = [], []
    try:
        for row in read_csv(path):
            center = float(row["z"]), float(row["y"]), float(row["x"])
            if row["crop"] in numbers:
                in_crops.append((numbers[row["crop"]], center))
            elif row["background"] in names:
                in_backgrounds.append((names[row["background"]], center))
    except (OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as hard negatives ({shown(error, 80)}), expected a file that `lnhg-train mine` "
            "wrote; mend data.hard_negatives in the configuration."
        ) from error
    return [Locations(crops, in_crops), Locations([volume for volume, _ in backgrounds], in_backgrounds)]


def check(model: Model, out: Path) -> None:
    """Refuse what `mine` would refuse; call it before the volumes are read as well.

    Args:
        model: to mine with.
        out: table to write.

    Raises:
        InputError: the model's grid is not 1 mm, or `out` exists.
    """
    if model.card["grid"].get("spacing_mm") != [1.0, 1.0, 1.0]:
        raise InputError(f"{model.name} works on the grid {model.card['grid']}, expected 1 mm; choose another model.")
    if out.exists():
        raise InputError(f"{out} exists already, expected a new file; name another.")


def mine(
    model: Model, crops: CropDataset, backgrounds: Sequence[Background], out: Path, device: str | torch.device = "cpu"
) -> int:
    """Write the locations that the model marks where the reference knows of no nodule.

    Its first generator finds them, and all members of its ensemble see them again, each in the field around it.

    Args:
        model: for a grid of 1 mm.
        crops: of the training folds alone, or the networks trained on the locations will have seen others.
        backgrounds: with the indices of their lung voxels.
        out: CSV to write, with the columns `COLUMNS`.
        device: where to compute.

    Returns:
        How many there are.

    Raises:
        InputError: as `check`.
    """
    check(model, out)
    ensemble = load_ensemble(model, torch.device(device), Monitor())
    rows = []
    for number in tqdm(range(len(crops) + len(backgrounds)), unit="volume", disable=None):
        if number < len(crops):
            volume = crops[number]
            source, lungs = {"crop": volume.row["row"], "background": ""}, lung_of_cube(volume.hu)
        else:
            volume, lung = backgrounds[number - len(crops)]
            source, lungs = {"crop": "", "background": volume.patient}, np.zeros(volume.hu.shape, bool)
            lungs[tuple(lung.T)] = True
        ct_norm = normalize(volume.hu, model.card["window_hu"])
        candidates = list(false_positives(ensemble.predict(ct_norm, lungs), volume, lungs))
        patches = ensemble.predict_at(ct_norm, [box for box, _own in candidates])
        for patch, candidate in zip(patches, candidates, strict=True):
            center = marked_center(patch, *candidate)
            if center is not None:
                rows.append(source | dict(zip("zyx", center, strict=True)))
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(out) as part:
        write_csv(part, rows, COLUMNS, decimals=1)
    return len(rows)


def false_positives(image: np.ndarray, volume: LabeledVolume, lungs: np.ndarray) -> Iterator[tuple[Box, np.ndarray]]:
    """Yield what a nodule image marks in the lungs where the reference is known and has no nodule.

    Args:
        image: nodule image, float (z, y, x).
        volume: the CT with its reference.
        lungs: bool (z, y, x).

    Yields:
        The box of a component, and its voxels in there, bool (z, y, x).
    """
    labels = components(image > MIN_SIGNAL)
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        own = labels[box] == number
        if own.sum() < MIN_VOXELS or volume.mask[box][own].any():
            continue
        if lungs[box][own].mean() >= MIN_COMPONENT_LUNG_FRACTION and volume.known[box][own].mean() >= 0.5:
            yield box, own


def marked_center(patch: EnsemblePatch, box: Box, own: np.ndarray) -> tuple[float, float, float] | None:
    """Return the center of what all members mark of a component, index (z, y, x) weighted by their image.

    Args:
        patch: what they make of the field around it.
        box: of the component that the first one marks.
        own: its voxels in there, bool (z, y, x).

    Returns:
        None where they mark fewer than `MIN_VOXELS` of it.
    """
    image = patch.image[box_within(box, patch.box)]
    marked = np.where(own & (image > MIN_SIGNAL), image, 0)
    if np.count_nonzero(marked) < MIN_VOXELS:
        return None
    inside = ndimage.center_of_mass(marked)
    return tuple(float(c + part.start) for c, part in zip(inside, box, strict=True))
