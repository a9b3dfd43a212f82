"""The Python packages that the core needs beyond Slicer's own: looked for and installed only when first needed."""

import importlib
import json
import logging
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from LNHGSegmentationLib import InstallRoom
from LNHGSegmentationLib.ChildProcess import MODULE_FOLDER, ChildProcess

TORCH_REQUIREMENT = ">=2.6"
TORCHVISION_REQUIREMENT = ">=0.21"
PYTORCH = ("torch", "torchvision")  # come from the PyTorch extension, and from nowhere else
REQUIREMENTS_FILE = Path(__file__).parents[1] / "Resources" / "LNHGRequirements.txt"
IMPORT_NAMES = {"scikit-image": "skimage"}
REQUESTER = "Lung Nodules (LNHG)"
CHECK_LIMIT_S = 180
PAUSE_S = 0.02


@dataclass(frozen=True)
class Check:
    """What happened when the packages were loaded in a process of their own.

    :ivar versions: of those that work, by import name.
    :ivar faults: why the others do not, by import name.
    """

    versions: dict[str, str]
    faults: dict[str, str]


class InstallLogic:
    """Sees to it that the child process finds its packages."""

    def __init__(self, launcher: Callable | None = None, findPython: Callable[[], str] | None = None) -> None:
        """Make a logic.

        :param launcher: stands in for ``slicer.util.launchConsoleProcess``.
        :param findPython: returns the Python interpreter for the core; by default PythonSlicer.
        """
        self._launcher, self._findPython = launcher, findPython
        self.onTold: Callable[[str, bool], None] = lambda _sentence, _isProblem: None

    def missing(self) -> list[str]:
        """Return the requirements that are not met; nothing is loaded."""
        import slicer.packaging

        return [str(each) for each in self._requirements() if not slicer.packaging.pip_check(each)]

    def ensure(self) -> None:
        """Install what is missing, after asking the user; where nothing is missing, nothing is asked or fetched.

        :raises RuntimeError: one sentence, if the user declines or the packages do not work afterwards.
        """
        missing = self.missing()
        if missing:
            self._saying(lambda: self._install(missing, {}))

    def check(self) -> Check:
        """Load the packages in the core's interpreter, not in Slicer's process; events go on meanwhile.

        :raises RuntimeError: if that interpreter is not found.
        """
        lines: list[str] = []
        status: list[int] = []

        def ended(code: int, lastLine: str) -> None:
            lines.append(lastLine)
            status.append(code)

        child = ChildProcess(lambda *_: None, ended, launcher=self._launcher)
        child.start([self._python(), "-m", "LNHGLib.packages"], cwd=MODULE_FOLDER)
        deadline = time.monotonic() + CHECK_LIMIT_S
        while not status and time.monotonic() < deadline:
            slicer.app.processEvents()
            time.sleep(PAUSE_S)
        if not status:
            child.kill()
            return Check({}, {"torch": _("the packages did not load within {limit} s").format(limit=CHECK_LIMIT_S)})
        return readCheck(status[0], lines[0])

    def repair(self) -> None:
        """Look what does not load, and install it anew after asking the user.

        :raises RuntimeError: one sentence, if the user declines or the packages do not work afterwards.
        """
        faults = self.check().faults
        missing = self.missing()
        if faults or missing:
            self._saying(lambda: self._install(missing, faults))
        else:
            self.tell(_("All packages load: there is nothing to repair."))

    def tell(self, sentence: str, isProblem: bool = False) -> None:
        """Say how the packages stand, to who listens."""
        self.onTold(sentence, isProblem)

    def _saying(self, work: Callable[[], None]) -> None:
        try:
            work()
        except RuntimeError as error:
            self.tell(str(error), isProblem=True)
            raise

    def _install(self, missing: list[str], faults: dict[str, str]) -> None:
        absent = [each for each in self._requirements() if str(each) in missing]
        broken = [each for each in self._requirements() if str(each) not in missing and importName(each.name) in faults]
        InstallRoom.ask([each.name for each in (*absent, *broken)], faults)
        try:
            if any(each.name in PYTORCH for each in (*absent, *broken)):
                self._installTorch(anew=any(each.name in PYTORCH for each in broken))
            self._installOthers(_others(absent), _others(broken))
        except (subprocess.CalledProcessError, OSError, ImportError, ValueError) as error:
            raise RuntimeError(failure(error)) from error
        importlib.invalidate_caches()
        self._verify()

    def _installTorch(self, anew: bool) -> None:
        try:
            import PyTorchUtils
        except ModuleNotFoundError as error:
            raise RuntimeError(
                _(
                    'The extension "PyTorch" is not installed: install it in the Extensions Manager, restart Slicer '
                    "and try again."
                )
            ) from error
        logic = PyTorchUtils.PyTorchUtilsLogic()
        if anew:
            self.tell(_("Removing the PyTorch that does not load..."))
            logic.uninstallTorch()
        self.tell(_("Installing PyTorch; the Python console shows how it goes..."))
        logic.installTorch(
            askConfirmation=False,
            torchVersionRequirement=TORCH_REQUIREMENT,
            torchvisionVersionRequirement=TORCHVISION_REQUIREMENT,
        )

    def _installOthers(self, absent: list, broken: list) -> None:
        """Install what is absent with what it needs itself, and what is broken anew, alone: Slicer's own stays."""
        from slicer import packaging

        if absent or broken:
            self.tell(_("Installing {packages}...").format(packages=", ".join(map(str, (*absent, *broken)))))
        if broken:
            again = ["--force-reinstall", "--no-deps", *map(str, broken)]
            packaging.pip_install(again, show_progress=False, requester=REQUESTER)
        if absent:
            packaging.pip_ensure(absent, prompt_install=False, show_progress=False, requester=REQUESTER)

    def _verify(self) -> None:
        """Load what was installed: pip's word alone has often been wrong."""
        self.tell(_("Checking that the packages load..."))
        missing, check = self.missing(), self.check()
        if check.faults or missing:
            what = "; ".join([*(f"{name}: {reason}" for name, reason in check.faults.items()), *missing])
            raise RuntimeError(
                _("The packages were installed but do not work ({what}): restart Slicer and press Repair.").format(
                    what=what
                )
            )
        logging.info("LNHG: packages %s", check.versions)
        self.tell(summary(check))

    def _requirements(self) -> list:
        from packaging.requirements import Requirement
        from slicer import packaging

        bounds = (TORCH_REQUIREMENT, TORCHVISION_REQUIREMENT)
        torch = [Requirement(name + bound) for name, bound in zip(PYTORCH, bounds, strict=True)]
        return [*torch, *packaging.load_requirements(REQUIREMENTS_FILE)]

    def _python(self) -> str:
        if self._findPython is not None:
            return self._findPython()
        from LNHGSegmentationLib.SegmentationLogic import pythonSlicer

        return pythonSlicer()


