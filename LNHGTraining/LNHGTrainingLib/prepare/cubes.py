"""One scan with what is known of its nodules, and the 1 mm cubes cut from it."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from LNHGLib.image.volume import Grid, Volume, resample
from LNHGLib.measurement.size import measure

from LNHGTrainingLib.data.crops import CUBE, consensus
from LNHGTrainingLib.evaluation.metrics import leave_one_out_dice
from LNHGTrainingLib.prepare.contours import Box
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
    """A CT with its nodules, marks, and places without a nodule that deserve a cube of their own."""

    volume: Volume
    patient_id: str
    series_uid: str
    nodules: list[ScanNodule]
    marks: list[Mark] = field(default_factory=list)
    negatives: list[tuple[float, float, float]] = field(default_factory=list)
    notes: tuple[str, ...] = ()


def samples(scan: Scan) -> Iterator[Sample]:
    """A cube around every nodule and every negative."""
    for nodule in scan.nodules:
        yield _nodule_sample(scan, nodule)
    for number, center in enumerate(scan.negatives):
        yield _negative_sample(scan, f"n{number:03d}", np.array(center))


def mark_rows(scan: Scan) -> Iterator[dict]:
    """A row of the table for every mark; marks have no cube."""
    for mark in scan.marks:
        row = {"kind": mark.kind, "reader": "" if mark.reader is None else mark.reader, "usable": 0}
        yield _identity(scan) | row | _xyz("centre", np.array(mark.lps_mm))


def _nodule_sample(scan: Scan, nodule: ScanNodule) -> Sample:
    agreed = consensus(nodule.bits, nodule.masks)
    agreed = agreed if agreed.any() else nodule.bits > 0
    start = np.array([part.start for part in nodule.box])
    center = scan.volume.grid.index_to_lps(np.argwhere(agreed).mean(0) + start)
    hu, bits, other, valid, grid = _cube(scan, center, nodule)
    at_1mm = consensus(bits, nodule.masks)
    part = scan.volume.grid.affine.copy()
    part[:3, 3] = scan.volume.grid.index_to_lps(start)
    size = measure(scan.volume.array[nodule.box], Grid(agreed.shape, part), agreed)
    used = [bit for bit in range(8) if (bits >> bit & 1).any()]
    diameter = nodule.diameter_mm or size.long_axis_mm
    row = {
        "nodule_index": nodule.name, "kind": "nodule", "reference": nodule.reference, "type": size.attenuation,
        "readers": nodule.readers, "n_readers_usable": nodule.masks, "diameter_mm": round(diameter, 3),
        "diameter_from": "source" if nodule.diameter_mm else "longest axial",
        "luna_diameter_exact_mm": round(diameter, 3),
        "volume_mm3": round(size.volume_mm3, 2), "usable": int(nodule.usable and at_1mm.any()),
        "cons_voxels": int(at_1mm.sum()), "other_voxels": int(other.sum()),
        "human_loo_dice": _rounded(leave_one_out_dice(np.array([bits >> bit & 1 for bit in used], bool))),
        "z_first": nodule.box[0].start, "z_last": nodule.box[0].stop - 1,
    }  # fmt: skip
    row |= {f"att_{name}": round(value, 3) for name, value in nodule.ratings.items() if f"att_{name}" in ATTRIBUTES}
    row |= _identity(scan) | _xyz("centre", center) | _xyz("origin", grid.affine[:3, 3])
    return Sample(f"{scan.series_uid}-{nodule.name}", hu, bits, nodule.masks, other, valid, row)


def _negative_sample(scan: Scan, name: str, center: np.ndarray) -> Sample:
    hu, bits, other, valid, grid = _cube(scan, center, None)
    row = {
        "nodule_index": name,
        "kind": "negative",
        "n_readers_usable": 0,
        "usable": 0,
        "other_voxels": int(other.sum()),
    }
    row |= _identity(scan) | _xyz("centre", center) | _xyz("origin", grid.affine[:3, 3])
    return Sample(f"{scan.series_uid}-{name}", hu, bits, 0, other, valid, row)


def _identity(scan: Scan) -> dict:
    z, y, x = scan.volume.grid.spacing_mm
    return {
        "patient_id": scan.patient_id, "series_uid": scan.series_uid, "z_spacing": round(z, 6),
        "y_spacing": round(y, 6), "x_spacing": round(x, 6), "dir_x": 1, "dir_y": 1,
    }  # fmt: skip


def _xyz(name: str, point: np.ndarray) -> dict:
    return {f"{name}_{axis}": round(float(value), 4) for axis, value in zip("xyz", point, strict=True)}


def _rounded(value: float) -> float | str:
    return round(value, 4) if np.isfinite(value) else ""


def _cube(scan: Scan, center: np.ndarray, nodule: ScanNodule | None) -> tuple[np.ndarray, ...]:
    """HU, reader bits, other lesions and unknown voxels, valid extent, and the cube's grid."""
    cube = Grid.aligned((CUBE,) * 3, (1.0,) * 3, center - MIDDLE)
    window, part = _window(scan.volume.grid, cube)
    hu = np.rint(resample(scan.volume.array[window], part, cube)).astype(np.int16)
    bits = _moved([nodule] if nodule else [], window, part, cube)
    other = _moved([each for each in scan.nodules if each is not nodule], window, part, cube) > 0
    inside = resample(np.ones(part.shape, np.uint8), part, cube, linear=False, fill=0) > 0
    other |= _unknown(scan.marks, cube) & (bits == 0)
    valid = np.array([edge for axis in range(3) for edge in _extent(inside, axis)], np.int16)
    other |= ~inside & _block(valid)  # an oblique scan does not fill its box
    return hu, bits, other.astype(np.uint8), valid, cube


