"""Cohorts for tests: scans in every form that `lnhg batch` takes, and scans broken in different ways."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
from LNHGLib.image.volume import Grid, Source, Volume, write_image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

INTERCEPT = -1024


def a_block(seed: int = 0) -> Volume:
    """A small volume that reads as a CT: lung beside soft tissue, with noise; no chest."""
    noise = np.random.default_rng(seed).integers(-100, 100, (12, 10, 14))
    hu = np.where(np.arange(14) < 7, -850, 40) + noise
    return Volume(
        hu.astype(np.int16), Grid.aligned(hu.shape, (2.0, 0.8, 0.6), (-120.0, -80.0, -300.0)), Source("block")
    )


def write_file(path: Path, volume: Volume) -> Path:
    """Write a volume as a single file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(volume.array, volume.grid, path)
    return path


def write_dicom(folder: Path, volume: Volume, uid: str, name: str = "IM{:04d}", slices=None, **tags) -> Path:
    """Write a volume as a DICOM series; `slices` picks some of them, `tags` replace some of the header."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(len(volume.array)) if slices is None else slices:
        _write_slice(folder / name.format(index), volume, index, uid, tags)
    return folder


def _write_slice(path: Path, volume: Volume, index: int, uid: str, tags: dict) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[uid, str(index)])
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    spacing = volume.grid.spacing_mm
    values = {
        "SOPClassUID": CTImageStorage, "SOPInstanceUID": meta.MediaStorageSOPInstanceUID, "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "PatientID": "P", "SeriesInstanceUID": uid,
        "StudyInstanceUID": "1.2.3", "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2",
        "Rows": volume.array.shape[1], "Columns": volume.array.shape[2], "BitsAllocated": 16, "BitsStored": 16,
        "HighBit": 15, "PixelRepresentation": 1, "RescaleSlope": 1, "RescaleIntercept": INTERCEPT,
        "ImagePositionPatient": [float(v) for v in volume.grid.index_to_lps((index, 0, 0))],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": list(spacing[1:]),
        "PixelData": (volume.array[index] - INTERCEPT).astype(np.int16).tobytes(),
    }  # fmt: skip
    for tag, value in (values | tags).items():
        setattr(dataset, tag, value)
    dataset.save_as(path, enforce_file_format=True)


def zip_folder(folder: Path, archive: Path) -> Path:
    """Put a folder into a zip archive and remove it."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            packed.write(file, file.relative_to(folder.parent).as_posix())
    shutil.rmtree(folder)
    return archive


def write_broken(folder: Path, volume: Volume) -> dict[str, str]:
    """Write scans that are broken in ten ways; returns a word of the reason by what each is called."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = write_file(folder / "whole.nii.gz", volume)
    (folder / "truncated.nii.gz").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    whole.unlink()
    (folder / "nothing.nii.gz").touch()
    (folder / "letter.nrrd").write_text("Dear radiologist")
    mask = (volume.array > -500).astype(np.int16)
    write_file(folder / "mask.mha", Volume(mask, volume.grid, volume.source))
    count = len(volume.array)
    write_dicom(folder / "gap", volume, "1.2.3.1", slices=[i for i in range(count) if i != count // 2])
    write_dicom(folder / "short", volume, "1.2.3.2", slices=range(3))
    cut = sorted(write_dicom(folder / "cut", volume, "1.2.3.3").iterdir())[count // 2]
    cut.write_bytes(cut.read_bytes()[:-100])
    write_dicom(folder / "unplaced", volume, "1.2.3.4", PixelSpacing=None)
    zipped = zip_folder(write_dicom(folder / "z", volume, "1.2.3.5"), folder / "torn.zip")
    zipped.write_bytes(zipped.read_bytes()[: zipped.stat().st_size // 2])
    (folder / "garbled").mkdir()
    (folder / "garbled" / "IM1").write_bytes(bytes(128) + b"DICM" + bytes(range(256)))
    return {
        "truncated": "damaged, truncated",
        "nothing": "empty (0 bytes)",
        "letter": "damaged, truncated",
        "mask": "as a picture or a mask",
        "gap": "misses 1 slice",
        "short": "3 CT slice(s)",
        "cut": "pixels that cannot be read",
        "unplaced": "CT without position",
        "torn": "damaged or no zip",
        "garbled-IM1": "cannot be read",
    }
