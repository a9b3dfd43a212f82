"""A result folder of the core as nodes of the scene."""

import json
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import slicer
import vtk
from LNHGLib.figures.colors import DEFAULT_STYLE
from LNHGLib.figures.segment_style import segment_color, segment_id, segment_name, segment_tags
from LNHGLib.image.boxes import grow_box
from LNHGLib.measurement.score_scale import scale_of
from vtk.util.numpy_support import numpy_to_vtk

from LNHGSegmentationLib.Scene import ModelOutput, Overlay, SceneResults, SignalStore
from LNHGSegmentationLib.Scene.Segments import Segments
from LNHGSegmentationLib.Scene.SegmentVoxels import Crop
from LNHGSegmentationLib.Scene.VolumeExchange import VolumeExchange

SMOOTHING = "0.2"  # of surfaces: at Slicer's own 0.5 a nodule of two slices shrinks to nothing in the 3D views


@dataclass(frozen=True)
class ResultNodes:
    """What one run put into the scene.

    Attributes:
        segmentation: One segment per nodule; findings of the detector alone have no voxels and no segment.
        heterogeneity: The intra-nodular signal on the CT's voxels.
        nodules: The rows of the report, detector-only findings included.
        warnings: What the core wants the user to know.
    """

    segmentation: slicer.vtkMRMLSegmentationNode
    heterogeneity: slicer.vtkMRMLScalarVolumeNode
    nodules: list[dict]
    warnings: list[str]


@dataclass(frozen=True, eq=False)
class ResultData:
    """A result folder in memory, on the CT's voxels.

    Attributes:
        report: Content of report.json.
        masks: The bool voxels of each nodule that has any, by number.
        signal: Float32 (z, y, x), 0 outside nodules; pages without a nodule take no memory.
        around: The generator's signal around the nodules, NaN where it is not known.
    """

    report: dict
    masks: dict[int, Crop]
    signal: np.ndarray
    around: list[Crop]


def load(folder: Path, volumeNode, exchange: VolumeExchange) -> ResultNodes:
    """Put a result folder into the scene, under the CT's own transform.

    Args:
        folder: What `lnhg segment` wrote.
        volumeNode: The CT.
        exchange: Of that CT.
    """
    return insert(read(folder, exchange), volumeNode)


def read(folder: Path, exchange: VolumeExchange) -> ResultData:
    """Read a result folder; touches no scene, so it may run in a thread.

    Args:
        folder: What `lnhg segment` wrote.
        exchange: Of its CT.
    """
    from LNHGLib.segmentation.native_grid import AROUND_MM
    from scipy import ndimage  # here, as it would slow down Slicer's start

    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    labels = exchange.read(folder / "labelmap.nii.gz")
    everywhere = exchange.read(folder / "heterogeneity.nii.gz")
    signal, masks = np.zeros(labels.shape, np.float32), {}
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is not None:
            mask = labels[box] == number
            masks[number] = Crop(box, mask)
            signal[box][mask] = everywhere[box][mask]
    if (folder / "signal.nii.gz").exists():
        everywhere = exchange.read(folder / "signal.nii.gz")
        reach = [int(AROUND_MM / spacing) for spacing in exchange.spacing]
        boxes = [grow_box(mask.box, reach, everywhere.shape) for mask in masks.values()]
        around = [Crop(box, everywhere[box].copy()) for box in boxes]
    else:  # results of older versions have the signal inside the nodules only
        unknown = np.float32(np.nan)
        around = [Crop(m.box, np.where(m.array, everywhere[m.box], unknown)) for m in masks.values()]
    return ResultData(report, masks, signal, around)


