"""A result as the pipeline returns it, made up without a network."""

from types import SimpleNamespace

import numpy as np
from LNHGLib.image.volume import Grid, Source, Volume
from LNHGLib.measurement.nodule import Nodule
from LNHGLib.measurement.signal import statistics
from LNHGLib.measurement.size import measure


def make_result(grid=None, centers=((10, 30, 30), (14, 60, 70)), box=True):
    """A made-up chest part: lung, a wall, and balls whose density falls from core to edge, on a grid."""
    grid = grid or Grid.aligned((24, 90, 100), (2.0, 0.8, 0.8), (-40, -36, 100))
    z, y, x = np.indices(grid.shape)
    hu = -860 + 30 * np.sin(12.9 * x + 78.2 * y + 3.1 * z)
    hu[:, 78:] = 40
    labels = np.zeros(grid.shape, np.uint16)
    for number, center in enumerate(centers, 1):
        offset = (np.stack([z, y, x], -1) - center) * grid.spacing_mm
        depth = 1 - np.linalg.norm(offset, axis=-1) / (5 + 3 * number)
        hu = np.where(depth > 0, -500 + 700 * depth, hu)
        labels[depth > 0] = number
    hu = hu.astype(np.int16)
    signal = np.where(labels > 0, np.clip((hu + 1000) / 1400, 0, 1), 0).astype(np.float32)
    nodules = [finding(number, hu, signal, labels, grid) for number in range(1, len(centers) + 1)]
    if box:
        place = np.array(grid.index_to_lps((10, 35, 70)))
        corners = (tuple(map(float, place - 5)), tuple(map(float, place + 5)))
        nodules.append(Nodule(len(centers) + 1, 0.41, "detector-box", corners, None, 0.41, None, None))
    report = {
        "model": {"name": "made-up"},
        "options": {"threshold": 0.3},
        "device": "cpu",
        "seconds": {"segment": np.float32(1.5)},
        "warnings": [],
    }
    volume = Volume(hu, grid, Source("made-up.nii.gz"))
    return SimpleNamespace(
        volume=volume, labels=labels, heterogeneity=signal, nodules=nodules, report=report, patches=[]
    )


def finding(number, hu, signal, labels, grid):
    mask = labels == number
    measured = measure(hu, grid, mask)
    inner = statistics(signal, mask, grid.spacing_mm)
    return Nodule(number, 1 - 0.2 * number, "fused", measured.box_lps_mm, 0.9, np.float32(0.8), measured, inner)
