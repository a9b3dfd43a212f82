"""One run: the CT goes out to a file, the core works on it, its result comes back; nothing of it blocks."""

import errno
import shutil
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import qt
import slicer

from LNHGSegmentationLib.Core.ChildProcess import ChildProcess
from LNHGSegmentationLib.Core.Worker import Worker
from LNHGSegmentationLib.Paths import MODULE_FOLDER
from LNHGSegmentationLib.Scene import Overlay, ResultNodes
from LNHGSegmentationLib.Scene.VolumeExchange import VolumeExchange

CHILD_FRACTIONS = (0.02, 0.98)  # of the progress; before, the CT is written, and after, the result is read
ROOM_FOR_RESULT = 1.5  # times the CT's size
WAIT_AT_STOP_S = 2.0
INSERT_S = 0.02


@dataclass(frozen=True)
class SegmentationRequest:
    """What to run.

    :ivar model: name or folder of the model; empty stands for the default one.
    :ivar device: "auto", "cpu" or "cuda:N".
    :ivar threshold: lowest score of a finding that is kept; None for the model's own.
    """

    model: str = ""
    device: str = "auto"
    threshold: float | None = None

    def arguments(self, ct: Path, out: Path) -> list[str]:
        """Return the core's arguments."""
        model = ["--model", self.model] if self.model else []
        threshold = [] if self.threshold is None else ["--threshold", f"{self.threshold:.4f}"]
        return ["segment", str(ct), str(out), "--json", "--device", self.device, *model, *threshold]


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


CANCELLED = Outcome("cancelled", "Cancelled; nothing was changed.")


