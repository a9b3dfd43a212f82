"""Nodules for reader studies that need no model: balls in lung, with a known signal."""

import json
from pathlib import Path

import numpy as np
from LNHGLib.image.volume import Grid, Source, Volume, write_image
from LNHGLib.reader_study.cases import StudyCase
from LNHGLib.reader_study.images import NoduleVoxels

SHAPE, SPACING_MM, ORIGIN_LPS_MM = (24, 80, 80), (2.5, 0.8, 0.8), (-32.0, -32.0, -30.0)


def a_nodule(radius_mm: float = 7.0, grid: Grid | None = None, seed: int = 0) -> NoduleVoxels:
    """A ball of 40 HU around the world's origin, with a signal that rises from 0.2 at the right to 0.8 at the left."""
    grid = grid or Grid.aligned(SHAPE, SPACING_MM, ORIGIN_LPS_MM)
    points = grid.index_to_lps(np.moveaxis(np.indices(grid.shape), 0, -1))
    distance = np.linalg.norm(points, axis=-1)
    hu = np.where(distance < radius_mm, 40, -850) + np.random.default_rng(seed).integers(-40, 40, grid.shape)
    mask = distance < radius_mm
    signal = np.where(mask, 0.5 + 0.3 * points[..., 0] / radius_mm, 0)
    return NoduleVoxels(Volume(hu.astype(np.int16), grid, Source("ball")), mask, signal.astype(np.float32))


def some_cases(number: int, truth: bool = True) -> list[StudyCase]:
    """Cases of different sizes; every second one has the disease."""
    return [
        StudyCase(
            f"result-{index}", 1, lambda index=index: a_nodule(5 + index % 7, seed=index), index % 2 if truth else None
        )
        for index in range(number)
    ]


def write_result(folder: Path, ct: Path, nodule: NoduleVoxels, series_uid: str | None = None, **scores: str) -> Path:
    """A result folder as `lnhg segment` writes it, as far as a study reads it; `scores` are provenances by score."""
    folder.mkdir(parents=True)
    grid = nodule.volume.grid
    write_image(nodule.mask.astype(np.uint16), grid, folder / "labelmap.nii.gz")
    write_image(nodule.signal, grid, folder / "heterogeneity.nii.gz")
    rows = [f"{number},{score},{kind}" for number, (score, kind) in enumerate(scores.items(), 1)] or ["1,0.9,fused"]
    (folder / "nodules.csv").write_text("\n".join(["number,score,provenance", *rows]) + "\n")
    (folder / "report.json").write_text(json.dumps({"input": {"path": str(ct), "series_uid": series_uid}}))
    return folder
