"""One run: the CT goes out to a file, the core segments it, its result comes into the scene."""

import errno
import shutil
import tempfile
from collections.abc import Callable, Generator
from dataclasses import dataclass

import slicer

from LNHGSegmentationLib.Core.CoreTask import CoreTask, TaskOutcome
from LNHGSegmentationLib.Scene import Overlay, ResultNodes
from LNHGSegmentationLib.Scene.VolumeExchange import VolumeExchange

ROOM_FOR_RESULT = 1.5  # times the CT's size


@dataclass(frozen=True)
class SegmentationRequest:
    """What to run.

    Attributes:
        model: Name or folder of the model; empty stands for the default one.
        device: "auto", "cpu" or "cuda:N".
        runtime: "auto", "openvino" or "torch".
        threshold: Lowest score of a finding that is kept; None for the model's own.
    """

    model: str = ""
    device: str = "auto"
    runtime: str = "auto"
    threshold: float | None = None


class SegmentationRun(CoreTask):
    """A run under way; its result is a `ResultNodes`."""

    STAGES = ((0.0, "Handing over the CT"), (0.02, "Starting"), (0.98, "Loading the result"))

    def __init__(
        self,
        volumeNode: slicer.vtkMRMLScalarVolumeNode,
        onProgress: Callable[[float, str], None],
        onEnded: Callable[[TaskOutcome], None],
        python: str | None = None,
        launcher: Callable | None = None,
    ) -> None:
        """Prepare a run.

        Args:
            volumeNode: The CT.
            onProgress: Called with the fraction done, 0 to 1, and the stage.
            onEnded: Called once at the end, unless the run is stopped.
            python: Python interpreter for the core; by default PythonSlicer.
            launcher: Stands in for ``slicer.util.launchConsoleProcess``.

        Raises:
            ValueError: The node is no CT volume.
            OSError: The disk has no room for it.
            RuntimeError: PythonSlicer is not found.
        """
        self._exchange = VolumeExchange(volumeNode)
        self._volumeID, self._name = volumeNode.GetID(), volumeNode.GetName()
        super().__init__(onEnded, onProgress, python, launcher)  # first, as it removes what dead processes left
        size = volumeNode.GetImageData().GetActualMemorySize() * 1024
        home, need = tempfile.gettempdir(), size * (1 + ROOM_FOR_RESULT)
        free = shutil.disk_usage(home).free
        if free < need:
            self.folder.rmdir()
            raise OSError(
                errno.ENOSPC,
                f"The disk with the temporary folder {home} has {free / 1e6:.0f} MB free, {need / 1e6:.0f} MB are "
                "needed: free some space and try again.",
            )

    def begin(self, request: SegmentationRequest) -> None:
        """Start; returns at once."""
        model = ["--model", request.model] if request.model else []
        threshold = [] if request.threshold is None else ["--threshold", f"{request.threshold:.4f}"]
        ct, out = str(self.folder / "ct.nrrd"), str(self.folder / "result")
        where = ["--device", request.device, "--runtime", request.runtime]
        self.start(["segment", ct, out, "--json", *where, *model, *threshold])

    def handOver(self) -> None:
        """Write the CT."""
        self._exchange.write(self.folder / "ct.nrrd")

    def read(self, status: int, lastLine: str) -> ResultNodes.ResultData:
        """Read the result folder; the child's sentence names the CT as the user knows it, not the written file.

        Args:
            status: Exit status of the child.
            lastLine: Its last line that was not progress.

        Raises:
            RuntimeError: The child failed, or its result cannot be read.
        """
        if status < 0 or (status != 0 and not lastLine):
            raise RuntimeError(
                f"The segmentation process was ended from outside (status {status}), perhaps for want of memory: "
                "close other programs and try again."
            )
        super().read(status, lastLine.replace(str(self.folder / "ct.nrrd"), self._name))
        try:
            data = ResultNodes.read(self.folder / "result", self._exchange)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            raise RuntimeError(f"The result cannot be loaded ({reason[0]}): run again.") from error
        Overlay.computeColors()
        return data

    def insert(self, data: ResultNodes.ResultData) -> Generator[None, None, ResultNodes.ResultNodes]:
        """Put the result into the scene."""
        volumeNode = slicer.mrmlScene.GetNodeByID(self._volumeID)
        if volumeNode is None:
            raise RuntimeError("The CT was removed from the scene while it was segmented: load it and run again.")
        return (yield from ResultNodes.inserting(data, volumeNode))
