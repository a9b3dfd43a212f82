"""The grid of the slices of one volume: evenly spaced along their normal, straight or under a tilted gantry."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from LNHGLib.errors import InputError
from LNHGLib.image.dicom_header import Header
from LNHGLib.image.dicom_stacks import POSITION_TOLERANCE_MM, SPACING_TOLERANCE
from LNHGLib.image.volume import LOWEST_HU, Grid

SIDEWAYS_TOLERANCE_MM = 0.5  # positions and orientations are written with few decimals
MAX_TILT_DEG = 35.0
WHOLE_PIXEL = 0.02
"""A shift this close to whole pixels is one."""


@dataclass(frozen=True, eq=False)
class SliceGrid:
    """Where the slices of a volume lie.

    Attributes:
        grid: rectangular, zyx; index z is the slice. Under a tilted gantry it is wider than the slices.
        size: rows and columns of a slice.
        shifts: (n, 2) row and column of the grid at which each slice begins, in pixels; fractional under a tilt.
    """

    grid: Grid
    size: tuple[int, int]
    shifts: np.ndarray

    @property
    def is_tilted(self) -> bool:
        """Whether the slices must be shifted to lie straight."""
        return bool(self.shifts.any())

    def straighten(self, pixels: np.ndarray, index: int) -> np.ndarray:
        """Bring a slice onto the grid; what lies outside it is air.

        Args:
            pixels: (rows, columns) HU.
            index: of the slice.

        Returns:
            (y, x) of the grid, in the type of `pixels`.
        """
        if not self.is_tilted:
            return pixels
        whole, rest = np.divmod(self.shifts[index], 1)
        y, x = whole.astype(int)
        moved = np.full(self.grid.shape[1:], LOWEST_HU, pixels.dtype)
        if rest.any():
            pixels = np.maximum(pixels, pixels.dtype.type(LOWEST_HU))  # a spline would swing at the rim of padding
            wide = np.pad(pixels.astype(np.float32), [(0, 1 if part else 0) for part in rest], mode="edge")
            wide = ndimage.shift(wide, rest, order=3, mode="nearest").clip(pixels.min(), pixels.max())
            pixels = (np.rint(wide) if np.issubdtype(moved.dtype, np.integer) else wide).astype(moved.dtype)
        moved[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
        return moved

    def on_slices(self, array: np.ndarray) -> np.ndarray:
        """Take from an array on the grid what lies on the slices, each pixel from the voxel nearest to it.

        Args:
            array: (z, y, x) on the grid.

        Returns:
            (slices, rows, columns).
        """
        if not self.is_tilted:
            return array
        starts = np.rint(self.shifts).astype(int)
        rows, columns = self.size
        return np.stack([layer[y : y + rows, x : x + columns] for layer, (y, x) in zip(array, starts, strict=True)])

    def pixels_of(self, points_lps_mm: np.ndarray, index: int) -> np.ndarray:
        """Return where points lie on a slice.

        Args:
            points_lps_mm: (n, 3).
            index: of the slice.

        Returns:
            (n, 2) row and column, 0 at the center of the first pixel.
        """
        return self.grid.lps_to_index(points_lps_mm)[:, 1:] - self.shifts[index]


def require_axes(path: Path, header: Header) -> None:
    """Refuse an orientation whose row and column make no plane.

    Args:
        path: what the user gave.
        header: of any slice of the volume.

    Raises:
        InputError: they are no perpendicular unit vectors.
    """
    row, column = header.layout[:3], header.layout[3:6]
    if not np.allclose([row @ row, column @ column, row @ column], [1, 1, 0], atol=1e-3):
        met = ", ".join(f"{value:.3g}" for value in header.layout[:6])
        raise InputError(
            f"{path} has an ImageOrientationPatient of {met}, expected two perpendicular unit vectors; "
            "export the series again."
        )


def slice_grid(path: Path, ordered: Sequence[Header], notes: list[str]) -> SliceGrid:
    """Return the grid of sorted slices once they are known to be parallel, evenly spaced, and in one line.

    Args:
        path: what the user gave.
        ordered: the slices, sorted along their normal.
        notes: for the user; more are added.

    Raises:
        InputError: the slices form no such grid.
    """
    row, column, pixel_mm, size = np.split(ordered[0].layout, (3, 6, 8))
    normal = np.cross(row, column)
    positions = np.array([header.position for header in ordered])
    spacing = _slice_spacing(path, positions @ normal, notes)
    rows, columns = size.astype(int).tolist()
    per_slice = _sideways_per_slice(path, positions, normal, notes)
    shifts = np.outer(np.arange(len(ordered)), [per_slice @ column / pixel_mm[0], per_slice @ row / pixel_mm[1]])
    close = np.abs(shifts - np.rint(shifts)) < WHOLE_PIXEL
    shifts = np.where(close, np.rint(shifts), shifts)
    start = np.floor(shifts.min(0))
    more = np.ceil(shifts.max(0) - start).astype(int)
    affine = np.eye(4)
    origin = positions[0] + start[0] * pixel_mm[0] * column + start[1] * pixel_mm[1] * row
    affine[:3] = np.column_stack([normal * spacing, column * pixel_mm[0], row * pixel_mm[1], origin])
    return SliceGrid(Grid((len(ordered), rows + more[0], columns + more[1]), affine), (rows, columns), shifts - start)


def _sideways_per_slice(path: Path, positions: np.ndarray, normal: np.ndarray, notes: list[str]) -> np.ndarray:
    """Return how far each slice lies to the side of the one before, LPS mm: 0 where they are stacked straight."""
    steps = positions - positions[0]
    sideways = steps - np.outer(steps @ normal, normal)
    farthest = np.linalg.norm(sideways, axis=1).max()
    if farthest <= SIDEWAYS_TOLERANCE_MM:
        return np.zeros(3)
    line = steps[-1] / np.linalg.norm(steps[-1])
    angle = np.degrees(np.arccos(np.clip(line @ normal, -1, 1)))
    if np.linalg.norm(steps - np.outer(steps @ line, line), axis=1).max() > SIDEWAYS_TOLERANCE_MM:
        raise InputError(
            f"{path} has slices shifted sideways by up to {farthest:.1f} mm against each other, expected one straight "
            "stack; export the series again."
        )
    if angle > MAX_TILT_DEG:
        raise InputError(
            f"{path} has slices stacked {angle:.1f} degrees off their normal, more than a gantry tilts "
            f"({MAX_TILT_DEG:g}), expected a straight stack; export the series again."
        )
    notes.append(f"A gantry tilt of {angle:.1f} degrees was straightened; DICOM SEG and SR lie on the original slices.")
    return sideways[-1] / (len(positions) - 1)


def _slice_spacing(path: Path, distances: np.ndarray, notes: list[str]) -> float:
    """Return the slice spacing in mm from the sorted distances along the normal."""
    gaps = np.diff(distances)
    typical, spacing = float(np.median(gaps)), float(distances[-1] - distances[0]) / (len(distances) - 1)
    uneven = float(np.abs(gaps / spacing - 1).max())
    off = float(np.abs(distances - distances[0] - spacing * np.arange(len(distances))).max())
    if uneven > SPACING_TOLERANCE and off > POSITION_TOLERANCE_MM:
        multiples = gaps / typical
        whole = np.abs(multiples - np.round(multiples)) < 0.05
        missing = int((np.round(multiples) - 1).sum())
        worst = int(np.abs(multiples - 1).argmax())
        where = f"{gaps[worst]:.4g} mm between {distances[worst]:.5g} and {distances[worst + 1]:.5g} mm"
        if whole.all() and missing > 0:
            raise InputError(
                f"{path} misses {missing} slice(s): a gap of {where}, expected {typical:.4g} mm everywhere; "
                "copy or export the whole series again."
            )
        raise InputError(
            f"{path} has an uneven slice spacing from {gaps.min():.4g} to {gaps.max():.4g} mm ({where}), expected the "
            "same spacing throughout; export one reconstruction with even spacing."
        )
    if uneven > 1e-3:
        notes.append(f"The slice spacing varies by up to {uneven:.1%}; {spacing:.4g} mm was taken throughout.")
    return spacing
