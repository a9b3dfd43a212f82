"""Crops in the layout of the development data: luna16_crops.h5 with its table."""

from functools import partial
from pathlib import Path

import numpy as np
from LNHGLib.errors import InputError
from LNHGLib.files.text import csv_reader
from LNHGLib.image.volume import Grid
from LNHGLib.measurement.size import measure

from LNHGTrainingLib.data.crops import CUBE, consensus, missing_data_sets, open_crops, read_crop
from LNHGTrainingLib.prepare.sources import Content, Found, PrepareOptions, Subject, file_name
from LNHGTrainingLib.prepare.storage import Sample

COLUMNS = ("row", "patient_id", "series_uid", "nodule_index", "n_readers_usable", "usable")


def find(folder: Path, _options: PrepareOptions) -> Found:
    """Return one subject for each series of the one table of crops in a folder.

    Args:
        folder: holds a .h5 file and a .csv of the same name.
        _options: nothing of it is needed.

    Raises:
        InputError: there is not exactly one pair of file and table, or they lack something.
    """
    files = sorted(folder.glob("*.h5"))
    if len(files) != 1 or not files[0].with_suffix(".csv").is_file():
        raise InputError(
            f"{folder} holds {len(files)} .h5 file(s), expected one with a .csv of its name; give such a folder."
        )
    reader = csv_reader(files[0].with_suffix(".csv"))
    rows = list(reader)
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])] + missing_data_sets(files[0])
    if missing:
        raise InputError(f"{files[0]} or its table lacks {', '.join(missing)}; expected the layout of luna16_crops.h5.")
    series: dict[str, list[dict]] = {}
    for row in rows:
        series.setdefault(row["series_uid"], []).append(row)
    return Found([Subject(file_name(uid), partial(read_series, files[0], of)) for uid, of in sorted(series.items())])


def read_series(path: Path, rows: list[dict]) -> Content:
    """Return the cubes of one series.

    Args:
        path: HDF5 file of crops.
        rows: the table's rows of the series.
    """
    cubes = []
    with open_crops(path, rows) as file:
        for row in rows:
            crop = read_crop(file, row)
            name, readers = f"{int(row['nodule_index']):03d}", int(row["n_readers_usable"] or 0)
            agreed = consensus(crop.reader_bits, readers) & (crop.reader_bits > 0)
            more = {"nodule_index": name, "kind": "nodule", "reference": "outlines", "readers": readers}
            more |= {"y_spacing": row.get("pixel_spacing", ""), "x_spacing": row.get("pixel_spacing", "")}
            more |= {"diameter_mm": row.get("luna_diameter_exact_mm", ""), "diameter_from": "source"}
            if agreed.any():
                grid = Grid.aligned((CUBE,) * 3, (1.0,) * 3, (0.0, 0.0, 0.0))
                more |= {"type": measure(crop.hu, grid, agreed).attenuation, "volume_mm3": int(agreed.sum())}
            key, arrays = f"{row['series_uid']}-{name}", (crop.hu, crop.reader_bits)
            cubes.append(Sample(key, *arrays, readers, crop.others, np.int16(crop.extent), row | more))
    return Content(cubes)
