"""CT volumes: geometry, orientation, resampling and writing.

Arrays are zyx in HU, positions are LPS millimeters (x to the left, y to the back, z to the head).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from LNHGLib.image.boxes import Box, box_shape, box_start

LOWEST_HU = -1024  # scanners mark what lies outside their circle with lower values; no tissue is there


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular voxel grid in the patient's space.

    Attributes:
        shape: Number of voxels (nz, ny, nx).
        affine: (4, 4) float64, maps a homogeneous index (z, y, x, 1) to LPS mm (x, y, z, 1) of the voxel's center.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    def __post_init__(self) -> None:
        affine = np.array(self.affine, np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
            raise ValueError(f"A grid needs an invertible 4x4 affine, got {self.affine!r}.")
        affine.flags.writeable = False
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))

    @classmethod
    def aligned(cls, shape: Sequence[int], spacing_mm: Sequence[float], origin_lps_mm: Sequence[float]) -> "Grid":
        """Return a grid whose axes run along LPS.

        Args:
            shape: Number of voxels (nz, ny, nx).
            spacing_mm: Along z, y, x.
            origin_lps_mm: x, y, z of the first voxel's center.
        """
        affine = np.eye(4)
        affine[:3, :3] = np.diag(spacing_mm)[::-1]
        affine[:3, 3] = origin_lps_mm
        return cls(tuple(shape), affine)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighboring voxel centers, zyx."""
        return tuple(float(length) for length in np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def index_to_lps(self, points: np.ndarray) -> np.ndarray:
        """Map (..., 3) zyx indices to (..., 3) xyz positions in LPS mm."""
        return np.asarray(points, np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def lps_to_index(self, points: np.ndarray) -> np.ndarray:
        """Map (..., 3) xyz positions in LPS mm to (..., 3) fractional zyx indices."""
        return (np.asarray(points, np.float64) - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T

    def crop(self, box: Box) -> "Grid":
        """Return the grid of a box of voxels."""
        affine = self.affine.copy()
        affine[:3, 3] = self.index_to_lps(box_start(box))
        return Grid(tuple(box_shape(box)), affine)

    def matches(self, other: "Grid", tolerance_mm: float = 1e-2) -> bool:
        """Tell whether both grids have the same shape and their voxels lie in the same places.

        Args:
            other: The other grid.
            tolerance_mm: How far apart voxels may lie, along each of x, y, z.
        """
        corners = np.array(np.meshgrid(*((0, size - 1) for size in self.shape))).reshape(3, -1).T
        return self.shape == other.shape and bool(
            np.allclose(self.index_to_lps(corners), other.index_to_lps(corners), rtol=0, atol=tolerance_mm)
        )


@dataclass(frozen=True, eq=False)
class Source:
    """Where a volume came from.

    Attributes:
        path: of the file or folder.
        modality: of DICOM.
        series_uid: of DICOM, with # and the number of the volume where the series holds several.
        patient_id: of DICOM.
        notes: sentences to show the user.
        oriented: whether it says where the patient's left and right are.
    """

    path: str
    modality: str | None = None
    series_uid: str | None = None
    patient_id: str | None = None
    notes: tuple[str, ...] = ()
    oriented: bool = True


@dataclass(frozen=True, eq=False)
class Volume:
    """A CT volume: `array` zyx in HU (int16 or float32) on `grid`."""

    array: np.ndarray
    grid: Grid
    source: Source

    def __post_init__(self) -> None:
        if self.array.shape != self.grid.shape:
            raise ValueError(f"Array shape {self.array.shape} differs from grid shape {self.grid.shape}.")


def from_sitk(image: sitk.Image) -> tuple[np.ndarray, Grid]:
    """Return the array (zyx) and the grid of a 3-D SimpleITK image."""
    affine = np.eye(4)
    affine[:3, :3] = (np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing())[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image), Grid(image.GetSize()[::-1], affine)


def to_sitk(array: np.ndarray, grid: Grid) -> sitk.Image:
    """Return a SimpleITK image of an array with the whole geometry of its grid.

    Args:
        array: (z, y, x); bool becomes uint8.
        grid: Where the voxels lie.
    """
    array = np.asarray(array)
    image = sitk.GetImageFromArray(array.astype(np.uint8) if array.dtype == bool else array)
    origin, spacing, direction = _itk_geometry(grid)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    return image


def write_image(array: np.ndarray, grid: Grid, path: str | Path) -> None:
    """Write an array with the whole geometry of its grid, compressed.

    Args:
        array: (z, y, x); bool becomes uint8.
        grid: Where the voxels lie.
        path: File whose suffix names the format: .nii, .nii.gz, .nrrd, .mha or .mhd.
    """
    sitk.WriteImage(to_sitk(array, grid), str(path), useCompression=True)


def canonical(volume: Volume) -> Volume:
    """Return the same voxels with axes permuted and flipped so that z runs to the head, y to the back, x to the left.

    Lossless: no voxel is interpolated and every voxel keeps its position in the world. At 45 degrees two orders are
    equally close; the axes' own directions then decide, not the order they are stored in.
    """
    cosines = (volume.grid.affine[:3, :3] / volume.grid.spacing_mm).T[:, ::-1]  # per index axis, its direction zyx
    orders = list(permutations(range(3)))
    upright = cosines[np.array(orders)]
    upright *= np.where(np.diagonal(upright, axis1=1, axis2=2) < 0, -1, 1)[..., None]
    closeness = np.round(np.trace(upright, axis1=1, axis2=2), 6).tolist()
    _, _, order = max(zip(closeness, np.round(upright, 4).tolist(), orders, strict=True))
    mapping = np.zeros((4, 4))  # index in the new array -> index in the old one
    mapping[3, 3] = 1
    steps = []
    for new, old in enumerate(order):
        backward = cosines[old, new] < 0
        mapping[old, new] = -1 if backward else 1
        mapping[old, 3] = volume.grid.shape[old] - 1 if backward else 0
        steps.append(slice(None, None, -1 if backward else 1))
    array = volume.array.transpose(order)[tuple(steps)]
    return replace(volume, array=np.ascontiguousarray(array), grid=Grid(array.shape, volume.grid.affine @ mapping))


def resample(array: np.ndarray, grid: Grid, target: Grid, *, linear: bool = True, fill: float = -1000.0) -> np.ndarray:
    """Resample an array onto another grid in the same world.

    Args:
        array: (z, y, x) values on `grid`.
        grid: The grid of `array`.
        target: The grid wanted.
        linear: Interpolate linearly and return float32; otherwise take the nearest voxel and keep the dtype.
        fill: Value where the target lies outside `grid`.

    Returns:
        The values on `target`, (z, y, x).
    """
    moved = resample_image(to_sitk(array, grid), target, linear=linear, fill=fill)
    return moved if linear else moved.astype(array.dtype, copy=False)


def resample_image(image: sitk.Image, target: Grid, *, linear: bool = True, fill: float = -1000.0) -> np.ndarray:
    """Resample an image of `to_sitk`, as `resample` does an array: for parts of the target one after the other.

    Args:
        image: What is resampled.
        target: The grid wanted.
        linear: Interpolate linearly and return float32; otherwise take the nearest voxel and keep the pixel type.
        fill: Value where the target lies outside the image.

    Returns:
        The values on `target`, (z, y, x).
    """
    interpolator = sitk.sitkLinear if linear else sitk.sitkNearestNeighbor
    pixel = sitk.sitkFloat32 if linear else image.GetPixelID()
    origin, spacing, direction = _itk_geometry(target)
    moved = sitk.Resample(
        image, target.shape[::-1], sitk.Transform(), interpolator, origin, spacing, direction, float(fill), pixel
    )
    return sitk.GetArrayFromImage(moved)


def _itk_geometry(grid: Grid) -> tuple[list[float], list[float], list[float]]:
    """Return origin xyz, spacing xyz and row-major direction."""
    spacing = np.array(grid.spacing_mm)
    direction = (grid.affine[:3, :3] / spacing)[:, ::-1]
    if not np.allclose(direction.T @ direction, np.eye(3), atol=1e-3):
        raise ValueError("The axes of the grid are not perpendicular to each other.")
    return grid.affine[:3, 3].tolist(), spacing[::-1].tolist(), direction.ravel().tolist()
