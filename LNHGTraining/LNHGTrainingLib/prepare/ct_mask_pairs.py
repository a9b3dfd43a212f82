"""Any CTs with masks: a CSV list, `images/` beside `masks/`, or one folder for each case."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from LNHGLib.errors import InputError, shown
from LNHGLib.files.text import csv_reader
from LNHGLib.image.boxes import box_shape, box_union
from LNHGLib.image.reader import read_volume
from LNHGLib.image.single_file import SUFFIXES, read_image
from LNHGLib.image.volume import Grid, from_sitk, resample
from scipy import ndimage

from LNHGTrainingLib.data.dicom_outlines import find_outlines, read_outlines
from LNHGTrainingLib.prepare.cubes import Scan, ScanNodule
from LNHGTrainingLib.prepare.luna16 import read_patients
from LNHGTrainingLib.prepare.sources import Found, PrepareOptions, of_scan, unique_names

MASK_FOLDERS = ("masks", "labels")
DICOM_SUFFIXES = (".zip", ".dcm")
MAX_MASKS = 8
CONNECTIVITY = np.ones((3, 3, 3), int)
LAYOUTS = "a list (CSV: ct, mask), or folders images/ and masks/, or case folders with ct.* and mask*.* or DICOM SEG"


@dataclass(frozen=True)
class Pair:
    """A CT and its masks, one for each reader; `patient` is None where nothing tells."""

    name: str
    ct: Path
    masks: tuple[Path, ...]
    patient: str | None = None


def find(location: Path, options: PrepareOptions) -> Found:
    """Return the pairs of a list or a folder; a CT without a mask is left out.

    Args:
        location: the list or the folder.
        options: what else there is to say.

    Raises:
        InputError: there is no pair.
    """
    patients = read_patients(options.patients)
    subjects, left_out, chosen = [], {}, []
    for pair in _pairs(location):
        if not pair.masks:
            left_out[pair.name] = f"There is no mask for {pair.ct.name}."
        elif len(pair.masks) > MAX_MASKS:
            left_out[pair.name] = f"There are {len(pair.masks)} masks, expected at most {MAX_MASKS} readers."
        else:
            chosen.append(pair)
    names = unique_names([pair.name for pair in chosen])
    for pair, name in zip(chosen, names, strict=True):
        subjects.append(of_scan(name, partial(read_scan, pair, patients.get(pair.name))))
    if not subjects:
        raise InputError(f"{location} holds no CT with a mask, expected {LAYOUTS}; give one of these.")
    stated = [pair.name for pair in chosen]
    twice = sorted({name for name in stated if stated.count(name) > 1})
    if twice:
        raise InputError(f"{location} has two cases named {shown(twice[0])}, expected one; name them apart.")
    return Found(subjects, left_out)


def _pairs(location: Path) -> list[Pair]:
    """List the CTs of a table or a folder, with the masks that there are."""
    if location.is_file():
        reader = csv_reader(location)
        if not {"ct", "mask"} <= set(reader.fieldnames or []):
            raise InputError(f"{location} lacks the columns ct and mask; give {LAYOUTS}.")
        rows = list(reader)
        empty = next((number for number, row in enumerate(rows, 1) if not (row["ct"] or "").strip()), None)
        if empty is not None:
            raise InputError(f"{location} names no CT in its row {empty}, expected a path under ct; fill it.")
        return [
            Pair(
                row.get("case") or _stem(Path(row["ct"])),
                location.parent / row["ct"],
                tuple(location.parent / part.strip() for part in (row["mask"] or "").split(";") if part.strip()),
                row.get("patient_id") or None,
            )
            for row in rows
        ]
    masks = next((location / name for name in MASK_FOLDERS if (location / name).is_dir()), None)
    pairs = []
    if (location / "images").is_dir() and masks:
        by_stem = {
            _stem(path): path
            for path in sorted(masks.iterdir())
            if _is_image(path) or path.is_dir() or path.suffix.lower() in DICOM_SUFFIXES
        }
        for path in sorted((location / "images").iterdir()):
            if path.is_dir() or _is_image(path):
                stem = _stem(path)
                if stem not in by_stem:  # nnU-Net's images end with a number of the channel, its masks do not
                    stem = stem.removesuffix("_0000")
                pairs.append(Pair(stem, path, (by_stem[stem],) if stem in by_stem else ()))
        return pairs
    for folder in sorted(path for path in location.iterdir() if path.is_dir()):
        files = [path for path in sorted(folder.iterdir()) if _is_image(path)]
        ct = [path for path in files if _stem(path) == "ct"]
        ct += [folder / name for name in ("ct", "dicom") if (folder / name).is_dir()]
        readers = [path for path in files if path.name.startswith("mask_reader")]
        one = [path for path in files if path.name.startswith("mask")][:1]
        if ct:
            outlines = find_outlines(folder) if not one else None
            pairs.append(Pair(folder.name, ct[0], tuple(readers or one) or ((outlines,) if outlines else ())))
    return pairs


def _is_image(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


def _stem(path: Path) -> str:
    ends = sorted((*SUFFIXES, *DICOM_SUFFIXES), key=len, reverse=True)
    suffix = next((end for end in ends if path.name.lower().endswith(end)), "")
    return path.name[: len(path.name) - len(suffix)]


def read_scan(pair: Pair, patient: str | None = None) -> Scan:
    """Return the CT and its nodules: values of the masks, or connected parts where the masks are of one value.

    Args:
        pair: the files.
        patient: identifier that a table gives, where the pair has none.

    Raises:
        InputError: a file cannot be used, or no mask voxel lies in the CT.
    """
    volume = read_volume(pair.ct)
    notes: list[str] = []
    masks = []
    for path in pair.masks:
        if not _is_image(path):
            masks += read_outlines(path, volume.grid, volume.source.series_uid).masks
            continue
        labels, grid = read_labels(path)
        if not grid.matches(volume.grid):
            notes.append(f"{path.name} was brought to the grid of the CT.")
            moved = resample(labels, grid, volume.grid, linear=False, fill=0)
            labels = None if labels.any() and not moved.any() else moved
        masks.append(labels)
    patient = pair.patient or patient or volume.source.patient_id
    if not patient:
        patient = pair.name
        notes.append("The patient is not known: the case stands for it.")
    if len(masks) > MAX_MASKS:
        raise InputError(
            f"{shown(pair.name)} has masks of {len(masks)} readers, expected at most {MAX_MASKS}; give fewer."
        )
    nodules = merge_readers([mask for mask in masks if mask is not None])
    if not nodules and any(mask is None for mask in masks):
        raise InputError(
            f"{shown(pair.name)} has a mask outside its CT, expected both in one place; check the geometry."
        )
    return Scan(volume, patient, volume.source.series_uid or pair.name, nodules, notes=tuple(notes))


def read_labels(path: Path) -> tuple[np.ndarray, Grid]:
    """Read a mask: uint16 (z, y, x) and its grid.

    Raises:
        InputError: it is no mask.
    """
    array, grid = from_sitk(read_image(path))
    values = array if np.issubdtype(array.dtype, np.integer) else np.rint(array)
    low, high = values.min(), values.max()
    if not np.array_equal(values, array) or low < 0 or high > np.iinfo(np.uint16).max:
        raise InputError(
            f"{path} holds values from {low:g} to {high:g}, or fractions, expected a mask: 0 outside, "
            "1, 2, ... inside nodules; give the mask."
        )
    return values.astype(np.uint16), grid


def merge_readers(masks: list[np.ndarray]) -> list[ScanNodule]:
    """Return the nodules of all readers; a nodule's readers are those who marked it.

    Args:
        masks: uint16 (z, y, x), one for each reader.
    """
    if not masks:
        return []
    insides = (mask[mask > 0] for mask in masks)
    if all((inside == inside[:1]).all() for inside in insides):  # such as 0 and 255: not which nodule is which
        masks = [(mask > 0).astype(np.uint16) for mask in masks]
    labels = np.maximum.reduce(masks)
    if labels.max() <= 1:
        labels = ndimage.label(labels, CONNECTIVITY)[0]
        masks = [labels * mask for mask in masks]
    boxes = [dict(enumerate(ndimage.find_objects(mask.astype(np.int32)), start=1)) for mask in masks]
    nodules = []
    for value in range(1, max(map(len, boxes)) + 1):
        marked = [found[value] for found in boxes if found.get(value) is not None]
        if marked:
            box = box_union(marked)
            bits = np.zeros(box_shape(box), np.uint8)
            for reader, mask in enumerate(masks):
                bits |= (mask[box] == value).astype(np.uint8) << reader
            nodules.append(ScanNodule(f"{value - 1:03d}", box, bits, len(marked), len(marked), "mask"))
    return nodules