def _window(grid: Grid, cube: Grid) -> tuple[Box, Grid]:
    """The part of the scan that the cube shows, so that a large volume is not copied for each."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * (CUBE - 1)
    index = grid.lps_to_index(cube.index_to_lps(corners))
    low = np.clip(np.floor(index.min(0)).astype(int) - MARGIN, 0, np.array(grid.shape) - 1)
    high = np.clip(np.ceil(index.max(0)).astype(int) + MARGIN + 1, low + 1, grid.shape)
    affine = grid.affine.copy()
    affine[:3, 3] = grid.index_to_lps(low)
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True)), Grid(tuple(high - low), affine)


def _moved(nodules: list[ScanNodule], window: Box, part: Grid, cube: Grid) -> np.ndarray:
    """The readers' bits of nodules on the cube, nearest voxel."""
    bits = np.zeros(part.shape, np.uint8)
    for nodule in nodules:
        low = [max(a.start, b.start) for a, b in zip(nodule.box, window, strict=True)]
        high = [min(a.stop, b.stop) for a, b in zip(nodule.box, window, strict=True)]
        if all(a < b for a, b in zip(low, high, strict=True)):
            to = tuple(slice(a - w.start, b - w.start) for a, b, w in zip(low, high, window, strict=True))
            of = tuple(slice(a - n.start, b - n.start) for a, b, n in zip(low, high, nodule.box, strict=True))
            bits[to] |= nodule.bits[of]
    return resample(bits, part, cube, linear=False, fill=0) if bits.any() else np.zeros(cube.shape, np.uint8)


def _unknown(marks: list[Mark], cube: Grid) -> np.ndarray:
    """Balls around marks about whose extent nothing is known."""
    found = np.zeros(cube.shape, bool)
    for mark in marks:
        if mark.unknown_mm:
            found |= ball(cube, np.array(mark.lps_mm), mark.unknown_mm)
    return found


def ball(grid: Grid, center_lps_mm: np.ndarray, diameter_mm: float) -> np.ndarray:
    """Voxels of a grid whose centers lie within a ball in the world: bool (z, y, x)."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    return ((grid.index_to_lps(index) - center_lps_mm) ** 2).sum(-1) <= (diameter_mm / 2) ** 2


def ball_box(grid: Grid, center_lps_mm: np.ndarray, diameter_mm: float) -> tuple[Box, np.ndarray]:
    """The same in the smallest box, cut at the grid's edge; the voxel at the center belongs to it in any case."""
    middle = grid.lps_to_index(center_lps_mm)
    reach = diameter_mm / 2 / np.array(grid.spacing_mm) + 1
    low = np.clip(np.floor(middle - reach).astype(int), 0, np.array(grid.shape) - 1)
    high = np.clip(np.ceil(middle + reach).astype(int) + 1, low + 1, grid.shape)
    affine = grid.affine.copy()
    affine[:3, 3] = grid.index_to_lps(low)
    mask = ball(Grid(tuple(high - low), affine), center_lps_mm, diameter_mm)
    mask[tuple(np.clip(np.rint(middle).astype(int) - low, 0, np.array(mask.shape) - 1))] = True
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True)), mask


def _extent(inside: np.ndarray, axis: int) -> tuple[int, int]:
    seen = np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis)))
    return (int(seen[0]), int(seen[-1]) + 1) if len(seen) else (0, 0)


def _block(valid: np.ndarray) -> np.ndarray:
    block = np.zeros((CUBE,) * 3, bool)
    z0, z1, y0, y1, x0, x1 = valid
    block[z0:z1, y0:y1, x0:x1] = True
    return block
