"""From a CT volume to what the networks see: intensity window, lung region, working grid and tiles.

Arrays are zyx, lengths millimeters, intensities Hounsfield units (HU), world positions LPS.
"""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial, reduce
from itertools import product

import numpy as np

from LNHGLib.errors import InputError
from LNHGLib.image.volume import LOWEST_HU, Grid, Volume, canonical, resample_image, to_sitk
from LNHGLib.measurement.spine import Spine, find_spine
from LNHGLib.models.card import GridSpec
from LNHGLib.segmentation import lungs as lung_search
from LNHGLib.segmentation.devices import usable_cores

WINDOW_HU = (-1000.0, 400.0)
SEARCH_MM = 2.5
MIN_LUNG_ML = 60.0


def normalize(hu: np.ndarray, window_hu: tuple[float, float] = WINDOW_HU, out: np.ndarray | None = None) -> np.ndarray:
    """Clip HU to a window and scale it to float32 in [0, 1].

    Args:
        hu: any shape, HU.
        window_hu: HU that become 0 and 1; the default is the method register's.
        out: float32 of this shape, maybe `hu` itself, that takes the result; None makes an array.
    """
    low, high = window_hu
    signal = np.clip(hu, low, high, out=out).astype(np.float32, copy=False)  # an array of its own
    signal -= np.float32(low)
    signal /= np.float32(high - low)
    return signal


def coarser(array: np.ndarray, factor: int) -> np.ndarray:
    """Return the mean over blocks of voxels, float32; the outermost values go on in a block that reaches beyond.

    Args:
        array: (z, y, x).
        factor: voxels of a block along each axis.
    """
    blocks = array
    for axis in (
        2,
        1,
        0,
    ):  # adding whole slices is three times as fast as a mean over blocks, which lie apart in memory
        size = blocks.shape[axis]
        numbers = np.minimum(np.arange(math.ceil(size / factor) * factor), size - 1)
        parts = (blocks.take(numbers[first::factor], axis) for first in range(factor))
        blocks = reduce(np.add, (part.astype(np.float32, copy=False) for part in parts))
    return blocks / np.float32(factor**3)


def find_lungs(volume: Volume) -> np.ndarray:
    """Find the lungs as `find_chest` does, without the spine."""
    return find_chest(volume)[0]


def find_chest(volume: Volume) -> tuple[np.ndarray, Callable[[], Spine | None]]:
    """Find both lungs on a chest CT, filled so that vessels and nodules, also those at the pleura, lie inside.

    The region is for searching, not for measuring lungs: it reaches a few millimeters beyond the pleura.

    Args:
        volume: CT in HU of the whole chest or a part of it, in any orientation.

    Returns:
        Boolean (z, y, x) array on `volume.grid`, and what finds the spine where it is seen, which takes its time.

    Raises:
        InputError: There is no lung in the volume.
    """
    upright = canonical(volume)
    factors = tuple(max(1, int(SEARCH_MM / spacing)) for spacing in upright.grid.spacing_mm)
    hu = _block_means(upright.array, factors)
    spacing_mm = tuple(f * s for f, s in zip(factors, upright.grid.spacing_mm, strict=True))
    air, airway, body = lung_search.lung_air(hu, spacing_mm)
    found_ml = air.sum() * np.prod(spacing_mm) / 1000
    if found_ml < MIN_LUNG_ML:
        raise InputError(
            f"no lung found in {volume.source.path}: {found_ml:.0f} ml of lung-like air inside the body, "
            f"expected at least {MIN_LUNG_ML:.0f} ml; choose a CT of the chest in Hounsfield units."
        )
    region = lung_search.lung_region(air, airway, body, spacing_mm)
    for axis, (factor, size) in enumerate(zip(factors, upright.array.shape, strict=True)):
        region = region.repeat(factor, axis).swapaxes(0, axis)[:size].swapaxes(0, axis)
    affine = upright.grid.affine @ np.diag([*factors, 1.0])
    affine[:3, 3] = upright.grid.index_to_lps((np.array(factors) - 1) / 2)
    return from_canonical(region, upright.grid, volume.grid), partial(find_spine, hu, body, Grid(hu.shape, affine))


def _block_means(array: np.ndarray, factors: tuple[int, int, int]) -> np.ndarray:
    """Average blocks of voxels, smaller ones at the far edges, to int16; padding counts as air."""
    starts = [np.arange(0, size, factor) for size, factor in zip(array.shape, factors, strict=True)]
    counts = np.outer(*(np.diff(s, append=n) for s, n in zip(starts[1:], array.shape[1:], strict=True)))
    small = np.empty([len(s) for s in starts], np.int16)

    def average(z: int, start: int) -> None:
        slab = np.maximum(array[start : start + factors[0]], LOWEST_HU).mean(axis=0, dtype=np.float32)
        small[z] = np.add.reduceat(np.add.reduceat(slab, starts[1], axis=0), starts[2], axis=1) / counts

    with ThreadPoolExecutor(usable_cores()) as threads:
        list(threads.map(average, range(len(small)), starts[0]))
    return small


def from_canonical(array: np.ndarray, upright: Grid, native: Grid) -> np.ndarray:
    """Bring an array on the canonical grid back to the native order and directions of axes.

    Args:
        array: (z, y, x) on `upright`.
        upright: the canonical grid.
        native: the input's grid.
    """
    steps = (np.linalg.inv(upright.affine) @ native.affine)[:3, :3]
    axes = np.abs(steps).argmax(axis=0)
    backward = [axis for axis in range(3) if steps[axes[axis], axis] < 0]
    return np.ascontiguousarray(np.flip(array.transpose(axes), backward))


