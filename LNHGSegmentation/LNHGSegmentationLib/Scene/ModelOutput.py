"""What the model found at first: kept in a hidden segmentation, untouched by what the reader does."""

import json

import slicer
from LNHGLib.figures.segment_style import segment_id, segment_name

from LNHGSegmentationLib.Scene import SceneResults
from LNHGSegmentationLib.Scene.Segments import Segments
from LNHGSegmentationLib.Scene.SegmentVoxels import Crop

ROLE = "LNHG.Original"


def rows(segmentation: slicer.vtkMRMLSegmentationNode) -> list[dict]:
    """Return the model's findings as they were."""
    return SceneResults.rowsOf(segmentation.GetNodeReference(ROLE)) or []


def crop(segmentation: slicer.vtkMRMLSegmentationNode, number: int) -> Crop | None:
    """Return the model's voxels of a finding, None if it had none."""
    node = segmentation.GetNodeReference(ROLE)
    return Segments(node).read(segment_id(number)) if node else None


def add(segmentation: slicer.vtkMRMLSegmentationNode, row: dict, voxels: Crop | None) -> None:
    """Keep a finding of the model; one of the same number that was taken back is replaced.

    Args:
        segmentation: The findings' node.
        row: The finding.
        voxels: Its voxels, None where it has none.
    """
    node = segmentation.GetNodeReference(ROLE)
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{segmentation.GetName()} (model output)")
        node.SetHideFromEditors(True)
        node.CreateDefaultDisplayNodes()  # else Slicer makes one that shows all when it loads the scene
        node.GetDisplayNode().SetVisibility(False)
        node.SetAndObserveTransformNodeID(segmentation.GetTransformNodeID())
        node.SetReferenceImageGeometryParameterFromVolumeNode(SceneResults.volumeOf(segmentation))
        segmentation.SetNodeReferenceID(ROLE, node.GetID())
    kept = [each for each in rows(segmentation) if each["number"] != row["number"]]
    node.SetAttribute(SceneResults.NODULES_ATTRIBUTE, json.dumps([*kept, row]))
    segments = Segments(node)
    segments.put(segment_id(row["number"]), None)
    if voxels is not None:
        segments.add(segment_id(row["number"]), segment_name(row["number"]), (0.5, 0.5, 0.5), {}, voxels)


def hide() -> None:
    """Hide what the models found in the scene: Slicer shows each segmentation that it loads without a display node."""
    nodes = (segmentation.GetNodeReference(ROLE) for segmentation in SceneResults.results())
    for display in filter(None, (node.GetDisplayNode() for node in nodes if node)):
        display.SetVisibility(False)
