"""The Python packages that the core needs beyond Slicer's own: looked for and installed only when first needed.

A child process installs them (`LNHGLib.packages`): Slicer loads none of them, and its window goes on. Two sets of
packages run the networks: by OpenVINO on the CPU alone, or by PyTorch. torch comes as the PyTorch extension brings it;
the extension's own call would load torch into Slicer and stop the window meanwhile.
"""

import importlib
import importlib.util
import logging
import shutil
import sys
from collections.abc import Callable

import qt
import slicer
from slicer.i18n import tr as _

from LNHGSegmentationLib.Core.CoreTask import CoreTask, TaskOutcome

TITLE = "Lung Nodules (LNHG)"
CHECK_LIMIT_MS = 180_000


class PackageCheck(CoreTask):
    """The packages are loaded in the core's interpreter; its result is a ``LNHGLib.setup.package_list.Check``."""

    group = ""

    def read(self, status: int, lastLine: str) -> object:
        """Return what loads.

        Args:
            status: Exit status of the child.
            lastLine: Its last line.
        """
        from LNHGLib.setup.package_list import GROUPS, read_check

        return read_check(status, lastLine, GROUPS[self.group][0].module)


class PackageInstallation(CoreTask):
    """The packages are installed; its result is a sentence."""

    CANCELLED = "Cancelled: packages that were not finished are installed anew the next time."
    group = ""

    def read(self, status: int, lastLine: str) -> str:
        """Return what the core says.

        Args:
            status: Exit status of the child.
            lastLine: Its last line.

        Raises:
            RuntimeError: They are not installed.
        """
        said = lastLine or _("Python ended with status {status}").format(status=status)
        if status != 0 or _lacking(self.group):
            raise RuntimeError(said)
        return lastLine


