"""The panel's section for reader studies: one button makes one of all kept findings in the scene."""

from pathlib import Path

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from LNHGSegmentationLib.Core.CoreTask import TaskOutcome
from LNHGSegmentationLib.Core.StudyTask import StudyRequest, StudyTask
from LNHGSegmentationLib.Panel.Parameter import Parameter
from LNHGSegmentationLib.Paths import RESOURCES

LAYOUTS = ("slice", "strip", "stack")  # in the order of the selector


class StudySection(VTKObservationMixin):
    """Makes reader studies, one at a time."""

    def __init__(self, python: str | None = None) -> None:
        """Build the section.

        Args:
            python: Python interpreter for the core; by default PythonSlicer.
        """
        super().__init__()
        self._python = python
        self._task: StudyTask | None = None
        self._parameter: Parameter | None = None
        self.uiWidget = slicer.util.loadUI(str(RESOURCES / "UI" / "Study.ui"))
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        self.ui.studyButton.clicked.connect(lambda *_args: self.makeStudy())
        self._update()

    def setParameter(self, parameter: Parameter | None) -> None:
        """Follow a parameter node, or let go of the scene."""
        self.removeObservers()
        if parameter is None:
            self._stop()
        self._parameter = parameter
        if parameter is not None:
            self.addObserver(parameter.parameterNode, vtk.vtkCommand.ModifiedEvent, self._update)
        self._say("")
        self._update()

    def cleanup(self) -> None:
        """Stop writing and let go of the scene."""
        self._stop()
        self.removeObservers()

    def makeStudy(self) -> None:
        """Ask for the folder to make, and make the study."""
        target = qt.QFileDialog.getSaveFileName(self.uiWidget, _("Folder to make for the study"), "reader-study")
        if not target:
            return

        def ended(outcome: TaskOutcome) -> None:
            self._task = None
            text = outcome.message or outcome.result
            self._say(text)
            self._update()
            if outcome.state == "failed":
                slicer.util.errorDisplay(text)

        with slicer.util.tryWithErrorDisplay(_("The reader study is not made."), waitCursor=True):
            if self._task is not None:
                raise ValueError(_("A reader study is being written: wait for its end."))
            ui, readers = self.ui, str(self.ui.studyReadersEdit.text).strip()
            layout = LAYOUTS[ui.studyLayoutSelector.currentIndex]
            dicom, force = ui.studyDicomCheckBox.checked, ui.studyForceCheckBox.checked
            self._task = StudyTask(StudyRequest(Path(target), readers, layout, dicom, force), ended, self._python)
            self._task.begin()
            self._say(_("Drawing and writing..."))
        self._update()

    def _stop(self) -> None:
        if self._task is not None:
            self._task.stop()
            self._task = None

    def _say(self, text: str) -> None:
        self.ui.studyStatusLabel.setText(text)
        self.ui.studyStatusLabel.setVisible(bool(text))

    def _update(self, *_args) -> None:
        reason = _("A reader study is being written: wait for its end.") if self._task is not None else ""
        if self._parameter is None or self._parameter.segmentation is None:
            reason = _("There are no findings yet: segment the nodules first.")
        self.ui.studyButton.setEnabled(not reason)
        tip = _("Make pictures with and without the map of all kept findings in the scene, blinded, for two sessions.")
        self.ui.studyButton.setToolTip(reason or tip)
