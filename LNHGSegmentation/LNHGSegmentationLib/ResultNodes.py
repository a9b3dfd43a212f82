"""A result folder of the core as nodes of the scene."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from LNHGSegmentationLib import Cases, Overlay
from LNHGSegmentationLib.VolumeExchange import VolumeExchange

NODULES_ATTRIBUTE = Cases.NODULES_ATTRIBUTE


@dataclass(frozen=True)
class ResultNodes:
    """What one run put into the scene.

    :ivar segmentation: a segment a nodule; findings of the detector alone have no voxels and no segment.
    :ivar heterogeneity: the intra-nodular signal on the CT's voxels.
    :ivar nodules: the rows of the report, detector-only findings included.
    :ivar warnings: what the core wants the user to know.
    """

    segmentation: slicer.vtkMRMLSegmentationNode
    heterogeneity: slicer.vtkMRMLScalarVolumeNode
    nodules: list[dict]
    warnings: list[str]


def load(folder: Path, volumeNode, exchange: VolumeExchange, colorMap: str = "jet") -> ResultNodes:
    """Put a result folder into the scene, under the CT's own transform."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    labels = exchange.read(folder / "labelmap.nii.gz")
    signal = np.where(labels > 0, exchange.read(folder / "heterogeneity.nii.gz"), np.float32(0))
    segmentation = _segmentation(labels, report["nodules"], volumeNode)
    heterogeneity = _heterogeneity(signal, volumeNode, colorMap)
    Cases.link(segmentation, heterogeneity)
    return ResultNodes(segmentation, heterogeneity, report["nodules"], report.get("warnings", []))


def nodulesOf(segmentation: slicer.vtkMRMLSegmentationNode | None) -> list[dict] | None:
    """Return the rows of the report that came with a segmentation, also after the scene was saved and loaded."""
    text = segmentation.GetAttribute(NODULES_ATTRIBUTE) if segmentation else None
    return json.loads(text) if text else None


def _segmentation(labels: np.ndarray, nodules: list[dict], volumeNode) -> slicer.vtkMRMLSegmentationNode:
    from scipy import ndimage

    name = slicer.mrmlScene.GenerateUniqueName(f"{volumeNode.GetName()} nodules")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())  # before the geometry, which is relative to it
    node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    node.SetAttribute(NODULES_ATTRIBUTE, json.dumps(nodules))
    boxes = ndimage.find_objects(labels)
    for nodule in nodules:
        box = boxes[nodule["number"] - 1] if nodule["number"] <= len(boxes) else None
        if box is not None:
            _addSegment(node, nodule, box, labels[box] == nodule["number"], volumeNode)
    display = node.GetDisplayNode()
    display.SetVisibility2DFill(False)
    display.SetSliceIntersectionThickness(2)
    return node


def _addSegment(node, nodule: dict, box: tuple[slice, ...], mask: np.ndarray, volumeNode) -> None:
    """Add a nodule as a labelmap of its own box: a whole-CT labelmap a nodule would fill the memory."""
    from LNHGLib import segmentation_file

    image = slicer.vtkOrientedImageData()
    image.SetExtent(*[bound for axis in reversed(box) for bound in (axis.start, axis.stop - 1)])
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    image.SetImageToWorldMatrix(matrix)
    image.GetPointData().SetScalars(numpy_to_vtk(mask.astype(np.uint8).ravel(), deep=True))
    segment = slicer.vtkSegment()
    segment.SetName(f"Nodule {nodule['number']}")
    segment.SetColor(*segmentation_file.segment_color(nodule["number"]))
    segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), segmentation_file.TERMINOLOGY)
    segment.SetTag("LNHG.Provenance", nodule["provenance"])
    segment.SetTag("LNHG.Score", f"{nodule['score']:.4f}")
    segment.AddRepresentation(slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName(), image)
    node.GetSegmentation().AddSegment(segment, f"Nodule_{nodule['number']}")


def _heterogeneity(signal: np.ndarray, volumeNode, colorMap: str) -> slicer.vtkMRMLScalarVolumeNode:
    name = slicer.mrmlScene.GenerateUniqueName(f"{volumeNode.GetName()} heterogeneity")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    node.CopyOrientation(volumeNode)
    slicer.util.updateVolumeFromArray(node, signal.astype(np.float32))
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    Overlay.setUpDisplay(node, colorMap)
    return node
