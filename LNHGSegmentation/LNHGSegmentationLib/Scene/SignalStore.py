"""The generator's signal around the findings, kept in the scene in one hidden node: the map of an outline that grows.

A whole CT of it would fill the memory, so the boxes around the findings lie one after the other in a volume node of one
row of voxels; an attribute says where each belongs. A saved CT may come back with its axes in another direction (Slicer
writes left-handed volumes so), hence the CT's matrix is kept too.
"""

import json

import numpy as np
import slicer
from LNHGLib.image.boxes import Box, box_between, box_intersection, box_shape, box_start, box_within

from LNHGSegmentationLib.Scene import SceneResults, SegmentVoxels
from LNHGSegmentationLib.Scene.Geometry import ijkToRAS
from LNHGSegmentationLib.Scene.SegmentVoxels import Crop

ROLE = "LNHG.Signal"
BOXES_ATTRIBUTE, MATRIX_ATTRIBUTE = "LNHG.Boxes", "LNHG.Matrix"


def store(segmentation: slicer.vtkMRMLSegmentationNode, crops: list[Crop]) -> None:
    """Keep the signal in some boxes, beside what is kept already; later ones win where boxes overlap.

    Args:
        segmentation: The findings' node.
        crops: float32 (z, y, x) on the CT; NaN where the signal is not known.
    """
    if not crops:
        return
    turn = _turn(segmentation)
    crops = [*_crops(segmentation), *(Crop(_turned(crop.box, turn), _rotated(crop.array, turn)) for crop in crops)]
    node = segmentation.GetNodeReference(ROLE)
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", f"{segmentation.GetName()} signal")
        node.SetHideFromEditors(True)
        segmentation.SetNodeReferenceID(ROLE, node.GetID())
    values = np.concatenate([crop.array.ravel() for crop in crops]).astype(np.float32)
    slicer.util.updateVolumeFromArray(node, values[None, None])
    node.SetAttribute(BOXES_ATTRIBUTE, json.dumps([[[s.start, s.stop] for s in crop.box] for crop in crops]))
    if node.GetAttribute(MATRIX_ATTRIBUTE) is None:
        matrix = ijkToRAS(SceneResults.volumeOf(segmentation))
        node.SetAttribute(MATRIX_ATTRIBUTE, json.dumps(matrix.tolist()))


def read(segmentation: slicer.vtkMRMLSegmentationNode, box: Box) -> np.ndarray:
    """Return the signal in a box.

    Args:
        segmentation: The findings' node.
        box: Of the CT's voxels.

    Returns:
        float32 (z, y, x); NaN where it is not known.
    """
    turn = _turn(segmentation)
    if turn is None:
        return np.full(box_shape(box), np.nan, np.float32)
    kept = _turned(box, turn)
    signal = np.full(box_shape(kept), np.nan, np.float32)
    for crop in _crops(segmentation):
        shared = box_intersection(kept, crop.box)
        if shared is not None:
            signal[box_within(shared, kept)] = crop.array[box_within(shared, crop.box)]
    return _rotated(signal, np.linalg.inv(turn))


def _crops(segmentation) -> list[Crop]:
    node = segmentation.GetNodeReference(ROLE)
    if node is None or node.GetImageData() is None:
        return []
    values, start, crops = slicer.util.arrayFromVolume(node).ravel(), 0, []
    for spans in SceneResults.valueOf(node, BOXES_ATTRIBUTE, list) or []:
        box = tuple(slice(*span) for span in spans)
        shape = box_shape(box)
        stop = start + int(np.prod(shape))
        crops.append(Crop(box, values[start:stop].reshape(shape)))
        start = stop
    return crops


def _turn(segmentation) -> np.ndarray | None:
    """Return the matrix from the CT's voxels (z, y, x) to those it had when the signal was kept; None if it changed."""
    node = segmentation.GetNodeReference(ROLE)
    if node is None or node.GetAttribute(MATRIX_ATTRIBUTE) is None:
        return np.eye(4)
    try:
        kept = np.array(SceneResults.valueOf(node, MATRIX_ATTRIBUTE, list), float)
        turn = np.linalg.inv(kept) @ ijkToRAS(SceneResults.volumeOf(segmentation))
    except (ValueError, TypeError, np.linalg.LinAlgError):  # a damaged scene
        return None
    turn = turn[[2, 1, 0, 3]][:, [2, 1, 0, 3]]
    whole = np.rint(turn)
    isTurn = np.allclose(turn, whole, atol=SegmentVoxels.TOLERANCE) and abs(np.linalg.det(whole)) == 1
    return whole if isTurn else None


def _turned(box: Box, turn: np.ndarray) -> Box:
    ends = np.array([box_start(box), [part.stop - 1 for part in box]])
    ends = ends @ turn[:3, :3].T + turn[:3, 3]
    return box_between(ends.min(0), ends.max(0) + 1)


def _rotated(array: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Bring an array into the order and directions that its axes have after a turn."""
    order = np.abs(turn[:3, :3]).argmax(1)
    backward = [axis for axis in range(3) if turn[axis, order[axis]] < 0]
    return np.flip(array.transpose(order), backward)
