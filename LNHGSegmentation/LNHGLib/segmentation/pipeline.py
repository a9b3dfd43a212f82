"""From a CT volume to its nodules: both networks, their fusion, and everything measured on the CT's own voxels.

The stages follow each other in `segment`, and each gives new values: the prepared scan, the nodule image, the
detector's boxes, the findings of both branches, their scores by the classifier and by the ensemble, the findings
refined by the ensemble, the nodules on the CT.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from LNHGLib.errors import InputError
from LNHGLib.image.boxes import lps_box
from LNHGLib.image.volume import Grid, Volume, canonical, resample
from LNHGLib.measurement import signal as intranodular_signal
from LNHGLib.measurement import size
from LNHGLib.measurement.location import slice_number
from LNHGLib.measurement.nodule import Nodule
from LNHGLib.measurement.sides import Sides
from LNHGLib.models.card import Card, FusionOptions
from LNHGLib.models.folder import Model
from LNHGLib.segmentation import (
    attachments,
    calibration,
    classification,
    components,
    ensemble,
    fusion,
    native_grid,
)
from LNHGLib.segmentation.ensemble import Ensemble
from LNHGLib.segmentation.preprocessing import find_chest, from_canonical, normalize, onto_grid, working_grid
from LNHGLib.segmentation.progress import Monitor
from LNHGLib.segmentation.result import Result, make_report
from LNHGLib.segmentation.runtime import Network, Where, choose_runtime, is_short
from LNHGLib.segmentation.tiled_inference import CPU_TOOK_OVER, run_detector

MIN_COMPONENT_LUNG_FRACTION = 1 / 3
"""A component with a smaller part in the lungs belongs to the chest wall or the mediastinum."""
MAX_NODULES = 65535


@dataclass(frozen=True, eq=False)
class PreparedScan:
    """A CT on the working grid.

    Attributes:
        grid: the working grid.
        ct_norm: normalized CT, float32 (z, y, x).
        lungs: where nodules are looked for, bool (z, y, x).
        find_sides: finds the sides of the chest, None where they are not told; it takes its time.
    """

    grid: Grid
    ct_norm: np.ndarray
    lungs: np.ndarray
    find_sides: Callable[[], Sides | None] = lambda: None


@dataclass(frozen=True, eq=False)
class Findings:
    """What was found on the working grid.

    Attributes:
        image: nodule image, float32 (z, y, x).
        labels: component numbers, int32 (z, y, x).
        fusion: the findings, best first, and how both branches were joined.
    """

    image: np.ndarray
    labels: np.ndarray
    fusion: fusion.Fusion


def segment(
    volume: Volume,
    model: Model,
    *,
    device: "str | Where" = "auto",
    threshold: float | None = None,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Result:
    """Find, outline and measure the nodules of a chest CT; best first, on the CT's own grid.

    Args:
        volume: CT in HU, in any orientation.
        model: from `models.load`.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N", or what `choose_runtime` chose.
        threshold: lowest score of a finding, 0..1; None takes the model's.
        progress: called with the fraction done, never falling, and what is being done.
        cancelled: asked often; true stops the work.

    Raises:
        InputError: no lung in the CT, no such device, threshold out of range, or a model file that was changed.
        Cancelled: the user cancelled.
    """
    where, spec = choose_runtime(device, model), model.spec
    threshold = spec.threshold if threshold is None else threshold
    if not 0 <= threshold <= 1:
        raise InputError(f"The threshold is {threshold}, expected a score from 0 to 1; leave it out for the model's.")
    monitor, upright = Monitor(progress, cancelled), canonical(volume)
    scan = prepare_scan(upright, spec, monitor)
    sides = ThreadPoolExecutor(1).submit(scan.find_sides)  # which only the measurement needs
    predictor, image = predict_nodule_image(scan, model, where, monitor)
    boxes, step = detect_boxes(scan, model, where, monitor)
    with monitor.stage("fusion", "Joining both networks' findings", 0.76, 0.78):
        found = join_branches(scan, image, boxes, step, spec.generator.threshold, spec.fusion)
    found = classify_findings(scan, found, model, where, monitor)
    found, patches = look_again(scan, found, predictor, spec, threshold, monitor)
    refined = refine_findings(scan, found, patches, spec, threshold)
    with monitor.stage("measurement", "Measuring the nodules", 0.98, 1.0):
        result = project_to_ct(volume, upright, scan.grid, refined, sides.result(), monitor)
    report = make_report(volume, model, where, {"threshold": threshold}, monitor, found.fusion)
    return replace(result, report=report | {"lungs": sides.result().plane() if sides.result() else {}})


def prepare_scan(upright: Volume, spec: Card, monitor: Monitor) -> PreparedScan:
    """Find the lungs and bring the CT onto the model's grid.

    Args:
        upright: CT in HU, canonical.
        spec: the model's card.
        monitor: progress and cancelling.

    Raises:
        InputError: there is no lung in the CT.
    """
    with monitor.stage("lungs", "Finding the lungs", 0.0, 0.06):
        lungs, find = find_chest(upright)
    with monitor.stage("grid", "Resampling to the model's grid", 0.06, 0.1):
        grid = working_grid(upright, lungs, spec.grid)
        inside = resample(lungs.view(np.uint8), upright.grid, grid, linear=False, fill=0) > 0
        hu = onto_grid(upright, grid)
        ct_norm = normalize(hu, spec.window_hu, out=hu)
        sides = (lambda: Sides.of(inside, grid, find())) if upright.source.oriented else (lambda: None)
        return PreparedScan(grid, ct_norm, inside, sides)


def load_ensemble(model: Model, where: Where, monitor: Monitor) -> Ensemble:
    """Return a model's predictor of nodule images on a device.

    Args:
        model: its generators are used.
        where: what they run on; the CPU takes over where it has no room.
        monitor: progress and cancelling.
    """
    generator, second = (load_network(load, where, monitor) for load in (model.generator, model.second_generator))
    return Ensemble.of(model.spec, generator, second, monitor)


def predict_nodule_image(
    scan: PreparedScan, model: Model, where: Where, monitor: Monitor
) -> tuple[Ensemble, np.ndarray]:
    """Let the first member of the model's ensemble look over the lungs.

    Args:
        scan: the CT on the working grid.
        model: its generators are used.
        where: what they run on.
        monitor: progress and cancelling.

    Returns:
        The ensemble, and the nodule image, float32 (z, y, x).
    """
    with monitor.stage("generator", "Looking for nodules (generator)", 0.1, 0.5):
        predictor = load_ensemble(model, where, monitor)
        return predictor, predictor.predict(scan.ct_norm, scan.lungs)


def detect_boxes(scan: PreparedScan, model: Model, where: Where, monitor: Monitor) -> tuple[np.ndarray | None, int]:
    """Let the detector look at axial slices with lung, where there is one and the probabilities take note of it.

    Args:
        scan: the CT on the working grid.
        model: its detector is used.
        where: what it runs on.
        monitor: progress and cancelling.

    Returns:
        (N, 6) rows z, y0, x0, y1, x1, score on the working grid, or None, and the slices between scanned slices.
    """
    spec, probability = model.spec.detector, model.spec.probability
    if spec is None or (probability is not None and probability.detector == 0):
        return None, 1
    with monitor.stage("detector", "Checking slice by slice (detector)", 0.5, 0.76):
        step = max(1, round(spec.slice_step_mm / scan.grid.spacing_mm[0]))
        detector = load_network(model.detector, where, monitor)
        boxes = run_detector(detector, scan.ct_norm, scan.lungs, step=step, min_score=spec.min_score, monitor=monitor)
        return boxes, step


def join_branches(
    scan: PreparedScan,
    image: np.ndarray,
    boxes: np.ndarray | None,
    step: int,
    mask_threshold: float,
    options: FusionOptions,
) -> Findings:
    """Join the components of the nodule image within the lungs with the detector's boxes.

    Args:
        scan: the CT on the working grid.
        image: nodule image, float32 (z, y, x).
        boxes: (N, 6) rows z, y0, x0, y1, x1, score; None where no detector looked.
        step: slices between scanned slices.
        mask_threshold: cuts the nodule image into components.
        options: the card's `fusion` part.
    """
    labels = components.components(image > mask_threshold, options.connectivity)
    where = labels > 0
    numbers = labels[where]
    counts = np.bincount(numbers, minlength=1)
    fraction = np.bincount(numbers, scan.lungs[where], minlength=1) / np.maximum(counts, 1)
    labels[where] = np.where(fraction[numbers] < MIN_COMPONENT_LUNG_FRACTION, 0, numbers)
    scores = components.component_scores(labels, image, scan.ct_norm)
    candidates = None if boxes is None else fusion.link(boxes, step)
    joined = fusion.fuse(labels, scores, candidates, scan.grid.spacing_mm, options)
    return Findings(image, labels, joined)


def classify_findings(scan: PreparedScan, found: Findings, model: Model, where: Where, monitor: Monitor) -> Findings:
    """Give findings the score of the model's classifier; without one they stay as they are.

    Where scores are probabilities a box of the detector alone is left out: they are fitted on what the generator marks.

    Args:
        scan: the CT on the working grid.
        found: from `join_branches`.
        model: its classifier is used.
        where: what it runs on.
        monitor: progress and cancelling.
    """
    if model.spec.probability is not None:
        found = without_boxes(found)
    if model.spec.classifier is None:
        return found
    findings = found.fusion.findings
    with monitor.stage("classifier", "Sorting the candidates (classifier)", 0.78, 0.82):
        network = load_network(model.classifier, where, monitor)
        fields = classification.finding_fields(scan.ct_norm, found.labels, findings, model.spec)
        scores = classification.classify(network, fields, monitor)
    scored = [replace(finding, classifier_score=float(score)) for finding, score in zip(findings, scores, strict=True)]
    return replace(found, fusion=replace(found.fusion, findings=scored))


def without_boxes(found: Findings) -> Findings:
    """Return the findings that have components, without the boxes of the detector alone."""
    findings = [finding for finding in found.fusion.findings if finding.labels]
    state = found.fusion.state.replace(fusion.AS_BOXES, "are left out")
    return replace(found, fusion=replace(found.fusion, findings=findings, state=state))


def look_again(
    scan: PreparedScan, found: Findings, predictor: Ensemble, spec: Card, threshold: float, monitor: Monitor
) -> tuple[Findings, dict[fusion.Finding, ensemble.EnsemblePatch]]:
    """Let all members of the ensemble look at the findings that can still be kept, and score them, best first.

    Where scores are probabilities, one that would stay below the threshold even if the ensemble were sure is left out.

    Args:
        scan: the CT on the working grid.
        found: from `classify_findings`.
        predictor: the ensemble.
        spec: the model's card.
        threshold: lowest score of a finding that is kept.
        monitor: progress and cancelling.

    Returns:
        The findings, and what the members made of the surroundings of each that has components.
    """
    with monitor.stage("ensemble", "Looking at each finding again", 0.82, 0.98):
        if spec.probability is not None:
            sure = {one: replace(one, segmenter_score=1.0) for one in found.fusion.findings}
            left = [
                one for one, best in sure.items()
                if with_probability(best, found.labels, scan.grid, spec).score >= threshold
            ]  # fmt: skip
            found = replace(found, fusion=replace(found.fusion, findings=left))
        found, patches = rescore_findings(scan, found, predictor, spec.fusion)
        scored = {one: with_probability(one, found.labels, scan.grid, spec) for one in found.fusion.findings}
        ordered = sorted(scored.values(), key=lambda finding: -finding.score)
        patches = {scored[finding]: patch for finding, patch in patches.items()}
        return replace(found, fusion=replace(found.fusion, findings=ordered)), patches


def with_probability(finding: fusion.Finding, labels: np.ndarray, grid: Grid, spec: Card) -> fusion.Finding:
    """Return a finding whose score is the probability that it is a nodule; without the card's calibration, as it is.

    Of two stages alone, generator and classifier, the second one decides: its score is the finding's.

    Args:
        finding: scored by all parts.
        labels: component numbers, int (z, y, x).
        grid: the working grid.
        spec: the model's card.
    """
    if spec.probability is None:
        return replace(finding, score=finding.classifier_score) if spec.two_stages else finding
    diameter_mm = classification.finding_diameter_mm(labels, finding, grid.voxel_volume_mm3)
    parts = finding.segmenter_score, finding.detector_score, finding.classifier_score
    score = calibration.probability(spec.probability, *parts, diameter_mm, spec.fusion.floor)
    return replace(finding, score=score)


def rescore_findings(
    scan: PreparedScan, found: Findings, predictor: Ensemble, options: FusionOptions
) -> tuple[Findings, dict[fusion.Finding, ensemble.EnsemblePatch]]:
    """Give the findings the scores that all members give them in the fields around them, best first.

    Args:
        scan: the CT on the working grid.
        found: from `join_branches`.
        predictor: the ensemble.
        options: the card's `fusion` part.

    Returns:
        The findings, and what the members made of the surroundings of each that has components.
    """
    with_components = [finding for finding in found.fusion.findings if finding.labels]
    boxes = [finding for finding in found.fusion.findings if not finding.labels]
    patches = ensemble.rescore_with_ensemble(scan.ct_norm, found.labels, with_components, predictor, options)
    ordered = sorted([*patches, *boxes], key=lambda finding: -finding.score)
    return replace(found, fusion=replace(found.fusion, findings=ordered)), patches


def refine_findings(
    scan: PreparedScan,
    found: Findings,
    patches: dict[fusion.Finding, ensemble.EnsemblePatch],
    spec: Card,
    threshold: float,
) -> Findings:
    """Keep the findings that reach a score, and outline them by all members, without attached vessels and walls.

    Args:
        scan: the CT on the working grid.
        found: from `look_again`.
        patches: from there, too.
        spec: the model's card.
        threshold: lowest score of a finding that is kept.
    """
    kept = [finding for finding in found.fusion.findings if finding.score >= threshold]
    cut = spec.generator.threshold, spec.generator.faint_below
    image, labels, kept = ensemble.refine_outlines(found.image, found.labels, kept, patches, *cut)
    if spec.generator.prune_attachments:
        numbers = {number for finding in kept for number in finding.labels}
        labels = attachments.prune_attachments(labels, numbers, image, scan.grid.spacing_mm)
    return Findings(image, labels, replace(found.fusion, findings=kept))


def project_to_ct(
    volume: Volume,
    upright: Volume,
    grid: Grid,
    found: Findings,
    sides: Sides | None,
    monitor: Monitor,
) -> Result:
    """Outline and measure findings on the CT's voxels.

    Args:
        volume: the input.
        upright: the same, canonical.
        grid: the working grid.
        found: what lies on it; its findings are numbered in their order.
        sides: tells the lung of a nodule; None leaves it open.
        monitor: progress and cancelling.

    Returns:
        The result, without a report.
    """
    labels, signal = np.zeros(upright.grid.shape, np.uint16), np.zeros(upright.grid.shape, np.float32)
    nodules: list[Nodule] = []
    findings = found.fusion.findings[:MAX_NODULES]
    for done, finding in enumerate(findings, 1):
        box, measured, statistics = lps_box(finding.box[:3], finding.box[3:], grid), None, None
        if finding.labels:
            outline = native_grid.outline(found.labels, finding.labels, finding.box, found.image, grid, upright.grid)
            mask = outline and outline.mask & (labels[outline.box] == 0)
            if outline is None or not mask.any():
                monitor.warn(f"A finding of score {finding.score:.2f} has no voxel of its own on the CT; left out.")
                monitor.report(done / len(findings))
                continue
            labels[outline.box][mask] = len(nodules) + 1
            signal[outline.box][mask] = outline.signal[mask]
            there = upright.grid.crop(outline.box)
            measured = size.measure(upright.array[outline.box], there, mask)
            statistics = intranodular_signal.statistics(outline.signal, mask, there.spacing_mm)
            box = measured.box_lps_mm
        center = measured.centroid_lps_mm if measured else tuple((a + b) / 2 for a, b in zip(*box, strict=True))
        nodule = Nodule(
            number=len(nodules) + 1,
            score=finding.score,
            provenance=finding.provenance,
            box_lps_mm=box,
            segmenter_score=finding.segmenter_score,
            detector_score=finding.detector_score,
            classifier_score=finding.classifier_score,
            measurement=measured,
            heterogeneity=statistics,
            side=sides and sides.side(center),
            slice=slice_number(box, measured, volume.grid),
        )
        nodules.append(nodule)
        monitor.report(done / len(findings))
    arrays = [from_canonical(array, upright.grid, volume.grid) for array in (labels, signal)]
    around = [native_grid.patch_around(nodule.box_lps_mm, found.image, grid, volume.grid) for nodule in nodules]
    return Result(volume, *arrays, nodules, {}, [patch for patch in around if patch])


def load_network(load: Callable[[Where], Network], where: Where, monitor: Monitor) -> Network:
    """Return a network on the device, or on the CPU where the device has not even room for the weights.

    Args:
        load: brings the network to a device.
        where: the device.
        monitor: takes the warning.
    """
    try:
        return load(where)
    except (MemoryError, RuntimeError) as error:
        if not str(where).startswith("cuda") or not is_short(error):
            raise
    monitor.warn(CPU_TOOK_OVER, "on the CPU")
    return load("cpu")
