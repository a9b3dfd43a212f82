"""The generator's signal around the findings, kept in the scene in one hidden node: the map of an outline that grows.

A whole CT of it would fill the memory, so the boxes around the findings lie one after the other in a volume node of one
row of voxels; an attribute says where each belongs.
"""

import json

import numpy as np
import slicer

from LNHGSegmentationLib.SegmentVoxels import Box, Crop

ROLE = "LNHG.Signal"
BOXES_ATTRIBUTE = "LNHG.Boxes"


def store(segmentation: slicer.vtkMRMLSegmentationNode, crops: list[Crop]) -> None:
    """Keep the signal in some boxes, beside what is kept already; later ones win where boxes overlap."""
    crops = [*_crops(segmentation), *crops]
    if not crops:
        return
    node = segmentation.GetNodeReference(ROLE) or _newNode(segmentation)
    values = np.concatenate([crop.array.ravel() for crop in crops]).astype(np.float32)
    slicer.util.updateVolumeFromArray(node, values[None, None])
    node.SetAttribute(BOXES_ATTRIBUTE, json.dumps([[[s.start, s.stop] for s in crop.box] for crop in crops]))


def read(segmentation: slicer.vtkMRMLSegmentationNode, box: Box) -> np.ndarray:
    """Return the signal in a box, float32 (z, y, x); NaN where it is not known."""
    signal = np.full([part.stop - part.start for part in box], np.nan, np.float32)
    for crop in _crops(segmentation):
        low = np.maximum([p.start for p in box], [p.start for p in crop.box])
        high = np.minimum([p.stop for p in box], [p.stop for p in crop.box])
        if (high > low).all():
            signal[_within(low, high, box)] = crop.array[_within(low, high, crop.box)]
    return signal


def _within(low: np.ndarray, high: np.ndarray, box: Box) -> Box:
    return tuple(slice(int(a) - p.start, int(b) - p.start) for a, b, p in zip(low, high, box, strict=True))


def _crops(segmentation) -> list[Crop]:
    node = segmentation.GetNodeReference(ROLE)
    if node is None or node.GetImageData() is None:
        return []
    values, start, crops = slicer.util.arrayFromVolume(node).ravel(), 0, []
    for spans in json.loads(node.GetAttribute(BOXES_ATTRIBUTE)):
        box = tuple(slice(*span) for span in spans)
        shape = [part.stop - part.start for part in box]
        stop = start + int(np.prod(shape))
        crops.append(Crop(box, values[start:stop].reshape(shape)))
        start = stop
    return crops


def _newNode(segmentation) -> slicer.vtkMRMLScalarVolumeNode:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", f"{segmentation.GetName()} signal")
    node.SetHideFromEditors(True)
    segmentation.SetNodeReferenceID(ROLE, node.GetID())
    return node
