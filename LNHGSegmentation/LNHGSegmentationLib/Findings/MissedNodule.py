"""Adding a nodule that was missed: the reader clicks it in a view, the segmenter outlines it."""

from collections.abc import Callable

import numpy as np
import qt
import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from LNHGSegmentationLib.Core.CoreTask import TaskOutcome
from LNHGSegmentationLib.Core.SegmentationLogic import SegmentationLogic
from LNHGSegmentationLib.Findings.Findings import Findings
from LNHGSegmentationLib.Scene import SceneResults, SignalStore
from LNHGSegmentationLib.Scene.Geometry import worldToIndex

POINT_CLASS = "vtkMRMLMarkupsFiducialNode"


class MissedNodule(VTKObservationMixin):
    """Waits for a click in a view, then for the segmenter."""

    def __init__(
        self, logic: SegmentationLogic, say: Callable[[str], None], onEnded: Callable[[int | None], None]
    ) -> None:
        """Make one; it is idle.

        Args:
            logic: Outlines the nodule.
            say: Shows one sentence to the user.
            onEnded: Called with the number of the finding that came of the click, None where nothing did.
        """
        super().__init__()
        self._logic, self._say, self._onEnded = logic, say, onEnded
        self._findings: Findings | None = None
        self._point: slicer.vtkMRMLMarkupsFiducialNode | None = None
        self._device = self._runtime = "auto"

    def start(self, findings: Findings, device: str, runtime: str) -> None:
        """Let the user click.

        Args:
            findings: Get the nodule.
            device: That the segmenter runs on: "auto", "cpu" or "cuda:N".
            runtime: What computes it: "auto", "openvino" or "torch".
        """
        self.stop()
        self._findings, self._device, self._runtime = findings, device, runtime
        self._point = slicer.mrmlScene.AddNewNodeByClass(POINT_CLASS, _("missed nodule"))
        self._point.CreateDefaultDisplayNodes()
        self._point.SetHideFromEditors(True)
        self._point.SetSaveWithScene(False)
        interaction, selection = _placing()
        selection.SetReferenceActivePlaceNodeClassName(POINT_CLASS)
        selection.SetActivePlaceNodeID(self._point.GetID())
        interaction.SetCurrentInteractionMode(interaction.Place)
        for node, event in (
            (self._point, self._point.PointPositionDefinedEvent),
            (interaction, interaction.InteractionModeChangedEvent),
            (selection, selection.ActivePlaceNodeIDChangedEvent),
            (slicer.mrmlScene, slicer.mrmlScene.NodeRemovedEvent),
        ):
            self.addObserver(node, event, self._onPlacing)
        self._say(_("Click the missed nodule in a slice view; Escape or a right click ends this."))

    def stop(self) -> None:
        """Wait no more for a click or for the segmenter."""
        self._removePoint()
        if self._findings is not None:
            self._logic.stopSearch()
        self._findings = None

    def _onPlacing(self, *_args) -> None:
        """Look at the point when Slicer's own event is over: its widget goes on with the node after this call."""
        qt.QTimer.singleShot(0, lambda point=self._point: self._followPoint(point))

    def _followPoint(self, point: slicer.vtkMRMLMarkupsFiducialNode | None) -> None:
        """Go on once the point was placed, or once the user ended the place mode without one."""
        if point is None or point is not self._point:
            return  # it was followed, or all was stopped, meanwhile
        isPlaced, position = point.GetNumberOfDefinedControlPoints() > 0, np.zeros(3)
        interaction, selection = _placing()
        if isPlaced:
            point.GetNthControlPointPositionWorld(0, position)
        elif (
            interaction.GetCurrentInteractionMode() == interaction.Place
            and selection.GetActivePlaceNodeID() == point.GetID()
        ):
            return  # the next click places it
        self._removePoint()
        if not isPlaced:
            self._end(None, _("Nothing was added."))
            return
        try:
            self._outlineAt(position)
        except (OSError, RuntimeError, ValueError) as error:
            self._end(None, str(error))

    def _outlineAt(self, position: np.ndarray) -> None:
        """Take in the finding at a place (world RAS mm), or let the segmenter outline the nodule there."""
        findings = self._findings
        if findings.volumeNode is None:
            raise ValueError(_ctIsGone())
        number = findings.at(np.rint(worldToIndex(findings.volumeNode, position)).astype(int))
        if number is not None:
            text = _("{name} is already in the table.")
            if number not in [row["number"] for row in findings.reported()]:
                findings.confirm(number)
                text = _("{name} had too low a score or was rejected; it counts now.")
            self._end(number, text.format(name=findings.row(number)["name"]))
            return

        def outlined(outcome: TaskOutcome) -> None:
            if outcome.state != "done":
                self._end(None, outcome.message)
            elif findings.volumeNode is None:
                self._end(None, _ctIsGone())
            else:
                crop, row = outcome.result
                SignalStore.store(findings.segmentation, [row.pop("signal")])
                number = findings.add(crop, row)
                self._end(number, _("Added {name}.").format(name=findings.row(number)["name"]))

        self._say(_("The segmenter outlines the nodule..."))
        model = SceneResults.runOf(findings.segmentation).get("model", "")
        self._logic.outlineAt(findings.volumeNode, position, outlined, model, self._device, self._runtime)

    def _end(self, number: int | None, message: str) -> None:
        self._findings = None
        self._onEnded(number)
        self._say(message)

    def _removePoint(self) -> None:
        if self._point is None:
            return
        self.removeObservers()
        interaction, selection = _placing()
        if selection.GetActivePlaceNodeID() in (None, "", self._point.GetID()):  # else another module places a point
            interaction.SwitchToViewTransformMode()
        point, self._point = self._point, None
        if point.GetScene() and not slicer.mrmlScene.IsClosing():  # a closing scene takes the point along
            slicer.mrmlScene.RemoveNode(point)


def _placing() -> tuple[slicer.vtkMRMLInteractionNode, slicer.vtkMRMLSelectionNode]:
    """Return the nodes that say whether a click places a point, and which."""
    application = slicer.app.applicationLogic()
    return application.GetInteractionNode(), application.GetSelectionNode()


def _ctIsGone() -> str:
    return _("The CT of these findings was removed from the scene: load it and segment it again.")
