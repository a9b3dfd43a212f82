"""The panel's section for the findings: the table, the way through it, and all that the reader does to them."""

from collections.abc import Callable

import qt
import slicer
import vtk
from LNHGLib.measurement.score_scale import PROBABILITY, scale_of
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from LNHGSegmentationLib.Core.SegmentationLogic import SegmentationLogic
from LNHGSegmentationLib.Core.Worker import Worker
from LNHGSegmentationLib.Findings import FindingMeasures, SegmentEditing
from LNHGSegmentationLib.Findings.Findings import Findings
from LNHGSegmentationLib.Findings.FindingsDisplay import FindingsDisplay
from LNHGSegmentationLib.Findings.MissedNodule import MissedNodule
from LNHGSegmentationLib.Panel import FindingsTexts
from LNHGSegmentationLib.Panel.FindingsTable import FindingsTable, colored
from LNHGSegmentationLib.Panel.Parameter import Parameter
from LNHGSegmentationLib.Paths import RESOURCES
from LNHGSegmentationLib.Scene import Navigation, SceneResults

MENU = (  # of the button "More": key, text and tooltip of what is done less often
    ("redo", "Redo", "Do the step again that was taken back."),
    ("rename", "Rename...", "Type another name for the current finding."),
    ("merge", "Merge", "Join the selected findings to one; select several rows with Ctrl or Shift."),
    ("split", "Split", "Part the current finding into its separate pieces, or one piece at its waist."),
    ("restore", "Restore", "Bring back what the model found, before merging, splitting and editing."),
    ("copy", "Copy table", "Copy the table to the clipboard, separated by tabs."),
    ("zoom", "Zoom to the finding", "Zoom all views to the finding when going to it."),
)


