"""The lungs as document 001 isolates them, beside those of this program (docs/method.md, section 13.1)."""

from pathlib import Path

import numpy as np
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


def compare(volume: Volume, picture: Path) -> dict[str, float]:
    """Find the lungs of a CT in both ways, and plot both outlines on some slices.

    Args:
        volume: CT in HU, in any orientation.
        picture: PNG to write.

    Returns:
        Liters of each mask by its name, and their Dice.
    """
    upright = canonical(volume)
    masks = {"document 001": isolate_lungs(upright.array), "here": find_lungs(upright)}
    with_lung = np.flatnonzero(masks["here"].any(axis=(1, 2)))
    slices = [int(with_lung[int(part * (len(with_lung) - 1))]) for part in PICTURED]
    figure = Figure(figsize=(4 * len(slices), 4.4), layout="constrained")
    for axes, z in zip(figure.subplots(1, len(slices)), slices, strict=True):
        axes.imshow(upright.array[z], cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
        for name, mask in masks.items():
            axes.contour(mask[z], [0.5], colors=COLORS[name], linewidths=1)
            axes.plot([], [], color=COLORS[name], label=name)
        axes.set_axis_off()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(masks), frameon=False)
    figure.savefig(picture, dpi=100, format="png")
    liters = {name: float(mask.sum()) * upright.grid.voxel_volume_mm3 / 1e6 for name, mask in masks.items()}
    return liters | {"dice": dice(*masks.values())}
