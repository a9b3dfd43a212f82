"""A small made-up CT as a DICOM series in any orientation, and a result folder on it, for reports."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from LNHGLib.image.volume import Grid, write_image
from LNHGLib.measurement.location import slice_number
from LNHGLib.measurement.nodule import Nodule
from LNHGLib.measurement.signal import statistics
from LNHGLib.measurement.size import measure
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SERIES = generate_uid(entropy_srcs=["LNHG test series"])
FRAME = generate_uid(entropy_srcs=["LNHG test frame of reference"])
STUDY = generate_uid(entropy_srcs=["LNHG test study"])
MIDDLE = np.array([7.0, -20.0, 110.0])
BALLS = ((-15.0, -8.0, 6.0, 6.5), (14.0, 10.0, -5.0, 5.0))
"""Nodules: x, y, z from the middle and radius, mm."""


def turned(degrees: float) -> np.ndarray:
    """A rotation about two axes."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


AXIAL = np.array([[0, 0, 0.9], [0, 1.1, 0], [2.0, 0, 0]])  # columns: z, y, x steps in LPS mm
ORIENTATIONS = {
    "axial": AXIAL,
    "patient upside down and mirrored": AXIAL * (-1, -1, 1),
    "sagittal": AXIAL[:, [2, 0, 1]],
    "oblique": turned(15) @ AXIAL,
}


def make_grid(columns: np.ndarray, extent_mm: float = 64.0) -> Grid:
    """A right-handed grid, as DICOM slices make one, around `MIDDLE`."""
    columns = np.array(columns, float)
    if np.linalg.det(columns[:, ::-1]) < 0:  # sorted slices run along the normal of their rows and columns
        columns[:, 0] *= -1
    shape = np.ceil(extent_mm / np.linalg.norm(columns, axis=0)).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = columns
    affine[:3, 3] = MIDDLE - columns @ ((shape - 1) / 2)
    return Grid(tuple(shape), affine)


@dataclass(eq=False)
class Scan:
    """A made-up CT."""

    grid: Grid
    hu: np.ndarray
    labels: np.ndarray


def make_scan(columns: np.ndarray = AXIAL) -> Scan:
    """Lung with two balls and a wall, every voxel with its own noise."""
    grid = make_grid(columns)
    points = grid.index_to_lps(np.moveaxis(np.indices(grid.shape), 0, -1)) - MIDDLE
    hu = np.where(points[..., 1] > 24, 40, -850) + np.random.default_rng(1).integers(-30, 30, grid.shape)
    labels = np.zeros(grid.shape, np.uint16)
    for number, (x, y, z, radius) in enumerate(BALLS, 1):
        inside = np.linalg.norm(points - (x, y, z), axis=-1) < radius
        hu[inside] += 900 - 400 * (number - 1)
        labels[inside] = number
    return Scan(grid, hu.astype(np.int16), labels)


def write_dicom(scan: Scan, folder: Path, **tags) -> Path:
    """Write the scan as a DICOM series; tags replace others, None leaves one out."""
    folder.mkdir(parents=True, exist_ok=True)
    step = scan.grid.affine[:3, :3]
    row, column = step[:, 2], step[:, 1]
    spacing = [float(np.linalg.norm(column)), float(np.linalg.norm(row))]
    orientation = [*(row / spacing[1]), *(column / spacing[0])]
    for index, pixels in enumerate(scan.hu):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(folder), str(index)])
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
        values = {
            "SOPClassUID": CTImageStorage, "SOPInstanceUID": meta.MediaStorageSOPInstanceUID, "Modality": "CT",
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "PatientName": "Doe^Jane", "PatientID": "P-1234",
            "PatientBirthDate": "19500102", "PatientSex": "F", "StudyInstanceUID": STUDY, "StudyDate": "20200304",
            "StudyTime": "101112", "AccessionNumber": "A77", "StudyID": "S1", "ReferringPhysicianName": "",
            "SeriesInstanceUID": SERIES, "SeriesNumber": 3, "FrameOfReferenceUID": FRAME, "Manufacturer": "Maker",
            "PositionReferenceIndicator": "", "InstanceNumber": len(scan.hu) - index, "SliceThickness": 2.0,
            "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "Rows": pixels.shape[0],
            "Columns": pixels.shape[1], "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15,
            "PixelRepresentation": 1, "RescaleSlope": 1, "RescaleIntercept": -1024,
            "ImagePositionPatient": [f"{v:.6f}" for v in scan.grid.index_to_lps((index, 0, 0))],
            "ImageOrientationPatient": [f"{v:.8f}" for v in orientation],
            "PixelSpacing": [f"{v:.8f}" for v in spacing], "PixelData": (pixels + 1024).astype("<i2").tobytes(),
        }  # fmt: skip
        for name, value in (values | tags).items():
            if value is not None:
                setattr(dataset, name, value)
        dataset.save_as(folder / f"{(index * 7) % 101:03}-{index}.dcm", enforce_file_format=True)
    return folder


