"""Whole scans: the complete pipeline on cases with readers' outlines (see `matching.PROTOCOL`)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk  # noqa: N813
from LNHGLib.batch import peak_memory
from LNHGLib.errors import InputError, shown
from LNHGLib.files.text import read_json
from LNHGLib.image.boxes import box_shape, box_start, box_union, box_within, grow_box
from LNHGLib.image.reader import read_volume
from LNHGLib.image.volume import Grid, Volume, from_sitk, resample
from LNHGLib.segmentation.calibration import sphere_diameter_mm
from scipy import ndimage

from LNHGTrainingLib.data.dicom_outlines import find_outlines, read_outlines
from LNHGTrainingLib.evaluation import metrics
from LNHGTrainingLib.evaluation.attachment import CONTEXT_MM, attachment
from LNHGTrainingLib.evaluation.crops import NoduleScore
from LNHGTrainingLib.evaluation.matching import (
    BOX_ONLY,
    Finding,
    FindingMatch,
    ReferenceNodule,
    match_findings,
    paired_masks,
    whole_scan_dice,
)

if TYPE_CHECKING:  # the pipeline brings torch along, which the rules here do not need
    from LNHGLib.segmentation.pipeline import Result

META = "meta.json"

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

    @property
    def patients(self) -> list[str]:
        """Of each case."""
        return [case.patient for case in self.cases]


def find_cases(folder: Path, limit: int | None = None) -> list[Path]:
    """Return the case folders: those that hold a `meta.json`, or a CT and readers' DICOM segmentations.

    Args:
        folder: Of the cases.
        limit: At most so many.

    Raises:
        InputError: There is none.
    """
    folders = (path for path in sorted(Path(folder).glob("*")) if path.is_dir())
    cases = (path for path in folders if (path / META).is_file() or (_ct_of(path) and find_outlines(path)))
    found = list(islice(cases, limit))
    if not found:
        raise InputError(
            f"{folder} holds no case, expected folders with a CT (ct.nii.gz or dicom/), and meta.json with masks, "
            "or DICOM SEG; give the folder above them."
        )
    return found


def _ct_of(folder: Path) -> Path | None:
    """Return the CT of a case."""
    return next(iter(sorted(folder.glob("ct.*")) + sorted(folder.glob("dicom"))), None)


def read_case(folder: Path) -> AnnotatedScan:
    """Read a scan and the outlines of its readers.

    Raises:
        InputError: The CT, the meta data or the outlines are missing or do not fit together.
    """
    try:
        meta = read_json(folder / META) if (folder / META).exists() else {}
        stated = {int(about["label"]): about for about in meta.get("nodules", [])}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{folder / META} is no JSON with a label for each nodule ({shown(error, 80)}); mend it."
        ) from error
    ct = _ct_of(folder)
    if ct is None:
        raise InputError(f"{folder} has no CT; expected ct.nii.gz, another image named ct, or a folder dicom.")
    volume = read_volume(ct)
    masks = []
    for path in sorted(folder.glob("mask_reader*.nii.gz")):
        array, own = from_sitk(sitk.ReadImage(str(path), sitk.sitkUInt16))
        same = own.matches(volume.grid)
        masks.append(array if same else resample(array, own, volume.grid, linear=False, fill=0))
    name = str(meta.get("case", folder.name))
    patient = str(meta.get("patient_id") or volume.source.patient_id or name)
    series = str(meta.get("series_uid") or volume.source.series_uid or "")
    if not masks and (source := find_outlines(folder)):
        outlines = read_outlines(source, volume.grid, series, stated)
        masks, stated = outlines.masks, outlines.stated | stated
    if stated and not masks:
        raise InputError(
            f"{folder} names {len(stated)} nodules but has neither mask_reader1.nii.gz nor DICOM SEG; add the outlines."
        )
    return AnnotatedScan(name, patient, series, volume, reference_nodules(masks, volume.grid, stated))


def reference_nodules(masks: list[np.ndarray], grid: Grid, stated: dict[int, dict]) -> list[ReferenceNodule]:
    """Return nodules from the readers' label volumes.

    Args:
        masks: Label volume of each reader (z, y, x), value = nodule.
        grid: Of the masks.
        stated: What the case's meta data say about each label.
    """
    boxes = [ndimage.find_objects(mask) for mask in masks]
    nodules = []
    for label in range(1, max(map(len, boxes), default=0) + 1):
        own = [found[label - 1] for found in boxes if label <= len(found) and found[label - 1]]
        if not own:
            continue
        box = box_union(own)
        readers = np.array([outline for mask in masks if (outline := mask[box] == label).any()])
        agreed = 2 * readers.sum(axis=0, dtype=np.uint8) >= len(readers)
        center = grid.index_to_lps(np.argwhere(agreed).mean(axis=0) + box_start(box))
        about = stated.get(label, {})
        diameter = about.get("max_axial_diameter_mm") or sphere_diameter_mm(float(agreed.sum()) * grid.voxel_volume_mm3)
        ratings = [a["texture"] for a in about.get("annotations", []) if "texture" in a]
        texture = float(np.mean(ratings)) if ratings else float("nan")
        nodules.append(ReferenceNodule(label, box, readers, center, float(diameter), texture))
    return nodules


def findings_of(result: "Result") -> list[Finding]:
    """Return the findings of a pipeline result with their centers."""
    findings = []
    for nodule in result.nodules:
        if nodule.provenance == BOX_ONLY or nodule.measurement is None:
            center = np.mean(np.asarray(nodule.box_lps_mm, float), axis=0)
        else:
            center = np.asarray(nodule.measurement.centroid_lps_mm, float)
        index = result.volume.grid.lps_to_index(center)
        findings.append(Finding(nodule.number, nodule.score, nodule.provenance, center, index))
    return findings


def evaluate_scans(cases: Iterable[AnnotatedScan], segment: Segment, threshold: float) -> ScanResults:
    """Segment each case and compare it with its readers.

    Args:
        cases: As from `read_case`, one at a time.
        segment: The pipeline; its findings below `threshold` serve the FROC curve only.
        threshold: The model's own, at which nodules are found or missed.
    """
    results = ScanResults(threshold)
    for case in cases:
        peak_memory.reset_peak()
        start = perf_counter()
        result = segment(case.volume)
        seconds, peak_mb = perf_counter() - start, peak_memory.peak_mb()
        peak_gib = float("nan") if peak_mb is None else peak_mb / 1024
        matches = match_findings(findings_of(result), result.labels, case.nodules)
        above = [match for match in matches if match.finding.score >= threshold]
        overlap = whole_scan_dice(above, result.labels, case.nodules)
        results.cases.append(CaseScore(case.name, case.patient, overlap, seconds, peak_gib))
        for match in matches:
            finding = match.finding
            position = (round(float(value), 2) for value in finding.center_lps_mm)
            results.findings.append(ScanFinding(
                case.name, finding.number, finding.score, finding.provenance, match.outcome, match.luna, match.reason,
                match.nodule, match.luna_nodule, int(finding.score >= threshold), *position,
            ))  # fmt: skip
        results.nodules += [score_nodule(case, nodule, above, result.labels) for nodule in case.nodules]
    return results


def score_nodule(
    case: AnnotatedScan, nodule: ReferenceNodule, matches: list[FindingMatch], labels: np.ndarray
) -> ScanNodule:
    """Compare a nodule with the finding that hit it; without one it is missed and has Dice 0.

    Args:
        case: The scan.
        nodule: One of its nodules.
        matches: Of the findings at the model's threshold.
        labels: (z, y, x) on the scan's grid, value = number of the finding.
    """
    finding = next((m.finding for m in matches if m.outcome == "hit" and m.nodule == nodule.label), None)
    grid, hu = case.volume.grid, case.volume.array
    box = grow_box(nodule.box, np.ceil(CONTEXT_MM / np.array(grid.spacing_mm)).astype(int), hu.shape)
    consensus = np.zeros(box_shape(box), bool)
    consensus[box_within(nodule.box, box)] = nodule.consensus
    attached = attachment(hu[box], consensus, grid.spacing_mm)
    overlap, distance, volume, error = 0.0, float("nan"), 0.0, float("nan")
    if finding:
        mask, reference = paired_masks(finding.number, labels, nodule)
        overlap, distance = metrics.dice(mask, reference), metrics.hd95_mm(mask, reference, grid.spacing_mm)
        volume, error = float(mask.sum() * grid.voxel_volume_mm3), metrics.volume_error(mask, reference)
    return ScanNodule(
        patient=case.patient, series=case.series, nodule=str(nodule.label), diameter_mm=nodule.diameter_mm,
        readers=len(nodule.readers), texture=nodule.texture, juxta_pleural=int(attached.pleural),
        juxta_vascular=int(attached.vascular), found=int(finding is not None), dice=overlap,
        hd95_mm=distance, volume_mm3=volume,
        reference_volume_mm3=float(nodule.consensus.sum() * grid.voxel_volume_mm3),
        volume_error=error, human_loo_dice=metrics.leave_one_out_dice(nodule.readers), case=case.name,
        counts=int(nodule.counts), finding=finding.number if finding else None,
        score=finding.score if finding else float("nan"),
    )  # fmt: skip


RULES = {"consensus": ("outcome", "nodule"), "luna16_like": ("luna16_outcome", "luna16_nodule")}
"""Hit rules, and the columns of `findings.csv` that hold their outcome and its nodule."""


def detections(
    results: ScanResults, rule: str = "consensus", member: Callable[[ScanNodule], bool] = lambda _: True
) -> metrics.Detections:
    """Return all findings for the FROC curve, ignored ones left out.

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
