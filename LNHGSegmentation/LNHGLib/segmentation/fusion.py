"""Fusion of the two branches: detector boxes linked into 3-D candidates, and the filter that keeps components.

The paper gives no code for it (register U1, U2); this is the contract of the method facts, section 3, in 3-D:

* a component of the segmenter stays iff it lies at a candidate ("touch": a voxel of it is inside the enlarged
  boxes, as the paper; "strict": its centroid is);
* the detector finds nothing in the whole scan -> the components stay as they are (fallback A, "segmenter"); where the
  card keeps "all" components, as a model with a classifier does, so do those that lie at no candidate;
* a candidate without a component -> a box (fallback B, "detector-box"), never a segmentation.

Indices are zyx on the working grid; a box covers [y0, y1) x [x0, x1) in voxel edges, voxel i being [i, i + 1).
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.cluster.hierarchy import DisjointSet

from LNHGLib.models.card import FusionOptions
from LNHGLib.segmentation.components import Components, close_pairs

logger = logging.getLogger(__name__)

LINK_IOU = 0.2
"""Boxes of neighboring scanned slices belong together from this overlap on, or when one holds the other's center."""
LINK_GAP = 2
"""Scanned slices from one box of a candidate to its next: one slice may miss the nodule."""
BEST_SLICES = 3
SINGLE_SLICE_FACTOR = 0.85
MERGE_MM = 2.0
AS_BOXES = "are reported as boxes (fallback B)"


@dataclass(frozen=True, eq=False)
class Candidate:
    """Detector boxes of consecutive scanned slices that show the same thing.

    Attributes:
        boxes: (n, 6) rows z, y0, x0, y1, x1, score, z rising.
        score: see `track_score`.
        step: slices between scanned slices.
    """

    boxes: np.ndarray
    score: float
    step: int = 1

    @property
    def box(self) -> tuple[float, float, float, float, float, float]:
        """The box around all slices in voxel edges: z0, y0, x0, z1, y1, x1."""
        z, y0, x0, y1, x1 = self.boxes[:, :5].T
        half = (self.step - 1) / 2
        return tuple(float(v) for v in (z.min() - half, y0.min(), x0.min(), z.max() + 1 + half, y1.max(), x1.max()))


@dataclass(frozen=True)
class Finding:
    """What fusion keeps: components (several numbers when they were joined to one nodule) or a candidate's box.

    Attributes:
        provenance: "fused", "segmenter" (fallback A) or "detector-box" (fallback B).
        score: in 0..1, see `combine`.
        labels: component numbers; empty for a detector-box.
        box: z0, y0, x0, z1, y1, x1 in voxel edges.
        classifier_score: in 0..1; None where nothing classified it.
    """

    provenance: str
    score: float
    segmenter_score: float | None
    detector_score: float | None
    labels: tuple[int, ...]
    box: tuple[float, ...]
    classifier_score: float | None = None


@dataclass(frozen=True)
class Fusion:
    """Findings, best first, and the state of the filter in words for the log and the report."""

    findings: list[Finding]
    state: str
    dropped_components: int = 0


