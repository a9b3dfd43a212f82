"""Training data: nodule crops with readers' outlines, chest CT backgrounds, patches and slices drawn from them.

Random choice (`draw_*`, from a `numpy.random.Generator`) is kept apart from its deterministic application.
Arrays are zyx at 1 mm.
"""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from LNHGLib.errors import InputError
from scipy import ndimage

CUBE = 50
CAVITY_HU = -950.0
WALL_MM = (1.0, 3.5)
"""Thinnest and thickest wall of a nodule made hollow."""
KEPT = 1024
"""Cubes that stay in memory once read, half a gigabyte: unpacking one takes longer than drawing a patch of it."""


@dataclass(frozen=True, eq=False)
class LabeledVolume:
    """A CT volume with its reference.

    Attributes:
        hu: int16 (z, y, x).
        mask: bool (z, y, x), 50 % consensus of the readers (register U19).
        known: bool (z, y, x), False where the reference does not say (other or unlisted lesions).
        patient: patient identifier.
        row: the table's row; empty for a background.
    """

    hu: np.ndarray
    mask: np.ndarray
    known: np.ndarray
    patient: str
    row: dict


def consensus(bits: np.ndarray, readers: int) -> np.ndarray:
    """Voxels inside at least half of the readers' outlines.

    Args:
        bits: uint8, bit r set inside the outline of reader r.
        readers: number of readers.
    """
    votes = np.zeros(bits.shape, np.uint8)
    for reader in range(8):
        votes += (bits >> reader) & 1
    return 2 * votes >= readers


class CropDataset(Sequence[LabeledVolume]):
    """The cubes of a table's rows, read when asked for, by each process from a file that it opens itself.

    Args:
        path: HDF5 file laid out like `luna16_crops.h5`.
        rows: rows of its table.
    """

    def __init__(self, path: Path, rows: list[dict]) -> None:
        self.path, self.rows = Path(path), rows
        self._kept: dict[int, LabeledVolume] = {}
        self._file: h5py.File | None = None
        self._process = -1

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int | slice) -> "LabeledVolume | CropDataset":
        if isinstance(number, slice):
            return CropDataset(self.path, self.rows[number])
        if number in self._kept:
            return self._kept[number]
        crop = _crop(self._opened(), self.rows[number])
        if len(self._kept) < KEPT:
            self._kept[number] = crop
        return crop

    def spread(self, count: int) -> "CropDataset":
        """Every n-th crop, so that about `count` are left, and not fewer."""
        return self[:: max(1, len(self) // count)]

    def _opened(self) -> h5py.File:
        if self._file is None or self._process != os.getpid():  # a forked worker must not use its parent's handle
            self._file, self._process = h5py.File(self.path, "r"), os.getpid()
        return self._file

    def __getstate__(self) -> dict:
        return {"path": self.path, "rows": self.rows, "_kept": {}, "_file": None, "_process": -1}


def load_crops(crops: Path, table: Path, folds: list[int], min_readers: int = 1) -> CropDataset:
    """The usable crops of the given folds; crops kept for testing (`scan_test`) never come back.

    Raises:
        InputError: no crop fits.
    """
    with Path(table).open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if _selected(row, folds, min_readers)]
    if not rows:
        raise InputError(f"{table} holds no usable crop of folds {folds}; expected at least one: check the folds.")
    return _checked(crops, rows)


def load_negatives(crops: Path, table: Path, folds: list[int]) -> CropDataset:
    """The cubes of the given folds at candidates that are no nodules, as `lnhg-train prepare luna16` makes them."""
    with Path(table).open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row.get("kind") == "negative"]
    rows = [row for row in rows if row["scan_test"] == "0" and int(row["fold"]) in folds]
    return _checked(crops, rows)


def _checked(crops: Path, rows: list[dict]) -> CropDataset:
    with h5py.File(crops) as file:
        require_parts(file)
    return CropDataset(crops, rows)


def require_parts(file: h5py.File) -> None:
    """Refuse an index of prepared data whose scans were left behind: HDF5 would read zeros without a word.

    Raises:
        InputError: names a file that is missing.
    """
    if not file["ct"].is_virtual:
        return
    folder = Path(file.filename).parent
    missing = sorted(
        {part.file_name for part in file["ct"].virtual_sources() if not (folder / part.file_name).is_file()}
    )
    if missing:
        raise InputError(
            f"{file.filename} shows cubes of {missing[0]} and {len(missing) - 1} more file(s) that are not beside it; "
            "copy the whole folder of prepared data."
        )


def _selected(row: dict, folds: list[int], min_readers: int) -> bool:
    usable = row["usable"] == "1" and row["scan_test"] == "0"
    return usable and int(row["fold"]) in folds and int(row["n_readers_usable"]) >= min_readers


def _crop(file: h5py.File, row: dict) -> LabeledVolume:
    index, readers = int(row["row"]), int(row["n_readers_usable"])
    bits = file["reader_masks"][index]
    mask = consensus(bits, readers) if readers else np.zeros(bits.shape, bool)
    known = (file["other_mask"][index] == 0) | mask
    z0, z1, y0, y1, x0, x1 = file["valid_extent"][index]
    inside = np.zeros_like(known)
    inside[z0:z1, y0:y1, x0:x1] = True
    return LabeledVolume(file["ct"][index], mask, known & inside, row["patient_id"], row)


def patients(crops: CropDataset) -> set[str]:
    """The patients behind the crops."""
    return {row["patient_id"] for row in crops.rows}


def assert_disjoint(train: CropDataset, validation: CropDataset) -> None:
    """Refuse a patient on both sides of a split (register U5).

    Raises:
        InputError: names the shared patients.
    """
    shared = sorted(patients(train) & patients(validation))
    if shared:
        raise InputError(
            f"{len(shared)} patients ({shared[0]}, ...) are in training and validation, expected none: "
            "split by patient."
        )


