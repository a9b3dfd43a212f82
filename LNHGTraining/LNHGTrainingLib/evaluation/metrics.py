"""Metrics: overlap, surface distance, volume error, FROC with its mean, intervals by patient.

Masks are boolean zyx, lengths millimeters. Every metric is per nodule (register U4) or per scan (register U10).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from LNHGLib.stats import agreement
from scipy import ndimage

CPM_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False findings per scan at which the mean sensitivity (CPM) is taken (LUNA16; Setio et al. 2017)."""

BOOTSTRAP_SAMPLES = 1000


def dice(mask: np.ndarray, reference: np.ndarray) -> float:
    """Return the Dice coefficient 2|A n B| / (|A| + |B|); two empty masks agree (1).

    Args:
        mask: bool, any shape.
        reference: bool, same shape.
    """
    total = np.count_nonzero(mask) + np.count_nonzero(reference)
    return 2.0 * np.count_nonzero(mask & reference) / total if total else 1.0


def volume_error(mask: np.ndarray, reference: np.ndarray) -> float:
    """Return the signed relative volume error (|A| - |B|) / |B|; -1 for an empty mask.

    Args:
        mask: bool, any shape.
        reference: bool, same shape.

    Raises:
        ValueError: The reference is empty.
    """
    wanted = np.count_nonzero(reference)
    if not wanted:
        raise ValueError("The volume error needs a reference with at least one voxel, got an empty one.")
    return (np.count_nonzero(mask) - wanted) / wanted


def hd95_mm(mask: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, float, float]) -> float:
    """Return the 95th percentile Hausdorff distance between two surfaces.

    A surface is the voxels of a mask with a face neighbor outside it; distances run between voxel centers. The larger
    of the two directed 95th percentiles is returned.

    Args:
        mask: bool (z, y, x).
        reference: bool (z, y, x).
        spacing_mm: Voxel spacing zyx.

    Returns:
        Distance in mm; NaN when a mask is empty.
    """
    union = mask | reference
    if not mask.any() or not reference.any():
        return float("nan")
    box = ndimage.find_objects(union.astype(np.uint8))[0]
    parts = [part[box] for part in (mask, reference)]
    surfaces = [part & ~ndimage.binary_erosion(part) for part in parts]
    far = [ndimage.distance_transform_edt(~surface, sampling=spacing_mm) for surface in surfaces]
    return float(max(np.percentile(far[1][surfaces[0]], 95), np.percentile(far[0][surfaces[1]], 95)))


def leave_one_out_dice(readers: np.ndarray) -> float:
    """Return the readers' own agreement: the mean Dice of each reader against the 50 % consensus of the others.

    Args:
        readers: bool (reader, z, y, x).

    Returns:
        The mean over readers; NaN with fewer than two.
    """
    if len(readers) < 2:
        return float("nan")
    votes = readers.sum(axis=0, dtype=np.uint8)
    scores = [dice(reader, 2 * (votes - reader) >= len(readers) - 1) for reader in readers]
    return float(np.mean(scores))


@dataclass(frozen=True)
class Interval:
    """A metric with its 95 % confidence interval; NaN where nothing was measured."""

    value: float
    low: float
    high: float


def cluster_bootstrap(
    clusters: int,
    statistic: Callable[[np.ndarray], np.ndarray],
    seed: int = 0,
    samples: int = BOOTSTRAP_SAMPLES,
    strata: np.ndarray | None = None,
) -> list[Interval]:
    """Return percentile bootstrap intervals; whole clusters (patients or scans) are sampled.

    The nodules of a cluster are not independent.

    Args:
        clusters: Number of clusters, at least one.
        statistic: Maps how often each cluster is in a sample, int (samples, clusters), to metrics, float (samples, k);
            NaN where a sample does not define one.
        seed: Of `numpy.random.default_rng`.
        samples: Number of resamples.
        strata: int (clusters,): clusters of a number are sampled by themselves, so that a sample has as many of them as
            the data; None samples all together.

    Returns:
        The k metrics on the data as they are with their 95 % intervals; a single cluster gives none.
    """
    rng = np.random.default_rng(seed)
    counts, strata = np.zeros((samples, clusters), int), np.zeros(clusters, int) if strata is None else strata
    for stratum in np.unique(strata):
        own = strata == stratum
        counts[:, own] = rng.multinomial(own.sum(), np.full(own.sum(), 1 / own.sum()), size=samples)
    measured = statistic(np.ones((1, clusters), int))[0]
    resampled = statistic(counts) if clusters > 1 else np.full((1, len(measured)), np.nan)
    intervals = []
    for value, values in zip(measured, resampled.T, strict=True):
        finite = values[np.isfinite(values)]
        low, high = np.percentile(finite, [2.5, 97.5]) if finite.size else (np.nan, np.nan)
        intervals.append(Interval(float(value), float(low), float(high)))
    return intervals


def mean_interval(values: np.ndarray, patients: list[str], seed: int = 0) -> Interval:
    """Return the mean of the finite values with its patient-cluster bootstrap interval (register U11, U18).

    Args:
        values: float (N,).
        patients: Of each value.
        seed: Of the bootstrap.
    """
    values = np.asarray(values, float)
    finite = np.isfinite(values)
    if not finite.any():
        return Interval(float("nan"), float("nan"), float("nan"))
    names, index = np.unique(np.asarray(patients, str)[finite], return_inverse=True)
    sums = np.bincount(index, values[finite], len(names))
    return ratio_interval(sums, np.bincount(index, minlength=len(names)), seed)


