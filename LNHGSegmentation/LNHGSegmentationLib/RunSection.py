"""The panel's first section: choose a CT, segment, watch, cancel."""

import logging
from pathlib import Path

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from LNHGSegmentationLib import Overlay, ResultNodes
from LNHGSegmentationLib.InstallLogic import InstallLogic
from LNHGSegmentationLib.Parameter import Parameter
from LNHGSegmentationLib.SegmentationLogic import Outcome, SegmentationLogic

RESOURCES = Path(__file__).parents[1] / "Resources"


class RunSection(VTKObservationMixin):
    """Starts runs and shows how they go."""

    def __init__(self, logic: SegmentationLogic, installLogic: InstallLogic) -> None:
        """Build the section.

        :param logic: runs the segmentation.
        :param installLogic: provides the Python packages before the first run.
        """
        super().__init__()
        self._logic, self._installLogic = logic, installLogic
        self._models = logic.models() or [_("none found")]
        self._parameter: Parameter | None = None
        self._guiTag = self._volume = None
        self.uiWidget = slicer.util.loadUI(str(RESOURCES / "UI" / "Run.ui"))
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        self.uiWidget.setMRMLScene(slicer.mrmlScene)
        self._fillModels()
        self.ui.progressBar.setVisible(False)
        self.ui.applyButton.clicked.connect(self.onApply)
        self.ui.cancelButton.clicked.connect(self.onCancel)
        self.ui.modelSelector.currentIndexChanged.connect(self._onModelSelected)

    def setParameter(self, parameter: Parameter | None) -> None:
        """Follow a parameter node, or let go of the scene and stop a run."""
        if self._parameter is not None:
            self.removeObserver(self._parameter.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParameterChanged)
            self._parameter.disconnectGui(self._guiTag)
            self._observeVolume(None)
        self._parameter = parameter
        if parameter is None:
            self._logic.stop()
            self._updateButtons()
            self._setStatus("")
            return
        self._guiTag = parameter.connectGui(self.ui)
        self.addObserver(parameter.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParameterChanged)
        self._onParameterChanged()
        self._showSummary()

    def cleanup(self) -> None:
        """Stop a run and let go of the scene."""
        self._logic.cleanup()
        self.removeObservers()

    def onApply(self) -> None:
        """Start a run."""
        with slicer.util.tryWithErrorDisplay(_("Nodules cannot be segmented."), waitCursor=True):
            self._installLogic.ensure()
            self._logic.start(
                self._parameter.inputVolume,
                self._onProgress,
                self._onEnded,
                model=self._parameter.model,
                colorMap=self._parameter.colorMap,
            )
            self._onProgress(0.0, _("Starting"))
        self._updateButtons()

    def onCancel(self) -> None:
        """Ask the run to end."""
        self._logic.cancel()
        self._setStatus(_("Cancelling..."))

    def _onProgress(self, fraction: float, stage: str) -> None:
        self.ui.progressBar.setValue(round(100 * fraction))
        self._setStatus(stage)

    def _onEnded(self, outcome: Outcome) -> None:
        self._updateButtons()
        if outcome.state == "done":
            self._keep(outcome.result)
        else:
            self._setStatus(outcome.message)
        if outcome.state == "failed":
            logging.error("LNHG: %s", outcome.message)
            slicer.util.errorDisplay(outcome.message)

    def _keep(self, result: ResultNodes.ResultNodes) -> None:
        """Show the new result; an earlier one stays in the scene, hidden."""
        with slicer.util.NodeModify(self._parameter.parameterNode):
            self._parameter.segmentation = result.segmentation
            self._parameter.heterogeneity = result.heterogeneity
        Overlay.setUpCT(self._parameter.inputVolume)
        self._showSummary(result.warnings)

    def _showSummary(self, warnings: list[str] | None = None) -> None:
        nodules = ResultNodes.nodulesOf(self._parameter.segmentation)
        lines = [] if nodules is None else [summary(nodules)]
        self._setStatus("\n".join([*lines, *(warnings or [])]))

    def _onParameterChanged(self, *_args) -> None:
        self._showModel(self._parameter.model)
        self._observeVolume(self._parameter.inputVolume)
        self._updateButtons()

    def _updateButtons(self, *_args) -> None:
        running = self._logic.isRunning
        reason = self._whyNot(running)
        self.ui.applyButton.setEnabled(not reason)
        self.ui.applyButton.setToolTip(reason or _("Find and outline the nodules of the selected CT."))
        self.ui.cancelButton.setEnabled(running)
        self.ui.progressBar.setVisible(running)
        self.ui.inputSelector.setEnabled(not running)

    def _whyNot(self, running: bool) -> str:
        """Return why a run cannot be started now, or an empty string."""
        volumeNode = self._parameter.inputVolume if self._parameter else None
        if running:
            return _("A segmentation is running: wait for its end or cancel it.")
        if volumeNode is None:
            return _("Select a chest CT; load one with Add Data or the DICOM module if there is none.")
        if volumeNode.GetImageData() is None:
            return _("The selected volume is empty: select a chest CT.")
        return ""

    def _setStatus(self, text: str) -> None:
        self.ui.statusLabel.setText(text)

    def _fillModels(self) -> None:
        for index, name in enumerate(self._models):
            self.ui.modelSelector.addItem(name if index else _("{model} (default)").format(model=name))

    def _observeVolume(self, volumeNode) -> None:
        """Follow the CT's voxels: they may come after the node, and may go."""
        if volumeNode is self._volume:
            return
        event = slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent
        if self._volume is not None:
            self.removeObserver(self._volume, event, self._updateButtons)
        self._volume = volumeNode
        if volumeNode is not None:
            self.addObserver(volumeNode, event, self._updateButtons)

    def _showModel(self, model: str) -> None:
        if model and model not in self._models:
            self._models.append(model)
            self.ui.modelSelector.addItem(model)
        self.ui.modelSelector.setCurrentIndex(self._models.index(model) if model else 0)

    def _onModelSelected(self) -> None:
        index = self.ui.modelSelector.currentIndex
        if self._parameter is not None:
            self._parameter.model = self._models[index] if index > 0 else ""


def summary(nodules: list[dict]) -> str:
    """Say in one line what was found."""
    if not nodules:
        return _("No nodule found.")
    highest = max(nodule["score"] for nodule in nodules)
    count = _("1 nodule") if len(nodules) == 1 else _("{count} nodules").format(count=len(nodules))
    return _("{count}, highest score {score:.2f}").format(count=count, score=highest)