@dataclass(frozen=True)
class SpatialAugmentation:
    """How a patch is cut: source index of its centre, matrix from patch to source offsets, intensity changes."""

    centre: tuple[float, float, float]
    matrix: np.ndarray
    shift_hu: float = 0.0
    contrast: float = 1.0
    noise_hu: float = 0.0
    blur: tuple[float, float, float] = (0.0, 0.0, 0.0)
    noise_seed: int = 0


def draw_matrix(rng: np.random.Generator, scale: float = 0.15, degrees: float = 15.0) -> np.ndarray:
    """A flip, quarter turns and a small turn in the axial plane, and a small scale change: (3, 3) zyx."""
    angle = np.deg2rad(90 * rng.integers(4) + rng.uniform(-degrees, degrees))
    turn = np.eye(3)
    turn[1:, 1:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    flips = np.diag(rng.choice([-1.0, 1.0], 3))
    return turn @ flips * np.exp(rng.uniform(-scale, scale))


def draw_plane(rng: np.random.Generator, planes: int) -> np.ndarray:
    """The turn of axes that makes an axial patch one of the first `planes` of axial, coronal, sagittal: (3, 3) zyx."""
    return np.roll(np.eye(3), rng.integers(planes), axis=0)


def sample_augmentation(rng: np.random.Generator, centre: np.ndarray, planes: int = 1) -> SpatialAugmentation:
    """A random patch around `centre` in one of `planes`, with scanner-like intensity changes."""
    thick = rng.uniform(0.5, 1.2) if rng.random() < 0.3 else 0.0
    soft = rng.uniform(0.3, 0.8) if rng.random() < 0.3 else 0.0
    return SpatialAugmentation(
        centre=tuple(float(c) for c in centre),
        matrix=draw_plane(rng, planes) @ draw_matrix(rng),
        shift_hu=float(rng.normal(0, 15)),
        contrast=float(np.exp(rng.normal(0, 0.04))),
        noise_hu=float(abs(rng.normal(0, 20))) if rng.random() < 0.5 else 0.0,
        blur=(max(thick, soft), soft, soft),
        noise_seed=int(rng.integers(2**31)),
    )


def cut(
    volume: LabeledVolume, warp: SpatialAugmentation, side: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The patch that `warp` names.

    Args:
        volume: source.
        warp: geometry; intensity changes are left to `scanner`.
        side: (D, H, W) of the patch.

    Returns:
        hu float32, mask bool, known bool, each (D, H, W); `known` is False outside the source.
    """
    middle = (np.asarray(side) - 1) / 2
    block, start = _block(volume, warp, side)
    offset = np.asarray(warp.centre) - warp.matrix @ middle - start
    options = {"matrix": warp.matrix, "offset": offset, "output_shape": tuple(side)}
    hu = ndimage.affine_transform(volume.hu[block].astype(np.float32), order=1, mode="mirror", **options)
    mask = ndimage.affine_transform(volume.mask[block].astype(np.float32), order=1, cval=0.0, **options) > 0.5
    known = ndimage.affine_transform(volume.known[block].astype(np.uint8), order=0, cval=0, **options) > 0
    return hu, mask, known


def _block(
    volume: LabeledVolume, warp: SpatialAugmentation, side: tuple[int, int, int]
) -> tuple[tuple[slice, ...], np.ndarray]:
    """The part of the source that the patch can reach, so that large volumes are not copied."""
    reach = np.abs(warp.matrix) @ (np.asarray(side) / 2) + 2
    low = np.maximum(0, np.floor(warp.centre - reach)).astype(int)
    high = np.minimum(volume.hu.shape, np.ceil(warp.centre + reach) + 1).astype(int)
    return tuple(slice(a, b) for a, b in zip(low, high, strict=True)), low


def scanner(hu: np.ndarray, warp: SpatialAugmentation) -> np.ndarray:
    """HU with the warp's blur, contrast, shift and noise."""
    if any(warp.blur):
        hu = ndimage.gaussian_filter(hu, warp.blur)
    hu = (hu + 1000) * warp.contrast - 1000 + warp.shift_hu
    if warp.noise_hu:
        noise = np.random.default_rng(warp.noise_seed).normal(0, warp.noise_hu, hu.shape)
        hu = hu + ndimage.gaussian_filter(noise, 0.6) * 2.0
    return hu.astype(np.float32)


def paste(hu: np.ndarray, nodule_hu: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Blend a nodule with a soft rim into other lung tissue: three (D, H, W) arrays -> (D, H, W)."""
    soft = ndimage.gaussian_filter(ndimage.binary_dilation(mask, iterations=1).astype(np.float32), 0.8)
    alpha = np.clip(soft * 1.3, 0, 1)
    return hu * (1 - alpha) + nodule_hu * alpha


def sample_cavity(rng: np.random.Generator, share: float, hu: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """In this share of draws the nodule as a cavity: cavitary nodules are too rare in the data to learn them from."""
    if share and rng.random() < share:
        return hollow(hu, mask, rng.uniform(*WALL_MM))
    return hu


def hollow(hu: np.ndarray, mask: np.ndarray, wall_mm: float) -> np.ndarray:
    """The nodule filled with air inside its wall: HU and mask (D, H, W) at 1 mm -> HU; a thinner one stays as it is."""
    air = ndimage.distance_transform_edt(mask) > wall_mm + 0.5  # from the mask's border, half a voxel beyond its rim
    soft = ndimage.gaussian_filter(air.astype(np.float32), 0.7)
    return hu * (1 - soft) + CAVITY_HU * soft
