"""The Python packages that the core needs beyond Slicer's own: looked for and installed only when first needed.

A child process installs them (`LNHGLib.packages`): Slicer loads none of them, and its window goes on. torch comes as
the PyTorch extension brings it; the extension's own call would load torch into Slicer and stop the window meanwhile.
"""

import importlib
import importlib.util
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from LNHGSegmentationLib.Core.ChildProcess import ChildProcess
from LNHGSegmentationLib.Core.SegmentationRun import Outcome
from LNHGSegmentationLib.Paths import MODULE_FOLDER

TITLE = "Lung Nodules (LNHG)"
GROUP = "segmentation"
CHECK_LIMIT_MS = 180_000


class PackageInstall:
    """Sees to it that the child process finds its packages; nothing of it blocks.

    :ivar onTold: called with a sentence on how the packages stand, and whether it tells of a problem.
    :ivar onProgress: called with the fraction done, 0 to 1, and what is being done.
    :ivar onChanged: called when `isWorking` or `isInstalling` has changed.
    """

    def __init__(self, launcher: Callable | None = None, findPython: Callable[[], str] | None = None) -> None:
        """Make a logic.

        :param launcher: stands in for ``slicer.util.launchConsoleProcess``.
        :param findPython: returns the Python interpreter for the core; by default PythonSlicer.
        """
        self._launcher, self._findPython = launcher, findPython
        self._child: ChildProcess | None = None
        self._folder: Path | None = None
        self._waiting: list[tuple[Callable[[float, str], None], Callable[[Outcome], None]]] = []
        self._isCancelled = False
        self.forgetListener()

    def forgetListener(self) -> None:
        """Tell nobody any more how the packages stand."""
        self.onTold = self.onProgress = self.onChanged = lambda *_: None

    @property
    def isWorking(self) -> bool:
        """Whether packages are being checked or installed."""
        return self._child is not None

    @property
    def isInstalling(self) -> bool:
        """Whether packages are being installed."""
        return self._folder is not None

    def missing(self) -> list[str]:
        """Return the names of the packages that are not there; nothing is loaded."""
        return [package.name for package in self._missing()]

    def ensure(self, onProgress: Callable[[float, str], None], onEnded: Callable[[Outcome], None]) -> bool:
        """Return whether all packages are there; else ask the user, and install what is missing in the background.

        :param onProgress: called with the fraction done, 0 to 1, and what is being done.
        :param onEnded: called once at the end, where False was returned.
        :raises RuntimeError: one sentence, if the user declines or nothing can be installed.
        """
        if not self.isInstalling:
            missing = self._missing()
            if not missing:
                return True
            self._sayingWhyNot(lambda: self._install(missing, {}))
        self._waiting.append((onProgress, onEnded))
        return False

    def check(self, onChecked: Callable[[object], None]) -> None:
        """Load the packages in the core's interpreter, not in Slicer's process.

        :param onChecked: called with a ``LNHGLib.setup.package_list.Check``.
        :raises RuntimeError: if that interpreter is not found.
        """
        from LNHGLib.setup.package_list import Check, read_check

        limit = _("the packages did not load within {limit} s").format(limit=CHECK_LIMIT_MS // 1000)

        def ended(status: int, lastLine: str) -> None:
            self._setChild(None)
            onChecked(read_check(status, lastLine))

        def giveUp() -> None:
            if self._child is child:
                child.kill()
                self._setChild(None)
                onChecked(Check({}, {"torch": limit}))

        child = ChildProcess(lambda *_: None, ended, launcher=self._launcher)
        child.start([self._python(), "-m", "LNHGLib.packages", "check", GROUP], cwd=MODULE_FOLDER)
        self._setChild(child)
        qt.QTimer.singleShot(CHECK_LIMIT_MS, giveUp)

    def repair(self, onFailed: Callable[[str], None]) -> None:
        """Look what does not load, and install it anew after asking the user.

        :param onFailed: called with one sentence.
        :raises RuntimeError: if Slicer's Python is not found.
        """

        def checked(check: object) -> None:
            wrong = self._missing(check.faults)
            if not wrong:
                self.onTold(_("All packages load: there is nothing to repair."), False)
                return
            try:
                self._sayingWhyNot(lambda: self._install(wrong, check.faults))
            except RuntimeError as error:
                onFailed(str(error))
            else:
                self._waiting.append((lambda *_: None, ended))

        def ended(outcome: Outcome) -> None:
            if outcome.state == "failed":
                onFailed(outcome.message)

        self.onTold(_("Loading the packages..."), False)
        self.check(checked)

    def cancel(self) -> None:
        """End the installation; what is half installed counts as missing, and is installed anew the next time."""
        if self.isInstalling:
            self._isCancelled = True
            self._child.cancel()

    def cleanup(self) -> None:
        """End everything at once, silently."""
        self.forgetListener()
        self._waiting.clear()
        if self._child is not None:
            self._child.kill()
        self._forgetFolder()

    def _missing(self, faults: dict[str, str] | None = None) -> list:
        """Return the packages that are not there or, by import name, do not load."""
        from LNHGLib.setup import package_list

        importlib.invalidate_caches()
        packages = package_list.needed([GROUP])
        absent = package_list.missing(packages)
        return [package for package in packages if package in absent or package.module in (faults or {})]

    def _sayingWhyNot(self, work: Callable[[], None]) -> None:
        try:
            work()
        except RuntimeError as error:
            self.onTold(str(error), True)
            raise

    def _install(self, packages: list, faults: dict[str, str]) -> None:
        from LNHGLib.files import atomic
        from LNHGLib.setup import package_list
        from LNHGLib.setup import room as package_room

        hasExtension = "PyTorchUtils" in sys.modules or importlib.util.find_spec("PyTorchUtils") is not None
        if {*packages} & {*package_list.TORCH} and not hasExtension:
            raise RuntimeError(
                _(
                    'The extension "PyTorch" is not installed: install it in the Extensions Manager, restart Slicer '
                    "and try again."
                )
            )
        room = package_room.Room(packages)
        room.require()
        if not slicer.util.confirmOkCancelDisplay(f"{room.question(faults)}\n{_('Install now?')}", TITLE):
            raise RuntimeError(_("Nothing was installed: nodules cannot be segmented without these packages."))
        python = self._python()
        if self._child is not None:  # a check that is under way has nothing to say any more
            self._child.kill()
        self._folder, self._isCancelled = atomic.task_folder(), False
        child = ChildProcess(self._tellProgress, self._onInstalled, self._folder / "cancel", self._launcher)
        command = [python, "-m", "LNHGLib.packages", "install", GROUP, "--yes", "--progress-lines"]
        child.start(command, cwd=MODULE_FOLDER)
        self._setChild(child)

    def _tellProgress(self, fraction: float, text: str) -> None:
        for onProgress in (self.onProgress, *(waiting[0] for waiting in self._waiting)):
            onProgress(fraction, text)

    def _onInstalled(self, status: int, lastLine: str) -> None:
        self._forgetFolder()
        self._setChild(None)
        if self._isCancelled:
            text = _("Cancelled: packages that were not finished are installed anew the next time.")
            outcome = Outcome("cancelled", text)
        elif status != 0 or self._missing():
            reason = lastLine or _("Python ended with status {status}").format(status=status)
            outcome = Outcome("failed", reason)
            logging.error("LNHG: installing failed: %s", reason)
        else:
            outcome = Outcome("done")
        self.onTold(outcome.message or lastLine, outcome.state == "failed")
        waiting, self._waiting = self._waiting, []
        for _onProgress, onEnded in waiting:
            onEnded(outcome)

    def _setChild(self, child: ChildProcess | None) -> None:
        self._child = child
        self.onChanged()

    def _forgetFolder(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _python(self) -> str:
        if self._findPython is not None:
            return self._findPython()
        from LNHGSegmentationLib.Core.SegmentationLogic import pythonSlicer

        return pythonSlicer()
