"""LUNA16: .mhd scans with annotations.csv, candidates and, where LIDC's XML files are given, the readers' outlines."""

import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from LNHGLib.errors import InputError, shown
from LNHGLib.files.text import csv_reader
from LNHGLib.image.boxes import box_intersection, box_within
from LNHGLib.image.reader import read_volume
from LNHGLib.image.volume import Grid, Volume

from LNHGTrainingLib.prepare.cubes import Mark, Scan, ScanNodule, ball_box
from LNHGTrainingLib.prepare.lidc import find_readings, marks_of, nodules_of
from LNHGTrainingLib.prepare.lidc_xml import Roi, read_readings
from LNHGTrainingLib.prepare.sources import Found, PrepareOptions, of_scan

READERS = 3
"""LUNA16 lists nodules that at least three of LIDC's four readers marked."""
IRRELEVANT_MM = 3.0
Point = tuple[float, float, float]


class ChallengeLists:
    """The lists of the challenge, by series.

    Args:
        folder: Where annotations.csv and, where there, candidates and annotations_excluded.csv lie.

    Raises:
        InputError: annotations.csv is missing, or a list has other columns.
    """

    def __init__(self, folder: Path) -> None:
        annotations = _find(folder, "annotations.csv")
        if annotations is None:
            raise InputError(f"{folder} holds no annotations.csv, expected that of LUNA16; put it into the folder.")
        self.nodules = _by_series(annotations, "diameter_mm")
        candidates = _find(folder, "candidates_V2.csv") or _find(folder, "candidates.csv")
        self.candidates = _by_series(candidates, "class") if candidates else {}
        excluded = _find(folder, "annotations_excluded.csv")
        self.excluded = _by_series(excluded, "diameter_mm") if excluded else {}

    def negatives(self, series_uid: str, count: int, seed: int) -> list[Point]:
        """Return candidates that are no nodule, sampled from the seed and the series' name.

        Args:
            series_uid: of the series.
            count: as many, or all there are.
            seed: of the sampling.
        """
        points = [point for point, kind in self.candidates.get(series_uid, []) if kind == 0]
        rng = np.random.default_rng([seed, zlib.crc32(series_uid.encode())])
        chosen = sorted(rng.choice(len(points), min(count, len(points)), replace=False)) if points else []
        return [points[index] for index in chosen]


def _find(folder: Path, name: str) -> Path | None:
    return next(iter(sorted(folder.rglob(name))), None)


def _by_series(path: Path, column: str) -> dict[str, list[tuple[Point, float]]]:
    """Series to the points of a list, LPS mm, each with the number in `column`."""
    found: dict[str, list[tuple[Point, float]]] = {}
    reader = csv_reader(path)
    try:
        for row in reader:
            point = tuple(float(row[f"coord{axis}"]) for axis in "XYZ")
            found.setdefault(row["seriesuid"], []).append((point, float(row[column])))
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} is no list of LUNA16 ({type(error).__name__}: {shown(error, 80)}), expected the columns "
            "seriesuid, "
            f"coordX, coordY, coordZ and {column}; copy it again."
        ) from error
    return found


def find(folder: Path, options: PrepareOptions) -> Found:
    """Return the .mhd scans below a folder; lung masks (folders whose name starts with `seg`) are passed over.

    Args:
        folder: the scans and the lists of the challenge.
        options: what else there is to say.

    Raises:
        InputError: no scan, or no annotations.
    """
    lists, patients = ChallengeLists(folder), read_patients(options.patients)
    readings, left_out = find_readings(options.xml) if options.xml else ({}, {})
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.mhd")):
        if not any(part.startswith("seg") for part in path.relative_to(folder).parts[:-1]):
            files.setdefault(path.stem, path)
    if not files:
        raise InputError(f"{folder} holds no .mhd file, expected the scans of LUNA16; check the path.")
    for uid in sorted(lists.nodules.keys() - files.keys()):
        left_out[uid] = "annotations.csv names this series, but its .mhd file is not in the input."
    subjects = []
    for uid, path in sorted(files.items()):
        if options.patients and uid not in patients:
            left_out[uid] = f"{options.patients.name} does not name the patient of this series."
            continue
        patient = patients.get(uid, uid)
        subjects.append(of_scan(uid, partial(read_scan, path, patient, lists, readings.get(uid), options)))
    return Found(subjects, left_out)


