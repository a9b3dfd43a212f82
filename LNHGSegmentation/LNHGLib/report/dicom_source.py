"""The original CT slices that a DICOM SEG or SR refers to, and the proof that a result lies on them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom

from LNHGLib.errors import InputError, shown
from LNHGLib.image import dicom_series
from LNHGLib.image.boxes import corners
from LNHGLib.image.dicom_pixels import PixelReader
from LNHGLib.image.reader import read_volume
from LNHGLib.image.volume import LOWEST_HU, Grid, Volume
from LNHGLib.measurement.nodule import Nodule
from LNHGLib.report import dicom_identity
from LNHGLib.results.original_ct import MEAN_HU_TOLERANCE

VOXEL_TOLERANCE = 0.1
"""Largest distance between a voxel of the result and its pixel, in voxels along each axis."""
REQUIRED = ("StudyInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID", "SOPClassUID")


@dataclass(frozen=True, eq=False)
class OriginalSeries:
    """A CT series as it was acquired.

    Attributes:
        path: where it was found.
        given: the files that were looked at; empty for all.
        found: its slices, sorted along the normal, and where they lie.
        slices: the headers of its images: one per slice, or one per file of an enhanced CT; no pixels.
        stated: the first header as its file has it; that of `slices` is as SEG and SR can repeat it.
        faults: names of what it does not state as DICOM has it.
    """

    path: Path
    given: Sequence[Path]
    found: dicom_series.Slices
    slices: list[pydicom.Dataset]
    stated: pydicom.Dataset | None = None
    faults: tuple[str, ...] = ()

    @property
    def grid(self) -> Grid:
        """Voxel grid of the slices, zyx; straight where they lie under a tilted gantry."""
        return self.found.place.grid

    @property
    def files(self) -> list[Path]:
        """The file of each slice."""
        return [header.path for header in self.found.headers]

    def image(self, index: int) -> tuple[pydicom.Dataset, list[int] | None]:
        """Return the image that a slice is in, and the number of its frame where that is an enhanced CT."""
        header = self.found.headers[index]
        if header.frame is None:
            return self.slices[index], None
        return self.slices[list(dict.fromkeys(self.files)).index(header.path)], [header.frame + 1]

    def read(self) -> Volume:
        """Read the CT.

        Raises:
            InputError: it is no chest CT.
        """
        return read_volume(self.path, self.found.name, self.given)

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID of all slices."""
        return str(self.slices[0].SeriesInstanceUID)

    @property
    def frame_of_reference_uid(self) -> str:
        """FrameOfReferenceUID of all slices."""
        return str(self.slices[0].FrameOfReferenceUID)


def find_series(path: Path, series_uid: str | None = None, files: Sequence[Path] = ()) -> OriginalSeries:
    """Find the original series.

    Args:
        path: folder or file.
        series_uid: the series that was segmented; None where the result does not say it.
        files: read these alone, where they are known.

    Raises:
        InputError: there is no such series, or its slices do not say what SEG and SR must repeat.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist, expected the folder of the original DICOM series; check the path.")
    found = dicom_series.find_slices(path, series_uid, files)
    images = dict.fromkeys(header.path for header in found.headers)
    slices = [pydicom.dcmread(file, stop_before_pixels=True, force=True) for file in images]  # some lack the preamble
    for name in REQUIRED:
        if any(not dataset.get(name) for dataset in slices):
            raise InputError(f"{path} has slices without {name}, expected it in every slice; export the series again.")
    header, faults = dicom_identity.repeatable(slices[0], found.place.grid.spacing_mm[0])
    return OriginalSeries(path, files, found, [header, *slices[1:]], slices[0], tuple(faults))


def onto_slices(array: np.ndarray, grid: Grid, series: OriginalSeries) -> np.ndarray:
    """Reorder an array's axes to those of the series' grid; no voxel is interpolated.

    Args:
        array: (z, y, x) on `grid`.
        grid: the result's grid; its axes may be permuted and flipped against the slices'.
        series: the original series.

    Returns:
        The same voxels, frame by frame in the order of `series.slices`.

    Raises:
        InputError: the result's voxels are not the series' pixels.
    """
    turn = np.linalg.inv(series.grid.affine[:3, :3]) @ grid.affine[:3, :3]
    signs = np.rint(turn)
    if (np.abs(signs).sum(0) != 1).any() or (np.abs(signs).sum(1) != 1).any():
        raise InputError(_mismatch(series, "its voxels are turned or scaled against the series' pixels"))
    order = np.abs(signs).argmax(1)
    shape = tuple(grid.shape[axis] for axis in order)
    if shape != series.grid.shape:
        sizes = [" x ".join(map(str, size)) for size in (shape, series.grid.shape)]
        raise InputError(_mismatch(series, f"it has {sizes[0]} voxels (slices, rows, columns), the series {sizes[1]}"))
    flips = signs[np.arange(3), order] < 0
    ends = corners(np.zeros(3), np.array(grid.shape) - 1)
    expected = np.where(flips, np.array(shape) - 1 - ends[:, order], ends[:, order])
    world = grid.index_to_lps(ends)
    if np.abs(series.grid.lps_to_index(world) - expected).max() > VOXEL_TOLERANCE:
        away = np.linalg.norm(series.grid.index_to_lps(expected) - world, axis=1).max()
        raise InputError(_mismatch(series, f"its voxels lie up to {away:.3g} mm away from the series' pixels"))
    turned = array.transpose(order)
    return turned[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]


def require_same_values(series: OriginalSeries, frames: np.ndarray, nodules: Iterable[Nodule]) -> None:
    """Refuse a series that lies where the result lies but shows something else, as another reconstruction does.

    Args:
        series: the original series.
        frames: the nodules' numbers on the grid of the series, from `onto_slices`.
        nodules: findings with their measured mean HU.

    Raises:
        InputError: the mean HU of a nodule is another one in the series.
    """
    totals = np.zeros((2, int(frames.max(initial=0)) + 1))
    reader, found = PixelReader(), series.found
    for index in np.flatnonzero(frames.any((1, 2))):
        hu = np.maximum(found.place.straighten(reader.read(found.headers[index]), index), LOWEST_HU)
        here = frames[index] > 0
        totals[0] += np.bincount(frames[index][here], hu[here], minlength=totals.shape[1])
        totals[1] += np.bincount(frames[index][here], minlength=totals.shape[1])
    for nodule in nodules:
        if nodule.measurement is None or nodule.number >= totals.shape[1] or not totals[1, nodule.number]:
            continue
        mean = totals[0, nodule.number] / totals[1, nodule.number]
        if abs(mean - nodule.measurement.mean_hu) > MEAN_HU_TOLERANCE:
            measured = nodule.measurement.mean_hu
            met = shown(f"{measured:.0f}")
            raise InputError(_mismatch(series, f"nodule {nodule.number} has {mean:.0f} HU there, {met} in it"))


def _mismatch(series: OriginalSeries, met: str) -> str:
    return (
        f"The result does not belong to the DICOM series {series.series_uid}: {met}, expected the series that was "
        "segmented; give its folder."
    )
