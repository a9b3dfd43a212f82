"""Crops in the layout of the development data: luna16_crops.h5 with its table."""

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from LNHGLib.errors import InputError
from LNHGLib.image.volume import Grid
from LNHGLib.measurement.size import measure

from LNHGTrainingLib.data.crops import CUBE, consensus
from LNHGTrainingLib.prepare.sources import Content, Found, Options, Subject, file_name
from LNHGTrainingLib.prepare.storage import Sample

DATA_SETS = ("ct", "reader_masks", "other_mask", "valid_extent")
COLUMNS = ("row", "patient_id", "series_uid", "nodule_index", "n_readers_usable", "usable")


def find(folder: Path, _options: Options) -> Found:
    """A subject a series of the one table of crops in a folder.

    Raises:
        InputError: there is not exactly one pair of file and table, or they lack something.
    """
    files = sorted(folder.glob("*.h5"))
    if len(files) != 1 or not files[0].with_suffix(".csv").is_file():
        raise InputError(
            f"{folder} holds {len(files)} .h5 file(s), expected one with a .csv of the same name beside it."
        )
    with files[0].with_suffix(".csv").open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        rows = list(reader)
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
    with h5py.File(files[0], "r") as file:
        missing += [name for name in DATA_SETS if name not in file]
    if missing:
        raise InputError(f"{files[0]} or its table lacks {', '.join(missing)}; expected the layout of luna16_crops.h5.")
    series: dict[str, list[dict]] = {}
    for row in rows:
        series.setdefault(row["series_uid"], []).append(row)
    return Found([Subject(file_name(uid), partial(_read, files[0], of)) for uid, of in sorted(series.items())])


def _read(path: Path, rows: list[dict]) -> Content:
    return Content(_samples(path, rows))


def _samples(path: Path, rows: list[dict]) -> Iterator[Sample]:
    with h5py.File(path, "r") as file:
        for row in rows:
            hu, bits, other, valid = (file[name][int(row["row"])] for name in DATA_SETS)
            name, readers = f"{int(row['nodule_index']):03d}", int(row["n_readers_usable"] or 0)
            agreed = consensus(bits, readers) & (bits > 0)
            more = {"nodule_index": name, "kind": "nodule", "reference": "outlines", "readers": readers}
            more |= {"y_spacing": row.get("pixel_spacing", ""), "x_spacing": row.get("pixel_spacing", "")}
            more |= {"diameter_mm": row.get("luna_diameter_exact_mm", ""), "diameter_from": "source"}
            if agreed.any():
                grid = Grid.aligned((CUBE,) * 3, (1.0,) * 3, (0.0, 0.0, 0.0))
                more |= {"type": measure(hu, grid, agreed).attenuation, "volume_mm3": int(agreed.sum())}
            yield Sample(f"{row['series_uid']}-{name}", hu, bits, readers, other, np.int16(valid), row | more)