def link(boxes: np.ndarray, step: int = 1) -> list[Candidate]:
    """Link the boxes of the scanned slices into 3-D candidates.

    Greedy from slice to slice: pairs of a track's last box and a new box are joined in the order of their affinity,
    each box once; a track may miss one scanned slice.

    Args:
        boxes: (N, 6) rows z, y0, x0, y1, x1, score on the working grid, in any order.
        step: slices between scanned slices.

    Returns:
        Candidates, best first.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 6)
    tracks: list[list[np.ndarray]] = []
    for z in np.unique(boxes[:, 0]):
        rows = boxes[boxes[:, 0] == z]
        reachable = [track for track in tracks if z - track[-1][0] <= LINK_GAP * step]
        free = set(range(len(rows)))
        if reachable:
            affinity = box_affinity(np.stack([track[-1] for track in reachable]), rows)
            taken: set[int] = set()
            for flat in np.argsort(-affinity, axis=None, kind="stable"):
                t, r = np.unravel_index(flat, affinity.shape)
                if affinity[t, r] <= 0:
                    break
                if t not in taken and r in free:
                    reachable[t].append(rows[r])
                    taken.add(t)
                    free.discard(r)
        tracks += [[rows[r]] for r in sorted(free)]
    stacked = [np.stack(track) for track in tracks]
    candidates = [Candidate(rows, track_score(rows[:, 5]), step) for rows in stacked]
    return sorted(candidates, key=lambda candidate: -candidate.score)


def track_score(scores: np.ndarray) -> float:
    """Mean of the three best slice scores; a candidate seen in a single slice only is lowered by 15 percent."""
    best = np.sort(np.asarray(scores, np.float64))[::-1][:BEST_SLICES]
    return float(best.mean() * (SINGLE_SLICE_FACTOR if len(scores) == 1 else 1.0))


def box_affinity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the IoU of every pair of boxes, 0 where they do not belong together.

    Args:
        a: (n, 6) rows z, y0, x0, y1, x1, score.
        b: (m, 6) such rows.

    Returns:
        (n, m); a pair of which one holds the other's center belongs together whatever its IoU.
    """
    low = np.maximum(a[:, None, 1:3], b[None, :, 1:3])
    high = np.minimum(a[:, None, 3:5], b[None, :, 3:5])
    shared = np.clip(high - low, 0, None).prod(-1)
    areas = [(rows[:, 3:5] - rows[:, 1:3]).prod(-1) for rows in (a, b)]
    iou = shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9)
    nested = _holds(a[:, None], b[None]) | _holds(b[None], a[:, None])
    return np.where((iou >= LINK_IOU) | nested, np.maximum(iou, 1e-6), 0.0)


