"""Any CTs with masks: a CSV list, `images/` beside `masks/`, or a folder a case."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from LNHGLib.errors import InputError
from LNHGLib.image.reader import read_volume
from LNHGLib.image.single_file import SUFFIXES, read_image
from LNHGLib.image.volume import Grid, from_sitk, resample
from scipy import ndimage

from LNHGTrainingLib.prepare.cubes import Scan, ScanNodule
from LNHGTrainingLib.prepare.luna16 import read_patients
from LNHGTrainingLib.prepare.sources import Found, Options, of_scan

MASK_FOLDERS = ("masks", "labels")
MOST_MASKS = 8
CONNECTIVITY = np.ones((3, 3, 3), int)
LAYOUTS = (
    "a CSV list with the columns ct and mask, folders images/ and masks/ with files of the same names, or a folder a "
    "case with ct.* (or dicom/) and mask*.*"
)


@dataclass(frozen=True)
class Pair:
    """A CT and its masks, one a reader; `patient` is None where nothing tells."""

    name: str
    ct: Path
    masks: tuple[Path, ...]
    patient: str | None = None


def find(place: Path, options: Options) -> Found:
    """The pairs of a list or a folder; a CT without a mask is left out.

    Raises:
        InputError: there is no pair.
    """
    patients = read_patients(options.patients)
    subjects, left_out = [], {}
    for pair in _pairs(place):
        if not pair.masks:
            left_out[pair.name] = f"There is no mask for {pair.ct.name}."
        elif len(pair.masks) > MOST_MASKS:
            left_out[pair.name] = f"There are {len(pair.masks)} masks, expected at most {MOST_MASKS} readers."
        else:
            subjects.append(of_scan(pair.name, partial(read_scan, pair, patients.get(pair.name))))
    if not subjects:
        raise InputError(f"{place} holds no CT with a mask, expected {LAYOUTS}.")
    names = [subject.name for subject in subjects]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{place} has two cases named {twice[0]}, expected one; name them apart.")
    return Found(subjects, left_out)


def _pairs(place: Path) -> list[Pair]:
    if place.is_file():
        return _listed(place)
    masks = next((place / name for name in MASK_FOLDERS if (place / name).is_dir()), None)
    if (place / "images").is_dir() and masks:
        return list(_beside(place / "images", masks))
    return [pair for folder in sorted(place.iterdir()) if folder.is_dir() and (pair := _case(folder))]


def _listed(table: Path) -> list[Pair]:
    with table.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        if not {"ct", "mask"} <= set(reader.fieldnames or []):
            raise InputError(f"{table} lacks the columns ct and mask; expected {LAYOUTS}.")
        rows = list(reader)
    return [
        Pair(
            row.get("case") or _stem(Path(row["ct"])),
            table.parent / row["ct"],
            tuple(table.parent / part.strip() for part in (row["mask"] or "").split(";") if part.strip()),
            row.get("patient_id") or None,
        )
        for row in rows
    ]


def _beside(images: Path, masks: Path) -> Iterator[Pair]:
    """Files of the same name; nnU-Net's channel number is left aside."""
    by_stem = {_stem(path): path for path in sorted(masks.iterdir()) if _is_image(path)}
    for path in sorted(images.iterdir()):
        if path.is_dir() or _is_image(path):
            stem = _stem(path).removesuffix("_0000")
            yield Pair(stem, path, (by_stem[stem],) if stem in by_stem else ())


def _case(folder: Path) -> Pair | None:
    files = [path for path in sorted(folder.iterdir()) if _is_image(path)]
    ct = [path for path in files if _stem(path) == "ct"]
    ct += [folder / name for name in ("ct", "dicom") if (folder / name).is_dir()]
    readers = [path for path in files if path.name.startswith("mask_reader")]
    masks = readers or [path for path in files if path.name.startswith("mask")][:1]
    return Pair(folder.name, ct[0], tuple(masks)) if ct else None


def _is_image(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


def _stem(path: Path) -> str:
    suffix = next((end for end in sorted(SUFFIXES, key=len, reverse=True) if path.name.lower().endswith(end)), "")
    return path.name[: len(path.name) - len(suffix)]


def read_scan(pair: Pair, patient: str | None = None) -> Scan:
    """The CT and its nodules: values of the masks, or connected parts where the masks are of one value.

    Raises:
        InputError: a file cannot be used, or no mask voxel lies in the CT.
    """
    volume = read_volume(pair.ct)
    notes: list[str] = []
    masks = [_mask(path, volume.grid, notes) for path in pair.masks]
    patient = pair.patient or patient or volume.source.patient_id
    if not patient:
        patient = pair.name
        notes.append("The patient is not known: the case stands for it.")
    nodules = list(_nodules(masks))
    if not nodules and any(mask is None for mask in masks):
        raise InputError(f"{pair.name} has a mask outside its CT, expected both in one place; check the geometry.")
    return Scan(volume, patient, volume.source.series_uid or pair.name, nodules, notes=tuple(notes))


def _mask(path: Path, grid: Grid, notes: list[str]) -> np.ndarray | None:
    """A mask on the CT's grid; None when it has voxels but none of them in the CT."""
    array, own = from_sitk(read_image(path))
    values = array if np.issubdtype(array.dtype, np.integer) else np.rint(array)
    low, high = values.min(), values.max()
    if not np.array_equal(values, array) or low < 0 or high > np.iinfo(np.uint16).max:
        raise InputError(
            f"{path} holds values from {low:g} to {high:g}, or fractions, expected a mask: 0 outside, "
            "1, 2, ... inside nodules; give the mask."
        )
    labels = values.astype(np.uint16)
    if own.matches(grid):
        return labels
    notes.append(f"{path.name} was brought to the grid of the CT.")
    moved = resample(labels, own, grid, linear=False, fill=0)
    return moved if moved.any() or not labels.any() else None


def _nodules(masks: list[np.ndarray | None]) -> Iterator[ScanNodule]:
    """The nodules of all readers; a nodule's readers are those who marked it."""
    masks = [mask for mask in masks if mask is not None]
    if not masks:
        return
    labels = np.maximum.reduce(masks)
    by_value = labels.max() > 1
    if not by_value:
        labels = ndimage.label(labels, CONNECTIVITY)[0]
        masks = [labels * mask for mask in masks]
    boxes = [_boxes(mask) for mask in masks]
    for value in sorted(set().union(*boxes)):
        marked = [found[value] for found in boxes if value in found]
        box = tuple(
            slice(min(part[axis].start for part in marked), max(part[axis].stop for part in marked))
            for axis in range(3)
        )
        bits = np.zeros([part.stop - part.start for part in box], np.uint8)
        for reader, mask in enumerate(masks):
            bits |= (mask[box] == value).astype(np.uint8) << reader
        yield ScanNodule(f"{value - 1:03d}", box, bits, len(marked), len(marked), "mask")


def _boxes(mask: np.ndarray) -> dict[int, tuple[slice, slice, slice]]:
    found = ndimage.find_objects(mask.astype(np.int32))
    return {value: box for value, box in enumerate(found, start=1) if box is not None}
