"""The voxels of one segment on its CT, always as a crop: a nodule is small, a CT fills the memory."""

from dataclasses import dataclass

import numpy as np
import slicer
from LNHGLib.image.boxes import (
    Box,
    box_around_mask,
    box_around_points,
    box_intersection,
    box_shape,
    box_start,
    box_union,
    box_within,
    corners,
    shift_box,
    whole_box,
)
from vtk.util.numpy_support import numpy_to_vtk

from LNHGSegmentationLib.Scene import SceneResults
from LNHGSegmentationLib.Scene.Geometry import ijkToRAS, imageArray, imageToWorld, shapeOf

LABELMAP = "Binary labelmap"
TOLERANCE = 1e-3  # in voxels


@dataclass(frozen=True, eq=False)
class Crop:
    """A part of a CT's voxels.

    Attributes:
        box: Where it lies in the CT's array, slices (z, y, x).
        array: Its values, of the box's shape.
    """

    box: Box
    array: np.ndarray

    def same(self, other: "Crop | None") -> bool:
        """Return whether another crop has the same values in the same place."""
        return other is not None and self.box == other.box and np.array_equal(self.array, other.array)


class SegmentReader:
    """Reads the masks of a segmentation on its CT's voxels; an image that several segments share is searched once."""

    def __init__(self, segmentation: slicer.vtkMRMLSegmentationNode) -> None:
        self._segmentation = segmentation
        self._boxes: dict[str, tuple[int, list]] = {}
        self._crops: dict[str, tuple[tuple, Crop | None]] = {}

    def read(self, segmentID: str | None) -> Crop | None:
        """Return the voxels of a segment as bool, without empty margins; None if it has none inside the CT."""
        from scipy import ndimage  # here, as it would slow down Slicer's start

        segment = self._segmentation.GetSegmentation().GetSegment(segmentID or "")
        image = segment.GetRepresentation(LABELMAP) if segment else None
        volumeNode = SceneResults.volumeOf(self._segmentation)
        if image is None or image.IsEmpty() or volumeNode is None or image.GetPointData().GetScalars() is None:
            return None
        address, time, value = image.GetAddressAsString(""), image.GetMTime(), segment.GetLabelValue()
        stamp = address, time, value, ijkToRAS(volumeNode).tobytes()
        if self._crops.get(segmentID, (None,))[0] != stamp:
            labels = imageArray(image)
            if self._boxes.get(address, (None,))[0] != time:
                self._boxes[address] = time, ndimage.find_objects(labels)
            boxes = self._boxes[address][1]
            box = boxes[value - 1] if value <= len(boxes) else None
            crop = None if box is None else _onVolume(Crop(box, labels[box] == value), image, volumeNode)
            self._crops[segmentID] = stamp, crop
        return self._crops[segmentID][1]


def _onVolume(crop: Crop, image: slicer.vtkOrientedImageData, volumeNode) -> Crop | None:
    """Move a crop of an image's array to the CT's array; another grid is resampled to the nearest voxels."""
    toVolume, shape = np.linalg.inv(ijkToRAS(volumeNode)) @ imageToWorld(image), shapeOf(volumeNode)
    extent = np.array(image.GetExtent()).reshape(3, 2)[::-1, 0]
    translation = np.eye(4)
    translation[:3, 3] = np.rint(toVolume[:3, 3])
    if np.allclose(toVolume, translation, atol=TOLERANCE):
        moved = shift_box(crop.box, extent + translation[2::-1, 3].astype(int))
        box = box_intersection(moved, whole_box(shape))
        mask = None if box is None else crop.array[box_within(box, moved)]
    else:
        box, mask = _resampled(np.argwhere(crop.array) + box_start(crop.box) + extent, toVolume, shape)
    return trimmed(Crop(box, mask)) if box is not None and mask.any() else None


def _resampled(
    points: np.ndarray, toVolume: np.ndarray, shape: tuple[int, int, int]
) -> tuple[Box | None, np.ndarray | None]:
    """Return the CT's voxels whose centers lie in the voxels (z, y, x) of another grid: box and mask, or None twice."""
    ends = np.stack([points.min(0) - 0.5, points.max(0) + 0.5])[:, ::-1]
    rim = corners(*ends) @ toVolume[:3, :3].T + toVolume[:3, 3]
    box = box_around_points(rim[:, ::-1], shape)
    if box is None:
        return None, None
    back = np.linalg.inv(toVolume)
    index = (np.stack(np.indices(box_shape(box)), -1) + box_start(box))[..., ::-1] @ back[:3, :3].T + back[:3, 3]
    source = np.zeros(np.ptp(points, axis=0) + 3, bool)  # a rim of one voxel takes what lies outside
    source[tuple((points - points.min(0) + 1).T)] = True
    index = np.clip(np.rint(index[..., ::-1]).astype(int) - points.min(0) + 1, 0, np.array(source.shape) - 1)
    return box, source[tuple(np.moveaxis(index, -1, 0))]


def write(segmentation: slicer.vtkMRMLSegmentationNode, segmentID: str, crop: Crop) -> None:
    """Replace the voxels of a segment; its surface in the 3D views follows.

    Args:
        segmentation: The node.
        segmentID: Of the segment.
        crop: Its new mask.

    Raises:
        RuntimeError: Slicer refuses them.
    """
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    image = toImage(crop, segmentation)
    segment = segmentation.GetSegmentation().GetSegment(segmentID)
    if segment.GetRepresentation(LABELMAP) is None:
        segment.AddRepresentation(LABELMAP, image)
    elif not logic.SetBinaryLabelmapToSegment(image, segmentation, segmentID, logic.MODE_REPLACE, image.GetExtent()):
        raise RuntimeError(
            f"The voxels of {segment.GetName()} cannot be replaced: select another segment and try again."
        )


def toImage(crop: Crop, segmentation: slicer.vtkMRMLSegmentationNode) -> slicer.vtkOrientedImageData:
    """Return a mask on the CT of a segmentation as the image that a segment holds."""
    image = slicer.vtkOrientedImageData()
    image.SetExtent(*[bound for part in reversed(crop.box) for bound in (part.start, part.stop - 1)])
    image.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(ijkToRAS(SceneResults.volumeOf(segmentation))))
    image.GetPointData().SetScalars(numpy_to_vtk(crop.array.astype(np.uint8).ravel(), deep=True))
    return image


def union(crops: list[Crop]) -> Crop:
    """Return masks joined into one."""
    box = box_union(crop.box for crop in crops)
    joined = np.zeros(box_shape(box), bool)
    for crop in crops:
        joined[box_within(crop.box, box)] |= crop.array
    return Crop(box, joined)


def trimmed(crop: Crop) -> Crop:
    """Return a mask without empty margins; it must not be empty."""
    inner = box_around_mask(crop.array)
    return Crop(shift_box(inner, box_start(crop.box)), crop.array[inner])