class PackageInstall:
    """Sees to it that the child process finds its packages; nothing of it blocks.

    Attributes:
        group: What is checked and installed, of ``LNHGLib.setup.package_list.RUN_NETWORKS``: "cpu" or "segmentation".
        onInstalled: Called when packages were installed.
        onTold: Called with a sentence on how the packages stand, and whether it tells of a problem.
        onProgress: Called with the fraction done, 0 to 1, and what is being done.
        onChanged: Called when `isWorking` or `isInstalling` has changed.
    """

    def __init__(self, launcher: Callable | None = None, python: str | None = None) -> None:
        """Make a logic.

        Args:
            launcher: Stands in for ``slicer.util.launchConsoleProcess``.
            python: Python interpreter for the core; by default PythonSlicer.
        """
        from LNHGLib.setup import package_list

        self._launcher, self._python = launcher, python
        self._task: PackageCheck | PackageInstallation | None = None
        self._waiting: list[tuple[Callable[[float, str], None], Callable[[TaskOutcome], None]]] = []
        here = package_list.complete()  # what is there, else PyTorch where there is an NVIDIA GPU
        likely = "segmentation" if shutil.which("nvidia-smi") else package_list.CPU
        self.group = here[0] if len(here) == 1 else likely
        self.forgetListener()

    def forgetListener(self) -> None:
        """Tell nobody any more how the packages stand."""
        self.onTold = self.onProgress = self.onChanged = self.onInstalled = lambda *_: None

    def choices(self) -> dict[str, str]:
        """Return the groups to choose from, with what the user reads of each."""
        from LNHGLib.setup import package_list
        from LNHGLib.setup.room import Room, size

        names = {package_list.CPU: _("CPU only"), "segmentation": _("GPU or CPU, by PyTorch")}
        about = _("{name}, about {size}")
        return {
            group: about.format(name=name, size=size(Room(package_list.GROUPS[group]).download_mb))
            for group, name in names.items()
        }

    @property
    def isWorking(self) -> bool:
        """Whether packages are being checked or installed."""
        return self._task is not None

    @property
    def isInstalling(self) -> bool:
        """Whether packages are being installed."""
        return isinstance(self._task, PackageInstallation)

    def missing(self) -> list[str]:
        """Return the names of the packages without which nothing runs; nothing is loaded."""
        return [] if self._isReady() else self.lacking()

    def lacking(self) -> list[str]:
        """Return the names of the group's packages that are not there; nothing is loaded."""
        return [package.name for package in _lacking(self.group)]

    def ensure(self, onProgress: Callable[[float, str], None], onEnded: Callable[[TaskOutcome], None]) -> bool:
        """Return whether networks can run; else ask the user, and install what the group lacks in the background.

        Args:
            onProgress: Called with the fraction done, 0 to 1, and what is being done.
            onEnded: Called once at the end, where False was returned.

        Raises:
            RuntimeError: One sentence: the user declines, or nothing can be installed.
        """
        if not self.isInstalling:
            if self._isReady():
                return True
            self._install(_lacking(self.group), {})
        self._waiting.append((onProgress, onEnded))
        return False

    def check(self, onChecked: Callable[[object], None]) -> None:
        """Load the packages in the core's interpreter, not in Slicer's process.

        Args:
            onChecked: Called with a ``LNHGLib.setup.package_list.Check``.

        Raises:
            RuntimeError: That interpreter is not found.
        """
        from LNHGLib.setup.package_list import GROUPS, Check

        first = GROUPS[self.group][0].module
        limit = _("the packages did not load within {limit} s").format(limit=CHECK_LIMIT_MS // 1000)

        def ended(outcome: TaskOutcome) -> None:
            self._setTask(None)
            onChecked(outcome.result or Check({}, {first: outcome.message}))

        def giveUp() -> None:
            if self._task is task:
                task.stop()
                ended(TaskOutcome("failed", limit))

        task = PackageCheck(ended, python=self._python, launcher=self._launcher)
        task.group = self.group
        task.start(["check", self.group], "LNHGLib.packages")
        self._setTask(task)
        qt.QTimer.singleShot(CHECK_LIMIT_MS, giveUp)

    def repair(self, onFailed: Callable[[str], None]) -> None:
        """Look what is missing or does not load, and install it after asking the user.

        Args:
            onFailed: Called with one sentence.

        Raises:
            RuntimeError: Slicer's Python is not found.
        """

        def checked(check: object) -> None:
            wrong = _lacking(group, check.faults)
            if not wrong:
                self.onTold(_("All packages load: there is nothing to repair."), False)
                return
            try:
                self._install(wrong, check.faults)
            except RuntimeError as error:
                onFailed(str(error))
            else:
                self._waiting.append((lambda *_: None, ended))

        def ended(outcome: TaskOutcome) -> None:
            if outcome.state == "failed":
                onFailed(outcome.message)

        group = self.group
        self.onTold(_("Loading the packages..."), False)
        self.check(checked)

    def cancel(self) -> None:
        """End the installation; what is half installed counts as missing, and is installed anew the next time."""
        if self.isInstalling:
            self._task.cancel()

    def cleanup(self) -> None:
        """End everything at once, silently."""
        self.forgetListener()
        self._waiting.clear()
        if self._task is not None:
            self._task.stop()
            self._task = None

    def _install(self, packages: list, faults: dict[str, str]) -> None:
        """Ask the user, and install packages, those that do not load with their faults by import name."""
        from LNHGLib.setup import package_list
        from LNHGLib.setup import room as package_room

        def tellProgress(fraction: float, text: str) -> None:
            for onProgress in (self.onProgress, *(waiting[0] for waiting in self._waiting)):
                onProgress(fraction, text)

        def ended(outcome: TaskOutcome) -> None:
            self._setTask(None)
            if outcome.state == "failed":
                logging.error("LNHG: installing failed: %s", outcome.message)
            self.onTold(outcome.message or outcome.result, outcome.state == "failed")
            self.onInstalled()
            waiting, self._waiting = self._waiting, []
            for _onProgress, onEnded in waiting:
                onEnded(outcome)

        try:
            hasExtension = "PyTorchUtils" in sys.modules or importlib.util.find_spec("PyTorchUtils") is not None
            if {*packages} & {*package_list.TORCH} and not hasExtension:
                raise RuntimeError(
                    _(
                        'The extension "PyTorch" is not installed: install it in the Extensions Manager, restart '
                        "Slicer and try again."
                    )
                )
            room = package_room.Room(packages)
            room.require()
            chosen = _("{choice}. Another choice is under Set-up.").format(choice=self.choices()[self.group])
            question = f"{room.question(faults)}\n\n{chosen}\n{_('Install now?')}"
            if not slicer.util.confirmOkCancelDisplay(question, TITLE):
                raise RuntimeError(_("Nothing was installed: nodules cannot be segmented without these packages."))
            task = PackageInstallation(ended, tellProgress, self._python, self._launcher)
        except RuntimeError as error:
            self.onTold(str(error), True)
            raise
        if self._task is not None:  # a check that is under way has nothing to say any more
            self._task.stop()
        task.group = self.group
        task.start(["install", self.group, "--yes", "--progress-lines"], "LNHGLib.packages")
        self._setTask(task)

    def _isReady(self) -> bool:
        """Return whether one of the groups that run the networks is there."""
        from LNHGLib.setup import package_list

        importlib.invalidate_caches()
        return bool(package_list.complete())

    def _setTask(self, task: CoreTask | None) -> None:
        self._task = task
        self.onChanged()


def _lacking(group: str, faults: dict[str, str] | None = None) -> list:
    """Return the packages of a group that are not there or, by import name, do not load."""
    from LNHGLib.setup import package_list

    importlib.invalidate_caches()
    packages = package_list.needed([group])
    absent = package_list.missing(packages)
    return [package for package in packages if package in absent or package.module in (faults or {})]
