"""From a CT in the scene to nodules in the scene, computed by the core in a child process."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import slicer
from slicer.util import VTKObservationMixin

from LNHGSegmentationLib.Core.CoreTask import TaskOutcome
from LNHGSegmentationLib.Core.Devices import Devices
from LNHGSegmentationLib.Core.PointPrompt import PointPrompt
from LNHGSegmentationLib.Core.SegmentationRun import SegmentationRequest, SegmentationRun
from LNHGSegmentationLib.Core.Worker import Worker

LOWEST_FRACTION = 0.5  # of the model's threshold: what scores less is not even kept for the sensitivity slider
LOWEST_PROBABILITY = 0.05  # the same where scores are probabilities: one in twenty is as rare as anyone looks for


class SegmentationLogic(VTKObservationMixin):
    """Runs one segmentation at a time; closing the scene stops it."""

    def __init__(self, launcher: Callable | None = None, python: str | None = None) -> None:
        """Make a logic.

        Args:
            launcher: Stands in for ``slicer.util.launchConsoleProcess``.
            python: Python interpreter for the child process; by default PythonSlicer.
        """
        super().__init__()
        self._launcher, self._python = launcher, python
        self.devices = Devices(python, launcher)
        self._run: SegmentationRun | None = None
        self._search: PointPrompt | None = None
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, lambda *_: self.stop())

    def models(self) -> dict[str, dict]:
        """Return the cards of the models to choose from by name, the default first."""
        from LNHGLib.models import folder as models  # here, as it would slow down Slicer's start

        return {model.name: model.card for model in models.available()}

    def addModel(self, source: Path, onDone: Callable[[str, str], None]) -> None:
        """Check a model and copy it to the user's models, in a thread.

        Args:
            source: Folder of the model, or a zip archive of one.
            onDone: Called with the model's name, or with an empty name and one sentence that says what is wrong.
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
        onEnded: Callable[[TaskOutcome], None],
        model: str = "",
        device: str = "auto",
        runtime: str = "auto",
    ) -> None:
        """Start a run; returns at once.

        It keeps findings of a lower score than the model itself does, for the sensitivity slider to reach.

        Args:
            volumeNode: The CT.
            onProgress: Called with the fraction done, 0 to 1, and the stage.
            onEnded: Called once at the end, unless the run is stopped.
            model: Name or folder of the model; empty stands for the default one.
            device: "auto", "cpu" or "cuda:N".
            runtime: "auto", "openvino" or "torch".

        Raises:
            ValueError: The node is no CT volume.
            OSError: The disk has no room for the run.
            RuntimeError: A run is under way or PythonSlicer is not found.
        """
        if self.isRunning:
            raise RuntimeError("A segmentation is running already: wait for its end or cancel it.")
        cards = self.models()
        card = cards.get(model) if model else next(iter(cards.values()), None)
        threshold = lowestKept(card) if card else None

        def ended(outcome: TaskOutcome) -> None:
            self._run = None
            onEnded(outcome)

        self._run = SegmentationRun(volumeNode, onProgress, ended, self._python, self._launcher)
        self._run.begin(SegmentationRequest(model, device, runtime, threshold))

    @property
    def isSearching(self) -> bool:
        """Whether a nodule is being outlined at a place."""
        return self._search is not None

    def outlineAt(
        self,
        volumeNode: slicer.vtkMRMLScalarVolumeNode,
        positionRAS: np.ndarray,
        onEnded: Callable[[TaskOutcome], None],
        model: str = "",
        device: str = "auto",
        runtime: str = "auto",
    ) -> None:
        """Outline the nodule at a place that the reader shows; returns at once.

        Args:
            volumeNode: The CT.
            positionRAS: The place in world RAS mm.
            onEnded: Called once with the result of a `PointPrompt`, unless the search is stopped.
            model: Name or folder of the model; empty stands for the default one.
            device: "auto", "cpu" or "cuda:N".
            runtime: "auto", "openvino" or "torch".

        Raises:
            ValueError: The place lies outside the CT.
            RuntimeError: A search is under way or PythonSlicer is not found.
        """
        if self.isSearching:
            raise RuntimeError("A nodule is being outlined already: wait for it.")

        def ended(outcome: TaskOutcome) -> None:
            self._search = None
            onEnded(outcome)

        self._search = PointPrompt(volumeNode, positionRAS, ended, self._python, self._launcher)
        self._search.begin(model, device, runtime)

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


def lowestKept(card: dict) -> float:
    """Return the lowest score that a run keeps for the sensitivity slider to reach, by the model's card."""
    if "probability" in card:
        return min(LOWEST_PROBABILITY, card["threshold"])
    return LOWEST_FRACTION * card["threshold"]
