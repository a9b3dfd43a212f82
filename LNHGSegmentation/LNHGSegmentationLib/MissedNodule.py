"""Adding a nodule that was missed: the reader clicks it in a view, the segmenter outlines it."""

from collections.abc import Callable

import numpy as np
import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from LNHGSegmentationLib import Cases, SignalStore
from LNHGSegmentationLib.Findings import Findings
from LNHGSegmentationLib.Geometry import worldToIndex
from LNHGSegmentationLib.SegmentationLogic import SegmentationLogic
from LNHGSegmentationLib.SegmentVoxels import Crop

POINT_CLASS = "vtkMRMLMarkupsFiducialNode"


class MissedNodule(VTKObservationMixin):
    """Waits for a click in a view, then for the segmenter."""

    def __init__(
        self, logic: SegmentationLogic, say: Callable[[str], None], onEnded: Callable[[int | None], None]
    ) -> None:
        """Make one; it is idle.

        :param logic: outlines the nodule.
        :param say: shows one sentence to the user.
        :param onEnded: called with the number of the finding that came of the click, None where nothing did.
        """
        super().__init__()
        self._logic, self._say, self._onEnded = logic, say, onEnded
        self._findings: Findings | None = None
        self._point: slicer.vtkMRMLMarkupsFiducialNode | None = None
        self._device = "auto"

    def start(self, findings: Findings, device: str) -> None:
        """Let the user click."""
        self.stop()
        self._findings, self._device = findings, device
        self._point = slicer.mrmlScene.AddNewNodeByClass(POINT_CLASS, _("missed nodule"))
        self._point.CreateDefaultDisplayNodes()
        self._point.SetHideFromEditors(True)
        self._point.SetSaveWithScene(False)
        self.addObserver(self._point, slicer.vtkMRMLMarkupsNode.PointPositionDefinedEvent, self._onClick)
        application = slicer.app.applicationLogic()
        application.GetSelectionNode().SetReferenceActivePlaceNodeClassName(POINT_CLASS)
        application.GetSelectionNode().SetActivePlaceNodeID(self._point.GetID())
        application.GetInteractionNode().SetCurrentInteractionMode(slicer.vtkMRMLInteractionNode.Place)
        self._say(_("Click the missed nodule in a slice view."))

    def stop(self) -> None:
        """Wait no more for a click or for the segmenter."""
        self._removePoint()
        if self._findings is not None:
            self._logic.stopSearch()
        self._findings = None

    def _onClick(self, *_args) -> None:
        position = np.zeros(3)
        self._point.GetNthControlPointPositionWorld(0, position)
        self._removePoint()
        try:
            self._look(position)
        except (OSError, RuntimeError, ValueError) as error:
            self._end(None, str(error))

    def _look(self, position: np.ndarray) -> None:
        findings = self._findings
        number = findings.at(np.rint(worldToIndex(findings.volumeNode, position)).astype(int))
        if number is not None:
            self._end(number, self._takeIn(number))
            return
        self._say(_("The segmenter outlines the nodule..."))
        model = Cases.runOf(findings.segmentation).get("model", "")
        self._logic.outlineAt(findings.volumeNode, position, self._onFound, model, self._device)

    def _takeIn(self, number: int) -> str:
        """Let a finding that is there already count."""
        text = _("{name} is already in the table.")
        if number not in [row["number"] for row in self._findings.reported()]:
            self._findings.confirm(number)
            text = _("{name} had too low a score or was rejected; it counts now.")
        return text.format(name=self._findings.row(number)["name"])

    def _onFound(self, crop: Crop | None, row: dict, message: str) -> None:
        findings = self._findings
        if crop is None or findings is None:
            self._end(None, message)
            return
        around = row.pop("signal")
        SignalStore.store(findings.segmentation, [around])
        number = findings.add(crop, row)
        self._end(number, _("Added {name}.").format(name=findings.row(number)["name"]))

    def _end(self, number: int | None, message: str) -> None:
        self._findings = None
        self._onEnded(number)
        self._say(message)

    def _removePoint(self) -> None:
        if self._point is None:
            return
        point, self._point = self._point, None
        self.removeObservers()
        interaction = slicer.app.applicationLogic().GetInteractionNode()
        interaction.SetCurrentInteractionMode(slicer.vtkMRMLInteractionNode.ViewTransform)
        slicer.mrmlScene.RemoveNode(point)
