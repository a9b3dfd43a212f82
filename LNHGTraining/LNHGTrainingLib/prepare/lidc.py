"""LIDC-IDRI: DICOM series with their readers' XML files, matched by SOP instance UID (register R1)."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
from LNHGLib.errors import InputError
from LNHGLib.image import dicom_series
from LNHGLib.image.reader import read_volume
from LNHGLib.image.volume import Grid, Volume

from LNHGTrainingLib.prepare.contours import Cluster, Contour, Outlined, cluster, fill
from LNHGTrainingLib.prepare.cubes import Mark, Scan, ScanNodule
from LNHGTrainingLib.prepare.lidc_xml import RATINGS, SMALL, Reading, Roi, read_readings, series_of
from LNHGTrainingLib.prepare.sources import Found, Options, of_scan

SMALL_MM = 3.0
"""A small nodule is a point; this far across nothing is known around it."""
MOST_READERS = 8

SliceOf = Callable[[Roi], int]
"""Tells on which slice (z index) an outline lies."""


def find(folder: Path, options: Options) -> Found:
    """The CT series below a folder that have readings.

    Raises:
        InputError: there is no DICOM series, or no readings.
    """
    readings, left_out = find_readings(options.xml or folder)
    if not readings:
        raise InputError(
            f"{options.xml or folder} holds no LIDC readings of a CT (XML), expected one a series; give --xml FOLDER."
        )
    series, kinds = _find_series(folder)
    subjects = []
    for uid, files in sorted(series.items()):
        if kinds[uid].most_common(1)[0][0] != "CT":
            left_out[uid] = f"{kinds[uid].most_common(1)[0][0]} and not CT."
        elif uid not in readings:
            left_out[uid] = "No XML file of readings names this series."
        else:
            subjects.append(of_scan(uid, partial(read_scan, folder, uid, tuple(files), readings[uid])))
    for uid in sorted(readings.keys() - series.keys()):
        left_out[uid] = f"{readings[uid].name} reads this series, but its DICOM files are not in the input."
    if not series:
        raise InputError(f"{folder} holds no DICOM series, expected the LIDC-IDRI tree; check the path.")
    return Found(subjects, left_out)


def find_readings(folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """The XML file of every series, the first by name where several read one; and the files that cannot be read."""
    found, broken = {}, {}
    for path in sorted(folder.rglob("*.xml")):
        try:
            uid = series_of(path)
        except InputError as error:
            broken[path.relative_to(folder).as_posix()] = str(error)
            continue
        if uid:
            found.setdefault(uid, path)
    return found, broken


def _find_series(folder: Path) -> tuple[dict[str, list[Path]], dict[str, Counter]]:
    files, kinds = {}, {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix.lower() != ".xml" and (header := dicom_series.read_header(path)):
            files.setdefault(header.series_uid, []).append(path)
            kinds.setdefault(header.series_uid, Counter())[header.kind] += 1
    return files, kinds


def read_scan(folder: Path, series_uid: str, files: tuple[Path, ...], xml: Path) -> Scan:
    """One series with its nodules and marks.

    Raises:
        InputError: the series or its readings cannot be used.
    """
    readings = read_readings(xml)
    volume = read_volume(folder, series_uid, files)
    slices = _slices(files, volume.grid)

    def slice_of(roi: Roi) -> int:
        if roi.sop_uid not in slices:
            raise InputError(
                f"{xml.name} outlines a nodule on the image {roi.sop_uid}, which is not among the {len(files)} of the "
                "series; copy the whole series."
            )
        return slices[roi.sop_uid]

    nodules, notes = nodules_of(readings, volume, slice_of)
    patient = volume.source.patient_id
    if not patient:
        raise InputError(f"{series_uid} names no patient (PatientID), expected one: folds are drawn by patient.")
    return Scan(volume, patient, series_uid, nodules, marks_of(readings, volume.grid, slice_of), notes=notes)


def _slices(files: tuple[Path, ...], grid: Grid) -> dict[str, int]:
    """SOP instance UID to z index, by where the image lies."""
    found = {}
    for path in files:
        tags = ["SOPInstanceUID", "ImagePositionPatient"]
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True)
        place = header.get("ImagePositionPatient")
        if place is not None and header.get("SOPInstanceUID"):
            found[str(header.SOPInstanceUID)] = int(np.rint(grid.lps_to_index(np.array(place, float))[0]))
    return found


def nodules_of(readings: list[Reading], volume: Volume, slice_of: SliceOf) -> tuple[list[ScanNodule], tuple[str, ...]]:
    """The nodules of 3 mm and more that readers outlined, put together over the readers."""
    outlined, empty = [], 0
    for reading in readings:
        if reading.kind == "nodule":
            found = fill([Contour(slice_of(roi), roi.points, roi.inclusion) for roi in reading.rois], volume.grid.shape)
            if found:
                outlined.append(Outlined(reading.reader, *found, reading.ratings))
            empty += not found
    if any(each.reader >= MOST_READERS for each in outlined):
        raise InputError(f"The readings have more than {MOST_READERS} readers, expected at most that many.")
    notes = (f"{empty} outlined nodule(s) enclose no voxel and were left out.",) if empty else ()
    clusters = cluster(outlined, volume.grid.spacing_mm)
    unclear = sum(each.ambiguous for each in clusters)
    notes += (f"{unclear} nodule(s) with outlines that may be of several are marked not usable.",) if unclear else ()
    return [_merged(number, each, outlined) for number, each in enumerate(clusters)], notes


def _merged(number: int, group: Cluster, outlined: list[Outlined]) -> ScanNodule:
    members = [outlined[index] for index in group.members]
    start = [min(each.box[axis].start for each in members) for axis in range(3)]
    stop = [max(each.box[axis].stop for each in members) for axis in range(3)]
    bits = np.zeros([b - a for a, b in zip(start, stop, strict=True)], np.uint8)
    for each in members:
        place = tuple(slice(part.start - a, part.stop - a) for part, a in zip(each.box, start, strict=True))
        bits[place] |= each.mask.astype(np.uint8) << each.reader
    ratings = {
        name: float(np.mean(values))
        for name in RATINGS
        if (values := [each.attributes[name] for each in members if name in each.attributes])
    }
    readers = len({each.reader for each in members})
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    return ScanNodule(f"{number:03d}", box, bits, readers, readers, "outlines", ratings, usable=not group.ambiguous)


def marks_of(readings: list[Reading], grid: Grid, slice_of: SliceOf) -> list[Mark]:
    """Small nodules and non-nodules, a mark a reader."""
    marks = []
    for reading in readings:
        if reading.kind != "nodule":
            roi = reading.rois[0]
            x, y = roi.points[0]
            place = grid.index_to_lps(np.array([slice_of(roi), y, x]))
            unknown = SMALL_MM if reading.kind == SMALL else 0.0
            marks.append(Mark(reading.kind, tuple(float(value) for value in place), reading.reader, unknown))
    return marks
