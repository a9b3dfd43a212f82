"""One scan with what is known of its nodules, and the 1 mm cubes cut from it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from LNHGLib.image.boxes import (
    Box,
    box_around_mask,
    box_between,
    box_intersection,
    box_start,
    box_within,
    nearest_box_around_points,
)
from LNHGLib.image.volume import Grid, Volume, resample
from LNHGLib.measurement.size import measure
from LNHGLib.segmentation.preprocessing import onto_grid

from LNHGTrainingLib.data.crops import CUBE, consensus
from LNHGTrainingLib.evaluation.metrics import leave_one_out_dice
from LNHGTrainingLib.prepare.storage import ATTRIBUTES, Sample

MIDDLE = 25
"""Index of the voxel at the nodule's center, as in the development crops."""
MARGIN = 2  # voxels around a cube that interpolation needs


@dataclass(frozen=True, eq=False)
class ScanNodule:
    """A nodule on the scan's grid.

    Attributes:
        name: its number in the scan.
        box: where it lies, zyx slices.
        bits: uint8 (z, y, x) inside `box`, bit r set inside the outline of reader r.
        readers: how many marked it.
        masks: how many of them left a mask; half of these make the consensus.
        reference: what the mask is: "outlines", "mask", or "sphere" where only a diameter is known.
        ratings: attribute to mean over the readers.
        diameter_mm: as stated by the source; else the longest axial diameter of the consensus is measured.
        usable: False where it is not clear which outlines belong together.
    """

    name: str
    box: Box
    bits: np.ndarray
    readers: int
    masks: int
    reference: str
    ratings: dict[str, float] = field(default_factory=dict)
    diameter_mm: float | None = None
    usable: bool = True


@dataclass(frozen=True)
class Mark:
    """A point: a small nodule, a non-nodule, an irrelevant finding; `unknown_mm` across nothing is known around it."""

    kind: str
    lps_mm: tuple[float, float, float]
    reader: int | None = None
    unknown_mm: float = 0.0


@dataclass(frozen=True, eq=False)
class Scan:
    """A CT with its nodules, marks, and locations without a nodule that deserve a cube of their own."""

    volume: Volume
    patient_id: str
    series_uid: str
    nodules: list[ScanNodule]
    marks: list[Mark] = field(default_factory=list)
    negatives: list[tuple[float, float, float]] = field(default_factory=list)
    notes: tuple[str, ...] = ()


def samples(scan: Scan) -> Iterator[Sample]:
    """Yield a cube around every nodule and every negative."""
    for nodule in scan.nodules:
        yield nodule_sample(scan, nodule)
    for number, lps_mm in enumerate(scan.negatives):
        center, name = np.array(lps_mm), f"n{number:03d}"
        hu, bits, other, valid, grid = _cube(scan, center, None)
        row = {"nodule_index": name, "kind": "negative", "n_readers_usable": 0, "usable": 0}
        row |= {"other_voxels": int(other.sum())}
        row |= _identity(scan) | _xyz("centre", center) | _xyz("origin", grid.affine[:3, 3])
        yield Sample(f"{scan.series_uid}-{name}", hu, bits, 0, other, valid, row)


def mark_rows(scan: Scan) -> Iterator[dict]:
    """Yield a row of the table for every mark; marks have no cube."""
    for mark in scan.marks:
        row = {"kind": mark.kind, "reader": "" if mark.reader is None else mark.reader, "usable": 0}
        yield _identity(scan) | row | _xyz("centre", np.array(mark.lps_mm))


def nodule_sample(scan: Scan, nodule: ScanNodule) -> Sample:
    """Cut the cube around a nodule and measure the nodule.

    Args:
        scan: where it is.
        nodule: one of the scan's.
    """
    agreed = consensus(nodule.bits, nodule.masks)
    agreed = agreed if agreed.any() else nodule.bits > 0
    center = scan.volume.grid.index_to_lps(np.argwhere(agreed).mean(0) + box_start(nodule.box))
    hu, bits, other, valid, grid = _cube(scan, center, nodule)
    at_1mm = consensus(bits, nodule.masks)
    size = measure(scan.volume.array[nodule.box], scan.volume.grid.crop(nodule.box), agreed)
    readers = np.array([bits >> bit & 1 for bit in range(8) if (bits >> bit & 1).any()], bool)
    human_dice = leave_one_out_dice(readers)
    diameter = nodule.diameter_mm or size.long_axis_mm
    row = {
        "nodule_index": nodule.name, "kind": "nodule", "reference": nodule.reference, "type": size.attenuation,
        "readers": nodule.readers, "n_readers_usable": nodule.masks, "diameter_mm": round(diameter, 3),
        "diameter_from": "source" if nodule.diameter_mm else "longest axial",
        "luna_diameter_exact_mm": round(diameter, 3),
        "volume_mm3": round(size.volume_mm3, 2), "usable": int(nodule.usable and at_1mm.any()),
        "cons_voxels": int(at_1mm.sum()), "other_voxels": int(other.sum()),
        "human_loo_dice": round(human_dice, 4) if np.isfinite(human_dice) else "",
        "z_first": nodule.box[0].start, "z_last": nodule.box[0].stop - 1,
    }  # fmt: skip
    row |= {f"att_{name}": round(value, 3) for name, value in nodule.ratings.items() if f"att_{name}" in ATTRIBUTES}
    row |= _identity(scan) | _xyz("centre", center) | _xyz("origin", grid.affine[:3, 3])
    return Sample(f"{scan.series_uid}-{nodule.name}", hu, bits, nodule.masks, other, valid, row)


