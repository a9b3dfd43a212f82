"""From a CT in the scene to nodules in the scene, computed by the core in a child process."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import slicer
from slicer.util import VTKObservationMixin

from LNHGSegmentationLib import ResultNodes
from LNHGSegmentationLib.ChildProcess import ChildProcess
from LNHGSegmentationLib.VolumeExchange import VolumeExchange

MODULE_FOLDER = Path(__file__).parents[1]  # holds LNHGLib, in the source tree as well as installed


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    :ivar state: "done", "failed" or "cancelled".
    :ivar message: one sentence for the user; empty when done.
    :ivar result: the new nodes when done.
    """

    state: str
    message: str = ""
    result: ResultNodes.ResultNodes | None = None


class SegmentationLogic(VTKObservationMixin):
    """Runs one segmentation at a time; closing the scene stops it."""

    def __init__(self, launcher: Callable | None = None, python: str | None = None) -> None:
        """Make a logic.

        :param launcher: stands in for ``slicer.util.launchConsoleProcess``.
        :param python: Python interpreter for the child process; by default PythonSlicer.
        """
        super().__init__()
        self._launcher, self._python = launcher, python
        self._child: ChildProcess | None = None
        self._folder: Path | None = None
        self._cancelled = False
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, lambda *_: self.stop())

    def models(self) -> list[str]:
        """Return the names of the models to choose from, the default first."""
        from LNHGLib import models  # here, as it would slow down Slicer's start

        return [model.name for model in models.available()]

    @property
    def isRunning(self) -> bool:
        """Whether a run is under way."""
        return self._child is not None

    def start(
        self,
        volumeNode: slicer.vtkMRMLScalarVolumeNode,
        onProgress: Callable[[float, str], None],
        onEnded: Callable[[Outcome], None],
        model: str = "",
        colorMap: str = "jet",
    ) -> None:
        """Start a run; returns when the child process works.

        :param volumeNode: the CT.
        :param onProgress: called with the fraction done, 0 to 1, and the stage.
        :param onEnded: called once at the end, unless the run is stopped.
        :param model: name or folder of the model; empty stands for the default one.
        :param colorMap: color map of the heterogeneity map.
        :raises ValueError: if the node is no CT volume.
        :raises RuntimeError: if a run is under way or PythonSlicer is not found.
        """
        if self.isRunning:
            raise RuntimeError("A segmentation is running already: wait for its end or cancel it.")
        python = self._python or pythonSlicer()
        exchange = VolumeExchange(volumeNode)
        self._cancelled = False
        self._folder = Path(tempfile.mkdtemp(prefix="LNHG-"))
        volumeID = volumeNode.GetID()

        def ended(status: int, lastLine: str) -> None:
            try:
                outcome = self._outcome(status, lastLine, volumeID, exchange, colorMap)
            finally:
                self._forgetRun()
            onEnded(outcome)

        try:
            exchange.write(self._folder / "ct.nrrd")
            self._child = ChildProcess(onProgress, ended, self._folder / "cancel", self._launcher)
            self._child.start([python, "-m", "LNHGLib", *self._arguments(model)], cwd=MODULE_FOLDER)
        except BaseException:
            self._forgetRun()
            raise

    def cancel(self) -> None:
        """Ask the run to end without a result; it does within two seconds."""
        if self.isRunning:
            self._cancelled = True
            self._child.cancel()

    def stop(self) -> None:
        """End the run at once, silently: the scene closes, or the module is reloaded or unloaded."""
        if self.isRunning:
            self._child.kill()
            self._forgetRun()

    def cleanup(self) -> None:
        """Stop the run and let go of the scene."""
        self.stop()
        self.removeObservers()

    def _arguments(self, model: str) -> list[str]:
        choice = ["--model", model] if model else []
        return ["segment", str(self._folder / "ct.nrrd"), str(self._folder / "result"), "--json", *choice]

    def _outcome(self, status: int, lastLine: str, volumeID: str, exchange, colorMap: str) -> Outcome:
        if self._cancelled:
            return Outcome("cancelled", "Cancelled; nothing was changed.")
        if status != 0:
            return Outcome("failed", _failure(status, lastLine))
        volumeNode = slicer.mrmlScene.GetNodeByID(volumeID)
        if volumeNode is None:
            return Outcome("failed", "The CT was removed from the scene while it was segmented: load it and run again.")
        try:
            return Outcome("done", result=ResultNodes.load(self._folder / "result", volumeNode, exchange, colorMap))
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            return Outcome("failed", f"The result cannot be loaded: {error}")

    def _forgetRun(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._child = self._folder = None


def _failure(status: int, lastLine: str) -> str:
    if status < 0 or not lastLine:
        return (
            f"The segmentation process was ended from outside (status {status}), perhaps for want of memory: "
            "close other programs and try again."
        )
    return lastLine


def pythonSlicer() -> str:
    """Return the path of Slicer's Python interpreter.

    :raises RuntimeError: if it is not found.
    """
    python = shutil.which("PythonSlicer")
    if python is None:
        raise RuntimeError("PythonSlicer is not on the PATH: start 3D Slicer by its own launcher and try again.")
    return python
