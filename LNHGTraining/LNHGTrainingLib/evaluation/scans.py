"""Whole scans: the complete pipeline on cases with readers' outlines (see `matching.PROTOCOL`)."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk  # noqa: N813
from LNHGLib.errors import InputError
from LNHGLib.image.reader import read_volume
from LNHGLib.image.volume import Grid, Volume, from_sitk, resample
from scipy import ndimage

from LNHGTrainingLib.evaluation import metrics
from LNHGTrainingLib.evaluation.attachment import Attachment, around, attachment
from LNHGTrainingLib.evaluation.crops import NoduleScore, sphere_diameter_mm
from LNHGTrainingLib.evaluation.matching import (
    BOX_ONLY,
    Finding,
    FindingMatch,
    ReferenceNodule,
    match_findings,
    paired_masks,
    whole_scan_dice,
)
from LNHGTrainingLib.training.peak_memory import PeakMemory

if TYPE_CHECKING:  # the pipeline brings torch along, which the rules here do not need
    from LNHGLib.segmentation.pipeline import Nodule, Result

Segment = Callable[[Volume], "Result"]
"""Runs the pipeline with a threshold low enough for the FROC curve."""


@dataclass(frozen=True, eq=False)
class AnnotatedScan:
    """A scan with its readers' outlines."""

    name: str
    patient: str
    series: str
    volume: Volume
    nodules: list[ReferenceNodule]


@dataclass(frozen=True)
class ScanNodule(NoduleScore):
    """A row of `nodules.csv` on scans: a reference nodule with the finding that hit it at the default threshold."""

    case: str
    counts: int
    finding: int | None
    score: float


@dataclass(frozen=True)
class ScanFinding:
    """A row of `findings.csv`; `outcome` and `luna16_outcome` are hit, false or ignored."""

    case: str
    finding: int
    score: float
    provenance: str
    outcome: str
    luna16_outcome: str
    reason: str
    nodule: int | None
    luna16_nodule: int | None
    above_threshold: int
    x_lps_mm: float
    y_lps_mm: float
    z_lps_mm: float


@dataclass(frozen=True)
class CaseScore:
    """Whole-scan Dice of a case, seconds of the pipeline, highest resident memory of the process in that time."""

    case: str
    patient: str
    scan_dice: float
    seconds: float
    peak_gib: float


@dataclass(eq=False)
class ScanResults:
    """Everything measured on a folder of cases."""

    threshold: float
    nodules: list[ScanNodule] = field(default_factory=list)
    findings: list[ScanFinding] = field(default_factory=list)
    cases: list[CaseScore] = field(default_factory=list)


def find_cases(folder: Path, limit: int | None = None) -> list[Path]:
    """The case folders: those that hold a `meta.json`.

    Raises:
        InputError: there is none.
    """
    cases = sorted(path.parent for path in Path(folder).glob("*/meta.json"))[:limit]
    if not cases:
        raise InputError(
            f"{folder} holds no case; expected folders with meta.json, ct.nii.gz or dicom/, and mask_reader1.nii.gz "
            "and so on: give the folder above the cases."
        )
    return cases


def read_case(folder: Path) -> AnnotatedScan:
    """Read a scan and the outlines of its readers.

    Raises:
        InputError: the CT, the meta data or the outlines are missing or do not fit together.
    """
    meta = _read_meta(folder / "meta.json")
    volume = read_volume(_ct_path(folder))
    masks = [_read_mask(path, volume.grid) for path in sorted(folder.glob("mask_reader*.nii.gz"))]
    if meta.get("nodules") and not masks:
        count = len(meta["nodules"])
        raise InputError(f"{folder} names {count} nodules but has no mask_reader1.nii.gz; add the outlines.")
    nodules = reference_nodules(masks, volume.grid, {int(n["label"]): n for n in meta.get("nodules", [])})
    name = str(meta.get("case", folder.name))
    return AnnotatedScan(name, str(meta.get("patient_id", name)), str(meta.get("series_uid", "")), volume, nodules)


