"""The Segment Editor on a finding, and what follows from what is done there."""

import logging
from collections.abc import Callable

import qt
import slicer
from slicer.util import VTKObservationMixin

from LNHGSegmentationLib.Findings.Findings import Findings
from LNHGSegmentationLib.Findings.UndoStack import SegmentState

EDITOR = "SegmentEditor"
QUIET_MS = 250  # a brush stroke is many changes: they are followed when there was no other for that long


def openEditor(findings: Findings, segmentID: str) -> None:
    """Open the Segment Editor with the CT and a finding's segment.

    Args:
        findings: The findings.
        segmentID: Of the segment.
    """
    node = slicer.mrmlScene.GetSingletonNode(EDITOR, "vtkMRMLSegmentEditorNode")
    if node is None:
        node = slicer.vtkMRMLSegmentEditorNode()
        node.SetSingletonTag(EDITOR)
        node = slicer.mrmlScene.AddNode(node)
    node.SetAndObserveSegmentationNode(findings.segmentation)
    node.SetAndObserveSourceVolumeNode(findings.volumeNode)
    node.SetSelectedSegmentID(segmentID)
    slicer.util.selectModule(EDITOR)


class EditWatch(VTKObservationMixin):
    """Notes when others change the segments of the findings."""

    def __init__(self, findings: Findings, onEdited: Callable[[list[int]], None]) -> None:
        """Begin to watch.

        Args:
            findings: The findings.
            onEdited: Called with the numbers of the findings that were changed and are measured anew.
        """
        super().__init__()
        self._findings, self._onEdited = findings, onEdited
        self._known: dict[str, SegmentState] = {}
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(QUIET_MS)
        self._timer.timeout.connect(self.follow)
        findings.persist()
        self.sync()
        segmentation = findings.segmentation.GetSegmentation()
        for name in ("SourceRepresentationModified", "SegmentModified", "SegmentAdded", "SegmentRemoved"):
            self.addObserver(segmentation, getattr(slicer.vtkSegmentation, name), self._onModified)

    def sync(self) -> None:
        """Take the segments as they are for known: after a step of the findings' own."""
        self._known = {each: self._findings.segments.state(each) for each in self._findings.segments.ids()}

    def follow(self) -> None:
        """Follow what was changed since it was last known."""
        if self._findings.volumeNode is None:
            return
        ids = self._findings.segments.ids()
        before = {each: self._known.get(each) for each in {*ids, *self._known}}
        now = {each: self._findings.segments.state(each) for each in before}
        changed = {}
        for each, old in before.items():
            new = now[each]
            isSame = old is new
            if old is not None and new is not None and (old.name, old.box) == (new.name, new.box):
                isSame = old.box is None or bool((old.bits == new.bits).all())
            if not isSame:
                changed[each] = old
        if changed:
            numbers = self._findings.applyExternalEdits(changed)
            self._known = {each: state for each, state in now.items() if state is not None}
            logging.info("LNHG: findings %s were edited", numbers)
            self._onEdited(numbers)

    def stop(self) -> None:
        """Watch no more."""
        self._timer.stop()
        self.removeObservers()

    def _onModified(self, *_args) -> None:
        self._timer.start()
