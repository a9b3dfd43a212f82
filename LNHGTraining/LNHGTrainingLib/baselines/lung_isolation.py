"""The lungs as document 001 isolates them, beside those of this program (docs/method.md, section 13.1)."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from LNHGLib.files.text import markdown_table
from LNHGLib.image.volume import Volume, canonical
from LNHGLib.segmentation.preprocessing import WINDOW_HU, find_lungs
from matplotlib.figure import Figure
from scipy import ndimage

from LNHGTrainingLib.baselines.k_means import two_means_threshold
from LNHGTrainingLib.evaluation.metrics import dice

PIXELS = 512
"""Along each side of the slices that the document's numbers are made for; they are scaled to others."""
MIDDLE = (100, 400)
MOST_LONG, FIRST_ROW, LAST_ROW = 475, 40, 472
ERODED, DILATED = np.ones((4, 4)), np.ones((10, 10))
COLORS = {"document 001": "#d95f02", "here": "#1b6ca8"}
PICTURED = (0.25, 0.5, 0.75)
"""Which parts of the way through the lungs are shown."""


def isolate_lungs(hu: np.ndarray) -> np.ndarray:
    """Return document 001's mask of the lungs, each axial slice for itself (register T7).

    The values of a slice's middle fall into two clusters; what is nearer to the darker one is air. Opened, without what
    is as large as the body or lies at the slice's ends, and dilated, air is lung.

    Args:
        hu: HU (z, y, x), y to the patient's back.
    """
    return np.stack([_isolate_in_slice(one) for one in hu])


def _isolate_in_slice(hu: np.ndarray) -> np.ndarray:
    rows, columns = (size / PIXELS for size in hu.shape)
    middle = tuple(slice(*(round(end * scale) for end in MIDDLE)) for scale in (rows, columns))
    extreme = (hu == hu.max()) | (hu == hu.min())
    values = np.where(extreme, hu[middle].mean(), hu)
    threshold = two_means_threshold(values[middle])
    if threshold is None:
        return np.zeros(hu.shape, bool)
    air = ndimage.binary_dilation(ndimage.binary_erosion(values < threshold, ERODED), DILATED)
    labels, _ = ndimage.label(air)
    kept = [
        number
        for number, (y, x) in enumerate(ndimage.find_objects(labels), 1)
        if y.stop - y.start < MOST_LONG * rows
        and x.stop - x.start < MOST_LONG * columns
        and y.start > FIRST_ROW * rows
        and y.stop < LAST_ROW * rows
    ]
    return ndimage.binary_dilation(np.isin(labels, kept), DILATED)


def compare(volumes: Mapping[str, Volume], picture: Path) -> dict:
    """Find the lungs of CTs in both ways, and plot both outlines on some slices of each.

    Args:
        volumes: CTs in HU, in any orientation, by name.
        picture: PNG to write.

    Returns:
        A report, JSON-ready: liters of both masks and their Dice for each CT.
    """
    figure = Figure(figsize=(4 * len(PICTURED), 0.4 + 4 * len(volumes)), layout="constrained")
    grid, scans = figure.subplots(len(volumes), len(PICTURED), squeeze=False), []
    for row, (name, volume) in zip(grid, volumes.items(), strict=True):
        upright = canonical(volume)
        masks = {"document 001": isolate_lungs(upright.array), "here": find_lungs(upright)}
        with_lung = np.flatnonzero(masks["here"].any(axis=(1, 2)))
        _, dy, dx = upright.grid.spacing_mm
        for axes, part in zip(row, PICTURED, strict=True):
            z = int(with_lung[int(part * (len(with_lung) - 1))])
            axes.imshow(upright.array[z], cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], aspect=dy / dx)
            for mask, color in COLORS.items():
                axes.contour(masks[mask][z], [0.5], colors=color, linewidths=1)
                axes.plot([], [], color=color, label=mask)
            axes.set_axis_off()
        row[0].set_title(name, loc="left", fontsize="medium")
        liters = {mask: float(found.sum()) * upright.grid.voxel_volume_mm3 / 1e6 for mask, found in masks.items()}
        scans.append({"ct": name, "liters": liters, "dice": dice(*masks.values())})
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(COLORS), frameon=False)
    figure.savefig(picture, dpi=70, format="png")
    return {"schema": 1, "kind": "lungs", "scans": scans}


def render(report: dict) -> str:
    """Return a report as Markdown.

    Args:
        report: From `compare`.
    """
    rows = [
        [one["ct"], *(f"{one['liters'][name]:.2f}" for name in COLORS), f"{one['dice']:.3f}"] for one in report["scans"]
    ]
    return markdown_table(["CT", *(f"{name}, liters" for name in COLORS), "Dice of both"], rows)
