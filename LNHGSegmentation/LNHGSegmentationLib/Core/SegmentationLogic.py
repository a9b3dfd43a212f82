"""From a CT in the scene to nodules in the scene, computed by the core in a child process."""

import shutil
from collections.abc import Callable
from pathlib import Path

import slicer
from slicer.util import VTKObservationMixin

from LNHGSegmentationLib.Core.Devices import Devices
from LNHGSegmentationLib.Core.PointPrompt import PointPrompt
from LNHGSegmentationLib.Core.SegmentationRun import Outcome, SegmentationRequest, SegmentationRun
from LNHGSegmentationLib.Core.Worker import Worker

LOWEST_FRACTION = 0.5  # of the model's threshold: what scores less is not even kept for the sensitivity slider


class SegmentationLogic(VTKObservationMixin):
    """Runs one segmentation at a time; closing the scene stops it."""

    def __init__(self, launcher: Callable | None = None, python: str | None = None) -> None:
        """Make a logic.

        :param launcher: stands in for ``slicer.util.launchConsoleProcess``.
        :param python: Python interpreter for the child process; by default PythonSlicer.
        """
        super().__init__()
        self._launcher, self._python = launcher, python
        self.devices = Devices(self._findPython, launcher)
        self._run: SegmentationRun | None = None
        self._search: PointPrompt | None = None
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, lambda *_: self.stop())

    def models(self) -> dict[str, dict]:
        """Return the cards of the models to choose from by name, the default first."""
        from LNHGLib.models import folder as models  # here, as it would slow down Slicer's start

        return {model.name: model.card for model in models.available()}

    def addModel(self, source: Path, onDone: Callable[[str, str], None]) -> None:
        """Check a model, a folder or a zip archive of one, and copy it to the user's models, in a thread.

        :param onDone: called with the model's name, or with an empty name and one sentence that says what is wrong.
        """

        def add() -> str:
            from LNHGLib.models import folder as models

            return models.add(source).name

        Worker(add, lambda name, error: onDone(name or "", str(error) if error else ""))

    @property
    def isRunning(self) -> bool:
        """Whether a run is under way."""
        return self._run is not None

    def start(
        self,
        volumeNode: slicer.vtkMRMLScalarVolumeNode,
        onProgress: Callable[[float, str], None],
        onEnded: Callable[[Outcome], None],
        model: str = "",
        device: str = "auto",
    ) -> None:
        """Start a run; returns at once.

        :param volumeNode: the CT.
        :param onProgress: called with the fraction done, 0 to 1, and the stage.
        :param onEnded: called once at the end, unless the run is stopped.
        :param model: name or folder of the model; empty stands for the default one.
        :param device: "auto", "cpu" or "cuda:N".
        :raises ValueError: if the node is no CT volume.
        :raises OSError: if the disk has no room for the run.
        :raises RuntimeError: if a run is under way or PythonSlicer is not found.
        """
        if self.isRunning:
            raise RuntimeError("A segmentation is running already: wait for its end or cancel it.")
        python = self._findPython()

        def ended(outcome: Outcome) -> None:
            self._run = None
            onEnded(outcome)

        run = SegmentationRun(volumeNode, onProgress, ended)
        self._run = run
        run.start(SegmentationRequest(model, device, self.lowestScore(model)), python, self._launcher)

    def lowestScore(self, model: str) -> float | None:
        """Return the score below which a run drops findings: below the model's threshold, for the slider to reach."""
        cards = self.models()
        card = cards.get(model) if model else next(iter(cards.values()), None)
        return LOWEST_FRACTION * card["threshold"] if card else None

    @property
    def isSearching(self) -> bool:
        """Whether a nodule is being outlined at a place."""
        return self._search is not None

    def outlineAt(self, volumeNode, positionRAS, onEnded: Callable, model: str = "", device: str = "auto") -> None:
        """Outline the nodule at a place that the reader shows; returns at once.

        :param volumeNode: the CT.
        :param positionRAS: the place in world RAS mm.
        :param onEnded: as in ``PointPrompt``; not called if the search is stopped.
        :param model: name or folder of the model; empty stands for the default one.
        :param device: "auto", "cpu" or "cuda:N".
        :raises ValueError: if the place lies outside the CT.
        :raises RuntimeError: if a search is under way or PythonSlicer is not found.
        """
        if self.isSearching:
            raise RuntimeError("A nodule is being outlined already: wait for it.")

        def ended(*found: object) -> None:
            self._search = None
            onEnded(*found)

        python = self._findPython()
        search = PointPrompt(volumeNode, positionRAS, ended)
        search.start(python, model, device, self._launcher)
        self._search = search

    def stopSearch(self) -> None:
        """End the search at a place at once, silently."""
        if self.isSearching:
            self._search.stop()
            self._search = None

    def cancel(self) -> None:
        """Ask the run to end without a result; it does within two seconds."""
        if self.isRunning:
            self._run.cancel()

    def stop(self) -> None:
        """End the run at once, silently: the scene closes, or the module is reloaded or unloaded."""
        if self.isRunning:
            self._run.stop()
            self._run = None
        self.stopSearch()

    def cleanup(self) -> None:
        """Stop the run and let go of the scene."""
        self.stop()
        self.devices.stop()
        self.removeObservers()

    def _findPython(self) -> str:
        return self._python or pythonSlicer()


def pythonSlicer() -> str:
    """Return the path of Slicer's Python interpreter.

    :raises RuntimeError: if it is not found.
    """
    python = shutil.which("PythonSlicer")
    if python is None:
        raise RuntimeError("PythonSlicer is not on the PATH: start 3D Slicer by its own launcher and try again.")
    return python