def insert(data: ResultData, volumeNode) -> ResultNodes:
    """Put a result into the scene, under the CT's own transform.

    Args:
        data: The result.
        volumeNode: The CT.
    """
    steps = inserting(data, volumeNode)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def inserting(data: ResultData, volumeNode) -> Generator[None, None, ResultNodes]:
    """Do as `insert` in steps of a few milliseconds; closed before its end, it leaves the scene as it was.

    Args:
        data: The result.
        volumeNode: The CT.

    Returns:
        The new nodes, as the generator's value.
    """
    report, heterogeneity = data.report, None
    segmentation = _addSegmentation(report["nodules"], volumeNode)
    segments = Segments(segmentation)
    try:
        for nodule in report["nodules"]:
            number, crop = nodule["number"], data.masks.get(nodule["number"])
            if crop is not None:  # as a labelmap of its own box: one of the whole CT per nodule would fill the memory
                tags = segment_tags(nodule["provenance"], nodule["score"], scale_of(report))
                segments.add(segment_id(number), segment_name(number), segment_color(number), tags, crop)
            ModelOutput.add(segmentation, nodule, crop)
            yield
        heterogeneity = addVolume(f"{volumeNode.GetName()} heterogeneity", data.signal, volumeNode)
        Overlay.setUpDisplay(heterogeneity, DEFAULT_STYLE.color_map, DEFAULT_STYLE.signal_range)
        yield
        SignalStore.store(segmentation, data.around)
    except BaseException:
        hidden = (segmentation.GetNodeReference(role) for role in (ModelOutput.ROLE, SignalStore.ROLE))
        for node in filter(None, (*hidden, heterogeneity, segmentation)):
            if not slicer.mrmlScene.IsClosing():  # a closing scene takes them along
                slicer.mrmlScene.RemoveNode(node)
        raise
    SceneResults.link(segmentation, heterogeneity, _runOf(report))
    segmentation.SetDisplayVisibility(True)
    return ResultNodes(segmentation, heterogeneity, report["nodules"], report.get("warnings", []))


def _addSegmentation(nodules: list[dict], volumeNode) -> slicer.vtkMRMLSegmentationNode:
    """Add a segmentation for the nodules, still without segments and hidden."""
    name = slicer.mrmlScene.GenerateUniqueName(f"{volumeNode.GetName()} nodules")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())  # before the geometry, which is relative to it
    node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    node.SetAttribute(SceneResults.NODULES_ATTRIBUTE, json.dumps(nodules))
    node.GetSegmentation().SetConversionParameter("Smoothing factor", SMOOTHING)
    display = node.GetDisplayNode()
    display.SetVisibility(False)
    display.SetVisibility2DFill(False)
    display.SetSliceIntersectionThickness(2)
    return node


def addVolume(name: str, array: np.ndarray, volumeNode) -> slicer.vtkMRMLScalarVolumeNode:
    """Add an array on a volume's voxels to the scene, without copying it: zeros stay unallocated pages.

    Args:
        name: Of the new node.
        array: (z, y, x).
        volumeNode: The volume.
    """
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", slicer.mrmlScene.GenerateUniqueName(name))
    node.CopyOrientation(volumeNode)
    node.CreateDefaultDisplayNodes()  # before the voxels: a histogram of all of them would block the user interface
    node.GetDisplayNode().AutoWindowLevelOff()
    image = vtk.vtkImageData()
    image.SetDimensions(array.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(array).ravel(), deep=False))
    node.SetAndObserveImageData(image)
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    return node


def _runOf(report: dict) -> dict:
    """Return what the panel needs to know about the run that made a result."""
    model, options, device = report.get("model", {}), report.get("options", {}), report.get("device")
    return {
        "model": model.get("name", ""),
        "sha256": model.get("sha256", {}),
        "version": report.get("versions", {}).get("lnhg"),
        "lungs": report.get("lungs") or {},
        "voxels_sha256": report.get("input", {}).get("voxels_sha256"),
        "threshold": model.get("threshold", options.get("threshold", 0.0)),
        "lowest": options.get("threshold", 0.0),
        "highest": report.get("fusion", {}).get("highest_score"),
        "score_scale": scale_of(report),
        "froc": model.get("froc"),
        "device": {"id": device["used"], "name": device["name"]} if device else None,
        "runtime": device.get("runtime", "torch") if device else None,
        "warnings": report.get("warnings", []),
    }
