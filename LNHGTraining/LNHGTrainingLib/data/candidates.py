"""Candidates to train the classifier on: what a generator marks in crops and whole scans, nodule or not.

Each comes from a generator that held the candidate's fold out, so that its nodule image is what an unseen patient's
would be. A candidate is cut at its own centroid, never at the reference. Arrays are zyx at 1 mm.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from LNHGLib.files.atomic import atomic_file
from LNHGLib.files.checksum import file_sha256
from LNHGLib.image.boxes import box_between, box_of_edges, box_start
from LNHGLib.image.volume import Grid
from LNHGLib.models.card import FusionOptions
from LNHGLib.segmentation.classification import FIELD, RADIUS, finding_center, finding_diameter_mm
from LNHGLib.segmentation.ensemble import Ensemble, Member
from LNHGLib.segmentation.pipeline import PreparedScan, join_branches
from LNHGLib.segmentation.preprocessing import normalize

from LNHGTrainingLib.baselines.monai_unet import build_generator
from LNHGTrainingLib.config import ClassifierConfig, Data
from LNHGTrainingLib.data.crops import LabeledVolume, load_crops
from LNHGTrainingLib.data.scans import read_scans
from LNHGTrainingLib.evaluation.attachment import lung_of_cube
from LNHGTrainingLib.training import checkpoint

logger = logging.getLogger(__name__)

ROOM = 4
"""Voxels that are kept around a field, for shifts."""
SIDE = FIELD + 2 * ROOM
MIN_SIGNAL = 0.05
"""Of the nodule image: what is above is a candidate."""
MIN_VOLUME_MM3 = 14.1


@dataclass(frozen=True, eq=False)
class Candidates:
    """N candidates.

    Attributes:
        hu: int16 (N, 40, 40, 40), the candidate's centroid near voxel 20; air outside of the CT.
        image: nodule image in 1/255 of the window, uint8 of the same shape.
        nodule: 1 for nodules of enough readers, 0 for what no reader outlined, uint8 (N,).
        segmenter_score: float32 (N,).
        diameter_mm: of the ball of equal volume, float32 (N,).
        patient: str (N,).
        scan: whether it comes from a whole scan, bool (N,).
    """

    hu: np.ndarray
    image: np.ndarray
    nodule: np.ndarray
    segmenter_score: np.ndarray
    diameter_mm: np.ndarray
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


def find_candidates(
    volume: LabeledVolume, lungs: np.ndarray, image: np.ndarray, ct_norm: np.ndarray, scan: bool
) -> Iterable[tuple]:
    """Yield what is known of each component of a nodule image in the order of the attributes of `Candidates`.

    A candidate is a nodule where its centroid, or most of it, lies in the consensus; what else touches a nodule, or
    lies where nothing is known, is left out. So is what lies so near to a cube's border that its field would be cut:
    fields in whole scans are not.

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
    for finding in found.fusion.findings:
        box = box_of_edges(finding.box)
        points = np.argwhere(np.isin(found.labels[box], finding.labels)) + box_start(box)
        center = np.rint(finding_center(found.labels, finding)).astype(int)
        where = tuple(points.T)
        around = volume.mask[box_between(np.maximum(center - 1, 0), center + 2)]
        nodule = bool(around.any() or volume.mask[where].mean() > 0.5)
        touches = volume.mask[where].any() or not volume.known[where].mean() > 0.9 or not volume.known[tuple(center)]
        cut = not scan and (np.minimum(center, np.array(volume.hu.shape) - 1 - center) < RADIUS).any()
        if cut or (not nodule and touches):
            continue
        hu = _cube(volume.hu, center, -1000)
        shown = np.rint(255 * np.clip(_cube(image, center, 0), 0, 1)).astype(np.uint8)
        diameter = finding_diameter_mm(found.labels, finding, 1.0)
        yield hu, shown, nodule, finding.segmenter_score, diameter, volume.patient, scan


def _cube(array: np.ndarray, center: np.ndarray, fill: int) -> np.ndarray:
    start = center - SIDE // 2
    inside = box_between(np.maximum(start, 0), np.minimum(start + SIDE, array.shape))
    cube = np.full((SIDE,) * 3, fill, array.dtype)
    cube[tuple(slice(one.start - low, one.stop - low) for one, low in zip(inside, start, strict=True))] = array[inside]
    return cube


def collect(volumes: Iterable[tuple], scan: bool) -> Candidates:
    """Return the candidates of several volumes.

    Args:
        volumes: the arguments of `find_candidates` for each, without `scan`.
        scan: whether they are whole scans.
    """
    rows = [row for volume in volumes for row in find_candidates(*volume, scan=scan)]
    types = (np.int16, np.uint8, np.uint8, np.float32, np.float32, str, bool)
    if not rows:
        empty = np.zeros((0, SIDE, SIDE, SIDE))
        return Candidates(*(np.asarray(empty if i < 2 else [], kind) for i, kind in enumerate(types)))
    return Candidates(*(np.asarray(column, kind) for column, kind in zip(zip(*rows, strict=True), types, strict=True)))


def load_candidates(config: ClassifierConfig, folds: Sequence[int], cache: Path) -> Candidates:
    """Return the candidates of the given folds, each from the generator that held its fold out.

    Args:
        config: of the training.
        folds: numbers of the folds.
        cache: folder where candidates are kept, since they take minutes.
    """
    return Candidates.joined([_of_fold(config, fold, cache) for fold in folds])


def _of_fold(config: ClassifierConfig, fold: int, cache: Path) -> Candidates:
    data, path = config.data, Path(config.generators[fold])
    stored = cache / f"candidates-{file_sha256(path)[:16]}-{data.min_readers}.npz"
    if not stored.exists():
        state = checkpoint.load(path)
        checkpoint.require_held_out(state, path, fold)
        with torch.random.fork_rng(devices=[]):  # the training's own random numbers do not depend on the cache
            generator = build_generator(state["config"]["generator"])
        generator.load_state_dict(state["ema"])
        generator = generator.to(memory_format=torch.channels_last_3d).eval().requires_grad_(False)
        generator.fold_norms()
        predict = Ensemble([Member.of(generator)]).predict
        logger.info("Looking for candidates in fold %d.", fold)
        parts = [collect(_volumes(data, fold, config.window_hu, predict, scans), scan=scans) for scans in (False, True)]
        cache.mkdir(parents=True, exist_ok=True)
        found = Candidates.joined(parts)
        with atomic_file(stored) as part, part.open("wb") as file:
            np.savez_compressed(file, **{each.name: getattr(found, each.name) for each in fields(Candidates)})
    with np.load(stored) as file:
        return Candidates(**{each.name: file[each.name] for each in fields(Candidates)})


def _volumes(data: Data, fold: int, window_hu: list[float], predict, scans: bool) -> Iterable[tuple]:
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
