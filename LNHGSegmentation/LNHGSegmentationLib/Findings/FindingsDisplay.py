"""What of the findings is seen in the views: segments, their surfaces, and the voxels of the heterogeneity map."""

import numpy as np
import qt
import slicer
from LNHGLib.image.boxes import box_intersection

from LNHGSegmentationLib.Findings.Findings import Findings
from LNHGSegmentationLib.Scene import SceneResults, SignalStore
from LNHGSegmentationLib.Scene.SegmentVoxels import LABELMAP

SURFACE = "Closed surface"


class FindingsDisplay:
    """Shows the findings that are kept and reach the threshold; only what changed is shown anew."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._inMap = {each: findings.segments.read(each) for each in findings.segments.ids()}
        self._over = False

    def update(self, rows: list[dict]) -> None:
        """Show these findings and no others; the map holds the signal of all, as what is shown of it follows."""
        visible = {row["segment_id"] for row in rows}
        display = self._findings.segmentation.GetDisplayNode()
        for each in self._findings.segments.ids() if display else []:
            if display.GetSegmentVisibility(each) != (each in visible):
                display.SetSegmentVisibility(each, each in visible)
        segments = self._findings.segments
        wanted, before = {each: segments.read(each) for each in segments.ids()}, self._inMap
        changed = []
        for each in wanted.keys() | before.keys():
            new, old = wanted.get(each), before.get(each)
            if new is not old and (new is None or not new.same(old)):
                changed.append(each)
        self._inMap, node = wanted, SceneResults.heterogeneityOf(self._findings.segmentation)
        if node is None or not changed:
            return
        voxels, gone = slicer.util.arrayFromVolume(node), [before[each] for each in changed if before.get(each)]
        for crop in gone:
            voxels[crop.box][crop.array] = 0
        for each, crop in wanted.items():
            if crop and (each in changed or any(box_intersection(crop.box, other.box) for other in gone)):
                signal = SignalStore.read(self._findings.segmentation, crop.box)
                voxels[crop.box][crop.array] = np.nan_to_num(signal[crop.array])
        slicer.util.arrayFromVolumeModified(node)
        node.GetImageData().Modified()  # those who show the map listen to this

    def makeSurfaces(self) -> None:
        """Make the surfaces for the 3D views, one at a time while Slicer is idle."""
        if self._over or self._findings.volumeNode is None:
            return
        segmentation = self._findings.segmentation.GetSegmentation()
        for each in self._findings.segments.ids():
            hasSurface = segmentation.GetSegment(each).GetRepresentation(SURFACE) is not None
            if not hasSurface and self._findings.segments.read(each) is not None:
                _addSurface(segmentation, each)
                qt.QTimer.singleShot(0, self.makeSurfaces)
                return

    def stop(self) -> None:
        """Do no more work: the scene closes, or another result is shown."""
        self._over = True


def _addSurface(segmentation: slicer.vtkSegmentation, segmentID: str) -> None:
    """Make a surface beside the scene, which costs no update of the others."""
    segment = segmentation.GetSegment(segmentID)
    alone, copy = slicer.vtkSegmentation(), slicer.vtkSegment()
    copy.DeepCopy(segment)
    alone.CopyConversionParameters(segmentation)
    alone.SetSourceRepresentationName(LABELMAP)
    alone.AddSegment(copy, segmentID)
    alone.CreateRepresentation(SURFACE)
    segment.AddRepresentation(SURFACE, alone.GetSegment(segmentID).GetRepresentation(SURFACE))