def _holds(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    center = (inner[..., 1:3] + inner[..., 3:5]) / 2
    return ((center >= outer[..., 1:3]) & (center <= outer[..., 3:5])).all(-1)


def combine(segmenter: float | None, detector: float | None, weight: float = 0.5, floor: float = 0.1) -> float:
    """One score for a finding: the weighted mean of both branches' logits, so that one threshold sweeps all findings.

    Args:
        segmenter: the component's score; None when there is no component, then `floor` stands for it.
        detector: the candidate's score; None when there is no candidate, then `floor` stands for it.
        weight: the detector's part in 0..1.
        floor: score of an absent branch.
    """
    s, d = (np.clip(floor if score is None else score, 1e-4, 1 - 1e-4) for score in (segmenter, detector))
    logit = weight * np.log(d / (1 - d)) + (1 - weight) * np.log(s / (1 - s))
    return float(1 / (1 + np.exp(-logit)))


def fuse(
    labels: np.ndarray,
    segmenter_scores: Sequence[float],
    candidates: Sequence[Candidate] | None,
    spacing_mm: Sequence[float],
    options: FusionOptions | None = None,
) -> Fusion:
    """Keep the segmenter's components that lie at a candidate, and say where each finding comes from.

    A component at several candidates has the best one's score. Components of one candidate stay separate nodules
    unless they come within 2 mm of each other (or touch, where voxels are coarser): then they are one nodule.

    Args:
        labels: component numbers zyx on the working grid, from `components.components`.
        segmenter_scores: score by component number, from `components.component_scores`.
        candidates: from `link`, on the same grid; None where no detector looked.
        spacing_mm: the grid's spacing zyx.
        options: the card's `fusion` part.
    """
    options = options or FusionOptions()
    parts = Components.of(labels)
    large_enough = parts.of_size(options.min_volume_mm3 / float(np.prod(spacing_mm)))
    if not candidates:
        groups = _join(parts, {number: {0} for number in large_enough}, spacing_mm)
        findings = [_segmented(group, parts, segmenter_scores, None, options) for group in groups]
        why = "no detector looked" if candidates is None else "no candidate in the whole scan"
        return _result(findings, f"{why}: the segmenter's components are kept (fallback A)")
    overlapping = components_at_candidates(labels, large_enough, candidates, spacing_mm, options)
    owners: dict[int, set[int]] = {}
    for index, numbers in enumerate(overlapping):
        for number in numbers:
            owners.setdefault(number, set()).add(index)
    findings = []
    for group in _join(parts, owners, spacing_mm):
        best = max(candidates[index].score for number in group for index in owners[number])
        findings.append(_segmented(group, parts, segmenter_scores, best, options))
    alone = [number for number in large_enough if number not in owners] if options.keep == "all" else []
    for group in _join(parts, {number: {0} for number in alone}, spacing_mm):
        findings.append(_segmented(group, parts, segmenter_scores, None, options))
    unmatched = [candidate for candidate, numbers in zip(candidates, overlapping, strict=True) if not numbers]
    for candidate in without_duplicates(unmatched):
        score = combine(None, candidate.score, options.weight, options.floor)
        findings.append(Finding("detector-box", score, None, candidate.score, (), candidate.box))
    if not large_enough:
        state = f"the segmenter found nothing: the candidates {AS_BOXES}"
    elif not owners and not alone:
        state = "there are candidates, but none touches a component: every component was dropped"
    else:
        boxes = f"; candidates without a component {AS_BOXES}"
        state = f"{'joined' if alone else 'filtered'}{boxes if unmatched else ''}"
    return _result(findings, state, len(large_enough) - len(owners) - len(alone))


def _result(findings: Iterable[Finding], state: str, dropped: int = 0) -> Fusion:
    ordered = sorted(findings, key=lambda finding: -finding.score)
    logger.info("Fusion: %s; %d findings, %d components dropped.", state, len(ordered), dropped)
    return Fusion(ordered, state, dropped)


def components_at_candidates(
    labels: np.ndarray,
    numbers: list[int],
    candidates: Sequence[Candidate],
    spacing_mm: Sequence[float],
    options: FusionOptions,
) -> list[set[int]]:
    """Return the components that lie at each candidate: in its enlarged boxes, by a voxel or by their centroid.

    Each box stands for the slices up to the next scanned ones.

    Args:
        labels: component numbers, int (z, y, x).
        numbers: of the components that take part.
        candidates: on the same grid.
        spacing_mm: of the grid, zyx.
        options: the card's `fusion` part.
    """
    if options.overlap == "strict":
        points = np.zeros(labels.shape, np.int32)
        if numbers:
            centers = np.rint(ndimage.center_of_mass(labels > 0, labels, numbers)).astype(int)
            points[tuple(centers.T)] = numbers
        labels = points
    margin = options.margin_mm / np.asarray(spacing_mm[1:], np.float64)
    overlapping = []
    for candidate in candidates:
        met: set[int] = set()
        for z, y0, x0, y1, x1, _ in candidate.boxes:
            low = np.maximum(np.floor(np.array([y0, x0]) - margin + 0.5), 0).astype(int)
            high = np.minimum(np.floor(np.array([y1, x1]) + margin + 0.5), labels.shape[1:]).astype(int)
            start, stop = max(int(z) - candidate.step + 1, 0), min(int(z) + candidate.step, labels.shape[0])
            met.update(np.unique(labels[start:stop, low[0] : high[0], low[1] : high[1]]).tolist())
        overlapping.append(met.intersection(numbers))
    return overlapping


def _join(parts: Components, owners: dict[int, set[int]], spacing_mm: Sequence[float]) -> list[list[int]]:
    """Group components that share an owner and are closer than `MERGE_MM`, or adjoin."""
    groups = DisjointSet(owners)
    for a, b in close_pairs(parts, owners, spacing_mm, MERGE_MM):
        if owners[a] & owners[b]:
            groups.merge(a, b)
    return [sorted(group) for group in groups.subsets()]


def _segmented(
    group: list[int], parts: Components, scores: Sequence[float], detector: float | None, options: FusionOptions
) -> Finding:
    segmenter = float(np.average([scores[number] for number in group], weights=parts.counts[group]))
    extents = np.array([[(s.start, s.stop) for s in parts.extents[number - 1]] for number in group], float)
    box = (*extents[:, :, 0].min(0).tolist(), *extents[:, :, 1].max(0).tolist())
    score = combine(segmenter, detector, options.weight, options.floor)
    return Finding("segmenter" if detector is None else "fused", score, segmenter, detector, tuple(group), box)


def without_duplicates(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return the candidates whose center lies inside the box of no better one, best first."""
    ordered = sorted(candidates, key=lambda candidate: -candidate.score)
    boxes = np.array([candidate.box for candidate in ordered]).reshape(-1, 2, 3)
    kept: list[int] = []
    for number, center in enumerate(boxes.mean(1)):
        better = boxes[kept]
        if not ((center >= better[:, 0]) & (center <= better[:, 1])).all(1).any():
            kept.append(number)
    return [ordered[number] for number in kept]
