"""LIDC-IDRI: DICOM series with their readers' XML files, matched by SOP instance UID (register R1)."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
from LNHGLib.errors import UID_LETTERS, InputError, shown
from LNHGLib.image.boxes import box_shape, box_union, box_within
from LNHGLib.image.dicom_header import read_headers
from LNHGLib.image.dicom_series import find_slices
from LNHGLib.image.dicom_stacks import by_subject, uid_of
from LNHGLib.image.reader import read_volume
from LNHGLib.image.volume import Grid, Volume

from LNHGTrainingLib.prepare.contours import Cluster, Contour, Outlined, cluster, fill
from LNHGTrainingLib.prepare.cubes import Mark, Scan, ScanNodule
from LNHGTrainingLib.prepare.lidc_xml import RATINGS, SMALL, Reading, Roi, read_readings, series_of
from LNHGTrainingLib.prepare.sources import Found, PrepareOptions, of_scan

SMALL_MM = 3.0
"""A small nodule is a point; this far across nothing is known around it."""
MAX_READERS = 8

SliceOf = Callable[[Roi], int]
"""Tells on which slice (z index) an outline lies."""


def find(folder: Path, options: PrepareOptions) -> Found:
    """Return the CT series below a folder that have readings.

    Args:
        folder: the DICOM files.
        options: where the readings are, if not there.

    Raises:
        InputError: there is no DICOM series, or no readings.
    """
    readings, left_out = find_readings(options.xml or folder)
    if not readings:
        raise InputError(
            f"{options.xml or folder} holds no LIDC readings of a CT (XML), expected one a series; give --xml FOLDER."
        )
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix.lower() != ".xml")
    scans = by_subject([header for path in files for header in read_headers(path)])
    subjects, series = [], {uid_of(name) for name, _ in scans}
    for name, headers in scans:
        uid, kinds = uid_of(name), Counter(header.kind for header in headers)
        if kinds.most_common(1)[0][0] != "CT":
            left_out[name] = f"{kinds.most_common(1)[0][0]} and not CT."
        elif uid not in readings:
            left_out[name] = "No XML file of readings names this series."
        else:
            own = tuple(sorted({header.path for header in headers}))
            subjects.append(of_scan(name, partial(read_scan, folder, name, own, readings[uid])))
    for uid in sorted(readings.keys() - series):
        left_out[uid] = f"{readings[uid].name} reads this series, but its DICOM files are not in the input."
    if not series:
        raise InputError(f"{folder} holds no DICOM series, expected the LIDC-IDRI tree; check the path.")
    return Found(subjects, left_out)


def find_readings(folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the XML file of every series, and why other files cannot be read.

    Args:
        folder: with XML files at any depth.

    Returns:
        Series to its file, the first by name where several read it; and name of a file to the reason.
    """
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


def read_scan(folder: Path, series_uid: str, files: tuple[Path, ...], xml: Path) -> Scan:
    """Return one series with its nodules and marks.

    Args:
        folder: the input.
        series_uid: of the series.
        files: its DICOM files.
        xml: its readings.

    Raises:
        InputError: the series or its readings cannot be used.
    """
    readings = read_readings(xml)
    volume = read_volume(folder, series_uid, files)
    found = find_slices(folder, series_uid, files)
    slices = {}
    for index, slice_ in enumerate(found.headers):
        header = pydicom.dcmread(slice_.path, stop_before_pixels=True, specific_tags=["SOPInstanceUID"], force=True)
        slices[str(header.get("SOPInstanceUID"))] = index

    def slice_of(roi: Roi) -> int:
        if roi.sop_uid not in slices:
            raise InputError(
                f"{xml.name} outlines a nodule on the image {shown(roi.sop_uid, UID_LETTERS)}, which is not among the "
                f"{len(files)} of the "
                "series; copy the whole series."
            )
        return slices[roi.sop_uid]

    if found.place.is_tilted:  # outlines are in the pixels of the slices, which begin elsewhere on the grid
        starts_xy = np.rint(found.place.shifts[:, ::-1]).astype(int)
        readings = [
            replace(each, rois=[replace(roi, points=roi.points + starts_xy[slice_of(roi)]) for roi in each.rois])
            for each in readings
        ]
    nodules, notes = nodules_of(readings, volume, slice_of)
    patient = volume.source.patient_id
    if not patient:
        raise InputError(
            f"{shown(series_uid, UID_LETTERS)} names no patient (PatientID), expected one, as folds are drawn by "
            "patient; add it."
        )
    return Scan(volume, patient, series_uid, nodules, marks_of(readings, volume.grid, slice_of), notes=notes)


def nodules_of(readings: list[Reading], volume: Volume, slice_of: SliceOf) -> tuple[list[ScanNodule], tuple[str, ...]]:
    """Return the nodules of 3 mm and more that readers outlined, put together over the readers.

    Args:
        readings: of all readers.
        volume: the CT.
        slice_of: tells the slice of an outline.

    Returns:
        The nodules, and sentences for the report.
    """
    outlined, empty = [], 0
    for reading in readings:
        if reading.kind == "nodule":
            found = fill([Contour(slice_of(roi), roi.points, roi.inclusion) for roi in reading.rois], volume.grid.shape)
            if found:
                outlined.append(Outlined(reading.reader, *found, reading.ratings))
            empty += not found
    if any(each.reader >= MAX_READERS for each in outlined):
        raise InputError(
            f"The readings have more than {MAX_READERS} readers, expected at most that many; leave some out."
        )
    notes = (f"{empty} outlined nodule(s) enclose no voxel and were left out.",) if empty else ()
    clusters = cluster(outlined, volume.grid.spacing_mm)
    unclear = sum(each.ambiguous for each in clusters)
    notes += (f"{unclear} nodule(s) with outlines that may be of several are marked not usable.",) if unclear else ()
    return [merge_readers(number, each, outlined) for number, each in enumerate(clusters)], notes


def merge_readers(number: int, group: Cluster, outlined: list[Outlined]) -> ScanNodule:
    """Return the nodule of a cluster, with the readers' bits and mean ratings.

    Args:
        number: names it.
        group: the cluster.
        outlined: all outlines, in the order of the cluster's indices.
    """
    members = [outlined[index] for index in group.members]
    box = box_union(each.box for each in members)
    bits = np.zeros(box_shape(box), np.uint8)
    for each in members:
        bits[box_within(each.box, box)] |= each.mask.astype(np.uint8) << each.reader
    ratings = {
        name: float(np.mean(values))
        for name in RATINGS
        if (values := [each.attributes[name] for each in members if name in each.attributes])
    }
    readers = len({each.reader for each in members})
    return ScanNodule(f"{number:03d}", box, bits, readers, readers, "outlines", ratings, usable=not group.ambiguous)


def marks_of(readings: list[Reading], grid: Grid, slice_of: SliceOf) -> list[Mark]:
    """Return small nodules and non-nodules, one mark for each reader.

    Args:
        readings: of all readers.
        grid: of the CT.
        slice_of: tells the slice of an outline.
    """
    marks = []
    for reading in readings:
        if reading.kind != "nodule":
            roi = reading.rois[0]
            x, y = roi.points[0]
            lps_mm = grid.index_to_lps(np.array([slice_of(roi), y, x]))
            unknown = SMALL_MM if reading.kind == SMALL else 0.0
            marks.append(Mark(reading.kind, tuple(float(value) for value in lps_mm), reading.reader, unknown))
    return marks
