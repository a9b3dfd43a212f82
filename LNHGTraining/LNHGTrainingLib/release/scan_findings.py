"""What a model's networks find in whole scans and in crops, each finding with the scores of all parts.

The stages are the pipeline's own, up to the score: what is calibrated and compared here is what runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from LNHGLib.image.volume import Grid
from LNHGLib.models.folder import Model
from LNHGLib.segmentation import pipeline
from LNHGLib.segmentation.calibration import sphere_diameter_mm
from LNHGLib.segmentation.classification import finding_center, finding_diameter_mm
from LNHGLib.segmentation.pipeline import Findings, PreparedScan
from LNHGLib.segmentation.preprocessing import normalize
from LNHGLib.segmentation.progress import Monitor
from LNHGLib.segmentation.runtime import Where, choose_runtime
from scipy import ndimage
from tqdm import tqdm

from LNHGTrainingLib.data.crops import LabeledVolume
from LNHGTrainingLib.data.scans import Scan
from LNHGTrainingLib.evaluation.attachment import lung_of_cube
from LNHGTrainingLib.evaluation.matching import MIN_READERS, Finding, ReferenceNodule, match_findings
from LNHGTrainingLib.evaluation.metrics import Detections

LARGEST_OUTLINED_MM = 30.0
"""LIDC's readers outlined no larger nodules: a larger finding that nobody outlined may be a mass, and is left out."""


@dataclass(frozen=True)
class ScoredFinding:
    """A finding in a scan or a crop.

    Attributes:
        scan: name of the scan.
        patient: patient identifier.
        provenance: "fused" or "segmenter".
        segmenter: score in 0..1.
        detector: score in 0..1; None where the detector found nothing there.
        classifier: score in 0..1; None where there is none.
        diameter_mm: of the ball of equal volume.
        center: index (z, y, x) in the scan.
        on: numbers of the nodules that it may hit: of enough readers, with the centroid in their consensus.
        touches: whether it lies on any nodule that a reader outlined.
    """

    scan: str
    patient: str
    provenance: str
    segmenter: float
    detector: float | None
    classifier: float | None
    diameter_mm: float
    center: tuple[int, int, int]
    on: tuple[int, ...]
    touches: bool


def is_counted(row: ScoredFinding) -> bool:
    """Return whether a finding that touches no outline counts as false; it may be a mass where it is very large."""
    return row.diameter_mm <= LARGEST_OUTLINED_MM


def without_probability(model: Model) -> Model:
    """Return a model that leaves nothing out and whose detector looks, whatever its probabilities rest on."""
    return replace(model, card={key: value for key, value in model.card.items() if key != "probability"})


def grid_of(scan: Scan) -> Grid:
    """Return the grid of a scan."""
    return Grid(scan.hu.shape, scan.affine)


def score_scan(scan: Scan, model: Model, device: "str | Where") -> list[ScoredFinding]:
    """Return what a model finds in a scan, with the scores of its parts; no boxes of the detector alone.

    Args:
        scan: whole, at 1 mm.
        model: for a grid of 1 mm.
        device: where to compute.
    """
    grid = grid_of(scan)
    prepared = PreparedScan(grid, normalize(scan.hu, model.spec.window_hu), scan.lungs)
    return match(scan.name, scan.patient, reference_nodules(scan, grid), _find(prepared, model, device), grid)


def score_crop(name: str, crop: LabeledVolume, model: Model, device: "str | Where") -> list[ScoredFinding]:
    """Return what a model finds in a crop, with the scores of its parts; no boxes of the detector alone.

    Args:
        name: of the crop.
        crop: with the consensus on its nodule.
        model: for a grid of 1 mm.
        device: where to compute.
    """
    grid = Grid.aligned(crop.hu.shape, (1, 1, 1), (0, 0, 0))
    prepared = PreparedScan(grid, normalize(crop.hu, model.spec.window_hu), lung_of_cube(crop.hu))
    (box,) = ndimage.find_objects(crop.mask.view(np.uint8))
    center, diameter_mm = np.argwhere(crop.mask).mean(0), sphere_diameter_mm(float(crop.mask.sum()))
    agreed = np.repeat(crop.mask[box][None], MIN_READERS, axis=0)
    nodule = ReferenceNodule(1, box, agreed, grid.index_to_lps(center), diameter_mm)
    return match(name, crop.patient, [nodule], _find(prepared, model, device), grid)


