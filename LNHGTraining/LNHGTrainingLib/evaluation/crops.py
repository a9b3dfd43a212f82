"""Location given: the generator alone on cubes around known nodules, against the readers' consensus.

Arrays are zyx at 1 mm, 50 voxels a side, the nodule near index (25, 25, 25).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from LNHGLib.errors import InputError
from LNHGLib.files.text import read_csv
from LNHGLib.models.card import SECOND, with_words_of_today
from LNHGLib.segmentation.attachments import CORE, prune_mask
from LNHGLib.segmentation.components import mark_around, nearest
from scipy import ndimage

from LNHGTrainingLib.data.crops import consensus, nodule_diameter_mm, open_crops, read_crop
from LNHGTrainingLib.evaluation import metrics
from LNHGTrainingLib.evaluation.attachment import DEFINITION, attachment, lung_of_cube

SPACING_MM = (1.0, 1.0, 1.0)
REACH_MM = 5.0
MIN_VOLUME_MM3 = 14.1
"""Of a ball of 3 mm; what is smaller is not taken for a nodule."""
PICTURES = 8
"""How many of the worst and of the best nodules are shown."""
CONNECTIVITY = np.ones((3, 3, 3), int)
COLUMNS = ("row", "patient_id", "series_uid", "nodule_index", "usable", "n_readers_usable")
"""Columns the table must have; diameter, texture, fold and scan_test are used where present."""

PROTOCOL = (
    "Location given: the generator alone sees {field} voxels along each axis around the middle of the nodule's cube of "
    "50 mm, as around a candidate in a scan (nnU-Net sees the whole cube). Its image is cut at the model's "
    "threshold; the component (26-connected) at the cube's center counts, else the nearest within {reach:g} mm. "
    "The reference is the voxels inside at least half of the readers' outlines, for nodules of at least {readers} "
    "readers; padding is left out. Dice is 3-D at 1 mm, a nodule without an overlapping component counts 0. "
    "HD95 is the larger directed 95th percentile of surface distances. Human leave-one-out: each reader against the "
    "half consensus of the others, on the same nodules. Marked elsewhere: other components of at least {smallest:g} "
    f"mm3 in the cube's lung that touch no reader's outline and no other lesion of the reference. {DEFINITION}"
)

PRUNED = (
    " Outlines are trimmed: of the component counts what lies within its depth (the radius of the largest ball in it "
    f"near the center) of its core (the part there at least {CORE:g} times as deep)."
)
FAINT = (
    " Findings with a signal (0.9 quantile of their image) below {:g} are cut lower, by the square of its part of it."
)

Predict = Callable[[np.ndarray], np.ndarray]
"""Maps a cube of HU, int16 (z, y, x) at 1 mm, to the nodule image G, float (z, y, x)."""


def protocol(readers: int) -> str:
    """Return how crops are scored, for nodules of at least so many readers."""
    from LNHGLib.segmentation.ensemble import FIELD

    return PROTOCOL.format(field=FIELD, reach=REACH_MM, smallest=MIN_VOLUME_MM3, readers=readers)


def inference_text(card: dict) -> str:
    """Return what the protocol says of a model's inference: of its ensemble, and of pruned outlines."""
    generator = with_words_of_today(card["generator"])
    members = [
        "of the cube",
        *(["of the cube rotated by 180 degrees in the axial plane"] if generator.get("rotate_180") else []),
        *(["by a second generator"] if SECOND in card else []),
    ]
    text = PRUNED if generator.get("prune_attachments") else ""
    if "faint_below" in generator:
        text += FAINT.format(generator["faint_below"])
    if len(members) == 1:
        return text
    number = {2: "two", 3: "three"}[len(members)]
    return f" The nodule image is the mean of {number} predictions: {', '.join(members[:-1])}, and {members[-1]}.{text}"


class CropFiles(NamedTuple):
    """Where crops are.

    Attributes:
        crops: HDF5 file laid out like `luna16_crops.h5`.
        table: CSV laid out like `luna16_crops.csv`.
    """

    crops: Path
    table: Path


@dataclass(frozen=True)
class Selection:
    """Which crops are scored.

    Attributes:
        folds: Their numbers; None takes all.
        min_readers: Fewest readers of a nodule.
        scan_test: Whether nodules of the test scans are scored too.
        limit: How many at most.
    """

    folds: tuple[int, ...] | None = None
    min_readers: int = 3
    scan_test: bool = False
    limit: int | None = None

    def admits(self, row: dict[str, str]) -> bool:
        """Return whether a row of the table is one of those, before the limit."""
        if row["usable"] != "1" or int(row["n_readers_usable"]) < self.min_readers:
            return False
        if row.get("scan_test") == "1":
            return self.scan_test
        return self.folds is None or int(row.get("fold") or -1) in self.folds


