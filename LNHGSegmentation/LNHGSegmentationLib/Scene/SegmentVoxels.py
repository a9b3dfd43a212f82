"""The voxels of one segment on its CT, always as a crop: a nodule is small, a CT fills the memory."""

from dataclasses import dataclass

import numpy as np
import slicer
from vtk.util.numpy_support import numpy_to_vtk

from LNHGSegmentationLib.Scene import SceneResults
from LNHGSegmentationLib.Scene.Geometry import (
    Box,
    cornerOf,
    ijkToRAS,
    imageArray,
    imageToWorld,
    shapeOf,
    shifted,
    within,
)

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
        segment = self._segmentation.GetSegmentation().GetSegment(segmentID or "")
        image = segment.GetRepresentation(LABELMAP) if segment else None
        if image is None or image.IsEmpty() or SceneResults.volumeOf(self._segmentation) is None:
            return None
        if image.GetPointData().GetScalars() is None:
            return None
        stamp = image.GetAddressAsString(""), image.GetMTime(), segment.GetLabelValue(), self._place()
        if self._crops.get(segmentID, (None,))[0] != stamp:
            self._crops[segmentID] = stamp, self._search(image, segment.GetLabelValue())
        return self._crops[segmentID][1]

    def _place(self) -> bytes:
        return ijkToRAS(SceneResults.volumeOf(self._segmentation)).tobytes()

    def _search(self, image, value: int) -> Crop | None:
        labels = imageArray(image)
        boxes = self._boxesOf(image, labels)
        if value > len(boxes) or boxes[value - 1] is None:
            return None
        box = boxes[value - 1]
        return self._onVolume(Crop(box, labels[box] == value), image)

    def _boxesOf(self, image, labels: np.ndarray) -> list:
        from scipy import ndimage  # here, as it would slow down Slicer's start

        key, stamp = image.GetAddressAsString(""), image.GetMTime()
        if self._boxes.get(key, (None,))[0] != stamp:
            self._boxes[key] = stamp, ndimage.find_objects(labels)
        return self._boxes[key][1]

    def _onVolume(self, crop: Crop, image) -> Crop | None:
        """Move a crop of an image's array to the CT's array; another grid is resampled to the nearest voxels."""
        volumeNode = SceneResults.volumeOf(self._segmentation)
        toVolume = np.linalg.inv(ijkToRAS(volumeNode)) @ imageToWorld(image)
        extent = np.array(image.GetExtent()).reshape(3, 2)[::-1, 0]
        shift = np.rint(toVolume[:3, 3])
        if np.allclose(toVolume, _translation(shift), atol=TOLERANCE):
            start = extent + shift[::-1].astype(int)
            return _clipped(Crop(shifted(crop.box, start), crop.array), shapeOf(volumeNode))
        points = np.argwhere(crop.array) + cornerOf(crop.box) + extent
        return _resampled(points, toVolume, shapeOf(volumeNode))


def write(segmentation: slicer.vtkMRMLSegmentationNode, segmentID: str, crop: Crop) -> None:
    """Replace the voxels of a segment; its surface in the 3D views follows."""
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
    spans = [[(part.start, part.stop) for part in crop.box] for crop in crops]
    low, high = np.min(spans, axis=0)[:, 0], np.max(spans, axis=0)[:, 1]
    joined = np.zeros(high - low, bool)
    for crop in crops:
        joined[shifted(crop.box, -low)] |= crop.array
    return Crop(tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True)), joined)


def trimmed(crop: Crop) -> Crop:
    """Return a mask without empty margins; it must not be empty."""
    from scipy import ndimage

    inner = ndimage.find_objects(crop.array.astype(np.uint8))[0]
    return Crop(shifted(inner, cornerOf(crop.box)), crop.array[inner])


def _translation(shift: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = shift
    return matrix


def _clipped(crop: Crop, shape: tuple[int, int, int]) -> Crop | None:
    box = tuple(slice(max(part.start, 0), min(part.stop, size)) for part, size in zip(crop.box, shape, strict=True))
    if any(part.stop <= part.start for part in box):
        return None
    inside = crop.array[within(box, crop.box)]
    return trimmed(Crop(box, inside)) if inside.any() else None


def _resampled(points: np.ndarray, toVolume: np.ndarray, shape: tuple[int, int, int]) -> Crop | None:
    """Return the CT's voxels whose centers lie in the voxels (z, y, x) of another grid."""
    ends = np.stack([points.min(0) - 0.5, points.max(0) + 0.5])[:, ::-1]
    corners = np.array([[x, y, z] for x in ends[:, 0] for y in ends[:, 1] for z in ends[:, 2]])
    corners = corners @ toVolume[:3, :3].T + toVolume[:3, 3]
    low = np.maximum(np.floor(corners.min(0))[::-1], 0).astype(int)
    high = np.minimum(np.ceil(corners.max(0))[::-1] + 1, shape).astype(int)
    if (high <= low).any():
        return None
    back = np.linalg.inv(toVolume)
    index = (np.stack(np.indices(high - low), -1) + low)[..., ::-1] @ back[:3, :3].T + back[:3, 3]
    source = np.zeros(np.ptp(points, axis=0) + 3, bool)  # a rim of one voxel takes what lies outside
    source[tuple((points - points.min(0) + 1).T)] = True
    index = np.clip(np.rint(index[..., ::-1]).astype(int) - points.min(0) + 1, 0, np.array(source.shape) - 1)
    mask = source[tuple(np.moveaxis(index, -1, 0))]
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return trimmed(Crop(box, mask)) if mask.any() else None
