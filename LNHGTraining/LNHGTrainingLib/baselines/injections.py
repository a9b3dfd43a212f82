"""Nodules that CT-GAN puts into a CT, to be looked at (docs/method.md, section 11.3)."""

import tempfile
from pathlib import Path

import numpy as np
from LNHGLib.segmentation.preprocessing import WINDOW_HU
from matplotlib.figure import Figure

from LNHGTrainingLib.config import BackgroundFile
from LNHGTrainingLib.data.background import load_backgrounds
from LNHGTrainingLib.data.injection import HALF, NoduleInjector
from LNHGTrainingLib.evaluation.plots import DPI, METHOD, scale_bar

SHOWN, PLACES = 6, 24
"""Nodules in the picture, and at how many places they are tried."""
MAX_ADDED_HU = 800
"""Where the colors of what was added end."""
ROWS = ("CT", "with a nodule\nof CT-GAN", "as it is labelled", "what was added")


def plot(ct: Path, injector: NoduleInjector, picture: Path, seed: int = 0) -> tuple[int, int]:
    """Put nodules into random places of a CT's lungs, and plot each in the slice where it is largest.

    A label says where most was added, and not that it is seen: beside a wall it can be little. So what was added is
    shown below each, and its mean is said.

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
            before = chest.hu[tuple(slice(at - HALF, at + HALF) for at in place)].astype(np.float32)
            columns.append((before, part.hu, part.mask))
    side, text, left, right = 1.5, 0.3, 0.55, 0.9  # inches
    width, height = left + SHOWN * side + right, len(ROWS) * side + text
    figure = Figure(figsize=(width, height))
    for down, row in enumerate(ROWS):
        corner = (height - (down + 1) * side) / height
        figure.text(
            0.5 * left / width, corner + side / 2 / height, row, rotation=90, va="center", ha="center", fontsize=8
        )
        for across, (before, after, mask) in enumerate(columns):
            z, added = int(mask.sum(axis=(1, 2)).argmax()), after - before
            box = ((left + across * side) / width, corner, 0.97 * side / width, 0.97 * side / height)
            axes = figure.add_axes(box, xticks=[], yticks=[])
            if down < len(ROWS) - 1:
                axes.imshow((after if down else before)[z], cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
            else:
                colored = axes.imshow(added[z], cmap="inferno", vmin=0, vmax=MAX_ADDED_HU)
                axes.set_xlabel(f"{added[mask].mean():+.0f} HU in {mask.sum()} mm³", fontsize=8)
            if down >= len(ROWS) - 2:
                axes.contour(mask[z], [0.5], colors=[METHOD], linewidths=1.2)
            if not down:
                scale_bar(axes)
    if columns:
        bar = figure.add_axes((1 - 0.8 * right / width, text / height, 0.12 / width, 0.97 * side / height))
        figure.colorbar(colored, bar)
        bar.tick_params(labelsize=7)
        bar.set_title("HU", fontsize=8, loc="left")
    figure.savefig(picture, dpi=DPI, format="png")
    return len(columns), tried
