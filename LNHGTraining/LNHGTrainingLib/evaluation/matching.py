"""Which finding hits which nodule on a whole scan, and which count as false (register U2, U4, U10)."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from LNHGTrainingLib.evaluation.attachment import DEFINITION
from LNHGTrainingLib.evaluation.metrics import dice

MIN_READERS = 3
BOX_ONLY = "detector-box"

PROTOCOL = (
    "Whole scan, fully automatic. The reference of a nodule is the voxels inside at least half of its readers' "
    f"outlines; nodules of at least {MIN_READERS} readers count. Hit: the centroid of a finding with a segmentation "
    "(fused or segmenter; never detector-box) lies in that consensus; the finding with the best score takes the "
    "nodule. Ignored: further findings on it, box-only findings on any annotated nodule, and findings that overlap a "
    "nodule of fewer readers or have their centroid within its radius. All others are false. A nodule that is not hit "
    "has Dice 0. LUNA16-like: a finding of any provenance with its center within the radius of the nodule. Dice, HD95 "
    "(larger directed 95th percentile) and volume are 3-D on the scan's own grid. Whole-scan Dice: all voxels found at "
    "the model's threshold against the consensus of all nodules that count, findings on nodules of fewer readers left "
    f"out; scans without a nodule that counts have none. {DEFINITION}"
)

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class ReferenceNodule:
    """A nodule as its readers outlined it.

    Attributes:
        label: its number in the case.
        box: where the outlines lie in the volume, zyx slices.
        readers: bool (reader, z, y, x) inside `box`.
        center_lps_mm: centroid of the consensus, xyz.
        diameter_mm: longest axial diameter as the case states it, else of the sphere of the consensus volume.
        texture: mean rating 1 (ground glass) to 5 (solid); NaN when not rated.
    """

    label: int
    box: Box
    readers: np.ndarray
    center_lps_mm: np.ndarray
    diameter_mm: float
    texture: float = float("nan")

    @property
    def consensus(self) -> np.ndarray:
        """Voxels inside at least half of the outlines, bool (z, y, x) inside `box`."""
        return 2 * self.readers.sum(axis=0, dtype=np.uint8) >= len(self.readers)

    @property
    def counts(self) -> bool:
        """Enough readers marked it, so that it must be found."""
        return len(self.readers) >= MIN_READERS

    def near(self, point_lps_mm: np.ndarray) -> bool:
        """The point lies within the nodule's radius of its centroid (the rule of LUNA16)."""
        return float(np.linalg.norm(point_lps_mm - self.center_lps_mm)) <= self.diameter_mm / 2

    def holds(self, index: np.ndarray, region: np.ndarray) -> bool:
        """The voxel nearest to a fractional zyx index lies in `region` (bool inside `box`)."""
        local = np.rint(index).astype(int) - [part.start for part in self.box]
        inside = (local >= 0).all() and (local < region.shape).all()
        return bool(inside and region[tuple(local)])


@dataclass(frozen=True, eq=False)
class Finding:
    """What the pipeline found.

    Attributes:
        number: value in the label volume; a box-only finding has no voxels there.
        score: between 0 and 1.
        provenance: "fused", "segmenter" or "detector-box".
        center_lps_mm: centroid of the mask, or middle of the box, xyz.
        center_index: the same as fractional zyx index.
    """

    number: int
    score: float
    provenance: str
    center_lps_mm: np.ndarray
    center_index: np.ndarray


@dataclass(frozen=True)
class FindingMatch:
    """What a finding counts as under both rules: "hit", "false" or "ignored", the nodule it is about, and why."""

    finding: Finding
    outcome: str
    nodule: int | None
    reason: str
    luna: str
    luna_nodule: int | None


