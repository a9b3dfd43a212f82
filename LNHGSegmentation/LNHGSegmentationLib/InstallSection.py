"""The panel's last section: whether the Python packages work, and their repair."""

from pathlib import Path

import slicer
from slicer.i18n import tr as _

from LNHGSegmentationLib import InstallLogic as Install
from LNHGSegmentationLib.InstallLogic import InstallLogic
from LNHGSegmentationLib.Parameter import Parameter

RESOURCES = Path(__file__).parents[1] / "Resources"


class InstallSection:
    """Collapsed as long as all is well; opens with the reason and the cure when it is not."""

    def __init__(self, installLogic: InstallLogic) -> None:
        """Build the section.

        :param installLogic: knows, checks and repairs the packages.
        """
        self._logic = installLogic
        self._logic.onTold = self._show
        self.uiWidget = slicer.util.loadUI(str(RESOURCES / "UI" / "Install.ui"))
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        self.ui.checkButton.clicked.connect(self.onCheck)
        self.ui.repairButton.clicked.connect(self.onRepair)
        self._showMissing()

    def setParameter(self, _parameter: Parameter | None) -> None:
        """Do nothing: the packages belong to Slicer, not to a scene."""

    def cleanup(self) -> None:
        """Let go of the logic."""
        self._logic.onTold = lambda _sentence, _isProblem: None

    def onCheck(self, *_args) -> None:
        """Load the packages in a process of their own and say what happened."""
        with self._working(), slicer.util.tryWithErrorDisplay(_("The packages cannot be checked."), waitCursor=True):
            self._show(_("Loading the packages..."))
            check = self._logic.check()
            self._show(Install.summary(check), isProblem=bool(check.faults))

    def onRepair(self, *_args) -> None:
        """Install anew what does not load."""
        with self._working(), slicer.util.tryWithErrorDisplay(_("The packages are not repaired."), waitCursor=True):
            self._show(_("Loading the packages..."))
            self._logic.repair()

    def _working(self) -> "_Disabled":
        return _Disabled(self.ui.checkButton, self.ui.repairButton)

    def _showMissing(self) -> None:
        missing = self._logic.missing()
        if missing:
            text = _("Not there yet: {packages}. You are asked before they are installed, at the first run.")
            self._show(text.format(packages=", ".join(missing)))
        else:
            self._show(_("The Python packages are there."))

    def _show(self, sentence: str, isProblem: bool = False) -> None:
        self.ui.installLabel.setText(sentence)
        if isProblem:
            self.ui.installCollapsibleButton.collapsed = False
        slicer.app.processEvents()


class _Disabled:
    """Buttons that cannot be clicked again while what they began goes on."""

    def __init__(self, *buttons) -> None:
        self._buttons = buttons

    def __enter__(self) -> None:
        for button in self._buttons:
            button.setEnabled(False)

    def __exit__(self, *_args) -> None:
        for button in self._buttons:
            button.setEnabled(True)
