"""Hidden companion of Lung Nodules (LNHG): training and evaluation as `PythonSlicer -m LNHGTrainingLib`."""

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
)

PACKAGES = ("LNHGLib", "LNHGTrainingLib")


class LNHGTraining(ScriptedLoadableModule):
    """What Slicer knows about the module; it has no panel and is shown in no menu."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Lung Nodules Training (LNHG)")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["LNHGSegmentation"]
        parent.contributors = ["The LNHG project"]
        parent.hidden = True
        parent.helpText = _("Trains and evaluates the models of Lung Nodules (LNHG) from the command line.")
        parent.acknowledgementText = _(
            'Implements J. Song et al., "Automatic Lung Nodule Segmentation and Intra-Nodular Heterogeneity Image '
            'Generation", IEEE Journal of Biomedical and Health Informatics, 2021, doi 10.1109/JBHI.2021.3135647.'
        )


class LNHGTrainingLogic(ScriptedLoadableModuleLogic):
    """Starts `LNHGTrainingLib` as a child process; Slicer itself never imports it."""

    def __init__(self, python: str | None = None):
        """Prepare the logic.

        :param python: Python interpreter for the child process; by default PythonSlicer.
        """
        ScriptedLoadableModuleLogic.__init__(self)
        self._python = python

    def command(self, arguments: list[str]) -> list[str]:
        """Return the command line of the child process.

        :param arguments: what follows ``lnhg-train``, e.g. ``["evaluate", "--help"]``.
        :raises RuntimeError: if PythonSlicer is not found.
        """
        python = self._python or shutil.which("PythonSlicer")
        if python is None:
            raise RuntimeError("PythonSlicer is not on the PATH: start 3D Slicer by its own launcher and try again.")
        return [python, "-m", "LNHGTrainingLib", *arguments]

    def environment(self) -> dict[str, str]:
        """Return the variables that let the child find both packages.

        Installed, they lie in one folder; run from source, each lies in its own module's folder.
        """
        folders = dict.fromkeys(str(Path(importlib.util.find_spec(name).origin).parents[1]) for name in PACKAGES)
        inherited = os.environ.get("PYTHONPATH")
        return {
            "PYTHONPATH": os.pathsep.join([*folders, *([inherited] if inherited else [])]),
            "PYTHONUNBUFFERED": "1",
        }

    def start(
        self,
        arguments: list[str],
        onLine: Callable[[str], None],
        onEnded: Callable[[int], None],
    ):
        """Start the command and return its process at once.

        :param arguments: what follows ``lnhg-train``.
        :param onLine: called with each line of the child's output.
        :param onEnded: called once with the exit status.
        """
        return slicer.util.launchConsoleProcess(
            self.command(arguments),
            useStartupEnvironment=False,
            updateEnvironment=self.environment(),
            blocking=False,
            logCallback=onLine,
            completedCallback=onEnded,
        )


class LNHGTrainingTest(ScriptedLoadableModuleTest):
    """Smoke test that Slicer can run."""

    def runTest(self):
        """Run all tests."""
        self.test_child_process_finds_both_packages()

    def test_child_process_finds_both_packages(self):
        """Import both packages the way a training run would."""
        logic = LNHGTrainingLogic()
        python = logic.command([])[0]
        process = slicer.util.launchConsoleProcess(
            [python, "-c", f"import {', '.join(PACKAGES)}; print('found')"],
            useStartupEnvironment=False,
            updateEnvironment=logic.environment(),
        )
        output, _errors = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 0, output)
        self.assertIn("found", output)
