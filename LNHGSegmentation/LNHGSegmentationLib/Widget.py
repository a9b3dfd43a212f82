"""The panel: choose a CT, segment, watch, cancel, look at the map."""

import logging
from collections.abc import Callable
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


class Widget(VTKObservationMixin):
    """Panel of the module; its Qt widget is ``uiWidget``."""

    def __init__(
        self,
        logic: SegmentationLogic,
        installLogic: InstallLogic,
        getParameterNode: Callable[[], Parameter],
    ) -> None:
        """Build the panel.

        :param logic: runs the segmentation.
        :param installLogic: provides the Python packages before the first run.
        :param getParameterNode: returns the scene's parameter node, making one where there is none.
        """
        super().__init__()
        self._logic, self._installLogic, self._getParameterNode = logic, installLogic, getParameterNode
        self._models = logic.models() or [_("none found")]
        self._parameter: Parameter | None = None
        self._guiTag = None
        self._volume = self._shown = None
        self.uiWidget = slicer.util.loadUI(str(RESOURCES / "UI" / "LNHGSegmentation.ui"))
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        self.uiWidget.setMRMLScene(slicer.mrmlScene)
        self._fillModels()
        self.ui.progressBar.setVisible(False)
        self.ui.applyButton.clicked.connect(self.onApply)
        self.ui.cancelButton.clicked.connect(self.onCancel)
        self.ui.modelSelector.currentIndexChanged.connect(self._onModelSelected)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self._onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self._onSceneChanged)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self._onSceneChanged)
        self.connectParameterNode()

    def connectParameterNode(self) -> None:
        """Bind the panel to the scene's parameter node; choose the first CT where none is chosen."""
        self._disconnectParameterNode()
        self._parameter = self._getParameterNode()
        if self._parameter.inputVolume is None:
            self._parameter.inputVolume = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
        self._guiTag = self._parameter.connectGui(self.ui)
        self.addObserver(self._parameter.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParameterChanged)
        self._onParameterChanged()
        self._showSummary()

    def cleanup(self) -> None:
        """Stop a run and let go of the scene: the module is unloaded or reloaded."""
        self._logic.cleanup()
        self._disconnectParameterNode()
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
        if self._parameter.segmentation is not None:
            self._parameter.segmentation.SetDisplayVisibility(False)
        if self._parameter.heterogeneity is not None:
            Overlay.show(None, self._parameter.heterogeneity, visible=False, opacity=0.0)
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
        self._updateOverlay()

    def _updateOverlay(self) -> None:
        p = self._parameter
        wanted = (p.heterogeneity, p.overlayVisible, p.overlayOpacity, p.colorMap)
        for control in (self.ui.overlayCheckBox, self.ui.opacitySlider, self.ui.colorMapSelector):
            control.setEnabled(p.heterogeneity is not None)
        if p.heterogeneity is None or wanted == self._shown:
            return
        self._shown = wanted
        Overlay.applyColorMap(p.heterogeneity, p.colorMap)
        Overlay.show(p.inputVolume, p.heterogeneity, p.overlayVisible, p.overlayOpacity)

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

    def _disconnectParameterNode(self) -> None:
        if self._parameter is not None:
            self.removeObserver(self._parameter.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParameterChanged)
            self._parameter.disconnectGui(self._guiTag)
            self._observeVolume(None)
        self._parameter = self._guiTag = self._shown = None

    def _onSceneStartClose(self, *_args) -> None:
        self._disconnectParameterNode()
        self._logic.stop()
        self._updateButtons()
        self._setStatus("")

    def _onSceneChanged(self, *_args) -> None:
        self.connectParameterNode()


def summary(nodules: list[dict]) -> str:
    """Say in one line what was found."""
    if not nodules:
        return _("No nodule found.")
    highest = max(nodule["score"] for nodule in nodules)
    count = _("1 nodule") if len(nodules) == 1 else _("{count} nodules").format(count=len(nodules))
    return _("{count}, highest score {score:.2f}").format(count=count, score=highest)
