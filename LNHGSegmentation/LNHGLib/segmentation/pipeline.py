"""From a CT volume to its nodules: both networks, their fusion, and everything measured on the CT's own voxels."""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from LNHGLib import __version__
from LNHGLib.errors import InputError
from LNHGLib.image.boxes import lps_box
from LNHGLib.image.volume import Grid, Volume, canonical, resample
from LNHGLib.measurement import signal as heterogeneity
from LNHGLib.measurement import size
from LNHGLib.measurement.location import Sides, slice_number
from LNHGLib.measurement.nodule import Nodule
from LNHGLib.models.folder import SECOND, Model
from LNHGLib.segmentation import attachments, components, ensemble, fusion, native_grid
from LNHGLib.segmentation.out_of_memory import is_short
from LNHGLib.segmentation.preprocessing import find_lungs, from_canonical, normalise, onto_grid, working_grid
from LNHGLib.segmentation.progress import Monitor
from LNHGLib.segmentation.tiled_inference import CPU_TOOK_OVER, run_detector, run_generator

__all__ = [
    "Nodule",
    "Result",
    "Work",
    "choose_device",
    "join_branches",
    "run_detector",
    "run_generator",
    "segment",
]

PAPER_SLAB = 3
IN_LUNG_SHARE = 1 / 3
"""A component with a smaller part in the lungs belongs to the chest wall or the mediastinum."""
MOST_NODULES = 65535


@dataclass(eq=False)
class Result:
    """What `segment` found; arrays are zyx on the grid of `volume`, the input.

    Attributes:
        labels: uint16, value = nodule number.
        heterogeneity: float32, the generator's signal inside the nodules, 0 outside.
        nodules: best first.
        report: versions, model, device, options, seconds by stage and warnings, ready for JSON.
        patches: the generator's nodule image around each finding, also outside the nodules.
    """

    volume: Volume
    labels: np.ndarray
    heterogeneity: np.ndarray
    nodules: list[Nodule]
    report: dict[str, Any]
    patches: list[native_grid.Patch] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Work:
    """The working grid with what lies on it: normalised CT (float32 zyx) and the lungs (bool zyx)."""

    grid: Grid
    ct_norm: np.ndarray
    lungs: np.ndarray