@dataclass(frozen=True, eq=False)
class Crop:
    """A nodule with its readers' outlines.

    Attributes:
        row: Of the table.
        hu: int16 (z, y, x).
        readers: bool (reader, z, y, x), False in padding.
        reference: bool (z, y, x), the readers' consensus.
        others: bool (z, y, x), other lesions.
        valid: bool (z, y, x), False in padding.
    """

    row: dict[str, str]
    hu: np.ndarray
    readers: np.ndarray
    reference: np.ndarray
    others: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True)
class NoduleScore:
    """A row of `nodules.csv`; NaN where a metric does not exist."""

    patient: str
    series: str
    nodule: str
    diameter_mm: float
    readers: int
    texture: float
    juxta_pleural: int
    juxta_vascular: int
    found: int
    dice: float
    hd95_mm: float
    volume_mm3: float
    reference_volume_mm3: float
    volume_error: float
    human_loo_dice: float


@dataclass(frozen=True)
class CropScore(NoduleScore):
    """A row of `nodules.csv` on crops; `elsewhere` counts the false positives in the crop, see `PROTOCOL`."""

    elsewhere: int


@dataclass(frozen=True, eq=False)
class Picture:
    """What a picture of one nodule needs; hu int16, mask and reference bool, (z, y, x) each."""

    score: CropScore
    hu: np.ndarray
    mask: np.ndarray
    reference: np.ndarray


@dataclass(eq=False)
class CropResults:
    """Scores of all nodules, pictures of the worst and the best, and how many had no reference."""

    scores: list[CropScore] = field(default_factory=list)
    worst: list[Picture] = field(default_factory=list)
    best: list[Picture] = field(default_factory=list)
    without_reference: int = 0

    @staticmethod
    def joined(parts: "list[CropResults]") -> "CropResults":
        """Return the results of several parts of the crops as one."""
        results = CropResults(without_reference=sum(part.without_reference for part in parts))
        for part in parts:
            results.scores += part.scores
            results.keep(part.worst + part.best)
        return results

    def keep(self, pictures: list[Picture]) -> None:
        """Keep the pictures that are among the worst or the best."""
        self.worst = sorted([*self.worst, *pictures], key=lambda p: p.score.dice)[:PICTURES]
        self.best = sorted([*self.best, *pictures], key=lambda p: -p.score.dice)[:PICTURES]


def select_rows(table: Path, selection: Selection) -> list[dict[str, str]]:
    """Return the rows of the table to score.

    Args:
        table: CSV laid out like `luna16_crops.csv`.
        selection: Which nodules.

    Raises:
        InputError: A column is missing or no row fits.
    """
    rows = read_csv(Path(table))
    missing = [column for column in COLUMNS if rows and column not in rows[0]]
    if missing:
        raise InputError(f"{table} lacks the columns {', '.join(missing)}; expected the layout of luna16_crops.csv.")
    chosen = [row for row in rows if selection.admits(row)]
    if not chosen:
        folds = "all" if selection.folds is None else " ".join(map(str, selection.folds))
        raise InputError(
            f"{table} holds no usable crop among {len(rows)} for folds {folds}, at least "
            f"{selection.min_readers} readers, test scans {'included' if selection.scan_test else 'left out'}; "
            "expected at least one: choose other --folds or --min-readers, or add --include-scan-test."
        )
    return chosen[: selection.limit]


def read_crops(crops: Path, rows: list[dict[str, str]]) -> Iterator[Crop]:
    """Read the cubes that belong to the rows, one at a time.

    Args:
        crops: HDF5 file laid out like `luna16_crops.h5`.
        rows: Of its table.

    Raises:
        InputError: The file is no HDF5 file of this layout or is shorter than the table.
    """
    with open_crops(Path(crops), rows) as file:
        for row in rows:
            stored = read_crop(file, row)
            bits = stored.reader_bits * stored.valid
            used = [bit for bit in range(8) if (bits >> bit & 1).any()]
            readers = np.array([bits >> bit & 1 for bit in used], bool).reshape(len(used), *bits.shape)
            reference = consensus(bits, int(row["n_readers_usable"])) & stored.valid
            yield Crop(row, stored.hu, readers, reference, stored.others > 0, stored.valid)


