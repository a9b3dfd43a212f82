"""Nodules for reader studies that need no model: balls in lung, with a known signal."""

import numpy as np
from LNHGLib.study_images import Subject
from LNHGLib.study_input import Entry
from LNHGLib.volume import Grid, Source, Volume

SHAPE, SPACING_MM, ORIGIN_LPS_MM = (24, 80, 80), (2.5, 0.8, 0.8), (-32.0, -32.0, -30.0)


def a_subject(radius_mm: float = 7.0, grid: Grid | None = None, seed: int = 0) -> Subject:
    """A ball of 40 HU around the world's origin, with a signal that rises from 0.2 at the right to 0.8 at the left."""
    grid = grid or Grid.aligned(SHAPE, SPACING_MM, ORIGIN_LPS_MM)
    points = grid.index_to_lps(np.moveaxis(np.indices(grid.shape), 0, -1))
    distance = np.linalg.norm(points, axis=-1)
    hu = np.where(distance < radius_mm, 40, -850) + np.random.default_rng(seed).integers(-40, 40, grid.shape)
    mask = distance < radius_mm
    signal = np.where(mask, 0.5 + 0.3 * points[..., 0] / radius_mm, 0)
    return Subject(Volume(hu.astype(np.int16), grid, Source("ball")), mask, signal.astype(np.float32))


def some_entries(number: int, truth: bool = True) -> list[Entry]:
    """Cases of different sizes; every second one has the disease."""
    return [
        Entry(
            f"result-{index}", 1, lambda index=index: a_subject(5 + index % 7, seed=index), index % 2 if truth else None
        )
        for index in range(number)
    ]