def search(
    scans: Sequence[Scan],
    of_scans: Sequence[Model],
    crops: Sequence[LabeledVolume],
    model: Model,
    device: "str | Where",
) -> tuple[list[ScoredFinding], dict[str, int]]:
    """Return what is found falsely in scans and what hits the nodules of crops, and how many nodules each place has.

    Args:
        scans: whole ones.
        of_scans: the model that searches each of them.
        crops: around one nodule each.
        model: searches the crops.
        device: where to compute.
    """
    rows, places = [], dict.fromkeys((scan.name for scan in scans), 0)
    for scan, one in zip(tqdm(scans, unit="scan", disable=None), of_scans, strict=True):
        rows += [row for row in score_scan(scan, one, device) if not row.touches and is_counted(row)]
    for number, crop in enumerate(tqdm(crops, unit="crop", disable=None)):
        places[f"crop {number}"] = 1
        rows += [row for row in score_crop(f"crop {number}", crop, model, device) if row.on]
    return rows, places


def _find(prepared: PreparedScan, model: Model, device: "str | Where") -> Findings:
    spec, where, monitor = model.spec, choose_runtime(device, model), Monitor()
    predictor, image = pipeline.predict_nodule_image(prepared, model, where, monitor)
    boxes, step = pipeline.detect_boxes(prepared, model, where, monitor)
    found = pipeline.join_branches(prepared, image, boxes, step, spec.generator.threshold, spec.fusion)
    found = pipeline.classify_findings(prepared, pipeline.without_boxes(found), model, where, monitor)
    return pipeline.look_again(prepared, found, predictor, spec, 0.0, monitor)[0]


def match(
    name: str, patient: str, nodules: Sequence[ReferenceNodule], found: Findings, grid: Grid
) -> list[ScoredFinding]:
    """Say of each finding which nodules it lies on, by the rule of `matching.PROTOCOL`.

    Args:
        name: of the scan or crop.
        patient: patient identifier.
        nodules: those in it.
        found: on the grid of the scan or crop.
        grid: of the scan or crop.
    """
    own = np.zeros(int(found.labels.max(initial=0)) + 1, np.int32)
    for number, finding in enumerate(found.fusion.findings, 1):
        own[list(finding.labels)] = number
    labels, rows = own[found.labels], []
    for number, finding in enumerate(found.fusion.findings, 1):
        center = finding_center(found.labels, finding)
        one = Finding(number, finding.score, finding.provenance, grid.index_to_lps(center), center)
        # each finding by itself, and with each nodule by itself: who takes which nodule depends on the scores
        outcomes = [match_findings([one], labels, [nodule])[0] for nodule in nodules]
        rows.append(
            ScoredFinding(
                name,
                patient,
                finding.provenance,
                finding.segmenter_score,
                finding.detector_score,
                finding.classifier_score,
                finding_diameter_mm(found.labels, finding, grid.voxel_volume_mm3),
                tuple(int(c) for c in np.rint(center)),
                tuple(each.nodule for each in outcomes if each.outcome == "hit"),
                any(each.nodule is not None for each in outcomes),
            )
        )
    return rows


def reference_nodules(scan: Scan, grid: Grid) -> list[ReferenceNodule]:
    """Return a scan's nodules as `matching` takes them.

    Args:
        scan: with its nodules.
        grid: of the scan.
    """
    nodules = []
    for nodule in scan.nodules:
        agreed = 2 * nodule.outlines.sum(0) >= nodule.readers
        center = np.argwhere(agreed).mean(0) + [part.start for part in nodule.box]
        diameter = sphere_diameter_mm(float(agreed.sum()) * grid.voxel_volume_mm3)
        nodules.append(ReferenceNodule(nodule.number, nodule.box, nodule.outlines, grid.index_to_lps(center), diameter))
    return nodules


def detections(
    rows: Sequence[ScoredFinding], scores: np.ndarray, places: Mapping[str, int], whole: Sequence[bool] | None = None
) -> Detections:
    """Return findings for the FROC curve: the best one on a nodule hits it, what else touches a nodule is left out.

    Args:
        rows: findings of the scans and crops.
        scores: of each, float (N,).
        places: names of all scans and crops, and how many nodules of enough readers each of them has.
        whole: whether each of them is a whole scan; None where all are.
    """
    order, taken, kept = {name: index for index, name in enumerate(places)}, set(), []
    for number in np.argsort(-np.asarray(scores), kind="stable"):
        row = rows[number]
        free = [nodule for nodule in row.on if (row.scan, nodule) not in taken]
        if free:
            taken.add((row.scan, free[0]))
            kept.append((number, True))
        elif not row.on and not row.touches:
            kept.append((number, False))
    numbers = np.array([number for number, _ in kept], int)
    return Detections(
        scores=np.asarray(scores, float)[numbers],
        hits=np.array([hit for _, hit in kept], bool),
        scans=np.array([order[rows[number].scan] for number in numbers], int),
        nodules=np.array(list(places.values()), int),
        whole=None if whole is None else np.array(whole, bool),
    )