class FindingsSection(VTKObservationMixin):
    """Shows the findings of the chosen result."""

    def __init__(self, logic: SegmentationLogic) -> None:
        """Build the section.

        Args:
            logic: Outlines a nodule at a place that the reader shows.
        """
        super().__init__()
        self._parameter: Parameter | None = None
        self._guiTag = self._segmentation = None
        self.findings: Findings | None = None
        self._display: FindingsDisplay | None = None
        self._watch: SegmentEditing.EditWatch | None = None
        self.uiWidget = slicer.util.loadUI(str(RESOURCES / "UI" / "Findings.ui"))
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        self.table = FindingsTable(self.ui.findingsTable, self._goTo, self._setKept, self._rename)
        self._missed = MissedNodule(logic, self._say, self._onMissed)
        self._escape = qt.QShortcut(qt.QKeySequence("Esc"), self.uiWidget)
        self._escape.setContext(qt.Qt.ApplicationShortcut)  # the views have the keyboard when the mouse is over them
        self._escape.setEnabled(False)
        self._escape.activated.connect(self._stopAdding)
        self.actions = self._fillMenu()
        for button, act in (
            ("previousButton", lambda: self.table.step(-1)),
            ("nextButton", lambda: self.table.step(+1)),
            ("rejectButton", self._toggleKept),
            ("editButton", lambda: self._do(lambda f: SegmentEditing.openEditor(f, f.drawing(self.table.current())))),
            ("undoButton", lambda: self._do(Findings.undo, told=_("Taken back: {text}."))),
        ):
            getattr(self.ui, button).clicked.connect(lambda *_args, act=act: act())
        self.ui.addButton.clicked.connect(self._onAdd)
        self.ui.findingsTable.itemSelectionChanged.connect(self._updateButtons)
        self._say("")
        self._update()

    def setParameter(self, parameter: Parameter | None) -> None:
        """Follow a parameter node, or let go of the scene."""
        if self._parameter is not None:
            self.removeObserver(self._parameter.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParameter)
            self._parameter.disconnectGui(self._guiTag)
        self._parameter = parameter
        if parameter is not None:
            self._guiTag = parameter.bind(self.ui)
            self.addObserver(parameter.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParameter)
        self._onParameter()

    def cleanup(self) -> None:
        """Let go of the scene."""
        self._leave()
        self.removeObservers()

    def _fillMenu(self) -> dict[str, qt.QAction]:
        """Fill the menu of the button "More" and return its actions."""
        acts = {
            "redo": lambda: self._do(Findings.redo, told=_("Done again: {text}.")),
            "rename": self._askName,
            "merge": lambda: self._do(lambda f: f.merge(self.table.selected())),
            "split": lambda: self._do(lambda f: f.split(self.table.current())),
            "restore": lambda: self._do(lambda f: f.restore(self.table.current())),
            "copy": self._copy,
        }
        menu, actions = qt.QMenu(self.ui.moreButton), {}
        menu.toolTipsVisible = True
        for key, text, toolTip in MENU:
            actions[key] = menu.addAction(_(text))
            actions[key].setToolTip(_(toolTip))
        for key, act in acts.items():
            actions[key].triggered.connect(lambda *_args, act=act: act())
        actions["zoom"].setCheckable(True)
        actions["zoom"].toggled.connect(self._onZoom)
        menu.insertSeparator(actions["zoom"])
        menu.addMenu(self.table.columnMenu)
        self.ui.moreButton.setMenu(menu)
        return actions

    def _onZoom(self, zoom: bool) -> None:
        if self._parameter is not None:
            self._parameter.zoomToFinding = zoom

    def _onParameter(self, *_args) -> None:
        if self._parameter is not None:
            self.actions["zoom"].setChecked(self._parameter.zoomToFinding)
        segmentation = self._parameter.segmentation if self._parameter else None
        if segmentation is not self._segmentation:
            self._leave()
            self._segmentation = segmentation
            isNew = segmentation is not None and segmentation.GetAttribute(SceneResults.THRESHOLD_ATTRIBUTE) is None
            if segmentation is not None:
                self._setUpScores(SceneResults.runOf(segmentation))
                self.findings = Findings(segmentation)
                self.findings.threshold = self._parameter.threshold
                self._display = FindingsDisplay(self.findings)
                self._watch = SegmentEditing.EditWatch(self.findings, self._update)
                qt.QTimer.singleShot(0, self._display.makeSurfaces)  # table and map have their turn first
                Worker(FindingMeasures.load, lambda *_: None)
            self._update()
            if isNew:
                self.table.step(+1)
        if self.findings is not None and self.findings.threshold != round(self._parameter.threshold, 4):
            self.findings.threshold = self._parameter.threshold
            self._update()

    def _setUpScores(self, run: dict) -> None:
        """Show scores and their limits as those of the run that made the result."""
        threshold, slider, scale = self._parameter.threshold, self.ui.thresholdSlider, scale_of(run)
        digits = FindingsTexts.decimals(run.get("threshold") or 0.0)
        slider.decimals = digits  # the model's own threshold is shown as it is
        slider.minimum = FindingsTexts.roundedDown(run.get("lowest") or 0.0, digits)  # all that the run kept
        slider.value = threshold  # the limits of the result before may have held it off
        self.table.setScores(scale, digits)
        self.ui.thresholdLabel.setText(_("Least prob.:") if scale == PROBABILITY else _("Least score:"))
        self.ui.thresholdLabel.setToolTip(FindingsTexts.scoreHelp(scale))

    def _leave(self) -> None:
        self._stopAdding()
        for each in (self._watch, self._display):
            if each is not None:
                each.stop()
        self.findings = self._watch = self._display = self._segmentation = None
        self._update()

    def _do(self, action: Callable[[Findings], object], told: str = "") -> None:
        """Do something to the findings and show it; say in one sentence why it cannot be done."""
        self._watch.follow()  # what was edited just now is not to be mistaken for a part of this step
        try:
            result = action(self.findings)
        except ValueError as error:
            self._say(str(error))
            return
        self._watch.sync()
        self._say(told.format(text=result) if told else "")
        self._update()
        numbers = result if isinstance(result, list) else [result]
        shown = [row["number"] for row in self.table.rows]
        if numbers and type(numbers[0]) is int and numbers[0] in shown:
            self.table.select(numbers[0])

    def _update(self, *_args) -> None:
        """Show table, segments and map as the findings are now."""
        rows = self.findings.shown() if self.findings else []
        self.table.show(colored(rows, self._segmentation) if self.findings else [])
        if self._display is not None:
            self._display.update([row for row in rows if row["kept"]])
        total = len(self.findings.rows()) if self.findings else 0
        froc = SceneResults.runOf(self._segmentation).get("froc") if self.findings else None
        self.ui.expectationLabel.setText(FindingsTexts.expectation(froc, self.findings.threshold if froc else 0.0))
        self.ui.expectationLabel.setToolTip(FindingsTexts.expectationHelp(froc))
        self.ui.expectationLabel.setVisible(froc is not None)
        self.ui.shownLabel.setText(_("{shown} of {total}").format(shown=len(rows), total=total))
        self._updateButtons()

    def _updateButtons(self) -> None:
        there, ready = self.findings is not None, bool(self.findings and self.findings.volumeNode)
        selected, current = self.table.selected(), self.table.current()
        one = ready and current is not None
        row = next((row for row in self.table.rows if row["number"] == current), None)
        ui, actions, hasRows = self.ui, self.actions, bool(self.table.rows)
        for each, possible in (
            *((each, hasRows) for each in (ui.previousButton, ui.nextButton, actions["copy"])),
            *((each, one) for each in (ui.rejectButton, ui.editButton)),
            *((actions[key], one) for key in ("rename", "split", "restore")),
            (actions["merge"], ready and len(selected) > 1),
            (ui.undoButton, ready and bool(self.findings.steps.done)),
            (actions["redo"], ready and bool(self.findings.steps.undone)),
            (ui.addButton, ready),
            (ui.thresholdSlider, there),
        ):
            each.setEnabled(possible)
        self.ui.rejectButton.setText(_("Keep") if row and not row["kept"] else _("Reject"))
        for each, verb, steps in (
            (ui.undoButton, _("Take back: {text}"), self.findings.steps.done if ready else None),
            (actions["redo"], _("Do again: {text}"), self.findings.steps.undone if ready else None),
        ):
            if steps is not None:
                nothing = _("There is nothing to take back or redo.")
                each.setToolTip(verb.format(text=steps[-1].text) if steps else nothing)

    def _goTo(self, number: int) -> None:
        row = self.findings.row(number)
        if row["box_lps_mm"] is not None:
            Navigation.goTo(row, self._parameter.zoomToFinding)
        self._updateButtons()

    def _toggleKept(self) -> None:
        """Reject the current finding and go to the next, or keep a rejected one."""
        number = self.table.current()
        kept = self.findings.row(number)["kept"]
        self._setKept(number, not kept)
        if kept:
            self.table.step(+1)

    def _setKept(self, number: int, kept: bool) -> None:
        self._do(lambda f: f.keep(number) if kept else f.reject(number))

    def _askName(self) -> None:
        """Let the reader type another name: in the table, or in a dialog where the column of names is not shown."""
        if self.table.editName():
            return
        number = self.table.current()
        before = self.findings.row(number)["name"]
        name = qt.QInputDialog.getText(
            self.uiWidget, _("Rename"), _("Name of the finding:"), qt.QLineEdit.Normal, before
        )
        if name:
            self._rename(number, name)

    def _rename(self, number: int, name: str) -> None:
        self._do(lambda f: f.rename(number, name))
        self._update()

    def _copy(self) -> None:
        table = self.table
        qt.QApplication.clipboard().setText(FindingsTexts.clipboard(table.rows, table.scoreDecimals, table.scoreScale))
        self._say(_("The table is on the clipboard, separated by tabs."))

    def _onAdd(self, *_args) -> None:
        if self.ui.addButton.checked:
            self._watch.follow()
            self._escape.setEnabled(True)
            self._missed.start(self.findings, self._parameter.device, self._parameter.runtime)
        else:
            self._stopAdding()

    def _stopAdding(self) -> None:
        """Wait no more for a click or for what came of it."""
        self._missed.stop()
        self._escape.setEnabled(False)
        self.ui.addButton.setChecked(False)
        self._say("")

    def _onMissed(self, number: int | None) -> None:
        """Show what came of a click for a missed nodule: a finding, or nothing."""
        self._escape.setEnabled(False)
        self.ui.addButton.setChecked(False)
        if number is not None:
            self._watch.sync()
            self._update()
            self.table.select(number)

    def _say(self, text: str) -> None:
        self.ui.findingsLabel.setText(text)
        self.ui.findingsLabel.setVisible(bool(text))
