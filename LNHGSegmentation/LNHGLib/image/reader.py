"""Reading a chest CT, whatever it is stored as, and refusing what is none."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from LNHGLib.errors import UID_LETTERS, InputError, shown
from LNHGLib.image import dicom_series, single_file
from LNHGLib.image.dicom_header import is_dicom
from LNHGLib.image.dicom_stacks import MIN_SLICES
from LNHGLib.image.file_headers import NOT_NUMBERS
from LNHGLib.image.volume import LOWEST_HU, Grid, Source, Volume, from_sitk

SPACING_RANGE_MM = (0.1, 10.0)
HIGHEST_HU = 32767
AIR_HU = (-1024, -500)
TISSUE_HU = (-200, 200)
MIN_FRACTION = 0.005
"""Of the voxels that are air, and that are soft tissue, in any CT of a chest."""
SAMPLE_VOXELS = 2_000_000
NO_ORIENTATION = "The file does not say how the patient lies (no orientation); left and right are not told."


def read_volume(
    path: str | Path,
    series_uid: str | None = None,
    files: Sequence[Path] = (),
    *,
    part: bool = False,
    meanwhile: Callable[[], object] = lambda: None,
) -> Volume:
    """Read a chest CT from a DICOM folder or file, or from a .nii, .nii.gz, .nrrd, .mha or .mhd file.

    Args:
        path: The folder or file.
        series_uid: DICOM only: the SeriesInstanceUID to take, with # and a number where the series holds several
            volumes; else the axial CT with most slices.
        files: DICOM only: the files to look at, where they are known; else all below the folder.
        part: Whether it is a part cut out of a CT, which need not hold both air and soft tissue.
        meanwhile: Called once while voxels are read, on a core that reading leaves; what it raises is raised here.

    Returns:
        The volume on its own grid, values below -1024 HU (padding outside the scanner's circle) raised to -1024.

    Raises:
        InputError: The input cannot be read, is no CT in HU, or its slices do not form a regular grid.
    """
    path, suffixes = Path(path), ", ".join(single_file.SUFFIXES)
    if not path.exists():
        raise InputError(
            f"{path} does not exist, expected a DICOM folder or file, or a {suffixes} file; check the path."
        )
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes), expected a chest CT; copy or export it again.")
    if path.is_file() and path.name.lower().endswith(single_file.SUFFIXES):
        if series_uid:
            raise InputError(
                f"{path} is no DICOM and has no series, but the series {shown(series_uid, UID_LETTERS)} was asked "
                "for; leave it out."
            )
        with ThreadPoolExecutor(1) as beside:  # SimpleITK holds no lock of Python's while it reads
            done = beside.submit(meanwhile)
            image, oriented = single_file.read_oriented(path)
        done.result()
        array, grid = from_sitk(image)
        source = Source(str(path), notes=() if oriented else (NO_ORIENTATION,), oriented=oriented)
    elif path.is_file() and not is_dicom(path):
        raise InputError(f"{path} is of an unknown kind, expected DICOM or one of {suffixes}; convert it.")
    else:
        series = dicom_series.read_series(path, series_uid, files, meanwhile)
        array, grid = series.array, series.slices.place.grid
        source = Source(str(path), "CT", series.slices.name, series.slices.headers[0].patient_id, series.notes)
    low, high = float(array.min()), float(array.max())
    _require_chest_ct(path, array, grid, (low, high), part)
    if low < LOWEST_HU:
        below = np.count_nonzero(array < LOWEST_HU) / array.size
        note = f"{below:.1%} of the voxels were below {LOWEST_HU} HU (lowest {low:.0f}, padding) and set to it."
        source = replace(source, notes=(*source.notes, note))
        np.maximum(array, array.dtype.type(LOWEST_HU), out=array)
    dtype = np.int16 if np.issubdtype(array.dtype, np.integer) else np.float32
    return Volume(array.astype(dtype, copy=False), grid, source)


def _require_chest_ct(path: Path, array: np.ndarray, grid: Grid, value_range: tuple[float, float], part: bool) -> None:
    """Refuse a grid that no CT of a chest has, and unless it is a part of one, values that are no CT numbers."""
    if min(grid.shape) < MIN_SLICES:
        raise InputError(
            f"{path} has {min(grid.shape)} slices (size {' x '.join(map(str, grid.shape[::-1]))}), expected at least "
            f"{MIN_SLICES}; give the whole chest CT series."
        )
    low, high = SPACING_RANGE_MM
    if not all(low <= spacing <= high for spacing in grid.spacing_mm):
        text = " x ".join(f"{spacing:.4g}" for spacing in grid.spacing_mm[::-1])
        raise InputError(
            f"{path} has a voxel spacing of {text} mm, expected {low} to {high:g} mm along each axis; "
            "correct the header or convert the CT again from the original DICOM."
        )
    low, high = value_range
    expected = "expected CT numbers in HU (air about -1000, soft tissue about 40)"
    if not np.isfinite(value_range).all():
        raise InputError(f"{path} holds {NOT_NUMBERS}, {expected}; export it again.")
    met = f"{path} holds values from {low:g} to {high:g}"
    if high > HIGHEST_HU:
        count = np.count_nonzero(array > HIGHEST_HU)
        fault = f"{count} of them more than a CT number can be ({HIGHEST_HU})"
        raise InputError(f"{met}, {fault}, {expected}; check rescale, padding and units.")
    for holds, fault, cure in (
        (low == high and not part, "the same everywhere", "check the file"),
        (low >= 0 and high <= 255, "as a picture or a mask does", "give the original CT"),
        (
            low >= 0,
            "as MR images and stored values without rescale do",
            "give a chest CT with its rescale slope and intercept applied",
        ),
    ):
        if holds:
            raise InputError(f"{met}, {fault}, {expected}; {cure}.")
    if part:
        return
    stride = max(1, round((array.size / SAMPLE_VOXELS) ** (1 / 3)))
    sample = array[::stride, ::stride, ::stride]
    for name, (start, stop) in (("air", AIR_HU), ("soft tissue", TISSUE_HU)):
        fraction = np.count_nonzero((sample >= start) & (sample <= stop)) / sample.size
        if fraction < MIN_FRACTION:
            raise InputError(
                f"{met} with {fraction:.1%} of the voxels in the range of {name} ({start} to {stop} HU), {expected}; "
                "check rescale slope and intercept."
            )