def _read_meta(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no valid JSON ({error}); mend it.") from error


def _ct_path(folder: Path) -> Path:
    found = sorted(folder.glob("ct.*")) + sorted(folder.glob("dicom"))
    if not found:
        raise InputError(f"{folder} has no CT; expected ct.nii.gz, another image named ct, or a folder dicom.")
    return found[0]


def _read_mask(path: Path, grid: Grid) -> np.ndarray:
    array, own = from_sitk(sitk.ReadImage(str(path), sitk.sitkUInt16))
    return array if own.matches(grid) else resample(array, own, grid, linear=False, fill=0)


def reference_nodules(masks: list[np.ndarray], grid: Grid, stated: dict[int, dict]) -> list[ReferenceNodule]:
    """Nodules from the readers' label volumes.

    Args:
        masks: A label volume a reader (z, y, x), value = nodule.
        grid: Of the masks.
        stated: What the case's meta data say about each label.
    """
    places = [ndimage.find_objects(mask) for mask in masks]
    nodules = []
    for label in range(1, max(map(len, places), default=0) + 1):
        boxes = [found[label - 1] for found in places if label <= len(found) and found[label - 1]]
        if not boxes:
            continue
        box = tuple(slice(min(b[i].start for b in boxes), max(b[i].stop for b in boxes)) for i in range(3))
        readers = np.array([own for mask in masks if (own := mask[box] == label).any()])
        nodules.append(_reference_nodule(label, box, readers, grid, stated.get(label, {})))
    return nodules


def _reference_nodule(label: int, box: tuple, readers: np.ndarray, grid: Grid, stated: dict) -> ReferenceNodule:
    agreed = 2 * readers.sum(axis=0, dtype=np.uint8) >= len(readers)
    middle = np.argwhere(agreed).mean(axis=0) + [part.start for part in box]
    diameter = stated.get("max_axial_diameter_mm") or sphere_diameter_mm(agreed.sum() * grid.voxel_volume_mm3)
    ratings = [a["texture"] for a in stated.get("annotations", []) if "texture" in a]
    texture = float(np.mean(ratings)) if ratings else float("nan")
    return ReferenceNodule(label, box, readers, grid.index_to_lps(middle), float(diameter), texture)


def findings_of(result: "Result") -> list[Finding]:
    """The findings of a pipeline result with their centers."""
    return [_finding(nodule, result.volume.grid) for nodule in result.nodules]


def _finding(nodule: "Nodule", grid: Grid) -> Finding:
    if nodule.provenance == BOX_ONLY or nodule.measurement is None:
        center = np.mean(np.asarray(nodule.box_lps_mm, float), axis=0)
    else:
        center = np.asarray(nodule.measurement.centroid_lps_mm, float)
    return Finding(nodule.number, nodule.score, nodule.provenance, center, grid.lps_to_index(center))


def evaluate_scans(cases: Iterable[AnnotatedScan], segment: Segment, threshold: float) -> ScanResults:
    """Segment each case and compare it with its readers.

    Args:
        cases: As from `read_case`, one at a time.
        segment: The pipeline; its findings below `threshold` serve the FROC curve only.
        threshold: The model's own, at which nodules are found or missed.
    """
    results = ScanResults(threshold)
    for case in cases:
        with PeakMemory() as peak:
            start = perf_counter()
            result = segment(case.volume)
            seconds = perf_counter() - start
        verdicts = match_findings(findings_of(result), result.labels, case.nodules)
        above = [verdict for verdict in verdicts if verdict.finding.score >= threshold]
        overlap = whole_scan_dice(above, result.labels, case.nodules)
        results.cases.append(CaseScore(case.name, case.patient, overlap, seconds, peak.gib))
        results.findings += [_finding_row(case, verdict, threshold) for verdict in verdicts]
        results.nodules += [_nodule_row(case, nodule, verdicts, result.labels, threshold) for nodule in case.nodules]
    return results


def _finding_row(case: AnnotatedScan, verdict: FindingMatch, threshold: float) -> ScanFinding:
    finding = verdict.finding
    above = int(finding.score >= threshold)
    return ScanFinding(
        case.name, finding.number, finding.score, finding.provenance, verdict.outcome, verdict.luna, verdict.reason,
        verdict.nodule, verdict.luna_nodule, above, *(round(float(value), 2) for value in finding.center_lps_mm),
    )  # fmt: skip


def _nodule_row(
    case: AnnotatedScan, nodule: ReferenceNodule, verdicts: list[FindingMatch], labels: np.ndarray, threshold: float
) -> ScanNodule:
    hits = [v.finding for v in verdicts if v.outcome == "hit" and v.nodule == nodule.label]
    finding = next((f for f in hits if f.score >= threshold), None)
    spacing, unit = case.volume.grid.spacing_mm, case.volume.grid.voxel_volume_mm3
    place = _attachment(case.volume, nodule)
    overlap, distance, volume, error = 0.0, float("nan"), 0.0, float("nan")
    if finding:
        mask, reference = paired_masks(finding.number, labels, nodule)
        overlap, distance = metrics.dice(mask, reference), metrics.hd95_mm(mask, reference, spacing)
        volume, error = float(mask.sum() * unit), metrics.volume_error(mask, reference)
    return ScanNodule(
        patient=case.patient, series=case.series, nodule=str(nodule.label), diameter_mm=nodule.diameter_mm,
        readers=len(nodule.readers), texture=nodule.texture, juxta_pleural=int(place.pleural),
        juxta_vascular=int(place.vascular), found=int(finding is not None), dice=overlap,
        hd95_mm=distance, volume_mm3=volume, reference_volume_mm3=float(nodule.consensus.sum() * unit),
        volume_error=error, human_loo_dice=metrics.leave_one_out_dice(nodule.readers), case=case.name,
        counts=int(nodule.counts), finding=finding.number if finding else None,
        score=finding.score if finding else float("nan"),
    )  # fmt: skip


def _attachment(volume: Volume, nodule: ReferenceNodule) -> Attachment:
    spacing = volume.grid.spacing_mm
    view = around(nodule.box, volume.array.shape, spacing)
    hu = volume.array[view]
    mask = np.zeros(hu.shape, bool)
    mask[tuple(slice(n.start - v.start, n.stop - v.start) for n, v in zip(nodule.box, view, strict=True))] = (
        nodule.consensus
    )
    return attachment(hu, mask, spacing)


RULES = {"consensus": ("outcome", "nodule"), "luna16_like": ("luna16_outcome", "luna16_nodule")}
"""Hit rules, and the columns of `findings.csv` that hold their outcome and its nodule."""


def detections(
    results: ScanResults, rule: str = "consensus", member: Callable[[ScanNodule], bool] = lambda _: True
) -> metrics.Detections:
    """All findings for the FROC curve, ignored ones left out.

    Args:
        results: Of `evaluate_scans`.
        rule: One of `RULES`.
        member: Which of the nodules that count are looked for; hits on the others are ignored.
    """
    order = {case.case: index for index, case in enumerate(results.cases)}
    wanted = {(n.case, int(n.nodule)): n.case for n in results.nodules if n.counts and member(n)}
    outcome, nodule = RULES[rule]
    counted = [
        f
        for f in results.findings
        if getattr(f, outcome) == "false" or (getattr(f, outcome) == "hit" and (f.case, getattr(f, nodule)) in wanted)
    ]
    nodules = np.bincount([order[case] for case in wanted.values()], minlength=len(order))
    return metrics.Detections(
        scores=np.array([f.score for f in counted], float),
        hits=np.array([getattr(f, outcome) == "hit" for f in counted], bool),
        scans=np.array([order[f.case] for f in counted], int),
        nodules=nodules,
    )
