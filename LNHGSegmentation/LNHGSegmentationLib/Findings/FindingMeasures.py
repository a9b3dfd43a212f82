"""The measurements of a finding, by the core's own functions, from its voxels in the scene."""

from dataclasses import asdict

import numpy as np
import slicer

from LNHGSegmentationLib.Scene import Geometry, SceneResults, SignalStore
from LNHGSegmentationLib.Scene.SegmentVoxels import Crop

NOTHING = {"measurement": None, "heterogeneity": None}


def load() -> None:
    """Load the packages that measuring needs; call it in a thread, as the first time takes long."""
    from LNHGLib.measurement import signal as heterogeneity  # noqa: F401


def measure(segmentation: slicer.vtkMRMLSegmentationNode, crop: Crop | None) -> dict:
    """Return the keys of a row that depend on its voxels.

    The heterogeneity is None where the generator's signal is not known for all voxels: the scene keeps it around the
    model's findings only.

    Args:
        segmentation: The findings' node; its CT gives the HU.
        crop: The finding's voxels, None if it has none.
    """
    if crop is None:
        return dict(NOTHING)
    from LNHGLib.measurement import location, size
    from LNHGLib.measurement import signal as heterogeneity  # here, as scipy would slow down Slicer's start

    volumeNode = SceneResults.volumeOf(segmentation)
    grid = Geometry.gridAt(volumeNode, crop.box)
    measured = size.measure(slicer.util.arrayFromVolume(volumeNode)[crop.box], grid, crop.array)
    signal = SignalStore.read(segmentation, crop.box)
    known = np.isfinite(signal[crop.array]).all()
    statistics = heterogeneity.statistics(signal, crop.array, grid.spacing_mm) if known else None
    whole = Geometry.gridAt(volumeNode, Geometry.wholeOf(volumeNode))
    return {
        "measurement": asdict(measured),
        "heterogeneity": statistics,
        "box_lps_mm": measured.box_lps_mm,
        "slice": location.slice_number(measured.box_lps_mm, measured, whole),
    }


def side(segmentation: slicer.vtkMRMLSegmentationNode, row: dict) -> str | None:
    """Return the side of the plane between the lungs, as the core saw it, on which a finding lies; None if unsure."""
    if row["box_lps_mm"] is None:
        return None
    from LNHGLib.measurement.sides import side_of_plane

    run = SceneResults.runOf(segmentation)
    plane = run.get("lungs") or {"midline_x_lps_mm": run.get("midline_x_lps_mm")}  # older scenes
    return side_of_plane(plane, np.mean(row["box_lps_mm"], axis=0))
