"""The panel's last section: whether the Python packages work, their installation and their repair."""

import slicer
from slicer.i18n import tr as _

from LNHGSegmentationLib.Panel.Parameter import Parameter
from LNHGSegmentationLib.Paths import RESOURCES
from LNHGSegmentationLib.Setup.PackageInstall import PackageInstall


class InstallSection:
    """Collapsed as long as all is well; opens with the reason and the cure when it is not."""

    def __init__(self, packageInstall: PackageInstall) -> None:
        """Build the section.

        Args:
            packageInstall: Knows, checks and repairs the packages.
        """
        self._logic = packageInstall
        self._logic.onTold, self._logic.onProgress, self._logic.onChanged = self._show, self._showProgress, self._update
        self.uiWidget = slicer.util.loadUI(str(RESOURCES / "UI" / "Install.ui"))
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        for group, text in packageInstall.choices().items():
            self.ui.packagesSelector.addItem(text, group)
        self.ui.packagesSelector.setCurrentIndex(self.ui.packagesSelector.findData(packageInstall.group))
        self.ui.packagesSelector.currentIndexChanged.connect(self._onChosen)
        self.ui.checkButton.clicked.connect(self.onCheck)
        self.ui.repairButton.clicked.connect(self.onRepair)
        self.ui.installCancelButton.clicked.connect(self.onCancel)
        self._showMissing()
        self._update()

    def setParameter(self, _parameter: Parameter | None) -> None:
        """Do nothing: the packages belong to Slicer, not to a scene."""

    def cleanup(self) -> None:
        """End an installation and let go of the logic."""
        self._logic.cleanup()

    def onCheck(self, *_args) -> None:
        """Load the packages in a process of their own and say what happened."""
        from LNHGLib.setup.package_list import summary

        with slicer.util.tryWithErrorDisplay(_("The packages cannot be checked.")):
            self._show(_("Loading the packages..."))
            self._logic.check(lambda check: self._show(summary(check), isProblem=bool(check.faults)))

    def onRepair(self, *_args) -> None:
        """Install what is missing, and anew what does not load."""
        with slicer.util.tryWithErrorDisplay(_("The packages are not repaired.")):
            self._logic.repair(slicer.util.errorDisplay)

    def onCancel(self, *_args) -> None:
        """End the installation."""
        self.ui.installCancelButton.setEnabled(False)
        self._show(_("Cancelling..."))
        self._logic.cancel()

    def _onChosen(self, *_args) -> None:
        """Take what the networks are to run by; nothing is installed before the user asks for it."""
        self._logic.group = self.ui.packagesSelector.itemData(self.ui.packagesSelector.currentIndex)
        self._showMissing()
        self._update()

    def _showMissing(self) -> None:
        lacking, missing = self._logic.lacking(), self._logic.missing()
        text = _("The Python packages are there.")
        if lacking:
            text = _("Not there yet: {packages}.").format(packages=", ".join(lacking))
            if missing:
                text += " " + _("You are asked before they are installed, at the first run.")
        self._show(text)

    def _update(self) -> None:
        """Show what can be clicked: nothing that began already can begin again."""
        for widget in (self.ui.checkButton, self.ui.repairButton, self.ui.packagesSelector):
            widget.setEnabled(not self._logic.isWorking)
        self.ui.repairButton.setText(_("Install") if self._logic.lacking() else _("Repair"))
        for widget in (self.ui.installProgressBar, self.ui.installCancelButton):
            widget.setVisible(self._logic.isInstalling)
        self.ui.installCancelButton.setEnabled(True)
        self.ui.installProgressBar.setValue(0)

    def _showProgress(self, fraction: float, text: str) -> None:
        self.ui.installProgressBar.setValue(int(100 * fraction))
        if self.ui.installCancelButton.enabled:
            self._show(_("Installing: {text}").format(text=text))

    def _show(self, sentence: str, isProblem: bool = False) -> None:
        self.ui.installLabel.setText(sentence)
        if isProblem:
            self.ui.installCollapsibleButton.collapsed = False
