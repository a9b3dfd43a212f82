"""What of the findings is seen in the views: segments, their surfaces, and the voxels of the heterogeneity map."""

import numpy as np
import qt
import slicer

from LNHGSegmentationLib import Cases, SignalStore
from LNHGSegmentationLib.Findings import Findings
from LNHGSegmentationLib.SegmentVoxels import LABELMAP, Crop

SURFACE = "Closed surface"


class FindingsDisplay:
    """Shows the findings that are kept and reach the threshold; only what changed is drawn anew."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._drawn: dict[str, Crop | None] = {}
        self._over = False

    def update(self, rows: list[dict]) -> None:
        """Show these findings and no others; the map holds the signal of all, as what is shown of it follows."""
        visible = {row["segment_id"] for row in rows}
        display = self._findings.segmentation.GetDisplayNode()
        for each in self._findings.segments.ids() if display else []:
            if display.GetSegmentVisibility(each) != (each in visible):
                display.SetSegmentVisibility(each, each in visible)
        segments = self._findings.segments
        self._drawMap({each: segments.read(each) for each in segments.ids()})

    def makeSurfaces(self) -> None:
        """Make the surfaces for the 3D views, one at a time while Slicer is idle."""
        if self._over or self._findings.volumeNode is None:
            return
        lacking = [each for each in self._findings.segments.ids() if _lacksSurface(self._findings, each)]
        if lacking:
            _addSurface(self._findings, lacking[0])
            qt.QTimer.singleShot(0, self.makeSurfaces)

    def stop(self) -> None:
        """Do no more work: the scene closes, or another result is shown."""
        self._over = True

    def _drawMap(self, wanted: dict[str, Crop | None]) -> None:
        node = Cases.heterogeneityOf(self._findings.segmentation)
        if node is None or _same(wanted, self._drawn):
            return
        voxels = slicer.util.arrayFromVolume(node)
        for crop in filter(None, self._drawn.values()):
            voxels[crop.box][crop.array] = 0
        for crop in filter(None, wanted.values()):
            signal = SignalStore.read(self._findings.segmentation, crop.box)
            voxels[crop.box][crop.array] = np.nan_to_num(signal[crop.array])
        self._drawn = wanted
        slicer.util.arrayFromVolumeModified(node)
        node.GetImageData().Modified()  # those who show the map listen to this


def _same(wanted: dict[str, Crop | None], drawn: dict[str, Crop | None]) -> bool:
    return wanted.keys() == drawn.keys() and all(
        crop is drawn[each] or (crop is not None and crop.same(drawn[each])) for each, crop in wanted.items()
    )


def _lacksSurface(findings: Findings, segmentID: str) -> bool:
    segment = findings.segmentation.GetSegmentation().GetSegment(segmentID)
    return segment.GetRepresentation(SURFACE) is None and findings.segments.read(segmentID) is not None


def _addSurface(findings: Findings, segmentID: str) -> None:
    """Make a surface beside the scene, which costs no update of the others."""
    segment = findings.segmentation.GetSegmentation().GetSegment(segmentID)
    alone, copy = slicer.vtkSegmentation(), slicer.vtkSegment()
    copy.DeepCopy(segment)
    alone.SetSourceRepresentationName(LABELMAP)
    alone.AddSegment(copy, segmentID)
    alone.CreateRepresentation(SURFACE)
    segment.AddRepresentation(SURFACE, alone.GetSegment(segmentID).GetRepresentation(SURFACE))
