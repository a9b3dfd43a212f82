"""Sort candidates: a classifier sees a small field of the CT around each, cut in one way wherever it comes from.

Crops, whole scans and patients' CT differ in what lies far from the lungs, in rounding and at their borders, and a
classifier would learn that instead of nodules. So a field is a ball around the candidate's own centroid: it reaches no
further than 15 mm, all HU are rounded to multiples of 32, and everything outside the ball or the CT is 0. The nodule
image is not seen: a generator is surer of patients that it was trained on.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from LNHGLib.image.boxes import Box, box_between, box_of_edges, box_start
from LNHGLib.models.card import Card
from LNHGLib.segmentation.calibration import sphere_diameter_mm
from LNHGLib.segmentation.fusion import Finding
from LNHGLib.segmentation.preprocessing import coarser
from LNHGLib.segmentation.progress import Monitor
from LNHGLib.segmentation.runtime import Network, as_network

if TYPE_CHECKING:
    from torch import nn

FIELD = 32
"""Voxels of a field along each axis, 1 mm each."""
RADIUS = 15.0
"""Voxels from the candidate's centroid to the rim of what is seen."""
ROUNDED_TO_HU = 32.0
BATCH = 16

_OFFSETS = np.arange(FIELD) - FIELD / 2
BALL = sum(offset**2 for offset in np.meshgrid(_OFFSETS, _OFFSETS, _OFFSETS, indexing="ij")) <= RADIUS**2
"""What is seen of a field, bool (32, 32, 32); its center is voxel 16."""


def finding_center(labels: np.ndarray, finding: Finding) -> np.ndarray:
    """Return the centroid of a finding's components, or the middle of its box, as a fractional index (z, y, x).

    Args:
        labels: component numbers, int (z, y, x).
        finding: its box holds its components.
    """
    if not finding.labels:
        return np.clip(np.reshape(finding.box, (2, 3)).mean(0) - 0.5, 0, np.array(labels.shape) - 1)
    box = box_of_edges(finding.box)
    return np.argwhere(np.isin(labels[box], finding.labels)).mean(0) + box_start(box)


def finding_diameter_mm(labels: np.ndarray, finding: Finding, voxel_mm3: float) -> float:
    """Return the diameter of the ball of a finding's volume; of a box alone, of the ellipsoid in it.

    Args:
        labels: component numbers, int (z, y, x).
        finding: its box holds its components.
        voxel_mm3: volume of a voxel.
    """
    if finding.labels:
        voxels = float(np.isin(labels[box_of_edges(finding.box)], finding.labels).sum())
    else:
        voxels = np.pi / 6 * float(np.prod(np.subtract(finding.box[3:], finding.box[:3])))
    return sphere_diameter_mm(max(voxels, 1.0) * voxel_mm3)


def finding_fields(
    ct_norm: np.ndarray, labels: np.ndarray, findings: Sequence[Finding], spec: Card
) -> list[np.ndarray]:
    """Return the field around each finding; where the card has `masses`, of the coarser CT for large ones.

    Args:
        ct_norm: normalized CT on the working grid, float32 (z, y, x).
        labels: component numbers, int (z, y, x).
        findings: their boxes hold their components.
        spec: the model's card.
    """
    fields, afar = [], None
    for finding in findings:
        seen, center = ct_norm, finding_center(labels, finding)
        if spec.masses and finding_diameter_mm(labels, finding, 1.0) >= spec.masses.min_diameter:
            afar = coarser(ct_norm, spec.masses.factor) if afar is None else afar
            seen, center = afar, (center + 0.5) / spec.masses.factor - 0.5
        fields.append(candidate_field(seen, center, spec.window_hu))
    return fields


def candidate_field(ct_norm: np.ndarray, center: Sequence[float], window_hu: Sequence[float]) -> np.ndarray:
    """Cut the field around a candidate.

    Args:
        ct_norm: normalized CT at 1 mm, float32 (z, y, x).
        center: index (z, y, x) of the candidate's centroid.
        window_hu: HU that are 0 and 1 in `ct_norm`.

    Returns:
        Normalized CT, float32 (32, 32, 32).
    """
    start = np.rint(center).astype(int) - FIELD // 2
    inside = box_between(np.maximum(start, 0), np.minimum(start + FIELD, ct_norm.shape))
    place: Box = tuple(slice(one.start - low, one.stop - low) for one, low in zip(inside, start, strict=True))
    field = np.zeros((FIELD,) * 3, np.float32)
    field[place] = rounded(ct_norm[inside], window_hu)
    return field * BALL


def rounded(ct_norm: np.ndarray, window_hu: Sequence[float]) -> np.ndarray:
    """Round a normalized CT to multiples of 32 HU, the coarsest that any of the training data have.

    Args:
        ct_norm: normalized CT, float32 of any shape.
        window_hu: HU that are 0 and 1 in it.
    """
    step = ROUNDED_TO_HU / (window_hu[1] - window_hu[0])
    return np.rint(ct_norm / step) * step


def classify(
    network: "Network | nn.Module", fields: Sequence[np.ndarray], monitor: Monitor | None = None
) -> np.ndarray:
    """Return the classifier's score of each field, the mean over four flips.

    Args:
        network: evaluated, on the device it is to run on.
        fields: from `candidate_field`.
        monitor: progress and cancelling.

    Returns:
        Scores in 0..1, float64 (N,).
    """
    monitor, network, scores = monitor or Monitor(), as_network(network), []
    for start in range(0, len(fields), BATCH):
        monitor.report(start / len(fields))
        batch = np.stack(fields[start : start + BATCH])[:, None]
        flips = [
            network.predict(np.ascontiguousarray(np.flip(batch, axes)), monitor.check)
            for axes in ((), (3,), (4,), (3, 4))
        ]
        scores.append(expit(np.mean(flips, axis=0)).astype(float))
    return np.concatenate(scores) if scores else np.zeros(0)