class SegmentationRun:
    """A run under way; use a new object for each."""

    def __init__(
        self,
        volumeNode: slicer.vtkMRMLScalarVolumeNode,
        onProgress: Callable[[float, str], None],
        onEnded: Callable[[Outcome], None],
    ) -> None:
        """Prepare a run.

        :param volumeNode: the CT.
        :param onProgress: called with the fraction done, 0 to 1, and the stage.
        :param onEnded: called once at the end, unless the run is stopped.
        :raises ValueError: if the node is no CT volume.
        :raises OSError: if the disk has no room for it.
        """
        self._exchange = VolumeExchange(volumeNode)
        self._volumeID = volumeNode.GetID()
        self._onProgress, self._onEnded = onProgress, onEnded
        self._worker: Worker | None = None
        self._child: ChildProcess | None = None
        self._steps: Generator | None = None
        self._over = self._cancelled = False
        from LNHGLib.files import atomic  # here, as Slicer's start needs nothing of the core

        self.folder = atomic.task_folder()  # first, as it removes what dead processes left on the disk
        try:
            checkRoom(volumeNode.GetImageData().GetActualMemorySize() * 1024)
        except OSError:
            self.folder.rmdir()
            raise

    def start(self, request: SegmentationRequest, python: str, launcher: Callable | None = None) -> None:
        """Start; returns at once.

        :param python: Python interpreter for the core.
        :param launcher: stands in for ``slicer.util.launchConsoleProcess``.
        """
        ct, out = self.folder / "ct.nrrd", self.folder / "result"
        command = [python, "-m", "LNHGLib", *request.arguments(ct, out)]
        self._onProgress(0.0, "Handing over the CT")

        def launch() -> None:
            self._child = ChildProcess(self._onChildProgress, self._onChildEnded, self.folder / "cancel", launcher)
            self._child.start(command, cwd=MODULE_FOLDER)
            self._onProgress(CHILD_FRACTIONS[0], "Starting")

        self._inThread(lambda: self._exchange.write(ct), lambda _result: launch())

    def cancel(self) -> None:
        """End without a result: at once, or within two seconds where the core works."""
        self._cancelled = True
        if self._child is None or self._worker is not None or self._steps is not None:
            self._end(CANCELLED)
        else:
            self._child.cancel()

    def stop(self) -> None:
        """End at once, silently."""
        self._onProgress, self._onEnded = (lambda *_: None), (lambda *_: None)
        if self._child is not None:
            self._child.kill()
        if self._worker is not None:
            self._worker.wait(WAIT_AT_STOP_S)
        self._end(None)

    def _onChildProgress(self, fraction: float, stage: str) -> None:
        start, end = CHILD_FRACTIONS
        self._onProgress(start + (end - start) * fraction, stage)

    def _onChildEnded(self, status: int, lastLine: str) -> None:
        if self._cancelled:
            self._end(CANCELLED)
        elif status != 0:
            self._end(Outcome("failed", _failure(status, self._named(lastLine))))
        else:
            self._onProgress(CHILD_FRACTIONS[1], "Loading the result")
            self._inThread(self._read, self._insert)

    def _named(self, text: str) -> str:
        """Name the CT as the user knows it, not the file that was handed over."""
        node = slicer.mrmlScene.GetNodeByID(self._volumeID)
        return text.replace(str(self.folder / "ct.nrrd"), node.GetName() if node else "the CT")

    def _read(self) -> ResultNodes.ResultData:
        try:
            data = ResultNodes.read(self.folder / "result", self._exchange)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            raise RuntimeError(f"The result cannot be loaded ({reason[0]}): run again.") from error
        Overlay.computeColors()
        return data

    def _insert(self, data: ResultNodes.ResultData) -> None:
        volumeNode = slicer.mrmlScene.GetNodeByID(self._volumeID)
        if volumeNode is None:
            gone = "The CT was removed from the scene while it was segmented: load it and run again."
            self._end(Outcome("failed", gone))
        else:
            self._steps = ResultNodes.inserting(data, volumeNode)
            self._advance()

    def _advance(self) -> None:
        """Go on inserting the result for a moment; the event loop has its turn between."""
        if self._over:
            return
        until = time.perf_counter() + INSERT_S
        try:
            while time.perf_counter() < until:
                next(self._steps)
        except StopIteration as end:
            self._end(Outcome("done", result=end.value))
        except (RuntimeError, ValueError, KeyError) as error:
            self._end(Outcome("failed", sentence(error)))
        else:
            qt.QTimer.singleShot(0, self._advance)

    def _inThread(self, work: Callable[[], object], proceed: Callable[[object], None]) -> None:
        """Do some work in a thread and go on, unless the run has ended meanwhile."""

        def done(result: object, error: Exception | None) -> None:
            self._worker = None
            if self._over:
                shutil.rmtree(self.folder, ignore_errors=True)
                return
            try:
                if error is not None:
                    raise error
                proceed(result)
            except Exception as problem:
                self._end(Outcome("failed", sentence(problem)))

        self._worker = Worker(work, done)

    def _end(self, outcome: Outcome | None) -> None:
        if self._over:
            return
        self._over = True
        if self._steps is not None:
            self._steps.close()
        if self._worker is None:  # else the folder goes when the thread is through with it
            shutil.rmtree(self.folder, ignore_errors=True)
        if outcome is not None:
            self._onEnded(outcome)


def checkRoom(size: int) -> None:
    """Refuse a run for which the temporary folder has no room.

    :param size: of the CT, in bytes.
    :raises OSError: naming the folder, the room that is there and the room that is needed.
    """
    folder = tempfile.gettempdir()
    need, free = size * (1 + ROOM_FOR_RESULT), shutil.disk_usage(folder).free
    if free < need:
        raise OSError(
            errno.ENOSPC,
            f"The disk with the temporary folder {folder} has {free / 1e6:.0f} MB free, {need / 1e6:.0f} MB are "
            "needed: free some space and try again.",
        )


def sentence(error: Exception) -> str:
    """Return what the user is told about an error."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"The disk with the temporary folder {tempfile.gettempdir()} is full: free some space and try again."
    if isinstance(error, MemoryError):
        return "The computer's memory is full: close other programs and try again."
    return str(error) or type(error).__name__


def _failure(status: int, lastLine: str) -> str:
    if status < 0 or not lastLine:
        return (
            f"The segmentation process was ended from outside (status {status}), perhaps for want of memory: "
            "close other programs and try again."
        )
    return lastLine