def center_component(mask: np.ndarray, reach_mm: float = REACH_MM) -> np.ndarray:
    """Return the component at the middle of a cube at 1 mm.

    Args:
        mask: bool (z, y, x).
        reach_mm: How far the nearest component may lie when none contains the middle voxel.

    Returns:
        That component (26-connected), bool (z, y, x); all False when there is none.
    """
    return nearest(mask, [size // 2 for size in mask.shape], SPACING_MM, reach_mm)


def central_nodule(
    image: np.ndarray, threshold: float, prune: bool = False, faint_below: float | None = None
) -> np.ndarray:
    """Outline the nodule at the middle of a cube at 1 mm.

    Args:
        image: Nodule image, float (z, y, x).
        threshold: Cuts it into a mask.
        prune: Leave out the vessels and walls that the outline ran along, see `attachments.prune_mask`.
        faint_below: As `mark_around` takes it.

    Returns:
        bool (z, y, x).
    """
    nodule = center_component(mark_around(image, center_component(image > threshold), threshold, faint_below))
    return prune_mask(nodule, [size // 2 for size in image.shape], SPACING_MM) if prune else nodule


def false_positives_in_crop(marked: np.ndarray, nodule: np.ndarray, crop: Crop) -> int:
    """Count the false positives in the cube's lung ("marked elsewhere" in `PROTOCOL`).

    Args:
        marked: Everything that was marked, bool (z, y, x).
        nodule: The part of it that counts as the nodule, bool (z, y, x).
        crop: The cube.
    """
    labels, count = ndimage.label(marked & lung_of_cube(crop.hu), CONNECTIVITY)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[np.unique(labels[nodule | crop.readers.any(0) | crop.others])] = 0
    return int((sizes[1:] >= MIN_VOLUME_MM3).sum())


def score_crop(
    crop: Crop, predict: Predict, threshold: float, prune: bool = False, faint_below: float | None = None
) -> Picture:
    """Segment one crop and compare it with the consensus of its readers.

    Args:
        crop: The nodule.
        predict: The generator.
        threshold: Cuts the generator's image into a mask.
        prune: Prune the outline.
        faint_below: As `mark_around` takes it.
    """
    image = np.where(crop.valid, predict(crop.hu), 0)
    mask = central_nodule(image, threshold, prune, faint_below)
    found = bool((mask & crop.reference).any())
    row, voxels = crop.row, int(crop.reference.sum())
    attached = attachment(crop.hu, crop.reference, SPACING_MM, crop.valid)
    score = CropScore(
        patient=row["patient_id"],
        series=row["series_uid"],
        nodule=row["nodule_index"],
        diameter_mm=nodule_diameter_mm(row, voxels),
        readers=int(row["n_readers_usable"]),
        texture=float(row.get("att_texture") or "nan"),
        juxta_pleural=int(attached.pleural),
        juxta_vascular=int(attached.vascular),
        found=int(found),
        dice=metrics.dice(mask, crop.reference),
        hd95_mm=metrics.hd95_mm(mask, crop.reference, SPACING_MM) if found else float("nan"),
        volume_mm3=float(mask.sum()),
        reference_volume_mm3=float(voxels),
        volume_error=metrics.volume_error(mask, crop.reference) if found else float("nan"),
        human_loo_dice=metrics.leave_one_out_dice(crop.readers),
        elsewhere=false_positives_in_crop(image > threshold, mask, crop),
    )
    return Picture(score, crop.hu, mask, crop.reference)


def evaluate_crops(
    crops: Iterable[Crop], predict: Predict, threshold: float, prune: bool = False, faint_below: float | None = None
) -> CropResults:
    """Score crops one by one, so that only the pictures kept stay in memory.

    Args:
        crops: As from `read_crops`.
        predict: The generator, or anything else that maps a cube to a nodule image.
        threshold: Cuts the nodule image into a mask.
        prune: Prune the outlines.
        faint_below: As `mark_around` takes it.

    Raises:
        InputError: No crop has a reference voxel.
    """
    results = CropResults()
    for crop in crops:
        if not crop.reference.any():
            results.without_reference += 1
            continue
        picture = score_crop(crop, predict, threshold, prune, faint_below)
        results.scores.append(picture.score)
        results.keep([picture])
    if not results.scores:
        count = results.without_reference
        raise InputError(f"None of the {count} crops has a reference voxel; expected readers' outlines.")
    return results
