"""Tiny LIDC-IDRI (DICOM and XML) and LUNA16 (.mhd and lists) trees with nodules whose voxels are known."""

import csv
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from LNHGLib.image.volume import Grid, write_image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from scipy import ndimage

SHAPE = (24, 64, 64)
SPACING_MM = (2.0, 0.8, 0.8)
ORIGIN_LPS_MM = (-30.0, -20.0, 50.0)
GRID = Grid.aligned(SHAPE, SPACING_MM, ORIGIN_LPS_MM)
NAME_SPACE = "http://www.nih.gov"
CROSS = ndimage.generate_binary_structure(2, 1)


@dataclass
class Marked:
    """What one reader marks: nodules as (center zyx, radius mm, ratings), small nodules and non-nodules as points."""

    nodules: list[tuple[tuple[int, int, int], float, dict]] = field(default_factory=list)
    small: list[tuple[int, int, int]] = field(default_factory=list)
    non_nodules: list[tuple[int, int, int]] = field(default_factory=list)
    holes: list[tuple[tuple[int, int, int], int]] = field(default_factory=list)


def nodule_mask(center, radius_mm, shape=SHAPE):
    axes = np.ogrid[tuple(slice(0, size) for size in shape)]
    return sum(((a - c) * s) ** 2 for a, c, s in zip(axes, center, SPACING_MM, strict=True)) <= radius_mm**2


def chest(nodules, seed=0):
    """HU (z, y, x): lung with noise inside a chest wall, and bright balls."""
    hu = np.random.default_rng(seed).normal(-850, 20, SHAPE)
    hu[:, :4] = hu[:, :, :4] = 40
    for center, radius in nodules:
        hu[nodule_mask(center, radius)] = 60
    return hu.round().astype(np.int16)


def ring(mask):
    """The first pixels outside a convex mask, in order around it: (N, 2) xy."""
    points = np.argwhere(ndimage.binary_dilation(mask, CROSS) & ~mask)
    dy, dx = (points - np.argwhere(mask).mean(0)).T
    return points[np.argsort(np.arctan2(dy, dx))][:, ::-1]


def sop_uid(series_uid, z):
    return f"{series_uid}.{z + 1}"


def write_dicom(folder: Path, hu, patient, series_uid, modality="CT"):
    """A series of single slices, named so that their order says nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    for z, pixels in enumerate(hu):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = sop_uid(series_uid, z)
        image = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, sop_uid(series_uid, z)
        image.Modality, image.PatientID, image.SeriesInstanceUID = modality, patient, series_uid
        image.ImagePositionPatient = [ORIGIN_LPS_MM[0], ORIGIN_LPS_MM[1], ORIGIN_LPS_MM[2] + SPACING_MM[0] * z]
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        image.PixelSpacing = list(SPACING_MM[1:])
        image.Rows, image.Columns, image.SamplesPerPixel = *pixels.shape, 1
        image.PhotometricInterpretation, image.PixelRepresentation = "MONOCHROME2", 0
        image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
        image.RescaleIntercept, image.RescaleSlope = -1024, 1
        image.PixelData = (pixels.astype(np.int32) + 1024).astype(np.uint16).tobytes()
        image.save_as(folder / f"{len(hu) * 7 % (z + 11):03d}-{z}.dcm", enforce_file_format=True)


def write_xml(path: Path, series_uid, readers: list[Marked]):
    """The readings of one series in the form of LIDC."""
    root = ElementTree.Element("LidcReadMessage", xmlns=NAME_SPACE)
    _add(ElementTree.SubElement(root, "ResponseHeader"), "SeriesInstanceUid", series_uid)
    for marked in readers:
        session = ElementTree.SubElement(root, "readingSession")
        for number, (center, radius, ratings) in enumerate(marked.nodules):
            _add_nodule(session, series_uid, f"Nodule {number}", nodule_mask(center, radius), marked.holes, ratings)
        for z, y, x in marked.small:
            nodule = ElementTree.SubElement(session, "unblindedReadNodule")
            _add(nodule, "noduleID", "small")
            _add_roi(nodule, series_uid, z, [(x, y)])
        for z, y, x in marked.non_nodules:
            mark = ElementTree.SubElement(session, "nonNodule")
            _add(mark, "nonNoduleID", "other")
            _add_place(mark, series_uid, z)
            _add_point(mark, "locus", x, y)
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(root).write(path)


def _add_nodule(session, series_uid, name, mask, holes, ratings):
    nodule = ElementTree.SubElement(session, "unblindedReadNodule")
    _add(nodule, "noduleID", name)
    ratings_element = ElementTree.SubElement(nodule, "characteristics")
    for rating, value in ratings.items():
        _add(ratings_element, rating, value)
    for z in np.flatnonzero(mask.any((1, 2))):
        _add_roi(nodule, series_uid, z, ring(mask[z]))
    for (z, y, x), half in holes:
        square = np.zeros(mask.shape[1:], bool)
        square[y - half : y + half + 1, x - half : x + half + 1] = True
        _add_roi(nodule, series_uid, z, ring(square), inclusion=False)


def _add_roi(nodule, series_uid, z, points, inclusion=True):
    roi = ElementTree.SubElement(nodule, "roi")
    _add_place(roi, series_uid, z)
    _add(roi, "inclusion", "TRUE" if inclusion else "FALSE")
    for x, y in points:
        _add_point(roi, "edgeMap", x, y)


def _add_place(element, series_uid, z):
    _add(element, "imageZposition", ORIGIN_LPS_MM[2] + SPACING_MM[0] * z)
    _add(element, "imageSOP_UID", sop_uid(series_uid, z))


def _add_point(element, tag, x, y):
    point = ElementTree.SubElement(element, tag)
    _add(point, "xCoord", x)
    _add(point, "yCoord", y)


def _add(element, tag, text):
    ElementTree.SubElement(element, tag).text = str(text)


def write_lidc_scan(folder: Path, patient, series_uid, readers: list[Marked], seed=0):
    """One scan with its readings, as the archive lays them out; the nodules are those of the first reader."""
    hu = chest([(center, radius) for center, radius, _ in readers[0].nodules], seed)
    place = folder / patient / "study" / series_uid
    write_dicom(place, hu, patient, series_uid)
    write_xml(place / "readings.xml", series_uid, readers)
    return hu


def four_readers(center=(12, 30, 32), radius=6.0):
    """Four readers who outline one nodule, the last a smaller part of it."""
    radii = [radius, radius, radius, radius - 1.5]
    return [Marked([(center, each, {"texture": 4 + index % 2, "malignancy": 3})]) for index, each in enumerate(radii)]


def write_luna16(folder: Path, scans: dict[str, list], candidates=(), excluded=()):
    """Scans (series to nodules as (center zyx, diameter mm)), with the lists of the challenge."""
    (folder / "subset0").mkdir(parents=True)
    annotations = []
    for series_uid, nodules in scans.items():
        hu = chest([(center, diameter / 2) for center, diameter in nodules])
        write_image(hu, GRID, folder / "subset0" / f"{series_uid}.mhd")
        annotations += [[series_uid, *GRID.index_to_lps(np.array(c)), diameter] for c, diameter in nodules]
    head = ["seriesuid", "coordX", "coordY", "coordZ"]
    _write_list(folder / "annotations.csv", [*head, "diameter_mm"], annotations)
    _write_list(folder / "candidates_V2.csv", [*head, "class"], candidates)
    _write_list(folder / "annotations_excluded.csv", [*head, "diameter_mm"], excluded)


def _write_list(path, head, rows):
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([head, *rows])
