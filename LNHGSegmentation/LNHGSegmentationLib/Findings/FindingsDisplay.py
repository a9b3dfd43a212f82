"""What of the findings is seen in the views: segments, their surfaces, and the voxels of the heterogeneity map."""

import numpy as np
import qt
import slicer

from LNHGSegmentationLib.Findings.Findings import Findings
from LNHGSegmentationLib.Scene import SceneResults, SignalStore
from LNHGSegmentationLib.Scene.SegmentVoxels import LABELMAP, Crop

SURFACE = "Closed surface"


class FindingsDisplay:
    """Shows the findings that are kept and reach the threshold; only what changed is drawn anew."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._drawn = {each: findings.segments.read(each) for each in findings.segments.ids()}
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
        """Draw the map anew where outlines changed."""
        node = SceneResults.heterogeneityOf(self._findings.segmentation)
        ids = wanted.keys() | self._drawn.keys()
        changed = [each for each in ids if not _same(wanted.get(each), self._drawn.get(each))]
        gone = [crop for each in changed if (crop := self._drawn.get(each)) is not None]
        self._drawn = wanted
        if node is None or not changed:
            return
        voxels = slicer.util.arrayFromVolume(node)
        for crop in gone:
            voxels[crop.box][crop.array] = 0
        for each, crop in wanted.items():
            if crop is not None and (each in changed or any(_meet(crop, other) for other in gone)):
                signal = SignalStore.read(self._findings.segmentation, crop.box)
                voxels[crop.box][crop.array] = np.nan_to_num(signal[crop.array])
        slicer.util.arrayFromVolumeModified(node)
        node.GetImageData().Modified()  # those who show the map listen to this


def _same(one: Crop | None, other: Crop | None) -> bool:
    return one is other or (one is not None and one.same(other))


def _meet(one: Crop, other: Crop) -> bool:
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one.box, other.box, strict=True))


def _lacksSurface(findings: Findings, segmentID: str) -> bool:
    segment = findings.segmentation.GetSegmentation().GetSegment(segmentID)
    return segment.GetRepresentation(SURFACE) is None and findings.segments.read(segmentID) is not None


def _addSurface(findings: Findings, segmentID: str) -> None:
    """Make a surface beside the scene, which costs no update of the others."""
    segment = findings.segmentation.GetSegmentation().GetSegment(segmentID)
    alone, copy = slicer.vtkSegmentation(), slicer.vtkSegment()
    copy.DeepCopy(segment)
    alone.CopyConversionParameters(findings.segmentation.GetSegmentation())
    alone.SetSourceRepresentationName(LABELMAP)
    alone.AddSegment(copy, segmentID)
    alone.CreateRepresentation(SURFACE)
    segment.AddRepresentation(SURFACE, alone.GetSegment(segmentID).GetRepresentation(SURFACE))