def match_findings(findings: list[Finding], labels: np.ndarray, nodules: list[ReferenceNodule]) -> list[FindingMatch]:
    """Judge all findings of a scan by the rules in `PROTOCOL`.

    Args:
        findings: In any order.
        labels: (z, y, x) on the scan's grid, value = number of the finding.
        nodules: All annotated nodules of the scan, also those of fewer readers.

    Returns:
        A verdict a finding, best score first.
    """
    taken: set[int] = set()
    near: set[int] = set()
    verdicts = []
    for finding in sorted(findings, key=lambda f: -f.score):
        outcome, nodule, reason = _outcome(finding, labels, nodules, taken)
        if outcome == "hit":
            taken.add(nodule)
        verdicts.append(FindingMatch(finding, outcome, nodule, reason, *_luna(finding, nodules, near)))
    return verdicts


def _outcome(
    finding: Finding, labels: np.ndarray, nodules: list[ReferenceNodule], taken: set[int]
) -> tuple[str, int | None, str]:
    if finding.provenance == BOX_ONLY:
        touched = next((n for n in nodules if _on(finding, labels, n)), None)
        return ("ignored", touched.label, "box only, on a nodule") if touched else ("false", None, "not on a nodule")
    inside = [n for n in nodules if n.counts and n.holds(finding.center_index, n.consensus)]
    for nodule in inside:
        if nodule.label not in taken:
            return "hit", nodule.label, "centroid in the consensus"
    if inside:
        return "ignored", inside[0].label, "nodule already found"
    for nodule in nodules:
        if not nodule.counts and _on(finding, labels, nodule):
            return "ignored", nodule.label, f"nodule of fewer than {MIN_READERS} readers"
    touched = next((n for n in nodules if _on(finding, labels, n)), None)
    return ("false", touched.label, "centroid outside the consensus") if touched else ("false", None, "not on a nodule")


def _on(finding: Finding, labels: np.ndarray, nodule: ReferenceNodule) -> bool:
    union = nodule.readers.any(axis=0)
    overlap = finding.provenance != BOX_ONLY and bool(((labels[nodule.box] == finding.number) & union).any())
    return overlap or nodule.holds(finding.center_index, union) or nodule.near(finding.center_lps_mm)


def _luna(finding: Finding, nodules: list[ReferenceNodule], taken: set[int]) -> tuple[str, int | None]:
    close = [n for n in nodules if n.near(finding.center_lps_mm)]
    fresh = [n.label for n in close if n.counts and n.label not in taken]
    if fresh:
        taken.add(fresh[0])
        return "hit", fresh[0]
    return ("ignored", close[0].label) if close else ("false", None)


def whole_scan_dice(verdicts: list[FindingMatch], labels: np.ndarray, nodules: list[ReferenceNodule]) -> float:
    """Dice of everything found on a scan against everything that should be (see `PROTOCOL`).

    Args:
        verdicts: On the findings at the model's threshold.
        labels: (z, y, x) on the scan's grid, value = number of the finding.
        nodules: All annotated nodules of the scan.

    Returns:
        NaN when no nodule counts.
    """
    counted = [nodule for nodule in nodules if nodule.counts]
    if not counted:
        return float("nan")
    spared = {nodule.label for nodule in nodules if not nodule.counts}
    kept = [v.finding.number for v in verdicts if not (v.outcome == "ignored" and v.nodule in spared)]
    found = np.isin(labels, kept)
    reference = np.zeros(labels.shape, bool)
    for nodule in counted:
        reference[nodule.box] |= nodule.consensus
    return dice(found, reference)


def paired_masks(number: int, labels: np.ndarray, nodule: ReferenceNodule) -> tuple[np.ndarray, np.ndarray]:
    """A finding's mask and a nodule's consensus in the smallest box that holds both, bool (z, y, x) each."""
    own = ndimage.find_objects(labels, max_label=number)[number - 1]
    box = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(own, nodule.box, strict=True))
    reference = np.zeros([part.stop - part.start for part in box], bool)
    reference[tuple(slice(n.start - b.start, n.stop - b.start) for n, b in zip(nodule.box, box, strict=True))] = (
        nodule.consensus
    )
    return labels[box] == number, reference