def make_nodules(scan: Scan) -> list[Nodule]:
    """The balls, measured, and a finding of the detector alone."""
    signal = make_signal(scan)
    nodules = []
    for number in range(1, len(BALLS) + 1):
        mask = scan.labels == number
        measured = measure(scan.hu, scan.grid, mask)
        inner = statistics(signal, mask, scan.grid.spacing_mm)
        place = {"side": ("right", "left")[number - 1], "slice": slice_number(measured.box_lps_mm, measured, scan.grid)}
        score = 1 - 0.2 * number
        nodules.append(Nodule(number, score, "fused", measured.box_lps_mm, 0.9, 0.7, measured, inner, **place))
    box = tuple(tuple(map(float, np.add(MIDDLE, corner))) for corner in ((-20, 6, -6), (-12, 14, 2)))
    return [*nodules, Nodule(len(BALLS) + 1, 0.41, "detector-box", box, None, 0.41, None, None)]


def make_signal(scan: Scan) -> np.ndarray:
    return np.where(scan.labels > 0, np.clip((scan.hu + 1000) / 1400, 0, 1), 0).astype(np.float32)


def write_result(
    scan: Scan, folder: Path, ct: Path, series_uid: str | None = SERIES, changes: dict | None = None, **more
) -> Path:
    """Write what `lnhg report` reads of a result; `changes` are keys to set in the rows, by number, `more` beside them.

    Without `more` it does not say what its scores mean, as a result of an older version.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_image(scan.labels, scan.grid, folder / "labelmap.nii.gz")
    write_image(make_signal(scan), scan.grid, folder / "heterogeneity.nii.gz")
    rows = [asdict(nodule) | (changes or {}).get(nodule.number, {}) for nodule in make_nodules(scan)]
    report = {
        "schema": 1,
        "versions": {"lnhg": "0.1.0"},
        "model": {"name": "made-up", "sha256": {"generator.safetensors": "ab12"}},
        "options": {"threshold": 0.35},
        "input": {"path": str(ct), "series_uid": series_uid},
        "preview": {"color_map": "jet", "scale": "fixed", "signal_range": [0.0, 1.0]},
        "warnings": [],
        "nodules": rows,
        **more,
    }
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def reordered(scan: Scan, order: tuple[int, int, int], flips: tuple[int, ...]) -> Scan:
    """The same voxels in the same places, stored in another order."""
    mapping = np.zeros((4, 4))
    mapping[3, 3] = 1
    for new, old in enumerate(order):
        flip = old in flips
        mapping[old, new] = -1 if flip else 1
        mapping[old, 3] = scan.grid.shape[old] - 1 if flip else 0
    moved = [
        np.ascontiguousarray(np.flip(array, flips).transpose(order) if flips else array.transpose(order))
        for array in (scan.hu, scan.labels)
    ]
    return replace(scan, grid=Grid(moved[0].shape, scan.grid.affine @ mapping), hu=moved[0], labels=moved[1])
