"""What a model's networks find in whole scans that none of them saw, each finding with the scores of all parts.

The stages are the pipeline's own, up to the score: what is calibrated and compared here is what runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from LNHGLib.image.volume import Grid
from LNHGLib.models.folder import Model
from LNHGLib.segmentation import pipeline
from LNHGLib.segmentation.classification import finding_center, finding_diameter_mm
from LNHGLib.segmentation.pipeline import Findings, PreparedScan
from LNHGLib.segmentation.preprocessing import normalize
from LNHGLib.segmentation.progress import Monitor

from LNHGTrainingLib.data.scans import Scan
from LNHGTrainingLib.evaluation.matching import Finding, ReferenceNodule, match_findings
from LNHGTrainingLib.evaluation.metrics import Detections


@dataclass(frozen=True)
class ScoredFinding:
    """A finding in a scan, by networks that did not see its patient.

    Attributes:
        scan: name of the scan.
        patient: patient identifier.
        provenance: "fused", "segmenter" or "detector-box".
        segmenter: score in 0..1; None where the segmenter found nothing there.
        detector: likewise.
        classifier: likewise.
        diameter_mm: of the ball of equal volume.
        center: index (z, y, x) in the scan.
        on: numbers of the nodules that it may hit: of enough readers, with the centroid in their consensus.
        touches: whether it lies on any nodule that a reader outlined.
    """

    scan: str
    patient: str
    provenance: str
    segmenter: float | None
    detector: float | None
    classifier: float | None
    diameter_mm: float
    center: tuple[int, int, int]
    on: tuple[int, ...]
    touches: bool


def score_scan(scan: Scan, model: Model, device: str | torch.device, detect: bool = True) -> list[ScoredFinding]:
    """Return what a model finds in a scan, up to the score of its parts.

    Args:
        scan: whose patient the model did not see.
        model: for a grid of 1 mm.
        device: where to compute.
        detect: whether the detector takes part; where it saw the patient it must not.
    """
    spec, where, monitor = model.spec, torch.device(device), Monitor()
    prepared = PreparedScan(Grid(scan.hu.shape, scan.affine), normalize(scan.hu, spec.window_hu), scan.lungs)
    _, image = pipeline.predict_nodule_image(prepared, model, where, monitor)
    boxes, step = np.zeros((0, 6)), 1
    if detect:
        boxes, step = pipeline.detect_boxes(prepared, model, where, monitor)
    found = pipeline.join_branches(prepared, image, boxes, step, spec.generator.threshold, spec.fusion)
    found = pipeline.classify_findings(prepared, found, model, where, monitor)
    return match(scan, found, prepared.grid)


def match(scan: Scan, found: Findings, grid: Grid) -> list[ScoredFinding]:
    """Say of each finding which nodules it lies on, by the rule of `matching.PROTOCOL`.

    Args:
        scan: with its nodules.
        found: on the scan's own grid.
        grid: of the scan.
    """
    nodules = reference_nodules(scan, grid)
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
                scan.name,
                scan.patient,
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
        diameter = float(np.cbrt(6 / np.pi * agreed.sum() * grid.voxel_volume_mm3))
        nodules.append(ReferenceNodule(nodule.number, nodule.box, nodule.outlines, grid.index_to_lps(center), diameter))
    return nodules


def detections(
    rows: Sequence[ScoredFinding], scores: np.ndarray, scans: Sequence[str], nodules: Sequence[int]
) -> Detections:
    """Return findings for the FROC curve: the best one on a nodule hits it, what else touches a nodule is left out.

    Args:
        rows: findings of the scans.
        scores: of each, float (N,).
        scans: names of all scans.
        nodules: how many nodules of enough readers each of them has.
    """
    order, taken, kept = {name: index for index, name in enumerate(scans)}, set(), []
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
        nodules=np.asarray(nodules, int),
    )
