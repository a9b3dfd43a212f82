"""Candidates to train the classifier on: what generators mark in crops and whole scans, and bright places of lungs.

A candidate is cut at its own centroid, never at the reference. The classifier does not see the nodule image, so it does
not matter on which patients the generator was trained. Arrays are zyx at 1 mm.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from LNHGLib.files.atomic import atomic_file
from LNHGLib.image.boxes import box_between, box_of_edges, box_start, shift_box
from LNHGLib.image.volume import Grid
from LNHGLib.models import folder as models
from LNHGLib.models.card import FusionOptions
from LNHGLib.segmentation.classification import FIELD, candidate_field, finding_center
from LNHGLib.segmentation.ensemble import Ensemble, Member
from LNHGLib.segmentation.pipeline import PreparedScan, join_branches
from LNHGLib.segmentation.preprocessing import normalize
from scipy import ndimage

from LNHGTrainingLib.config import ClassifierConfig, Data
from LNHGTrainingLib.data.crops import LabeledVolume, load_crops
from LNHGTrainingLib.data.scans import read_scans
from LNHGTrainingLib.evaluation.attachment import lung_of_cube

logger = logging.getLogger(__name__)

ROOM = 4
"""Voxels that are kept around a field, for shifts."""
SIDE = FIELD + 2 * ROOM
MIN_SIGNAL = 0.05
"""Of the nodule image: what is above is a candidate."""
MIN_VOLUME_MM3 = 14.1
MIN_REACH = 5
"""Voxels that a crop shows to each side of a candidate at the least."""
BRIGHT_IN_CROP, BRIGHT_IN_SCAN = 3, 150
"""Bright places that are taken from a crop and from a whole scan."""
BRIGHT_HU, BRIGHT_SIGMA, BRIGHT_DISTANCE = -650, 1.5, 6
"""A bright place is a maximum of the CT, smoothed by so many voxels, above so many HU, so far from any nodule."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """N candidates.

    Attributes:
        hu: int16 (N, 40, 40, 40), the candidate's centroid at voxel 20; air outside of the CT.
        reach: voxels that the crop shows before the centroid along each axis and, as the last three, behind it, at most
            20, int8 (N, 6). A whole scan shows all.
        nodule: 1 for nodules of enough readers, 0 for what no reader outlined, uint8 (N,).
        marked: whether the generator marked it; the others are bright places, bool (N,).
        patient: str (N,).
        scan: whether it comes from a whole scan, bool (N,).
    """

    hu: np.ndarray
    reach: np.ndarray
    nodule: np.ndarray
    marked: np.ndarray
    patient: np.ndarray
    scan: np.ndarray

    def __len__(self) -> int:
        return len(self.nodule)

    def of(self, chosen: np.ndarray) -> "Candidates":
        """Return some of the candidates, by a mask or by their numbers."""
        return Candidates(*(getattr(self, each.name)[chosen] for each in fields(self)))

    @classmethod
    def joined(cls, parts: Sequence["Candidates"]) -> "Candidates":
        """Return all candidates of several parts."""
        return cls(*(np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(cls)))


def seen_field(
    ct_norm: np.ndarray, reach: np.ndarray, center: Sequence[float], window_hu: Sequence[float]
) -> np.ndarray:
    """Return the field around a candidate as if nothing were beyond its reach, float32 (32, 32, 32).

    Args:
        ct_norm: normalized CT around it, float32 (40, 40, 40).
        reach: of the candidate, or of another one: as a crop would cut it.
        center: index (z, y, x) in `ct_norm`.
        window_hu: HU that are 0 and 1 in it.
    """
    middle, seen = SIDE // 2, np.zeros_like(ct_norm)
    part = box_between(np.maximum(middle - reach[:3], 0), np.minimum(middle + 1 + reach[3:], SIDE))
    seen[part] = ct_norm[part]
    return candidate_field(seen, center, window_hu)


def find_candidates(
    volume: LabeledVolume, lungs: np.ndarray, image: np.ndarray, ct_norm: np.ndarray, scan: bool
) -> Iterator[tuple]:
    """Yield the attributes of `Candidates` for each component of a nodule image, and for some bright places.

    A candidate is a nodule where its centroid, or most of it, lies in the consensus; what else touches a nodule, or
    lies where nothing is known, is left out.

    Args:
        volume: the CT with its reference.
        lungs: bool (z, y, x).
        image: nodule image, float32 (z, y, x).
        ct_norm: normalized CT, float32 (z, y, x).
        scan: whether the volume is a whole scan.
    """
    prepared = PreparedScan(Grid.aligned(volume.hu.shape, (1, 1, 1), (0, 0, 0)), ct_norm, lungs)
    options = FusionOptions(min_volume_mm3=MIN_VOLUME_MM3)
    found = join_branches(prepared, image, np.zeros((0, 6)), 1, MIN_SIGNAL, options)
    places = []
    for finding in found.fusion.findings:
        box = box_of_edges(finding.box)
        where = tuple((np.argwhere(np.isin(found.labels[box], finding.labels)) + box_start(box)).T)
        center = np.rint(finding_center(found.labels, finding)).astype(int)
        around = volume.mask[box_between(np.maximum(center - 1, 0), center + 2)]
        nodule = bool(around.any() or volume.mask[where].mean() > 0.5)
        touches = volume.mask[where].any() or not volume.known[where].mean() > 0.9 or not volume.known[tuple(center)]
        if nodule or not touches:
            places.append((center, nodule, True))
    unmarked = lungs & (image <= MIN_SIGNAL)
    bright = bright_places(volume, unmarked, BRIGHT_IN_SCAN if scan else BRIGHT_IN_CROP)
    (shown,) = ndimage.find_objects(volume.known.view(np.uint8))
    shown_start, shown_stop = box_start(shown), np.array([part.stop for part in shown])
    for center, nodule, marked in (*places, *((place, False, False) for place in bright)):
        reach = np.full(6, SIDE // 2, np.int8)
        if not scan:
            sides = (*(center - shown_start), *(shown_stop - 1 - center))
            reach = np.clip(sides, -1, SIDE // 2).astype(np.int8)
        if reach.min() >= MIN_REACH:
            cube, start = np.full((SIDE,) * 3, -1000, volume.hu.dtype), center - SIDE // 2
            inside = box_between(np.maximum(start, 0), np.minimum(start + SIDE, volume.hu.shape))
            cube[shift_box(inside, -start)] = volume.hu[inside]
            yield cube, reach, nodule, marked, volume.patient, scan


def bright_places(volume: LabeledVolume, where: np.ndarray, count: int) -> np.ndarray:
    """Return the index of bright places far from nodules, vessels mostly, (count, 3) or fewer.

    Args:
        volume: the CT with its reference.
        where: where they may lie, bool (z, y, x).
        count: how many are drawn, the same ones each time.
    """
    smooth = ndimage.gaussian_filter(volume.hu.astype(np.float32), BRIGHT_SIGMA)
    near = ndimage.binary_dilation(volume.mask | ~volume.known, iterations=BRIGHT_DISTANCE)
    tops = (smooth == ndimage.maximum_filter(smooth, 2 * BRIGHT_DISTANCE - 5)) & (smooth > BRIGHT_HU)
    found = np.argwhere(tops & where & ~near)
    return np.random.default_rng(0).permutation(found)[:count]


def collect(volumes: Iterable[tuple], scan: bool) -> Candidates:
    """Return the candidates of several volumes.

    Args:
        volumes: the arguments of `find_candidates` for each, without `scan`.
        scan: whether they are whole scans.
    """
    rows = [row for volume in volumes for row in find_candidates(*volume, scan=scan)]
    types = (np.int16, np.int8, np.uint8, bool, str, bool)
    if not rows:
        shapes = (0, SIDE, SIDE, SIDE), (0, 6), *((0,) for _ in types[2:])
        return Candidates(*(np.zeros(shape, kind) for shape, kind in zip(shapes, types, strict=True)))
    return Candidates(*(np.asarray(column, kind) for column, kind in zip(zip(*rows, strict=True), types, strict=True)))


def load_candidates(config: ClassifierConfig, folds: Sequence[int], cache: Path) -> Candidates:
    """Return the candidates of the given folds.

    Args:
        config: of the training.
        folds: numbers of the folds.
        cache: folder where candidates are kept, since they take minutes.
    """
    found = [_of_fold(config, name, fold, cache) for name in config.models for fold in folds]
    others = (part.of(part.marked) for part in found[len(folds) :])  # bright places come from the first model
    return Candidates.joined([*found[: len(folds)], *others])


def _of_fold(config: ClassifierConfig, name: str, fold: int, cache: Path) -> Candidates:
    data, model = config.data, models.load(name)
    weights = model.card["files"][model.spec.generator.weights]
    stored = cache / f"candidates-{weights[:16]}-{fold}-{data.min_readers}.npz"
    if not stored.exists():
        with torch.random.fork_rng(devices=[]):  # the training's own random numbers do not depend on the cache
            predict = Ensemble([Member.of(model.generator("cpu"), model.spec.generator.slab)]).predict
        logger.info("%s looks for candidates in fold %d.", model.name, fold)
        parts = [collect(_volumes(data, fold, config.window_hu, predict, scans), scan=scans) for scans in (False, True)]
        cache.mkdir(parents=True, exist_ok=True)
        found = Candidates.joined(parts)
        with atomic_file(stored) as part, part.open("wb") as file:
            np.savez_compressed(file, **{each.name: getattr(found, each.name) for each in fields(Candidates)})
    with np.load(stored) as file:
        return Candidates(**{each.name: file[each.name] for each in fields(Candidates)})


def _volumes(data: Data, fold: int, window_hu: list[float], predict: Callable, scans: bool) -> Iterator[tuple]:
    folder = Path(data.folder)
    table = folder / data.table
    if scans:
        read = read_scans(folder / data.scans, table, [fold]) if data.scans else ()
        volumes = ((scan.labeled(data.min_readers), scan.lungs) for scan in read)
    else:
        crops = load_crops(folder / data.crops, table, [fold], data.min_readers)
        volumes = ((crop, lung_of_cube(crop.hu)) for crop in crops)
    for volume, lungs in volumes:
        ct_norm = normalize(volume.hu, window_hu)
        yield volume, lungs, predict(ct_norm, lungs), ct_norm
