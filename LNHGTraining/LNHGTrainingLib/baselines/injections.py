"""Nodules that CT-GAN puts into a CT, to be looked at (docs/method.md, section 11.3)."""

import tempfile
from pathlib import Path

import numpy as np
from LNHGLib.segmentation.preprocessing import WINDOW_HU
from matplotlib.figure import Figure

from LNHGTrainingLib.config import BackgroundFile
from LNHGTrainingLib.data.background import load_backgrounds
from LNHGTrainingLib.data.injection import HALF, NoduleInjector

SHOWN, PLACES = 6, 24
"""Nodules in the picture, and at how many places they are tried."""
OUTLINE = "#d95f02"
ROWS = ("CT", "with a nodule of CT-GAN", "as it is labelled")


def plot(ct: Path, injector: NoduleInjector, picture: Path, seed: int = 0) -> tuple[int, int]:
    """Put nodules into random places of a CT's lungs, and plot each in the slice where it is largest.

    Args:
        ct: chest CT, in any orientation.
        injector: a trained one.
        picture: PNG to write.
        seed: of the places.

    Returns:
        How many nodules came out, and at how many places they were tried.
    """
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as cache:
        ((chest, lung),) = load_backgrounds(ct.parent, [BackgroundFile(file=ct.name)], Path(cache))
    columns, tried = [], 0
    while len(columns) < SHOWN and tried < PLACES:
        tried += 1
        place, other = lung[rng.integers(len(lung), size=2)].astype(int).clip(HALF, np.array(chest.hu.shape) - HALF)
        part, _, made = injector.inject_at(chest, place, other, HALF)
        if made:
            z = int(part.mask.sum(axis=(1, 2)).argmax())
            before = chest.hu[tuple(slice(at - HALF, at + HALF) for at in place)]
            columns.append((before[z], part.hu[z], part.mask[z]))
    figure = Figure(figsize=(1.8 * SHOWN, 1.8 * len(ROWS)), layout="constrained")
    grid = figure.subplots(len(ROWS), SHOWN, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, row in zip(grid[:, 0], ROWS, strict=True):
        axes.set_title(row, loc="left", fontsize=9)
    for axes, (before, after, mask) in zip(grid.T, columns, strict=False):
        for one, hu in zip(axes, (before, after, after), strict=True):
            one.imshow(hu, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
        axes[-1].contour(mask, [0.5], colors=OUTLINE, linewidths=1)
    figure.savefig(picture, dpi=100, format="png")
    return len(columns), tried
