"""Small CT series as DICOM files, slice by slice, with any tag changed."""

from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SLICES, ROWS, COLUMNS = 12, 10, 14
ORIGIN = np.array([-120.0, -80.0, -300.0])
PIXEL_MM = (0.8, 0.6)  # between rows, between columns
UID = "1.2.826.0.1.3680043.8.498.1"


def a_chest(seed: int = 0) -> np.ndarray:
    """Return HU (z, y, x): lung on one side, soft tissue on the other, every voxel its own noise."""
    noise = np.random.default_rng(seed).integers(-100, 100, (SLICES, ROWS, COLUMNS))
    return (np.where(np.arange(COLUMNS) < COLUMNS // 2, -850, 40) + noise).astype(np.int16)


def write_slice(path: Path, hu: np.ndarray, position: np.ndarray, *, intercept: float = -1024.0, **tags) -> None:
    """Write one CT slice; a tag given as None is left out."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = tags.get("SOPClassUID") or CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    slope = float(tags.get("RescaleSlope") or 1)
    stored = np.rint((hu - intercept) / slope).astype(np.int16)
    values = {
        "SOPClassUID": CTImageStorage, "SOPInstanceUID": meta.MediaStorageSOPInstanceUID, "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "PatientID": "P1", "SeriesInstanceUID": UID,
        "StudyInstanceUID": "1.2.3", "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2",
        "Rows": hu.shape[0], "Columns": hu.shape[1], "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15,
        "PixelRepresentation": 1, "RescaleSlope": slope, "RescaleIntercept": intercept,
        "ImagePositionPatient": [float(f"{value:.6f}") for value in position],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": list(PIXEL_MM), "PixelData": stored.tobytes(),
    }  # fmt: skip
    for name, value in (values | tags).items():
        if value is not None:
            setattr(dataset, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def write_series(folder: Path, hu: np.ndarray | None = None, positions=None, name: str = "{}.dcm", **tags) -> Path:
    """Write a series of 2 mm axial slices (or at the given positions) and return its folder."""
    hu = a_chest() if hu is None else hu
    positions = ORIGIN + np.outer(2.0 * np.arange(len(hu)), [0, 0, 1]) if positions is None else positions
    for i, (pixels, position) in enumerate(zip(hu, positions, strict=True)):
        write_slice(folder / name.format(i), pixels, position, **tags)
    return folder


def along_z(distances) -> np.ndarray:
    return ORIGIN + np.outer(distances, [0, 0, 1])
