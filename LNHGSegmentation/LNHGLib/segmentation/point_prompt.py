"""The nodule at one place of a CT: the segmenter alone, on a cube around it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage

from LNHGLib.errors import InputError
from LNHGLib.image.boxes import whole_box
from LNHGLib.image.volume import Grid, Volume, canonical
from LNHGLib.models.folder import Model
from LNHGLib.segmentation import components, fusion, pipeline
from LNHGLib.segmentation.ensemble import mean_look
from LNHGLib.segmentation.preprocessing import normalise, onto_grid, working_grid
from LNHGLib.segmentation.progress import Monitor

HALF_CUBE_MM = 40.0
"""Half a side of the cube that is looked at: a nodule of 30 mm lies in it even where its rim is shown."""
REACH_MM = 5.0
"""How far from the place the nodule may lie."""


def segment_at(
    volume: Volume,
    model: Model,
    place_lps_mm: tuple[float, float, float],
    *,
    device: str = "auto",
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> pipeline.Result:
    """Outline and measure the nodule at a place that a reader shows.

    Args:
        volume: CT in HU or a part of it around the place, in any orientation; lungs are not looked for.
        model: its generator is used, its detector is not.
        place_lps_mm: x, y, z.
        device: as in `pipeline.segment`.
        progress: as in `pipeline.segment`.
        cancelled: as in `pipeline.segment`.

    Returns:
        One nodule of provenance "segmenter", without a side.

    Raises:
        InputError: the place lies outside the CT, or the segmenter outlines nothing within `REACH_MM` of it.
        Cancelled: the user cancelled.
    """
    where, monitor = pipeline.choose_device(device), Monitor(progress, cancelled)
    upright = canonical(volume)
    _require_inside(place_lps_mm, upright.grid)
    with monitor.stage("grid", "Resampling around the place", 0.0, 0.2):
        grid = _cube(upright, model, place_lps_mm)
        ct_norm = normalise(onto_grid(upright, grid), tuple(model.card["window_hu"]))
    return _outlined(volume, upright, grid, ct_norm, model, place_lps_mm, where, monitor)


def _outlined(
    volume: Volume,
    upright: Volume,
    grid: Grid,
    ct_norm: np.ndarray,
    model: Model,
    place_lps_mm: tuple[float, float, float],
    where: torch.device,
    monitor: Monitor,
) -> pipeline.Result:
    with monitor.stage("generator", "Outlining the nodule (generator)", 0.2, 0.8):
        first, others = pipeline.looks_of(model, where, monitor)
        generated = mean_look(first, others)(ct_norm)
    with monitor.stage("measurement", "Measuring the nodule", 0.8, 1.0):
        labels, finding = _nearest(ct_norm, generated, grid, model, place_lps_mm)
        pipeline.trim(labels, [finding], generated, grid, model)
        result = pipeline.draw(volume, upright, grid, labels, generated, [finding], monitor)
    if not result.nodules:
        raise InputError(_nothing(place_lps_mm))
    return replace(result, report=pipeline.report(volume, model, where, 0.0, monitor))


def _require_inside(place_lps_mm: tuple[float, float, float], grid: Grid) -> None:
    index = grid.lps_to_index(place_lps_mm)
    if (index < -0.5).any() or (index > np.array(grid.shape) - 0.5).any():
        raise InputError(
            f"The place {_text(place_lps_mm)} lies outside the CT, expected L,P,S in mm within it; "
            "R, A and I are negative."
        )


def _cube(upright: Volume, model: Model, place_lps_mm: tuple[float, float, float]) -> Grid:
    """The working grid that the whole CT would have, around the place: spacing, or the paper's slices."""
    index = upright.grid.lps_to_index(place_lps_mm)
    half = HALF_CUBE_MM / np.array(upright.grid.spacing_mm)
    near = np.zeros(upright.grid.shape, bool)
    near[tuple(slice(max(int(a), 0), int(b) + 1) for a, b in zip(index - half, index + half, strict=True))] = True
    grid = working_grid(upright, near, model.card["grid"], margin_mm=0.0)
    if model.card["grid"]["kind"] == "spacing":
        return grid
    slices = np.flatnonzero(near.any((1, 2)))
    return grid.crop((slice(slices[0], slices[-1] + 1), *whole_box(grid.shape)[1:]))


def _nearest(
    ct_norm: np.ndarray, generated: np.ndarray, grid: Grid, model: Model, place_lps_mm: tuple[float, float, float]
) -> tuple[np.ndarray, fusion.Finding]:
    """Component numbers, and the finding at the place or nearest to it."""
    options = fusion.FusionOptions.from_card(model.card["fusion"])
    labels = components.components(generated > model.card["generator"]["threshold"], options.connectivity)
    scores = components.component_scores(labels, generated, ct_norm)
    findings = fusion.fuse(labels, scores, [], grid.spacing_mm, options).findings
    far_mm = _distances_mm(labels, grid, place_lps_mm)
    near = {finding: far_mm[list(finding.labels)].min() for finding in findings}
    best = min(findings, key=near.get, default=None)
    if best is None or near[best] > REACH_MM:
        raise InputError(_nothing(place_lps_mm))
    return labels, best


def _distances_mm(labels: np.ndarray, grid: Grid, place_lps_mm: tuple[float, float, float]) -> np.ndarray:
    """Distance of the place to the nearest voxel's rim, by component number."""
    index = np.stack(np.indices(labels.shape), -1) - grid.lps_to_index(place_lps_mm)
    apart_mm = np.linalg.norm(np.maximum(np.abs(index) - 0.5, 0) * grid.spacing_mm, axis=-1)
    return np.asarray(ndimage.minimum(apart_mm, labels, np.arange(labels.max() + 1)))


def _nothing(place_lps_mm: tuple[float, float, float]) -> str:
    return (
        f"The segmenter outlines no nodule within {REACH_MM:g} mm of {_text(place_lps_mm)}; "
        "show a place nearer to its middle, or draw it by hand."
    )


def _text(place_lps_mm: tuple[float, float, float]) -> str:
    return "L,P,S " + ",".join(f"{value:.1f}" for value in place_lps_mm)
