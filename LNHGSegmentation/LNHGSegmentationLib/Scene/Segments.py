"""Segments of a segmentation node by their ID: their state, adding, replacing and removing them."""

import numpy as np
import slicer
import vtk
from LNHGLib.figures.segment_style import TAGS

from LNHGSegmentationLib.Findings.UndoStack import SegmentState
from LNHGSegmentationLib.Scene import SegmentVoxels
from LNHGSegmentationLib.Scene.SegmentVoxels import Crop, SegmentReader


class Segments:
    """The segments of one node."""

    def __init__(self, node: slicer.vtkMRMLSegmentationNode) -> None:
        self.node = node
        self._reader = SegmentReader(node)

    def ids(self) -> list[str]:
        """Return the IDs in order."""
        return list(self.node.GetSegmentation().GetSegmentIDs())

    def read(self, segmentID: str | None) -> Crop | None:
        """Return the voxels of a segment on the CT, None if it has none."""
        return self._reader.read(segmentID)

    def state(self, segmentID: str) -> SegmentState | None:
        """Return all of a segment that `put` needs to bring it back; None if there is no such segment."""
        segment = self.node.GetSegmentation().GetSegment(segmentID)
        if segment is None:
            return None
        crop = self.read(segmentID)
        tags = {name: vtk.mutable("") for name in TAGS}
        for name, value in tags.items():
            segment.GetTag(name, value)
        tags = {name: str(value) for name, value in tags.items()}
        box, bits = (crop.box, np.packbits(crop.array)) if crop else (None, None)
        return SegmentState(segment.GetName(), segment.GetColor(), tags, box, bits)

    def put(self, segmentID: str, state: SegmentState | None) -> None:
        """Bring a segment into a state: change, add or remove it."""
        segmentation = self.node.GetSegmentation()
        segment = segmentation.GetSegment(segmentID)
        if state is None:
            if segment is not None:
                segmentation.RemoveSegment(segmentID)
            return
        if segment is None:
            self.add(segmentID, state.name, state.color, state.tags, state.crop)
            return
        self.rename(segmentID, state.name)
        self.write(segmentID, state.crop)

    def add(self, segmentID: str, name: str, color, tags: dict[str, str], crop: Crop | None) -> None:
        """Add a segment; its labelmap covers its own box only.

        Args:
            segmentID: Of the new segment.
            name: As shown.
            color: RGB, 0 to 1.
            tags: Values by the names in `TAGS`.
            crop: Its voxels, None for an empty segment.
        """
        segment = slicer.vtkSegment()
        segment.SetName(name)
        segment.SetColor(*color)
        for key, value in tags.items():
            segment.SetTag(key, value)
        image = SegmentVoxels.toImage(crop, self.node) if crop else slicer.vtkOrientedImageData()
        segment.AddRepresentation(SegmentVoxels.LABELMAP, image)
        self.node.GetSegmentation().AddSegment(segment, segmentID)

    def rename(self, segmentID: str, name: str) -> None:
        """Give a segment another name."""
        self.node.GetSegmentation().GetSegment(segmentID).SetName(name)

    def write(self, segmentID: str, crop: Crop | None) -> None:
        """Replace a segment's voxels where they differ."""
        before = self.read(segmentID)
        if crop is None and before is not None:
            self.node.GetSegmentation().ClearSegment(segmentID)
        elif crop is not None and not crop.same(before):
            SegmentVoxels.write(self.node, segmentID, crop)
