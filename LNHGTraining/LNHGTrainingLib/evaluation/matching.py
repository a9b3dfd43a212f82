"""Which finding hits which nodule on a whole scan, and which count as false (register U2, U4, U10)."""

from dataclasses import dataclass

import numpy as np
from LNHGLib.image.boxes import Box, box_shape, box_start, box_union, box_within
from scipy import ndimage

from LNHGTrainingLib.evaluation.attachment import DEFINITION
from LNHGTrainingLib.evaluation.metrics import dice

MIN_READERS = 3
BOX_ONLY = "detector-box"
NOT_ON_A_NODULE = ("false", None, "not on a nodule")

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


@dataclass(frozen=True, eq=False)
class ReferenceNodule:
    """A nodule as its readers outlined it.

    Attributes:
        label: Its number in the case.
        box: Where the outlines lie in the volume, zyx slices.
        readers: bool (reader, z, y, x) inside `box`.
        center_lps_mm: Centroid of the consensus, xyz.
        diameter_mm: Longest axial diameter as the case states it, else of the sphere of the consensus volume.
        texture: Mean rating 1 (ground glass) to 5 (solid); NaN when not rated.
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
        """Whether enough readers marked it, so that it must be found."""
        return len(self.readers) >= MIN_READERS

    def near(self, point_lps_mm: np.ndarray) -> bool:
        """Return whether a point lies within the nodule's radius of its centroid (the rule of LUNA16)."""
        return float(np.linalg.norm(point_lps_mm - self.center_lps_mm)) <= self.diameter_mm / 2

    def holds(self, index: np.ndarray, region: np.ndarray) -> bool:
        """Return whether the voxel nearest to an index lies in a region.

        Args:
            index: zyx, may lie between voxels.
            region: bool (z, y, x) inside `box`.
        """
        local = np.rint(index).astype(int) - box_start(self.box)
        inside = (local >= 0).all() and (local < region.shape).all()
        return bool(inside and region[tuple(local)])


@dataclass(frozen=True, eq=False)
class Finding:
    """What the pipeline found.

    Attributes:
        number: Value in the label volume; a box-only finding has no voxels there.
        score: Between 0 and 1.
        provenance: "fused", "segmenter" or "detector-box".
        center_lps_mm: Centroid of the mask, or middle of the box, xyz.
        center_index: The same as zyx index, may lie between voxels.
    """

    number: int
    score: float
    provenance: str
    center_lps_mm: np.ndarray
    center_index: np.ndarray


@dataclass(frozen=True)
class FindingMatch:
    """What a finding counts as.

    Attributes:
        finding: The finding.
        outcome: "hit", "false" or "ignored" under the rule of the consensus.
        nodule: Label of the nodule that it is about.
        reason: Why.
        luna: The outcome under the LUNA16-like rule.
        luna_nodule: The nodule under that rule.
    """

    finding: Finding
    outcome: str
    nodule: int | None
    reason: str
    luna: str
    luna_nodule: int | None


def match_findings(findings: list[Finding], labels: np.ndarray, nodules: list[ReferenceNodule]) -> list[FindingMatch]:
    """Match all findings of a scan with its nodules by the rules in `PROTOCOL`.

    Args:
        findings: In any order.
        labels: (z, y, x) on the scan's grid, value = number of the finding.
        nodules: All annotated nodules of the scan, also those of fewer readers.

    Returns:
        One match for each finding, best score first.
    """
    taken: set[int] = set()
    luna_taken: set[int] = set()
    matches = []
    for finding in sorted(findings, key=lambda f: -f.score):
        outcome, nodule, reason = match_finding(finding, labels, nodules, taken)
        if outcome == "hit":
            taken.add(nodule)
        close = [n for n in nodules if n.near(finding.center_lps_mm)]
        fresh = [n.label for n in close if n.counts and n.label not in luna_taken]
        luna = ("false", None)
        if fresh:
            luna_taken.add(fresh[0])
            luna = ("hit", fresh[0])
        elif close:
            luna = ("ignored", close[0].label)
        matches.append(FindingMatch(finding, outcome, nodule, reason, *luna))
    return matches


def match_finding(
    finding: Finding, labels: np.ndarray, nodules: list[ReferenceNodule], taken: set[int]
) -> tuple[str, int | None, str]:
    """Match one finding with a scan's nodules by the rule of the consensus.

    Args:
        finding: The finding.
        labels: (z, y, x) on the scan's grid, value = number of the finding.
        nodules: All annotated nodules of the scan.
        taken: Labels of those that a finding of a better score has hit.

    Returns:
        Outcome, label of the nodule and reason as `FindingMatch` has them.
    """

    def is_on(nodule: ReferenceNodule) -> bool:
        union = nodule.readers.any(axis=0)
        overlap = finding.provenance != BOX_ONLY and bool(((labels[nodule.box] == finding.number) & union).any())
        return overlap or nodule.holds(finding.center_index, union) or nodule.near(finding.center_lps_mm)

    overlapping = [nodule for nodule in nodules if is_on(nodule)]
    if finding.provenance == BOX_ONLY:
        return ("ignored", overlapping[0].label, "box only, on a nodule") if overlapping else NOT_ON_A_NODULE
    inside = [n for n in nodules if n.counts and n.holds(finding.center_index, n.consensus)]
    for nodule in inside:
        if nodule.label not in taken:
            return "hit", nodule.label, "centroid in the consensus"
    if inside:
        return "ignored", inside[0].label, "nodule already found"
    for nodule in overlapping:
        if not nodule.counts:
            return "ignored", nodule.label, f"nodule of fewer than {MIN_READERS} readers"
    return ("false", overlapping[0].label, "centroid outside the consensus") if overlapping else NOT_ON_A_NODULE


def whole_scan_dice(matches: list[FindingMatch], labels: np.ndarray, nodules: list[ReferenceNodule]) -> float:
    """Return the Dice of everything found on a scan against everything that should be (see `PROTOCOL`).

    Args:
        matches: Of the findings at the model's threshold.
        labels: (z, y, x) on the scan's grid, value = number of the finding.
        nodules: All annotated nodules of the scan.

    Returns:
        NaN when no nodule counts.
    """
    counted = [nodule for nodule in nodules if nodule.counts]
    if not counted:
        return float("nan")
    spared = {nodule.label for nodule in nodules if not nodule.counts}
    kept = [m.finding.number for m in matches if not (m.outcome == "ignored" and m.nodule in spared)]
    found = np.isin(labels, kept)
    reference = np.zeros(labels.shape, bool)
    for nodule in counted:
        reference[nodule.box] |= nodule.consensus
    return dice(found, reference)


def paired_masks(number: int, labels: np.ndarray, nodule: ReferenceNodule) -> tuple[np.ndarray, np.ndarray]:
    """Return a finding's mask and a nodule's consensus in the smallest box that holds both.

    Args:
        number: Of the finding.
        labels: (z, y, x) on the scan's grid, value = number of the finding.
        nodule: The nodule.

    Returns:
        Two bool (z, y, x).
    """
    box = box_union([ndimage.find_objects(labels, max_label=number)[number - 1], nodule.box])
    reference = np.zeros(box_shape(box), bool)
    reference[box_within(nodule.box, box)] = nodule.consensus
    return labels[box] == number, reference
