"""The panel's section for reports: table, DICOM and page as files, and the sizes by published rules."""

from pathlib import Path

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from LNHGSegmentationLib.Core.CoreTask import TaskOutcome
from LNHGSegmentationLib.Core.ReportTask import (
    CSV,
    DICOM,
    PAGE,
    ReportRequest,
    ReportTask,
    fileName,
    whyNoDicom,
    whyNoReport,
)
from LNHGSegmentationLib.Findings.Findings import Findings
from LNHGSegmentationLib.Panel.Parameter import Parameter
from LNHGSegmentationLib.Paths import RESOURCES
from LNHGSegmentationLib.Scene import SceneResults

BUTTONS = {CSV: "csvButton", DICOM: "dicomButton", PAGE: "pageButton"}
WHAT = {
    CSV: "Write the kept findings as a table (CSV).",
    DICOM: "Write the kept findings as DICOM Segmentation and as measurement report (SR, TID 1500) into a folder.",
    PAGE: "Write a report of the kept findings with key pictures, as PDF or PNG.",
}
FILTERS = {CSV: "CSV (*.csv)", PAGE: "PDF (*.pdf);;PNG (*.png)"}
NAMES = {CSV: "{name} nodules.csv", PAGE: "{name} report.pdf"}


class ReportSection(VTKObservationMixin):
    """Writes reports of the chosen result, one at a time."""

    def __init__(self, python: str | None = None) -> None:
        """Build the section.

        Args:
            python: Python interpreter for the core; by default PythonSlicer.
        """
        super().__init__()
        self._python = python
        self._task: ReportTask | None = None
        self._parameter: Parameter | None = None
        self._segmentation = None
        self.uiWidget = slicer.util.loadUI(str(RESOURCES / "UI" / "Report.ui"))
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        self._later = qt.QTimer()
        self._later.setSingleShot(True)
        self._later.setInterval(0)
        self._later.timeout.connect(self._update)
        for kind, button in BUTTONS.items():
            getattr(self.ui, button).clicked.connect(lambda *_args, kind=kind: self._write(kind))
        self.ui.ruleSelector.currentIndexChanged.connect(self._showSizes)
        from LNHGLib.measurement import size_rules  # here, as Slicer's start needs nothing of the core

        for rule in size_rules.RULES:
            self.ui.ruleSelector.addItem(rule)
        self.ui.sizeNoteLabel.setText(_("For {use}: size only, no recommendation.").format(use=size_rules.RESEARCH_USE))
        self._update()

    @property
    def isWriting(self) -> bool:
        """Whether a report is being written."""
        return self._task is not None

    def setParameter(self, parameter: Parameter | None) -> None:
        """Follow a parameter node, or let go of the scene."""
        self.removeObservers()
        if parameter is None:
            self._stop()
        self._parameter, self._segmentation = parameter, None
        if parameter is not None:
            self.addObserver(parameter.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParameter)
        self._say("")
        self._onParameter()

    def cleanup(self) -> None:
        """Stop writing and let go of the scene."""
        self._later.stop()
        self._stop()
        self.removeObservers()

    def _stop(self) -> None:
        if self._task is not None:
            self._task.stop()
            self._task = None

    def _write(self, kind: str) -> None:
        """Ask for the file or, for DICOM, the folder, and write."""
        if kind == DICOM:
            target = qt.QFileDialog.getExistingDirectory(self.uiWidget, _("Folder for DICOM SEG and SR"))
        else:
            name = NAMES[kind].format(name=fileName(SceneResults.volumeOf(self._segmentation)))
            target = qt.QFileDialog.getSaveFileName(self.uiWidget, _("Write the report"), name, FILTERS[kind])
        if not target:
            return

        def ended(outcome: TaskOutcome) -> None:
            self._task = None
            text = outcome.message or outcome.result
            self._say(text)
            self._update()
            if outcome.state == "failed":
                slicer.util.errorDisplay(text)

        with slicer.util.tryWithErrorDisplay(_("The report is not written."), waitCursor=True):
            if self.isWriting:
                raise ValueError(_("A report is being written: wait for its end."))
            p = self._parameter
            scale = "fixed" if p.scaleMode == "fixed" else "nodule"  # a page has one slice per nodule
            shading = {"color_map": p.colorMap, "scale": scale, "signal_range": [p.rangeLow, p.rangeHigh]}
            case, identity = str(self.ui.caseEdit.text).strip(), self.ui.identityCheckBox.checked
            request = ReportRequest(kind, Path(target), case, identity, shading)
            self._task = ReportTask(self._segmentation, request, ended, self._python)
            self._task.begin()
            self._say(_("Writing..."))
        self._update()

    def _onParameter(self, *_args) -> None:
        segmentation = self._parameter.segmentation if self._parameter else None
        if segmentation is not self._segmentation:
            if self._segmentation is not None:
                self.removeObserver(self._segmentation, vtk.vtkCommand.ModifiedEvent, self._onFindings)
            self._segmentation = segmentation
            if segmentation is not None:
                self.addObserver(segmentation, vtk.vtkCommand.ModifiedEvent, self._onFindings)
        self._onFindings()

    def _onFindings(self, *_args) -> None:
        self._later.start()  # one step changes the node many times

    def _update(self) -> None:
        busy = _("A report is being written: wait for its end.") if self.isWriting else ""
        for kind, button in BUTTONS.items():
            reason = busy or whyNoReport(kind, self._segmentation)
            widget = getattr(self.ui, button)
            widget.setEnabled(not reason)
            widget.setToolTip(reason or _(WHAT[kind]))
        volumeNode = SceneResults.volumeOf(self._segmentation)
        reason = whyNoDicom(volumeNode) if volumeNode is not None else _("There is no CT.")
        self.ui.identityCheckBox.setEnabled(not reason)
        tip = _("Put name, number, birth date, sex and study of the DICOM series on the page.")
        self.ui.identityCheckBox.setToolTip(reason or tip)
        if reason:
            self.ui.identityCheckBox.checked = False
        self._showSizes()

    def _showSizes(self, *_args) -> None:
        """Show name, rounded mean diameter and size band of the kept findings by the chosen rule."""
        from LNHGLib.measurement import size_rules

        rule = size_rules.RULES.get(self.ui.ruleSelector.currentText)
        rows = [] if self._segmentation is None or rule is None else Findings(self._segmentation).reported()
        table = self.ui.sizeTable
        table.setRowCount(len(rows))
        for index, row in enumerate(rows):
            m, cells = row["measurement"], ("\N{EN DASH}", _("not outlined"))
            if m is not None:
                size = rule(m["long_axis_mm"], m["short_axis_mm"], m["attenuation"])
                band = f"{size.band} ({size.note})" if size.note else size.band
                cells = f"{size.mean_diameter_mm:g} mm", band
            for column, text in enumerate((row["name"], *cells)):
                table.setItem(index, column, qt.QTableWidgetItem(text))
        for column in (0, 1):  # the last one takes the rest
            table.resizeColumnToContents(column)

    def _say(self, text: str) -> None:
        self.ui.reportStatusLabel.setText(text)
        self.ui.reportStatusLabel.setVisible(bool(text))
