"""Hard negatives: places that a model's generator marks in training crops and backgrounds, and no reader did.

    lnhg-train mine --model lnhg-1mm --config lnhg-hard.toml --data ../shared/data runs/hard.csv

Indices are zyx at 1 mm, in the crop of a table's row or in a background as training brings it to 1 mm.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from LNHGLib.errors import InputError
from LNHGLib.files.atomic import atomic_file
from LNHGLib.models.folder import Model
from LNHGLib.segmentation.components import components
from LNHGLib.segmentation.pipeline import IN_LUNG_SHARE, looks_of
from LNHGLib.segmentation.preprocessing import normalise
from LNHGLib.segmentation.progress import Monitor
from scipy import ndimage
from tqdm import tqdm

from LNHGTrainingLib.data.crops import CUBE, CropDataset, LabeledVolume
from LNHGTrainingLib.evaluation.attachment import lung_of_cube
from LNHGTrainingLib.output_files import write_table

MARKED = 0.03
"""Signal of the nodule image, of the window range, from which a place counts as marked: lower than models cut at."""
FEWEST_VOXELS = 8
COLUMNS = ["crop", "background", "z", "y", "x"]

Background = tuple[LabeledVolume, np.ndarray]


@dataclass(frozen=True, eq=False)
class Place:
    """A place (z, y, x) in a volume."""

    volume: LabeledVolume
    center: tuple[float, float, float]


class Places(Sequence[Place]):
    """Places in volumes that are read when asked for.

    Args:
        volumes: crops or backgrounds.
        where: number of the volume, and the place in it.
    """

    def __init__(self, volumes: Sequence[LabeledVolume], where: list[tuple[int, tuple[float, float, float]]]) -> None:
        self.volumes, self.where = volumes, where

    def __len__(self) -> int:
        return len(self.where)

    def __getitem__(self, number: int) -> Place:
        volume, center = self.where[number]
        return Place(self.volumes[volume], center)


def centers(crops: CropDataset) -> Places:
    """The centers of cubes."""
    return Places(crops, [(number, (CUBE / 2,) * 3) for number in range(len(crops))])


def draw(rng: np.random.Generator, groups: Sequence[Places]) -> Place:
    """A place of one of the groups, each as likely as the others; they must not be empty."""
    group = groups[rng.integers(len(groups))]
    return group[rng.integers(len(group))]


def read(path: Path, crops: CropDataset, backgrounds: Sequence[Background]) -> list[Places]:
    """The places of a file that `mine` wrote: in these crops, and in these backgrounds; other crops' are left out.

    Raises:
        InputError: the file is missing or is none that `mine` writes.
    """
    numbers = {row["row"]: number for number, row in enumerate(crops.rows)}
    names = {volume.patient: number for number, (volume, _) in enumerate(backgrounds)}
    in_crops, in_backgrounds = [], []
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                center = float(row["z"]), float(row["y"]), float(row["x"])
                if row["crop"] in numbers:
                    in_crops.append((numbers[row["crop"]], center))
                elif row["background"] in names:
                    in_backgrounds.append((names[row["background"]], center))
    except (OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as hard negatives ({error}), expected a file that `lnhg-train mine` wrote; "
            "mend data.hard_negatives in the configuration."
        ) from error
    return [Places(crops, in_crops), Places([volume for volume, _ in backgrounds], in_backgrounds)]


def check(model: Model, out: Path) -> None:
    """Refuse what `mine` would refuse; call it before the volumes are read as well.

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
    """Write the places that the model's first generator marks where the reference knows of no nodule.

    Args:
        model: for a grid of 1 mm.
        crops: of the training folds alone, or the networks trained on the places will have seen others.
        backgrounds: with the indices of their lung voxels.
        out: CSV to write, with the columns `COLUMNS`.
        device: where to compute.

    Returns:
        How many there are.

    Raises:
        InputError: as `check`.
    """
    check(model, out)
    first, _ = looks_of(model, torch.device(device), Monitor())
    rows = []
    count = len(crops) + len(backgrounds)
    for source, volume, lungs in tqdm(_volumes(crops, backgrounds), total=count, unit="volume", disable=None):
        image = first(normalise(volume.hu, model.card["window_hu"]), lungs)
        rows += [source | dict(zip("zyx", center, strict=True)) for center in unread(image, volume, lungs)]
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(out) as part:
        write_table(rows, COLUMNS, part, digits=1)
    return len(rows)


def _volumes(
    crops: CropDataset, backgrounds: Sequence[Background]
) -> Iterator[tuple[dict[str, str], LabeledVolume, np.ndarray]]:
    """What a row of the table says of a volume, the volume, its lungs."""
    for crop in crops:
        yield {"crop": crop.row["row"], "background": ""}, crop, lung_of_cube(crop.hu)
    for volume, lung in backgrounds:
        lungs = np.zeros(volume.hu.shape, bool)
        lungs[tuple(lung.T)] = True
        yield {"crop": "", "background": volume.patient}, volume, lungs


def unread(image: np.ndarray, volume: LabeledVolume, lungs: np.ndarray) -> Iterator[tuple[float, float, float]]:
    """Centers of what a nodule image marks in the lungs, where the volume's reference has no nodule and is known."""
    labels = components(image > MARKED)
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        own = labels[box] == number
        if own.sum() < FEWEST_VOXELS or volume.mask[box][own].any():
            continue
        if lungs[box][own].mean() >= IN_LUNG_SHARE and volume.known[box][own].mean() >= 0.5:
            inside = ndimage.center_of_mass(image[box] * own)
            yield tuple(float(c + part.start) for c, part in zip(inside, box, strict=True))
