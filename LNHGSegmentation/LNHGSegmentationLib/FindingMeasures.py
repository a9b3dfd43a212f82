"""The measurements of a finding, by the core's own functions, from its voxels in the scene."""

from dataclasses import asdict

import numpy as np
import slicer

from LNHGSegmentationLib import Cases, SegmentVoxels, SignalStore
from LNHGSegmentationLib.SegmentVoxels import Crop

NOTHING = {"measurement": None, "heterogeneity": None}


def measure(segmentation: slicer.vtkMRMLSegmentationNode, crop: Crop | None) -> dict:
    """Return the keys of a row that depend on its voxels.

    The heterogeneity is None where the generator's signal is not known for all voxels: the scene keeps it around the
    model's findings only.

    :param segmentation: the findings' node; its CT gives the HU.
    :param crop: the finding's voxels, None if it has none.
    """
    if crop is None:
        return dict(NOTHING)
    from LNHGLib import heterogeneity, measurement  # here, as scipy would slow down Slicer's start

    volumeNode = Cases.volumeOf(segmentation)
    grid = SegmentVoxels.gridAt(volumeNode, crop.box)
    measured = asdict(measurement.measure(slicer.util.arrayFromVolume(volumeNode)[crop.box], grid, crop.array))
    signal = SignalStore.read(segmentation, crop.box)
    known = np.isfinite(signal[crop.array]).all()
    statistics = heterogeneity.statistics(signal, crop.array, grid.spacing_mm) if known else None
    return {"measurement": measured, "heterogeneity": statistics, "box_lps_mm": measured["box_lps_mm"]}