def _others(requirements: list) -> list:
    return [each for each in requirements if each.name not in PYTORCH]


def importName(distribution: str) -> str:
    """Return the name by which a distribution is imported."""
    return IMPORT_NAMES.get(distribution, distribution)


def readCheck(status: int, lastLine: str) -> Check:
    """Read the last line of ``python -m LNHGLib.packages``."""
    try:
        told = json.loads(lastLine)
        faults = dict(told["faults"])
        if told["trying"] is not None:
            faults[told["trying"]] = _("loading it ended the process (status {status})").format(status=status)
        return Check(dict(told["versions"]), faults)
    except (ValueError, KeyError, TypeError):
        return Check({}, {"torch": lastLine or _("Python ended with status {status}").format(status=status)})


def summary(check: Check) -> str:
    """Say in one line how the packages stand."""
    if check.faults:
        return "; ".join(f"{name}: {reason}" for name, reason in check.faults.items())
    return _("All packages load: {versions}.").format(
        versions=", ".join(f"{name} {version}" for name, version in check.versions.items())
    )


def failure(error: Exception) -> str:
    """Say in one sentence why installing failed and what to do."""
    logging.error("LNHG: installing failed: %s", error)
    if isinstance(error, subprocess.CalledProcessError):
        reason = _("pip ended with status {status}").format(status=error.returncode)
    else:
        reason = " ".join(str(error).split()) or type(error).__name__
    return _(
        "The packages could not be installed ({reason}): check the network, its proxy and the free disk, see what pip "
        "said in the Python console, and press Repair under Set-up; if PyTorch is in use, restart Slicer before."
    ).format(reason=reason)
