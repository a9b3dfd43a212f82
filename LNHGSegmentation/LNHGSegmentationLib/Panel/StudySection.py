"""The panel's section for reader studies: one button makes one of all kept findings in the scene."""

from pathlib import Path

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from LNHGSegmentationLib.Core.StudyTask import StudyRequest, StudyTask
from LNHGSegmentationLib.Panel.Parameter import Parameter
from LNHGSegmentationLib.Paths import RESOURCES

LAYOUTS = ("slice", "strip", "stack")  # in the order of the selector


class StudySection(VTKObservationMixin):
    """Makes reader studies."""

    def __init__(self, study: StudyTask) -> None:
        """Build the section.

        :param study: makes them.
        """
        super().__init__()
        self._study = study
        self._parameter: Parameter | None = None
        self.uiWidget = slicer.util.loadUI(str(RESOURCES / "UI" / "Study.ui"))
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        self.ui.studyButton.clicked.connect(lambda *_args: self.onMake())
        self._update()

    def setParameter(self, parameter: Parameter | None) -> None:
        """Follow a parameter node, or let go of the scene."""
        self.removeObservers()
        if parameter is None:
            self._study.stop()
        self._parameter = parameter
        if parameter is not None:
            self.addObserver(parameter.parameterNode, vtk.vtkCommand.ModifiedEvent, self._update)
        self._say("")
        self._update()

    def cleanup(self) -> None:
        """Stop writing and let go of the scene."""
        self._study.stop()
        self.removeObservers()

    def onMake(self) -> None:
        """Ask for the folder to make, and make the study."""
        target = qt.QFileDialog.getSaveFileName(self.uiWidget, _("Folder to make for the study"), "reader-study")
        if not target:
            return
        with slicer.util.tryWithErrorDisplay(_("The reader study is not made."), waitCursor=True):
            self._study.start(self._request(Path(target)), self._onEnded)
            self._say(_("Drawing and writing..."))
        self._update()

    def _request(self, target: Path) -> StudyRequest:
        return StudyRequest(
            target,
            str(self.ui.studyReadersEdit.text).strip(),
            LAYOUTS[self.ui.studyLayoutSelector.currentIndex],
            self.ui.studyDicomCheckBox.checked,
            self.ui.studyForceCheckBox.checked,
        )

    def _onEnded(self, state: str, text: str) -> None:
        self._say(text)
        self._update()
        if state == "failed":
            slicer.util.errorDisplay(text)

    def _say(self, text: str) -> None:
        self.ui.studyStatusLabel.setText(text)
        self.ui.studyStatusLabel.setVisible(bool(text))

    def _update(self, *_args) -> None:
        reason = _("A reader study is being written: wait for its end.") if self._study.isWriting else ""
        if self._parameter is None or self._parameter.segmentation is None:
            reason = _("There are no findings yet: segment the nodules first.")
        self.ui.studyButton.setEnabled(not reason)
        tip = _("Make pictures with and without the map of all kept findings in the scene, blinded, for two sessions.")
        self.ui.studyButton.setToolTip(reason or tip)