def segment(
    volume: Volume,
    model: Model,
    *,
    device: str = "auto",
    threshold: float | None = None,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Result:
    """Find, outline and measure the nodules of a chest CT; best first, on the CT's own grid.

    Args:
        volume: CT in HU, in any orientation.
        model: from `models.load`.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
        threshold: lowest score of a finding, 0..1; None takes the model's.
        progress: called with the fraction done, never falling, and what is being done.
        cancelled: asked often; true stops the work.

    Raises:
        InputError: no lung in the CT, no such device, threshold out of range, or a model file that was changed.
        Cancelled: the user cancelled.
    """
    where, threshold = choose_device(device), _threshold(threshold, model)
    monitor, upright = Monitor(progress, cancelled), canonical(volume)
    work = _prepare(upright, model, monitor)
    generated, others = _generate(work, model, where, monitor)
    boxes, step = _detect(work, model, where, monitor)
    with monitor.stage("fusion", "Joining both networks' findings", 0.76, 0.78):
        labels, fused = join_branches(work, generated, boxes, step, model.card)
    fused, views = _look_again(work, labels, generated, fused, others, model.card, monitor)
    kept = [finding for finding in fused.findings if finding.score >= threshold]
    kept = ensemble.redraw(generated, labels, kept, views, model.card["generator"]["threshold"])
    trim(labels, kept, generated, work.grid, model)
    with monitor.stage("measurement", "Measuring the nodules", 0.98, 1.0):
        result = draw(volume, upright, work.grid, labels, generated, kept, monitor)
        result, lungs = _with_sides(result, work)
    return replace(result, report=_report(volume, model, where, threshold, fused, monitor) | lungs)


def _with_sides(result: Result, work: Work) -> tuple[Result, dict[str, Any]]:
    """The result with each nodule's side, and what the report says of the lungs."""
    sides = Sides.of(work.lungs, work.grid)
    nodules = [replace(nodule, side=sides.side(nodule.center_lps_mm)) for nodule in result.nodules]
    return replace(result, nodules=nodules), {"lungs": {"midline_x_lps_mm": sides.midline_x_lps_mm}}


def trim(
    labels: np.ndarray, findings: Sequence[fusion.Finding], generated: np.ndarray, grid: Grid, model: Model
) -> None:
    """Trim the findings' outlines in place, if the model's card asks for it by `trim` in its `generator` part."""
    if model.card["generator"].get("trim"):
        attachments.trim(labels, {n for finding in findings for n in finding.labels}, generated, grid.spacing_mm)


def draw(
    volume: Volume,
    upright: Volume,
    grid: Grid,
    labels: np.ndarray,
    generated: np.ndarray,
    findings: list[fusion.Finding],
    monitor: Monitor,
) -> Result:
    """Outline and measure findings on the CT's voxels.

    Args:
        volume: the input.
        upright: the same, canonical.
        grid: the working grid.
        labels: component numbers on it.
        generated: the nodule image on it.
        findings: best first.
        monitor: progress and cancelling.

    Returns:
        The result, without a report and sides.
    """
    drawing = _Drawing(upright, grid, labels, generated)
    nodules = drawing.draw(findings, monitor)
    arrays = [from_canonical(array, upright.grid, volume.grid) for array in (drawing.labels, drawing.signal)]
    nodules = [replace(n, slice=slice_number(n.box_lps_mm, n.measurement, volume.grid)) for n in nodules]
    around = [native_grid.patch_around(nodule.box_lps_mm, generated, grid, volume.grid) for nodule in nodules]
    return Result(volume, *arrays, nodules, {}, [patch for patch in around if patch])


def _threshold(given: float | None, model: Model) -> float:
    threshold = model.card["threshold"] if given is None else given
    if not 0 <= threshold <= 1:
        raise InputError(f"The threshold is {threshold}, expected a score from 0 to 1; leave it out for the model's.")
    return threshold


def choose_device(name: str) -> torch.device:
    """The torch device for "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        InputError: the name is none of these, or this machine has no such device.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda:0" if count else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, index = name.partition(":")
    if kind != "cuda" or (name != "cuda" and not index.isdecimal()):
        raise InputError(f"Device {name!r} is unknown, expected auto, cpu, cuda or cuda:N; choose one of these.")
    if int(index or 0) >= count:
        have = f"{count} CUDA device{'s' if count > 1 else ''}" if count else "no CUDA device"
        raise InputError(f"Device {name!r} is not there, this machine has {have}; use auto or cpu.")
    return torch.device("cuda", int(index or 0))


def _prepare(upright: Volume, model: Model, monitor: Monitor) -> Work:
    with monitor.stage("lungs", "Finding the lungs", 0.0, 0.06):
        lungs = find_lungs(upright)
    with monitor.stage("grid", "Resampling to the model's grid", 0.06, 0.1):
        grid = working_grid(upright, lungs, model.card["grid"])
        inside = resample(lungs.view(np.uint8), upright.grid, grid, linear=False, fill=0) > 0
        return Work(grid, normalise(onto_grid(upright, grid), tuple(model.card["window_hu"])), inside)


def looks_of(model: Model, where: torch.device, monitor: Monitor) -> tuple[ensemble.Look, list[ensemble.Look]]:
    """What draws a model's nodule image of a normalized CT and, if given, its lungs (see `run_generator`); other looks.

    The others tell the monitor no progress.
    """
    silent = replace(monitor, progress=None)
    first = _look(_loaded(model.generator, where, monitor), model.card["generator"])
    network = _loaded(model.second_generator, where, monitor)
    second = network and _look(network, model.card[SECOND], monitor=silent)
    return partial(first, monitor=monitor), ensemble.further(partial(first, monitor=silent), second, model.card)


def _look(network: nn.Module, spec: Mapping[str, Any], **options: Monitor) -> ensemble.Look:
    slab = spec.get("slab", PAPER_SLAB if spec["kind"] == "paper" else None)
    return partial(run_generator, network, slab=slab, **options)


def _generate(
    work: Work, model: Model, where: torch.device, monitor: Monitor
) -> tuple[np.ndarray, list[ensemble.Look]]:
    """The nodule image of the first look, and the further looks."""
    with monitor.stage("generator", "Looking for nodules (generator)", 0.1, 0.5):
        first, others = looks_of(model, where, monitor)
        return first(work.ct_norm, work.lungs), others


def _detect(work: Work, model: Model, where: torch.device, monitor: Monitor) -> tuple[np.ndarray, int]:
    with monitor.stage("detector", "Checking slice by slice (detector)", 0.5, 0.76):
        spec = model.card["detector"]
        step = max(1, round(spec["slice_step_mm"] / work.grid.spacing_mm[0]))
        detector = _loaded(model.detector, where, monitor)
        boxes = run_detector(
            detector, work.ct_norm, work.lungs, step=step, min_score=spec["min_score"], monitor=monitor
        )
        return boxes, step


def _look_again(
    work: Work,
    labels: np.ndarray,
    generated: np.ndarray,
    fused: fusion.Fusion,
    others: list[ensemble.Look],
    card: Mapping[str, Any],
    monitor: Monitor,
) -> tuple[fusion.Fusion, dict[fusion.Finding, ensemble.View]]:
    """The findings with the scores of all looks, and what these made of them; as they are where there is one look."""
    if not others:
        return fused, {}
    drawn = [finding for finding in fused.findings if finding.labels]
    options = fusion.FusionOptions.from_card(card["fusion"])
    with monitor.stage("further looks", "Looking at each finding again", 0.78, 0.98):
        views = ensemble.look_again(work.ct_norm, generated, labels, drawn, others, options, monitor.report)
    boxes = [finding for finding in fused.findings if not finding.labels]
    return replace(fused, findings=sorted([*views, *boxes], key=lambda finding: -finding.score)), views


def _loaded(load: Callable[[torch.device], nn.Module], where: torch.device, monitor: Monitor) -> nn.Module:
    """The network on the device, or on the CPU where the device has not even room for the weights."""
    try:
        return load(where)
    except (MemoryError, RuntimeError) as error:
        if where.type == "cpu" or not is_short(error):
            raise
    monitor.warn(CPU_TOOK_OVER, "on the CPU")
    return load(torch.device("cpu"))


def join_branches(
    work: Work, generated: np.ndarray, boxes: np.ndarray, step: int, card: Mapping[str, Any]
) -> tuple[np.ndarray, fusion.Fusion]:
    """Components of the nodule image within the lungs, and what the detector's boxes make of them.

    Args:
        work: the working grid.
        generated: nodule image G, float32 zyx.
        boxes: (N, 6) rows z, y0, x0, y1, x1, score.
        step: slices between scanned slices.
        card: its `generator.threshold` and `fusion` are used.

    Returns:
        Component numbers zyx, and the findings, best first.
    """
    options = fusion.FusionOptions.from_card(card["fusion"])
    labels = components.components(generated > card["generator"]["threshold"], options.connectivity)
    where = labels > 0
    counts = np.bincount(labels[where], minlength=1)
    share = np.bincount(labels[where], work.lungs[where], minlength=1) / np.maximum(counts, 1)
    labels[(share < IN_LUNG_SHARE)[labels]] = 0
    scores = components.component_scores(labels, generated, work.ct_norm)
    return labels, fusion.fuse(labels, scores, fusion.link(boxes, step), work.grid.spacing_mm, options)


class _Drawing:
    """Findings outlined and measured, one after the other, on the upright CT's voxels."""

    def __init__(self, upright: Volume, grid: Grid, components_: np.ndarray, generated: np.ndarray) -> None:
        self.upright, self.grid, self.components, self.generated = upright, grid, components_, generated
        self.labels = np.zeros(upright.grid.shape, np.uint16)
        self.signal = np.zeros(upright.grid.shape, np.float32)

    def draw(self, findings: list[fusion.Finding], monitor: Monitor) -> list[Nodule]:
        """The nodules of findings that are sorted by score, numbered in that order."""
        nodules: list[Nodule] = []
        for done, finding in enumerate(findings[:MOST_NODULES]):
            make = self._segmentation if finding.labels else self._box
            nodule = make(finding, len(nodules) + 1)
            if nodule is None:
                monitor.warn(f"A finding of score {finding.score:.2f} has no voxel of its own on the CT; left out.")
            else:
                nodules.append(nodule)
            monitor.report((done + 1) / len(findings))
        return nodules

    def _segmentation(self, finding: fusion.Finding, number: int) -> Nodule | None:
        target = self.upright.grid
        found = native_grid.outline(self.components, finding.labels, finding.box, self.generated, self.grid, target)
        mask = found and found.mask & (self.labels[found.box] == 0)
        if found is None or not mask.any():
            return None
        self.labels[found.box][mask] = number
        self.signal[found.box][mask] = found.signal[mask]
        there = target.crop(found.box)
        measured = size.measure(self.upright.array[found.box], there, mask)
        statistics = heterogeneity.statistics(found.signal, mask, there.spacing_mm)
        return replace(
            self._box(finding, number), box_lps_mm=measured.box_lps_mm, measurement=measured, heterogeneity=statistics
        )

    def _box(self, finding: fusion.Finding, number: int) -> Nodule:
        return Nodule(
            number,
            finding.score,
            finding.provenance,
            lps_box(finding.box[:3], finding.box[3:], self.grid),
            finding.segmenter_score,
            finding.detector_score,
            None,
            None,
        )


def _report(
    volume: Volume, model: Model, where: torch.device, threshold: float, fused: fusion.Fusion, monitor: Monitor
) -> dict[str, Any]:
    highest = max((finding.score for finding in fused.findings), default=None)
    found = {"state": fused.state, "components_dropped": fused.dropped_components}
    found["highest_score"] = highest  # of all findings, kept or not
    return {**report(volume, model, where, threshold, monitor), "fusion": found}


def report(volume: Volume, model: Model, where: torch.device, threshold: float, monitor: Monitor) -> dict[str, Any]:
    """What a result says of the run that made it, ready for JSON."""
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else platform.processor() or platform.machine()
    return {
        "versions": {"lnhg": __version__, "python": platform.python_version(), "torch": torch.__version__},
        "model": {"name": model.name, "threshold": model.card["threshold"], "sha256": dict(model.card["files"])},
        "device": {"used": str(where), "name": name},
        "options": {"threshold": threshold, "fusion": dict(model.card["fusion"])},
        "input": {
            "path": volume.source.path,
            "series_uid": volume.source.series_uid,
            "shape_zyx": list(volume.grid.shape),
            "spacing_mm_zyx": list(volume.grid.spacing_mm),
        },
        "seconds": dict(monitor.seconds),
        "warnings": [*volume.source.notes, *monitor.warnings],
    }
