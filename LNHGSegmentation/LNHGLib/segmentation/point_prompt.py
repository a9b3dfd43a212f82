"""The nodule at one place of a CT: the segmenter alone, on a cube around it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy import ndimage

from LNHGLib.errors import InputError
from LNHGLib.image.boxes import box_between, box_intersection, box_of_edges, grow_box, whole_box
from LNHGLib.image.volume import Grid, Volume, canonical
from LNHGLib.models.card import Card, GridSpec
from LNHGLib.models.folder import Model
from LNHGLib.segmentation import components, fusion, pipeline
from LNHGLib.segmentation.ensemble import RIM, Ensemble
from LNHGLib.segmentation.pipeline import Findings, PreparedScan
from LNHGLib.segmentation.preprocessing import normalize, onto_grid, working_grid
from LNHGLib.segmentation.progress import Monitor
from LNHGLib.segmentation.result import Result, make_report
from LNHGLib.segmentation.runtime import Where, choose_runtime

HALF_CUBE_MM = 72.0
"""Half a side of the cube that is looked at: a mass of 60 mm lies in it even where its rim is shown."""
REACH_MM = 5.0
"""How far from the place the nodule may lie."""
FIELDS = 4
"""At most so many fields are predicted; the fourth holds the whole cube."""


def segment_at(
    volume: Volume,
    model: Model,
    place_lps_mm: tuple[float, float, float],
    *,
    device: "str | Where" = "auto",
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Result:
    """Outline and measure the nodule at a place that a reader shows.

    Args:
        volume: CT in HU or a part of it around the place, in any orientation; lungs are not looked for.
        model: its generators and its classifier are used, its detector is not.
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
    where, monitor, spec = choose_runtime(device, model), Monitor(progress, cancelled), model.spec
    upright = canonical(volume)
    index = upright.grid.lps_to_index(place_lps_mm)
    if (index < -0.5).any() or (index > np.array(upright.grid.shape) - 0.5).any():
        raise InputError(
            f"The place {_text(place_lps_mm)} lies outside the CT, expected L,P,S in mm within it; "
            "R, A and I are negative."
        )
    with monitor.stage("grid", "Resampling around the place", 0.0, 0.2):
        grid = grid_around(upright, index, spec.grid)
        scan = PreparedScan(grid, normalize(onto_grid(upright, grid), spec.window_hu), np.ones(grid.shape, bool))
    with monitor.stage("generator", "Outlining the nodule (generator)", 0.2, 0.8):
        found = find_at(scan, pipeline.load_ensemble(model, where, monitor), spec, place_lps_mm)
    found = pipeline.classify_findings(scan, found, model, where, monitor)
    scored = [pipeline.with_probability(finding, found.labels, grid, spec) for finding in found.fusion.findings]
    found = replace(found, fusion=replace(found.fusion, findings=scored))
    with monitor.stage("measurement", "Measuring the nodule", 0.8, 1.0):
        refined = pipeline.refine_findings(scan, found, {}, spec, threshold=0.0)
        result = pipeline.project_to_ct(volume, upright, grid, refined, None, monitor)
    if not result.nodules:
        raise InputError(_nothing(place_lps_mm))
    options = {"threshold": 0.0, "mask_threshold": spec.generator.threshold}
    return replace(result, report=make_report(volume, model, where, options, monitor))


def grid_around(upright: Volume, index: np.ndarray, spec: GridSpec) -> Grid:
    """Return the part around a place of the working grid that the whole CT would have: spacing, or the paper's slices.

    Args:
        upright: CT in HU, canonical.
        index: (z, y, x) of the place.
        spec: the card's `grid` part.
    """
    half = HALF_CUBE_MM / np.array(upright.grid.spacing_mm)
    near = np.zeros(upright.grid.shape, bool)
    near[tuple(slice(max(int(a), 0), int(b) + 1) for a, b in zip(index - half, index + half, strict=True))] = True
    grid = working_grid(upright, near, spec, margin_mm=0.0)
    if spec.kind == "spacing":
        return grid
    slices = np.flatnonzero(near.any((1, 2)))
    return grid.crop((slice(slices[0], slices[-1] + 1), *whole_box(grid.shape)[1:]))


def find_at(scan: PreparedScan, predictor: Ensemble, spec: Card, place_lps_mm: tuple[float, ...]) -> Findings:
    """Return the finding at a place, by all members: first in the field around the place, then in its own.

    The field is that around the finding's box, as on a whole scan, and grows as long as the outline reaches its rim.

    Args:
        scan: the CT on the working grid.
        predictor: the ensemble.
        spec: the model's card.
        place_lps_mm: x, y, z.

    Raises:
        InputError: nothing is outlined within `REACH_MM` of the place.
    """
    place = np.rint(scan.grid.lps_to_index(place_lps_mm)).clip(0, np.array(scan.grid.shape) - 1).astype(int)
    box = predictor.mass_at(scan.ct_norm, place) or box_between(place, place + 1)
    for number in range(FIELDS):
        (patch,) = predictor.predict_at(scan.ct_norm, [box])
        image = np.zeros(scan.grid.shape, np.float32)
        image[patch.box] = patch.image
        try:
            found = find_nearest(scan, image, spec, place_lps_mm)
        except InputError:
            if number == 0:
                raise
            break  # what the field around the place shows is kept
        box = box_of_edges(found.fusion.findings[0].box)
        inner = box_intersection(box, grow_box(patch.box, -RIM, scan.grid.shape))
        if number > 0 and inner == box:
            break
    return found


def find_nearest(scan: PreparedScan, image: np.ndarray, spec: Card, place_lps_mm: tuple[float, ...]) -> Findings:
    """Return the finding at a place or nearest to it, by the segmenter alone.

    Args:
        scan: the CT on the working grid.
        image: nodule image, float32 (z, y, x).
        spec: the model's card.
        place_lps_mm: x, y, z.

    Raises:
        InputError: nothing is outlined within `REACH_MM` of the place.
    """
    cut, place = (spec.generator.threshold, spec.generator.faint_below), scan.grid.lps_to_index(place_lps_mm)
    own = components.nearest(image > cut[0], place, scan.grid.spacing_mm)
    labels = components.components(components.mark_around(image, own, *cut), spec.fusion.connectivity)
    scores = components.component_scores(labels, image, scan.ct_norm)
    fused = fusion.fuse(labels, scores, [], scan.grid.spacing_mm, spec.fusion)
    index = np.stack(np.indices(labels.shape), -1) - place
    rim_mm = np.linalg.norm(np.maximum(np.abs(index) - 0.5, 0) * scan.grid.spacing_mm, axis=-1)
    apart_mm = np.asarray(ndimage.minimum(rim_mm, labels, np.arange(labels.max() + 1)))  # by component number
    near = {finding: apart_mm[list(finding.labels)].min() for finding in fused.findings}
    best = min(fused.findings, key=near.get, default=None)
    if best is None or near[best] > REACH_MM:
        raise InputError(_nothing(place_lps_mm))
    return Findings(image, labels, replace(fused, findings=[best]))


def _nothing(place_lps_mm: tuple[float, ...]) -> str:
    return (
        f"The segmenter outlines no nodule within {REACH_MM:g} mm of {_text(place_lps_mm)}; "
        "show a place nearer to its middle, or draw it by hand."
    )


def _text(place_lps_mm: tuple[float, ...]) -> str:
    return "L,P,S " + ",".join(f"{value:.1f}" for value in place_lps_mm)
