"""A result folder of the core as nodes of the scene."""

import colorsys
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from LNHGSegmentationLib import Overlay
from LNHGSegmentationLib.VolumeExchange import VolumeExchange

TERMINOLOGY = (
    "Segmentation category and type - DICOM master list"
    "~SCT^49755003^Morphologically Altered Structure~SCT^786838002^Lung nodule~^^"
    "~Anatomic codes - DICOM master list~SCT^39607008^Lung~^^"
)
NODULES_ATTRIBUTE = "LNHG.Nodules"
GOLDEN_ANGLE = 0.381966  # of the color circle: neighbors in number are far apart in hue
FIRST_HUE = 0.83  # magenta, which the jet map does not contain


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
    segmentation = _segmentation(labels, volumeNode)
    segmentation.SetAttribute(NODULES_ATTRIBUTE, json.dumps(report["nodules"]))
    heterogeneity = _heterogeneity(signal, volumeNode, colorMap)
    return ResultNodes(segmentation, heterogeneity, report["nodules"], report.get("warnings", []))


def nodulesOf(segmentation: slicer.vtkMRMLSegmentationNode | None) -> list[dict] | None:
    """Return the rows of the report that came with a segmentation, also after the scene was saved and loaded."""
    text = segmentation.GetAttribute(NODULES_ATTRIBUTE) if segmentation else None
    return json.loads(text) if text else None


def segmentColor(number: int) -> tuple[float, float, float]:
    """Return a bright color for a nodule's number, unlike those of its neighbors."""
    return colorsys.hsv_to_rgb((FIRST_HUE + (number - 1) * GOLDEN_ANGLE) % 1.0, 0.85, 1.0)


def _segmentation(labels: np.ndarray, volumeNode) -> slicer.vtkMRMLSegmentationNode:
    name = slicer.mrmlScene.GenerateUniqueName(f"{volumeNode.GetName()} nodules")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())  # before the geometry, which is relative to it
    node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    for number, box in _boxes(labels):
        _addSegment(node, number, box, labels[box] == number, volumeNode)
    display = node.GetDisplayNode()
    display.SetVisibility2DFill(False)
    display.SetSliceIntersectionThickness(2)
    return node


def _boxes(labels: np.ndarray) -> list[tuple[int, tuple[slice, slice, slice]]]:
    from scipy import ndimage

    return [(index + 1, box) for index, box in enumerate(ndimage.find_objects(labels)) if box]


def _addSegment(node, number: int, box, mask: np.ndarray, volumeNode) -> None:
    """Add a nodule as a labelmap of its own box: a whole-CT labelmap a nodule would fill the memory."""
    image = slicer.vtkOrientedImageData()
    image.SetExtent(*[bound for axis in reversed(box) for bound in (axis.start, axis.stop - 1)])
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    image.SetImageToWorldMatrix(matrix)
    image.GetPointData().SetScalars(numpy_to_vtk(mask.astype(np.uint8).ravel(), deep=True))
    segment = slicer.vtkSegment()
    segment.SetName(f"Nodule {number}")
    segment.SetColor(*segmentColor(number))
    segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), TERMINOLOGY)
    segment.AddRepresentation(slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName(), image)
    node.GetSegmentation().AddSegment(segment, f"Nodule_{number}")


def _heterogeneity(signal: np.ndarray, volumeNode, colorMap: str) -> slicer.vtkMRMLScalarVolumeNode:
    name = slicer.mrmlScene.GenerateUniqueName(f"{volumeNode.GetName()} heterogeneity")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    node.CopyOrientation(volumeNode)
    slicer.util.updateVolumeFromArray(node, signal.astype(np.float32))
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    Overlay.setUpDisplay(node, colorMap)
    return node
