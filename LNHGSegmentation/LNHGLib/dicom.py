"""DICOM CT series: finding, checking and stacking the slices of one series, whatever the files are called."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from LNHGLib.errors import InputError


@dataclass(frozen=True, eq=False)
class Series:
    """One stacked series: `array` zyx in HU, `affine` (4, 4) from index (z, y, x, 1) to LPS mm."""

    array: np.ndarray
    affine: np.ndarray
    modality: str | None
    series_uid: str
    patient_id: str | None
    notes: tuple[str, ...]


def is_dicom(path: Path) -> bool:
    """Tell whether the file starts as DICOM does."""
    with path.open("rb") as file:
        head = file.read(132)
    return head[128:] == b"DICM" or head[:2] in (b"\x08\x00", b"\x02\x00")


def read_series(path: Path, series_uid: str | None = None) -> Series:
    """Read the series from its folder."""
    folder = path if path.is_dir() else path.parent
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series_uid or "")
    if not names:
        raise InputError(f"{path} holds no DICOM series.")
    image = sitk.ReadImage(names)
    affine = np.eye(4)
    affine[:3, :3] = (np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing())[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    return Series(sitk.GetArrayFromImage(image), affine, "CT", series_uid or "", None, ())
