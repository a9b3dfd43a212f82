"""CT volumes: reading, geometry, resampling and writing.

Arrays are zyx in HU, positions are LPS millimeters (x to the left, y to the back, z to the head).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from LNHGLib.errors import InputError
from LNHGLib.image import dicom_series, single_file
from LNHGLib.image.boxes import Box, box_shape, box_start
from LNHGLib.image.dicom_series import MIN_SLICES

SPACING_RANGE_MM = (0.1, 10.0)
LOWEST_HU = -1024  # scanners mark what lies outside their circle with lower values; no tissue is there
HIGHEST_HU = 32767
AIR_HU = (-1024, -500)
TISSUE_HU = (-200, 200)
MIN_SHARE = 0.005
SAMPLE_VOXELS = 2_000_000


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
        """Return a grid whose axes run along LPS: shape and spacing zyx, origin xyz of the first voxel's center."""
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
        """Tell whether both grids have the same shape and their voxels lie within the tolerance of each other."""
        corners = np.array(np.meshgrid(*((0, size - 1) for size in self.shape))).reshape(3, -1).T
        return self.shape == other.shape and bool(
            np.allclose(self.index_to_lps(corners), other.index_to_lps(corners), rtol=0, atol=tolerance_mm)
        )


@dataclass(frozen=True, eq=False)
class Source:
    """Where a volume came from; `notes` are sentences to show the user."""

    path: str
    modality: str | None = None
    series_uid: str | None = None
    patient_id: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Volume:
    """A CT volume: `array` zyx in HU (int16 or float32) on `grid`."""

    array: np.ndarray
    grid: Grid
    source: Source

    def __post_init__(self) -> None:
        if self.array.shape != self.grid.shape:
            raise ValueError(f"Array shape {self.array.shape} differs from grid shape {self.grid.shape}.")


def read_volume(
    path: str | Path, series_uid: str | None = None, files: Sequence[Path] = (), *, part: bool = False
) -> Volume:
    """Read a chest CT from a DICOM folder or file, or from a .nii, .nii.gz, .nrrd, .mha or .mhd file.

    Args:
        path: The file or folder.
        series_uid: Series to take when a DICOM folder holds several; the axial CT with most slices otherwise.
        files: The DICOM files of the series, where they are known: no other file of the folder is looked at.
        part: Whether it is a part cut out of a CT, which need not hold both air and soft tissue.

    Returns:
        The volume on its own grid, values below -1024 HU (padding outside the scanner's circle) raised to -1024.

    Raises:
        InputError: The input cannot be read, is no CT in HU, or its slices do not form a regular grid.
    """
    path = Path(path)
    _require_content(path)
    if path.is_file() and path.name.lower().endswith(single_file.SUFFIXES):
        array, grid = from_sitk(single_file.read_image(path))
        source = Source(str(path))
    else:
        if path.is_file() and not dicom_series.is_dicom(path):
            raise InputError(
                f"{path} is of an unknown kind, expected DICOM or one of {', '.join(single_file.SUFFIXES)}; convert it."
            )
        series = dicom_series.read_series(path, series_uid, files)
        array, grid = series.array, Grid(series.array.shape, series.affine)
        source = Source(str(path), series.modality, series.series_uid, series.patient_id, series.notes)
    _require_geometry(path, grid)
    array, notes = _hounsfield(path, array, part)
    return Volume(array, grid, replace(source, notes=source.notes + notes))


def from_sitk(image: sitk.Image) -> tuple[np.ndarray, Grid]:
    """Return the array (zyx) and the grid of a 3-D SimpleITK image."""
    return sitk.GetArrayFromImage(image), _grid_of(image)


def to_sitk(array: np.ndarray, grid: Grid) -> sitk.Image:
    """Return a SimpleITK image of the array (zyx) with the grid's whole geometry; bool becomes uint8."""
    array = np.asarray(array)
    image = sitk.GetImageFromArray(array.astype(np.uint8) if array.dtype == bool else array)
    _set_geometry(image, grid)
    return image


def write_image(array: np.ndarray, grid: Grid, path: str | Path) -> None:
    """Write the array (zyx) with the grid's whole geometry, in the format of the path's suffix, compressed."""
    sitk.WriteImage(to_sitk(array, grid), str(path), useCompression=True)


