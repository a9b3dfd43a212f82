"""The panel's first section: choose a CT, segment, watch, cancel."""

import logging

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from LNHGSegmentationLib.Core.CoreTask import TaskOutcome
from LNHGSegmentationLib.Core.RunTime import Clock, RunTime
from LNHGSegmentationLib.Core.SegmentationLogic import SegmentationLogic
from LNHGSegmentationLib.Panel import RunTexts
from LNHGSegmentationLib.Panel.ModelChoice import ModelChoice
from LNHGSegmentationLib.Panel.Parameter import Parameter
from LNHGSegmentationLib.Paths import RESOURCES
from LNHGSegmentationLib.Scene import Navigation, Overlay, SceneResults
from LNHGSegmentationLib.Setup.PackageInstall import PackageInstall

TICK_MS = 1000


class RunSection(VTKObservationMixin):
    """Starts runs and shows how they go."""

    def __init__(
        self,
        logic: SegmentationLogic,
        packageInstall: PackageInstall,
    ) -> None:
        """Build the section.

        Args:
            logic: Runs the segmentation.
            packageInstall: Provides the Python packages before the first run.
        """
        super().__init__()
        self._logic, self._packageInstall = logic, packageInstall
        self._devices, self._runTime = logic.devices, RunTime()
        self._parameter: Parameter | None = None
        self._guiTag = self._volume = self._segmentation = self._clock = None
        self._waiting = None  # the CT that is segmented when the packages are installed
        self._fraction, self._stage, self._isCancelling = 0.0, "", False
        self.uiWidget = slicer.util.loadUI(str(RESOURCES / "UI" / "Run.ui"))
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        self.uiWidget.setMRMLScene(slicer.mrmlScene)
        self._models = ModelChoice(logic, self.ui, self._onModelChosen)
        self._tick = qt.QTimer()
        self._tick.setInterval(TICK_MS)
        self._tick.timeout.connect(self._showProgress)
        self.ui.applyButton.clicked.connect(lambda *_args: self.onCancel() if self._isBusy() else self.onApply())
        self.ui.deviceSelector.currentIndexChanged.connect(lambda *_args: self._onChosen("device"))
        self.ui.runtimeSelector.currentIndexChanged.connect(lambda *_args: self._onChosen("runtime"))
        self._fillDevices()
        packageInstall.onInstalled = self._onPackagesChanged
        if not packageInstall.missing():
            self._devices.find(self._onDevicesFound)

    def setParameter(self, parameter: Parameter | None) -> None:
        """Follow a parameter node, or let go of the scene and stop a run."""
        if self._parameter is not None:
            self.removeObserver(self._parameter.parameterNode, vtk.vtkCommand.ModifiedEvent, self._update)
            self._parameter.disconnectGui(self._guiTag)
            self._observe(None, None)
        self._parameter = parameter
        if parameter is None:
            self._logic.stop()
            self._stopClock()
            self._setStatus("")
        else:
            self._guiTag = parameter.bind(self.ui)
            self.addObserver(parameter.parameterNode, vtk.vtkCommand.ModifiedEvent, self._update)
        self._update()

    def cleanup(self) -> None:
        """Stop a run and let go of the scene."""
        self._stopClock()
        self._logic.cleanup()
        self.removeObservers()

    def onApply(self) -> None:
        """Start a run; where packages are missing they are installed first, in the background."""
        p = self._parameter
        with slicer.util.tryWithErrorDisplay(_("Nodules cannot be segmented."), waitCursor=True):
            self._isCancelling = False
            if self._packageInstall.ensure(self._onProgress, self._onInstalled):
                self._devices.find(self._onDevicesFound)
                self._clock = Clock(self._expected())
                where = {"model": p.model, "device": p.device, "runtime": p.runtime}
                self._logic.start(p.inputVolume, self._onProgress, self._onEnded, **where)
                self._tick.start()
            else:
                self._waiting = p.inputVolume
        self._update()

    def onCancel(self) -> None:
        """Ask the run, or the installation before it, to end."""
        self._isCancelling = True
        self._update()
        self._showProgress()
        if self._logic.isRunning:
            self._logic.cancel()
        else:
            self._packageInstall.cancel()

    def _onInstalled(self, outcome: TaskOutcome) -> None:
        waiting, self._waiting = self._waiting, None
        self._stopClock()
        self._update()
        if outcome.state != "done":
            self._setStatus(outcome.message)
        elif self._parameter and self._parameter.inputVolume is waiting and not self._whyNot():
            self.onApply()
        if outcome.state == "failed":
            slicer.util.errorDisplay(outcome.message)

    def _isBusy(self) -> bool:
        """Return whether a run is under way, or waits for its packages."""
        return self._logic.isRunning or self._waiting is not None

    def _onProgress(self, fraction: float, stage: str) -> None:
        self._fraction, self._stage = fraction, stage
        self._showProgress()

    def _showProgress(self) -> None:
        self.ui.progressBar.setValue(int(100 * self._fraction))
        left = None if self._clock is None else self._clock.left(self._fraction)
        self._setStatus(_("Cancelling...") if self._isCancelling else RunTexts.progress(self._stage, left))

    def _onEnded(self, outcome: TaskOutcome) -> None:
        if outcome.state == "done":
            segmentation, p = outcome.result.segmentation, self._parameter
            volumeNode = SceneResults.volumeOf(segmentation)
            Overlay.setUpCT(volumeNode)
            if volumeNode is p.inputVolume:  # an earlier result stays in the scene, hidden
                isFirst = p.segmentation is None
                SceneResults.choose(p, segmentation)
                if isFirst:
                    Navigation.frameFindings(segmentation)
            else:  # another CT was chosen, or another scene loaded, meanwhile
                SceneResults.showOnly(p.segmentation)
        self._stopClock()
        self._update()
        if outcome.state != "done":
            self._setStatus(outcome.message)
        elif outcome.result.segmentation is not self._parameter.segmentation:
            name = SceneResults.volumeOf(outcome.result.segmentation).GetName()
            self._setStatus(_("{name} is segmented: choose it to see its findings.").format(name=name))
        if outcome.state == "failed":
            logging.error("LNHG: %s", outcome.message)
            slicer.util.errorDisplay(outcome.message)

    def _expected(self) -> float | None:
        """Return the seconds that a run would take now."""
        p = self._parameter
        device, runtime = self._taken()
        if device is None or self._whyNot():
            return None
        return self._runTime.expected(p.inputVolume, self._models.name(p.model), runtime, device)

    def _taken(self) -> tuple[dict | None, str]:
        """Return the device that a run would take now and what would compute it: None and empty while not known."""
        p, devices = self._parameter, self._devices
        return devices.taken(p.device, p.runtime), devices.computing(p.device, p.runtime, self._models.name(p.model))

    def _update(self, *_args) -> None:
        p, running = self._parameter, self._isBusy()
        if p is not None:
            self._models.show(p.model)
            selector = self.ui.deviceSelector
            was = selector.blockSignals(True)
            if selector.findData(p.device) < 0:
                selector.addItem(RunTexts.absentDevice(p.device, self._devices.areKnown), p.device)
            selector.setCurrentIndex(selector.findData(p.device))
            selector.blockSignals(was)
            selector = self.ui.runtimeSelector
            was = selector.blockSignals(True)
            selector.setCurrentIndex(max(selector.findData(p.runtime), 0))
            selector.blockSignals(was)
            self._observe(p.inputVolume, p.segmentation)
        reason = self._whyNot()
        self.ui.applyButton.setText(_("Cancel") if running else _("Segment nodules"))
        self.ui.applyButton.setEnabled(not self._isCancelling if running else not reason)
        self.ui.applyButton.setToolTip(RunTexts.applyToolTip(running, reason))
        self.ui.progressBar.setVisible(running)
        for choice in (self.ui.inputSelector, self._models, self.ui.deviceSelector, self.ui.runtimeSelector):
            choice.setEnabled(not running)
        self.ui.expectedLabel.setVisible(not running)
        if p is not None and not running:
            device, runtime = self._taken()
            expectation = RunTexts.expectation(self._expected(), device, runtime, self._devices.trouble)
            self.ui.expectedLabel.setText(reason or expectation)
            self._setStatus(RunTexts.summary(p.segmentation, p.threshold))

    def _whyNot(self) -> str:
        """Return why a run cannot be started now, or an empty string."""
        p = self._parameter
        absent = idle = ""
        if p and self._devices.areKnown:
            device, runtime = self._taken()
            absent = "" if device else p.device
            isIdle = self._devices.runtimes() and not runtime  # where nothing is installed, a click installs it
            idle = "" if not isIdle else RunTexts.idleRuntime(p.runtime, self._models.name(p.model), self._devices)
        return RunTexts.whyNot(p.inputVolume if p else None, absent, idle)

    def _stopClock(self) -> None:
        self._tick.stop()
        self._clock, self._isCancelling = None, False
        self.ui.progressBar.setValue(0)

    def _setStatus(self, text: str) -> None:
        self.ui.statusLabel.setText(text)
        self.ui.statusLabel.setVisible(bool(text))

    def _observe(self, volumeNode, segmentation) -> None:
        """Follow the CT's voxels, which may come after the node and may go, and what is done to the findings."""
        events = (slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent, vtk.vtkCommand.ModifiedEvent)
        before, now = (self._volume, self._segmentation), (volumeNode, segmentation)
        for old, new, event in zip(before, now, events, strict=True):
            if old is not new and old is not None:
                self.removeObserver(old, event, self._update)
            if old is not new and new is not None:
                self.addObserver(new, event, self._update)
        self._volume, self._segmentation = now

    def _onModelChosen(self, name: str) -> None:
        if self._parameter is not None:
            self._parameter.model = name

    def _onDevicesFound(self) -> None:
        said = self.ui.statusLabel.text
        self._fillDevices()
        self._update()
        self._setStatus(said)  # a run that failed before the answer came has said why
        if self._clock is not None:
            self._clock.expected_s = self._expected()

    def _onPackagesChanged(self) -> None:
        """Ask again what there is to compute with."""
        self._devices.forget()
        self._devices.find(self._onDevicesFound)

    def _fillDevices(self) -> None:
        """List the devices and programs without taking any of them for a choice."""
        for selector, items in (
            (self.ui.deviceSelector, RunTexts.deviceItems(self._devices.all())),
            (self.ui.runtimeSelector, RunTexts.runtimeItems(self._devices)),
        ):
            was = selector.blockSignals(True)
            selector.clear()
            for key, text in items:
                selector.addItem(text, key)
            selector.blockSignals(was)

    def _onChosen(self, name: str) -> None:
        selector = getattr(self.ui, f"{name}Selector")
        value = selector.itemData(selector.currentIndex)
        if self._parameter is not None and value:
            setattr(self._parameter, name, value)