def icc_interval(scores: np.ndarray, patients: list[str], seed: int = 0) -> Interval:
    """Return ICC(A,1), the absolute agreement of single measurements, with its patient-cluster bootstrap interval.

    Args:
        scores: float (N, repeats); nodules without all repeats (NaN) are left out.
        patients: Of each nodule.
        seed: Of the bootstrap.
    """
    whole = np.isfinite(scores).all(axis=1)
    if not whole.any():
        return Interval(float("nan"), float("nan"), float("nan"))
    scores, (names, index) = scores[whole], np.unique(np.asarray(patients, str)[whole], return_inverse=True)

    def values(counts: np.ndarray) -> np.ndarray:
        return np.array([[agreement.icc_value(np.repeat(scores, count[index], axis=0))] for count in counts])

    return cluster_bootstrap(len(names), values, seed)[0]


def ratio_interval(numerators: np.ndarray, denominators: np.ndarray, seed: int = 0) -> Interval:
    """Return sum over sum with its cluster bootstrap interval: a mean, a sensitivity, a rate.

    Args:
        numerators: (clusters,).
        denominators: (clusters,).
        seed: Of the bootstrap.
    """

    def ratio(counts: np.ndarray) -> np.ndarray:
        below = counts @ denominators
        return np.divide(counts @ numerators, below, out=np.full(len(counts), np.nan), where=below > 0)[:, None]

    return cluster_bootstrap(len(numerators), ratio, seed)[0]


@dataclass(frozen=True)
class Detections:
    """What a detector said on a set of scans, nodules and ignored findings already sorted out.

    Attributes:
        scores: float (N,), of the hits and the false findings; ignored ones are left out.
        hits: bool (N,), True for the first finding on a nodule, False for a false finding.
        scans: int (N,), index of the scan.
        nodules: int (scans,), how many nodules each scan holds.
        whole: bool (scans,), False for a crop, which shows a nodule and no false findings; None where all are whole.
    """

    scores: np.ndarray
    hits: np.ndarray
    scans: np.ndarray
    nodules: np.ndarray
    whole: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Froc:
    """Free-response ROC: one point for each threshold, from strict to permissive, all float (N,)."""

    thresholds: np.ndarray
    sensitivity: np.ndarray
    false_per_scan: np.ndarray


def froc(detections: Detections, counts: np.ndarray | None = None) -> Froc:
    """Return sensitivity over false findings per scan; findings of one score enter together.

    Args:
        detections: The findings.
        counts: int (scans,), how often each scan counts (for the bootstrap); once when None.

    Returns:
        The curve, beginning at an infinite threshold with (0, 0).
    """
    counts = np.ones(len(detections.nodules), int) if counts is None else counts
    order = np.argsort(-detections.scores, kind="stable")
    scores, weights = detections.scores[order], counts[detections.scans[order]]
    hits = np.cumsum(weights * detections.hits[order])
    false = np.cumsum(weights * ~detections.hits[order])
    last = np.append(np.diff(scores) != 0, True)[: len(scores)]
    nodules = counts @ detections.nodules
    searched = counts.sum() if detections.whole is None else counts @ detections.whole
    found = hits[last] / nodules if nodules else np.full(last.sum(), np.nan)
    return Froc(
        np.concatenate([[np.inf], scores[last]]),
        np.concatenate([[0.0 if nodules else np.nan], found]),
        np.concatenate([[0.0], false[last] / max(searched, 1)]),
    )


def sensitivity_at(curve: Froc, rate: float) -> float:
    """Return the best sensitivity at no more than a rate of false findings, without interpolation.

    Args:
        curve: Of the detector.
        rate: False findings per scan.
    """
    return float(curve.sensitivity[curve.false_per_scan <= rate].max())


def cpm(curve: Froc) -> float:
    """Return the competition performance metric: the mean sensitivity at `CPM_RATES` false findings per scan."""
    return float(np.mean([sensitivity_at(curve, rate) for rate in CPM_RATES]))


def precision_recall_f1(hits: np.ndarray, false: np.ndarray, nodules: np.ndarray, seed: int = 0) -> dict[str, Interval]:
    """Return precision TP/(TP+FP), recall TP/(TP+FN) and F1 2TP/(2TP+FP+FN), pooled, with bootstrap intervals.

    Args:
        hits: int (clusters,), nodules found.
        false: int (clusters,), false findings.
        nodules: int (clusters,), nodules to find.
        seed: Of the bootstrap.

    Returns:
        "precision", "recall" and "f1"; NaN where nothing was found or there was nothing to find.
    """

    def rates(counts: np.ndarray) -> np.ndarray:
        found, wrong, wanted = counts @ hits, counts @ false, counts @ nodules
        pairs = ((found, found + wrong), (found, wanted), (2 * found, found + wrong + wanted))
        parts = [np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0) for a, b in pairs]
        return np.column_stack(parts)

    return dict(zip(("precision", "recall", "f1"), cluster_bootstrap(len(hits), rates, seed), strict=True))


def detection_metrics(detections: Detections, patients: Sequence[str] | None = None, seed: int = 0) -> dict:
    """Return CPM and the sensitivity at each rate with intervals, JSON-ready.

    Args:
        detections: The findings.
        patients: Of each scan, whose scans are sampled together (register U5); each scan by itself when None.
        seed: Of the bootstrap.
    """
    clusters = np.arange(len(detections.nodules))
    if patients is not None:
        clusters = np.unique(np.asarray(patients, str), return_inverse=True)[1]

    def sensitivities(samples: np.ndarray) -> np.ndarray:
        curves = [froc(detections, counts[clusters]) for counts in samples]
        return np.array([[cpm(curve), *(sensitivity_at(curve, rate) for rate in CPM_RATES)] for curve in curves])

    mean, *rates = (asdict(interval) for interval in cluster_bootstrap(clusters.max() + 1, sensitivities, seed))
    return {"cpm": mean, "sensitivity_at": {f"{rate:g}": one for rate, one in zip(CPM_RATES, rates, strict=True)}}
