"""Hidden companion of Lung Nodules (LNHG): training and evaluation as `PythonSlicer -m LNHGTrainingLib`."""

import importlib.util
import logging
import os
import shutil
import tempfile
import unittest
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
TINY_TRAINING = (  # of the shipped recipe: one step of networks that are next to nothing
    *("steps=1", "epoch_steps=1", "batch=1", "validate_crops=1", "generator.width=2", "critic.width=2"),
    *("sampling.sides=[[16, 16, 16]]", "loss.adversarial_from_step=0", 'data.crops="volumes.h5"'),
    *('data.table="folds.csv"', "data.train_folds=[1]", "data.background=[]"),
)


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

        Args:
            python: Python interpreter for the child process; by default PythonSlicer.
        """
        ScriptedLoadableModuleLogic.__init__(self)
        self._python = python

    def command(self, arguments: list[str]) -> list[str]:
        """Return the command line of the child process.

        Args:
            arguments: What follows ``lnhg-train``, e.g. ``["evaluate", "--help"]``.

        Raises:
            RuntimeError: PythonSlicer is not found.
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

        Args:
            arguments: What follows ``lnhg-train``.
            onLine: Called with each line of the child's output.
            onEnded: Called once with the exit status.
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
    """Trains one step, as a user would, in a temporary folder."""

    def runTest(self):
        """Run all tests."""
        try:
            self.test_training_step()
        except unittest.SkipTest as reason:
            logging.warning("LNHGTraining: the test was skipped: %s", reason)

    def test_training_step(self):
        """Prepare two drawn nodules, split them by patient and train one step."""
        from LNHGLib.setup import package_list

        missing = package_list.missing(package_list.needed(["training"]))
        if missing:
            names = ", ".join(package.name for package in missing)
            raise unittest.SkipTest(f"{names} not installed yet: run PythonSlicer -m LNHGLib.packages install training")
        with tempfile.TemporaryDirectory() as folder:
            cases, data, run = (Path(folder) / name for name in ("cases", "data", "run"))
            for number in range(2):
                self._drawCase(cases / f"case-{number}", radius_mm=5 + number)
            self._run("prepare", "pairs", cases, data)
            self._run("folds", data / "manifest.csv", data / "folds.csv", "--folds", "2")
            changes = [word for change in TINY_TRAINING for word in ("--set", change)]
            recipe = Path(__file__).parent / "Resources" / "segmenter.toml"
            self._run("train", "segmenter", "--config", recipe, *changes, "--fold", "0", "--data", data, run)
            self.assertTrue((run / "best.pt").is_file())
            self.assertEqual(len((run / "epochs.csv").read_text().splitlines()), 2)

    def _drawCase(self, folder: Path, radius_mm: float) -> None:
        """Write a cube of lung and chest wall with a nodule, and the masks of three readers who agree."""
        import numpy as np
        import SimpleITK as sitk

        z, y, x = np.mgrid[:56, :56, :56] - 28
        nodule = z**2 + y**2 + x**2 < radius_mm**2
        hu = np.where(nodule | (y < -24), 40, -850).astype(np.int16)
        folder.mkdir(parents=True)
        sitk.WriteImage(sitk.GetImageFromArray(hu), str(folder / "ct.nrrd"))
        for reader in range(3):
            mask = sitk.GetImageFromArray(nodule.astype(np.uint8))
            sitk.WriteImage(mask, str(folder / f"mask_reader{reader}.nrrd"))

    def _run(self, *arguments) -> None:
        logic = LNHGTrainingLogic()
        process = slicer.util.launchConsoleProcess(
            logic.command([str(word) for word in arguments]),
            useStartupEnvironment=False,
            updateEnvironment=logic.environment(),
        )
        output, _errors = process.communicate(timeout=600)
        self.assertEqual(process.returncode, 0, output)