def _identity(scan: Scan) -> dict:
    z, y, x = scan.volume.grid.spacing_mm
    return {
        "patient_id": scan.patient_id, "series_uid": scan.series_uid, "z_spacing": round(z, 6),
        "y_spacing": round(y, 6), "x_spacing": round(x, 6), "dir_x": 1, "dir_y": 1,
    }  # fmt: skip


def _xyz(name: str, point: np.ndarray) -> dict:
    return {f"{name}_{axis}": round(float(value), 4) for axis, value in zip("xyz", point, strict=True)}


def _cube(scan: Scan, center: np.ndarray, nodule: ScanNodule | None) -> tuple[np.ndarray, ...]:
    """Return HU, reader bits, other lesions and unknown voxels, valid extent, and the cube's grid."""
    cube = Grid.aligned((CUBE,) * 3, (1.0,) * 3, center - MIDDLE)
    corners = scan.volume.grid.lps_to_index(cube.index_to_lps(np.array(list(np.ndindex(2, 2, 2))) * (CUBE - 1)))
    window = nearest_box_around_points(corners, scan.volume.grid.shape, MARGIN)  # large volumes are not copied
    part = scan.volume.grid.crop(window)
    seen = replace(scan.volume, array=scan.volume.array[window], grid=part)
    hu = np.rint(onto_grid(seen, cube)).astype(np.int16)
    bits = _moved([nodule] if nodule else [], window, part, cube)
    other = _moved([each for each in scan.nodules if each is not nodule], window, part, cube) > 0
    inside = resample(np.ones(part.shape, np.uint8), part, cube, linear=False, fill=0) > 0
    for mark in scan.marks:
        if mark.unknown_mm:
            other |= ball(cube, np.array(mark.lps_mm), mark.unknown_mm) & (bits == 0)
    shown = box_around_mask(inside) or box_between((0, 0, 0), (0, 0, 0))
    block = np.zeros(cube.shape, bool)
    block[shown] = True
    other |= ~inside & block  # an oblique scan does not fill its box
    valid = np.array([edge for side in shown for edge in (side.start, side.stop)], np.int16)
    return hu, bits, other.astype(np.uint8), valid, cube


def _moved(nodules: list[ScanNodule], window: Box, part: Grid, cube: Grid) -> np.ndarray:
    """Return the readers' bits of nodules on the cube, nearest voxel."""
    bits = np.zeros(part.shape, np.uint8)
    for nodule in nodules:
        shared = box_intersection(nodule.box, window)
        if shared is not None:
            bits[box_within(shared, window)] |= nodule.bits[box_within(shared, nodule.box)]
    return resample(bits, part, cube, linear=False, fill=0) if bits.any() else np.zeros(cube.shape, np.uint8)


def ball(grid: Grid, center_lps_mm: np.ndarray, diameter_mm: float) -> np.ndarray:
    """Return the voxels of a grid whose centers lie within a ball: bool (z, y, x).

    Args:
        grid: the grid.
        center_lps_mm: (x, y, z).
        diameter_mm: of the ball.
    """
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    return ((grid.index_to_lps(index) - center_lps_mm) ** 2).sum(-1) <= (diameter_mm / 2) ** 2


def ball_box(grid: Grid, center_lps_mm: np.ndarray, diameter_mm: float) -> tuple[Box, np.ndarray]:
    """Return the same in the smallest box, cut at the grid's edge; the voxel at the center is in it in any case.

    Args:
        grid: the grid.
        center_lps_mm: (x, y, z).
        diameter_mm: of the ball.

    Returns:
        The box, and bool (z, y, x) inside it.
    """
    middle = grid.lps_to_index(center_lps_mm)
    reach = diameter_mm / 2 / np.array(grid.spacing_mm) + 1
    box = nearest_box_around_points(np.stack([middle - reach, middle + reach]), grid.shape)
    mask = ball(grid.crop(box), center_lps_mm, diameter_mm)
    mask[tuple(np.clip(np.rint(middle).astype(int) - box_start(box), 0, np.array(mask.shape) - 1))] = True
    return box, mask