def read_patients(table: Path | None) -> dict[str, str]:
    """Return series to patient, from a table with these columns (the development crops' table will do).

    Raises:
        InputError: the table lacks them.
    """
    if table is None:
        return {}
    reader = csv_reader(table)
    if not {"series_uid", "patient_id"} <= set(reader.fieldnames or []):
        raise InputError(f"{table} lacks the columns series_uid and patient_id; give a table that has them.")
    return {row["series_uid"]: row["patient_id"] for row in reader}


def read_scan(path: Path, patient: str, lists: ChallengeLists, xml: Path | None, options: PrepareOptions) -> Scan:
    """Return one scan: readers' outlines where there are any, else spheres of the listed diameters.

    Args:
        path: the .mhd file.
        patient: identifier.
        lists: of the challenge.
        xml: readings of the series, if there are any.
        options: what else there is to say.

    Raises:
        InputError: the scan or its readings cannot be used.
    """
    volume, uid = read_volume(path), path.stem
    notes = () if options.patients else ("The patient is not known: the series stands for it.",)
    outlined, marks = [], []
    if xml:
        readings = read_readings(xml)
        slice_of = partial(slice_at, volume.grid, xml.name)
        outlined, more = nodules_of(readings, volume, slice_of)
        marks, notes = marks_of(readings, volume.grid, slice_of), notes + more
    spheres = list(spheres_of(lists.nodules.get(uid, []), volume, outlined))
    if spheres:
        notes += (f"{len(spheres)} nodule(s) without outlines: a sphere of the listed diameter stands for each.",)
    for point, listed_mm in lists.excluded.get(uid, []):  # they count neither way; a diameter of -1 is a point
        diameter = max(listed_mm, IRRELEVANT_MM)
        if _inside(volume.grid, point) and not _on_one(volume.grid, point, diameter, outlined):
            marks.append(Mark("irrelevant", point, None, diameter))
    negatives = lists.negatives(uid, options.negatives, options.seed)
    inside = [point for point in negatives if _inside(volume.grid, point)]
    if len(inside) < len(negatives):
        notes += (f"{len(negatives) - len(inside)} candidate(s) outside the scan were left out.",)
    return Scan(volume, patient, uid, outlined + spheres, marks, inside, notes)


def slice_at(grid: Grid, name: str, roi: Roi) -> int:
    """Return the slice at the outline's z position: .mhd files do not keep the SOP instance UIDs.

    LUNA16 stores the pixels as the scanner did, so that x and y hold as they are.

    Args:
        grid: of the CT.
        name: of the file of readings.
        roi: the outline.

    Raises:
        InputError: the scan has no slice there.
    """
    index = (roi.z_mm - grid.affine[2, 3]) / grid.affine[2, 0]
    if abs(index - round(index)) > 0.25 or not 0 <= round(index) < grid.shape[0]:
        raise InputError(
            f"{name} outlines a nodule at z = {roi.z_mm:g} mm, where the scan has no slice; check that they belong "
            "together."
        )
    return round(index)


def spheres_of(listed: list[tuple[Point, float]], volume: Volume, outlined: list[ScanNodule]) -> Iterator[ScanNodule]:
    """Yield a sphere for each listed nodule that readers' outlines do not show.

    Args:
        listed: center (x, y, z) in LPS mm, and diameter in mm.
        volume: the CT.
        outlined: nodules with outlines.

    Raises:
        InputError: a nodule lies outside the scan.
    """
    number = len(outlined)
    for point, diameter in listed:
        if _on_one(volume.grid, point, diameter, outlined):
            continue
        if not _inside(volume.grid, point):
            raise InputError(
                f"annotations.csv has a nodule at {', '.join(f'{value:.1f}' for value in point)} mm, outside the scan; "
                "check that both belong together."
            )
        box, mask = ball_box(volume.grid, np.array(point), diameter)
        bits = mask.astype(np.uint8)
        yield ScanNodule(f"{number:03d}", box, bits, READERS, 1, "sphere", diameter_mm=diameter)
        number += 1


def _on_one(grid: Grid, point: Point, diameter_mm: float, outlined: list[ScanNodule]) -> bool:
    """Return whether a listed nodule is one of the outlined ones: its sphere overlaps the outlines."""
    box, mask = ball_box(grid, np.array(point), diameter_mm)
    for nodule in outlined:
        shared = box_intersection(box, nodule.box)
        if shared is not None:
            outlined_there = nodule.bits[box_within(shared, nodule.box)] > 0
            if (mask[box_within(shared, box)] & outlined_there).any():
                return True
    return False


def _inside(grid: Grid, point: Point) -> bool:
    index = grid.lps_to_index(np.array(point))
    return bool(((index >= -0.5) & (index <= np.array(grid.shape) - 0.5)).all())