def working_grid(volume: Volume, lungs: np.ndarray, spec: GridSpec, margin_mm: float = 10.0) -> Grid:
    """Return the grid a model works on.

    Args:
        volume: The CT.
        lungs: Boolean (z, y, x) lung region on `volume.grid`, not empty.
        spec: Kind "spacing" is a grid along LPS around the lungs, kind "fov" the paper's: every native slice, its field
            of view on size x size pixels.
        margin_mm: Room around the lungs, for kind "spacing".

    Returns:
        The grid; with kind "spacing" its voxels lie on multiples of the spacing, so that the same patient in another
        axis order gets the same grid.
    """
    if spec.kind == "fov":  # keep slices and center of the field of view, make its longer side `size` square pixels
        native = canonical(volume).grid
        (nz, ny, nx), (_, dy, dx) = native.shape, native.spacing_mm
        pixel_mm = max(ny * dy, nx * dx) / spec.size
        half_mm = (spec.size - 1) / 2 * pixel_mm
        affine = native.affine @ np.diag([1.0, pixel_mm / dy, pixel_mm / dx, 1.0])
        affine[:3, 3] = native.index_to_lps(np.array([0, (ny - 1) / 2 - half_mm / dy, (nx - 1) / 2 - half_mm / dx]))
        return Grid((nz, spec.size, spec.size), affine)
    rows = np.argwhere(lungs.any(axis=2))
    lines = lungs[rows[:, 0], rows[:, 1]]
    first, last = lines.argmax(axis=1), lines.shape[1] - 1 - lines[:, ::-1].argmax(axis=1)
    ends = np.concatenate([np.column_stack([rows, first]), np.column_stack([rows, last])])
    points = volume.grid.index_to_lps(ends)
    step = np.array(spec.spacing_mm[::-1], float)
    low = np.floor((points.min(axis=0) - margin_mm) / step + 1e-4)
    high = np.ceil((points.max(axis=0) + margin_mm) / step - 1e-4)
    return Grid.aligned((high - low + 1)[::-1].astype(int), spec.spacing_mm, low * step)


def onto_grid(volume: Volume, target: Grid, fill: float = -1000.0, slab: int = 32) -> np.ndarray:
    """Bring the CT onto a working grid: linear interpolation, area average along axes that shrink (register L10).

    Args:
        volume: The CT.
        target: The working grid.
        fill: HU outside the volume.
        slab: Slices at a time, which bounds the memory.

    Returns:
        float32 HU (z, y, x) on `target`.
    """
    toward = target.affine[:3, :3] / target.spacing_mm
    native_mm = [np.abs(toward[:, axis] @ (volume.grid.affine[:3, :3] / volume.grid.spacing_mm)) for axis in range(3)]
    native_mm = [part @ volume.grid.spacing_mm / part.sum() for part in native_mm]
    parts = np.array([max(1, round(t / n)) for t, n in zip(target.spacing_mm, native_mm, strict=True)])
    fine = target.affine @ np.diag([*1 / parts, 1.0])
    out, image = np.empty(target.shape, np.float32), to_sitk(volume.array, volume.grid)
    for z in range(0, target.shape[0], slab):
        shape = np.array([min(slab, target.shape[0] - z), *target.shape[1:]])
        affine = fine.copy()
        affine[:3, 3] = target.index_to_lps([z, 0, 0]) - fine[:3, :3] @ ((parts - 1) / 2)
        values = resample_image(image, Grid(shape * parts, affine), fill=fill)
        if (parts > 1).any():
            blocks = values.reshape([size for pair in zip(shape, parts, strict=True) for size in pair])
            values = blocks.mean(axis=(1, 3, 5))
        out[z : z + slab] = values
    return out


@dataclass(frozen=True)
class Tile:
    """A piece of a volume to run through a network.

    Attributes:
        outer: What the network sees, slices into the volume.
        inner: The part of the network's output that is kept, slices into the tile.
        target: Where that part belongs, slices into the volume.
    """

    outer: tuple[slice, slice, slice]
    inner: tuple[slice, slice, slice]
    target: tuple[slice, slice, slice]


def tiles(
    shape: tuple[int, int, int], core: tuple[int, int, int], halo: tuple[int, int, int], multiple: int = 1
) -> Iterator[Tile]:
    """Cut a volume into tiles whose targets cover every voxel exactly once.

    Args:
        shape: zyx of the volume.
        core: Largest size of a target, zyx.
        halo: Voxels to see around the target, zyx: the network's receptive field beyond the voxel.
        multiple: Outer slices begin and end at multiples of it, so that a strided network sees every voxel in the
            same phase as it would in the whole volume; only the volume's own end may fall between.

    Yields:
        Tiles in z, y, x order.
    """
    spans = []
    for size, length, reach in zip(shape, core, halo, strict=True):
        axis = []
        for start in range(0, size, length):
            stop = min(start + length, size)
            first = max(start - reach, 0) // multiple * multiple
            last = min(-(-(stop + reach) // multiple) * multiple, size)
            axis.append((slice(first, last), slice(start - first, stop - first), slice(start, stop)))
        spans.append(axis)
    for parts in product(*spans):
        yield Tile(*(tuple(slices) for slices in zip(*parts, strict=True)))
