"""The heterogeneity map as it is shown: the visible nodules only, on the scale that the user chose.

The map that came with a result holds the generator's signal and is measured; what the views show is a second volume of
the scene, so that a saved scene looks the same in a Slicer without this module.
"""

import json

import numpy as np
import slicer
from LNHGLib.figures import colors

from LNHGSegmentationLib.Scene import Overlay, ResultNodes, SceneResults
from LNHGSegmentationLib.Scene.Geometry import ijkToRAS
from LNHGSegmentationLib.Scene.SegmentVoxels import Crop, SegmentReader

BOXES_ATTRIBUTE = "LNHG.ShownBoxes"
PERCENT = 100.0


def visibleSegments(segmentation: slicer.vtkMRMLSegmentationNode) -> tuple[str, ...]:
    """Return the IDs of the segments that are switched on."""
    display = segmentation.GetDisplayNode()
    ids = segmentation.GetSegmentation().GetSegmentIDs()
    return tuple(each for each in ids if display is None or display.GetSegmentVisibility(each))


def stamp(heterogeneity: slicer.vtkMRMLScalarVolumeNode | None) -> int:
    """Return a number that changes with the signal."""
    image = heterogeneity.GetImageData() if heterogeneity else None
    return image.GetPointData().GetScalars().GetMTime() if image else 0


def refresh(segmentation: slicer.vtkMRMLSegmentationNode, mode: str) -> slicer.vtkMRMLScalarVolumeNode | None:
    """Bring the shown map of a result up to date, making it where there is none.

    Args:
        segmentation: The result.
        mode: "fixed" shows the signal itself, "nodule" and "slice" its percentage of the range in each nodule and in
            each slice of the CT.

    Returns:
        The shown map, None where the result has no signal.
    """
    source = SceneResults.heterogeneityOf(segmentation)
    if source is None or source.GetImageData() is None:
        return None
    node = segmentation.GetNodeReference(SceneResults.SHOWN_ROLE)
    if node is None or node.GetImageData() is None:
        nothing = np.zeros(source.GetImageData().GetDimensions()[::-1], np.float32)
        node = ResultNodes.addVolume(f"{source.GetName()} (as shown)", nothing, source)
        segmentation.SetNodeReferenceID(SceneResults.SHOWN_ROLE, node.GetID())
        Overlay.setUpDisplay(node, colors.DEFAULT_STYLE.color_map, colors.DEFAULT_STYLE.signal_range)
    signal, shown = slicer.util.arrayFromVolume(source), slicer.util.arrayFromVolume(node)
    reader = SegmentReader(segmentation)
    crops = [crop for each in visibleSegments(segmentation) if (crop := reader.read(each)) is not None]
    before = SceneResults.valueOf(node, BOXES_ATTRIBUTE, dict) or {}
    if node.GetAttribute(BOXES_ATTRIBUTE) and before.get("grid") != _grid(node):
        shown[:] = 0  # Slicer turns the voxels of left-handed volumes when it loads a scene; a scene may be damaged
    else:
        for spans in before.get("spans", []):
            shown[tuple(slice(*span) for span in spans)] = 0
    for crop, values in zip(crops, scaled(signal, crops, mode), strict=True):
        shown[crop.box][crop.array] = np.maximum(values[crop.array], 2 * Overlay.SMALLEST_SIGNAL)
    spans = [[[part.start, part.stop] for part in crop.box] for crop in crops]
    node.SetAttribute(BOXES_ATTRIBUTE, json.dumps({"spans": spans, "grid": _grid(node)}))
    slicer.util.arrayFromVolumeModified(node)
    return node


def scaled(signal: np.ndarray, crops: list[Crop], mode: str) -> list[np.ndarray]:
    """Return what is shown in each crop: the core's scaling, but without looking at the whole CT.

    Args:
        signal: (z, y, x).
        crops: Masks of the nodules; the signal counts as zero outside.
        mode: As in `refresh`.
    """
    if mode == "fixed":
        return [signal[crop.box] for crop in crops]
    if mode == "nodule":
        return [PERCENT * colors.scale(signal[crop.box], crop.array.astype(np.uint8), mode) for crop in crops]
    highest = np.zeros((len(signal), 1, 1), np.float32)
    for crop in crops:
        inside = np.where(crop.array, signal[crop.box], np.float32(0)).max((1, 2), keepdims=True)
        highest[crop.box[0]] = np.maximum(highest[crop.box[0]], inside)
    highest[highest == 0] = 1
    return [
        PERCENT * colors.scale(signal[crop.box] / highest[crop.box[0]], crop.array.astype(np.uint8), "fixed")
        for crop in crops
    ]


def _grid(node) -> list[float]:
    return np.round(ijkToRAS(node), 3).ravel().tolist()