def canonical(volume: Volume) -> Volume:
    """Return the same voxels with axes permuted and flipped so that z runs to the head, y to the back, x to the left.

    Lossless: no voxel is interpolated and every voxel keeps its position in the world.
    """
    order, reverse = _upright_order(volume.grid)
    mapping = np.zeros((4, 4))  # index in the new array -> index in the old one
    mapping[3, 3] = 1
    for new, old in enumerate(order):
        mapping[old, new] = -1 if reverse[new] else 1
        mapping[old, 3] = volume.grid.shape[old] - 1 if reverse[new] else 0
    array = volume.array.transpose(order)[tuple(slice(None, None, -1 if back else 1) for back in reverse)]
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
    interpolator = sitk.sitkLinear if linear else sitk.sitkNearestNeighbor
    image = to_sitk(array, grid)
    pixel = sitk.sitkFloat32 if linear else image.GetPixelID()
    origin, spacing, direction = _itk_geometry(target)
    moved = sitk.Resample(
        image, target.shape[::-1], sitk.Transform(), interpolator, origin, spacing, direction, float(fill), pixel
    )
    return sitk.GetArrayFromImage(moved).astype(np.float32 if linear else array.dtype, copy=False)


def _upright_order(grid: Grid) -> tuple[tuple[int, ...], list[bool]]:
    """Return the axis order and the axes to reverse that bring index zyx closest to world zyx.

    At 45 degrees two orders are equally close; the axes' own directions then decide, not the order they are stored in.
    """
    cosines = (grid.affine[:3, :3] / grid.spacing_mm).T[:, ::-1]  # a row an index axis, its world direction zyx

    def closeness(order: tuple[int, ...]) -> tuple[float, list[list[float]]]:
        rows = cosines[list(order)]
        upright = rows * np.where(np.diag(rows) < 0, -1, 1)[:, None]
        return round(float(np.trace(upright)), 6), np.round(upright, 4).tolist()

    best = max(permutations(range(3)), key=closeness)
    return best, [bool(cosines[axis, world] < 0) for world, axis in enumerate(best)]


def _itk_geometry(grid: Grid) -> tuple[list[float], list[float], list[float]]:
    """Return origin xyz, spacing xyz and row-major direction."""
    spacing = np.array(grid.spacing_mm)
    direction = (grid.affine[:3, :3] / spacing)[:, ::-1]
    if not np.allclose(direction.T @ direction, np.eye(3), atol=1e-3):
        raise ValueError("The axes of the grid are not perpendicular to each other.")
    return grid.affine[:3, 3].tolist(), spacing[::-1].tolist(), direction.ravel().tolist()


def _set_geometry(image: sitk.Image, grid: Grid) -> None:
    origin, spacing, direction = _itk_geometry(grid)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction)


def _grid_of(image: sitk.Image) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = (np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing())[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    return Grid(image.GetSize()[::-1], affine)


def _require_content(path: Path) -> None:
    if not path.exists():
        raise InputError(
            f"{path} does not exist, expected a DICOM folder or file, or a {', '.join(single_file.SUFFIXES)} file; "
            "check the path."
        )
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes), expected a chest CT; copy or export it again.")


def _require_geometry(path: Path, grid: Grid) -> None:
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


def _hounsfield(path: Path, array: np.ndarray, part: bool) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return int16 or float32 HU with padding raised to -1024, and what to tell the user about it."""
    low, high = float(array.min()), float(array.max())
    if not part:
        _require_hounsfield(path, array, low, high)
    notes: tuple[str, ...] = ()
    if low < LOWEST_HU:
        share = np.count_nonzero(array < LOWEST_HU) / array.size
        notes = (f"{share:.1%} of the voxels were below {LOWEST_HU} HU (lowest {low:.0f}, padding) and set to it.",)
        array = np.maximum(array, array.dtype.type(LOWEST_HU))
    dtype = np.int16 if np.issubdtype(array.dtype, np.integer) else np.float32
    return array.astype(dtype, copy=False), notes


def _require_hounsfield(path: Path, array: np.ndarray, low: float, high: float) -> None:
    expected = "expected CT numbers in HU (air about -1000, soft tissue about 40)"
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"{path} holds values that are not numbers (NaN or infinite), {expected}; export it again.")
    met = f"{path} holds values from {low:g} to {high:g}"
    if low == high:
        raise InputError(f"{met}, the same everywhere, {expected}; check the file.")
    if low >= 0 and high <= 255:
        raise InputError(f"{met}, as a picture or a mask does, {expected}; give the original CT.")
    if high > HIGHEST_HU:
        raise InputError(f"{met}, more than a CT number can be ({HIGHEST_HU}), {expected}; check rescale and units.")
    if low >= 0:
        raise InputError(
            f"{met}, as MR images and stored values without rescale do, {expected}; give a chest CT with its rescale "
            "slope and intercept applied."
        )
    stride = max(1, round((array.size / SAMPLE_VOXELS) ** (1 / 3)))
    sample = array[::stride, ::stride, ::stride]
    for name, (start, stop) in (("air", AIR_HU), ("soft tissue", TISSUE_HU)):
        share = np.count_nonzero((sample >= start) & (sample <= stop)) / sample.size
        if share < MIN_SHARE:
            raise InputError(
                f"{met} with {share:.1%} of the voxels in the range of {name} ({start} to {stop} HU), {expected}; "
                "check that this is a chest CT and that its rescale slope and intercept were applied once."
            )
