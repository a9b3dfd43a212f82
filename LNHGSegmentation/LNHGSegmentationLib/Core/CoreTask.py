"""One task of the core: what it reads is written, it works in a child process, its result is read and taken in.

Nothing of it blocks. A kind of task is a class that overrides `handOver`, `read` and `insert`.
"""

import errno
import shutil
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

import qt

from LNHGSegmentationLib.Core.ChildProcess import ChildProcess
from LNHGSegmentationLib.Core.Worker import Worker
from LNHGSegmentationLib.Paths import MODULE_FOLDER

WAIT_AT_STOP_S = 2.0
INSERT_S = 0.02


@dataclass(frozen=True)
class TaskOutcome:
    """How a task ended.

    Attributes:
        state: "done", "failed" or "cancelled".
        message: One sentence for the user; empty when done.
        result: What came of it when done.
    """

    state: str
    message: str = ""
    result: object = None


class CoreTask:
    """A task under way; use a new object for each.

    Attributes:
        folder: Temporary folder for the files of both sides; it goes at the end.
        STAGES: Fraction done and text when the files are written, the child starts, and its result is loaded; a stage
            without a text is not told.
        CANCELLED: What the user is told after a cancel.
        STOP_GRACE_S: Seconds that the child has to end by itself when the task is stopped.
    """

    STAGES = ((0.0, ""), (0.0, ""), (1.0, ""))
    CANCELLED = "Cancelled; nothing was changed."
    STOP_GRACE_S = 0.0

    def __init__(
        self,
        onEnded: Callable[[TaskOutcome], None],
        onProgress: Callable[[float, str], None] = lambda *_: None,
        python: str | None = None,
        launcher: Callable | None = None,
    ) -> None:
        """Prepare a task.

        Args:
            onEnded: Called once at the end, unless the task is stopped.
            onProgress: Called with the fraction done, 0 to 1, and the stage.
            python: Python interpreter for the child process; by default PythonSlicer.
            launcher: Stands in for ``slicer.util.launchConsoleProcess``.

        Raises:
            RuntimeError: PythonSlicer is not found.
        """
        from LNHGLib.files import atomic  # here, as Slicer's start needs nothing of the core

        self._python = python or pythonSlicer()
        self._onEnded, self._onProgress, self._launcher = onEnded, onProgress, launcher
        self._worker: Worker | None = None
        self._child: ChildProcess | None = None
        self._steps: Generator | None = None
        self._isOver = self._isCancelled = False
        self.folder = atomic.task_folder()

    def handOver(self) -> None:
        """Write what the core reads into `folder`; runs in a thread and touches no scene."""

    def read(self, status: int, lastLine: str) -> object:
        """Return what the child made; runs in a thread and touches no scene.

        Args:
            status: Exit status of the child.
            lastLine: Its last line that was not progress: its sentence where it failed.

        Raises:
            RuntimeError: The child failed.
        """
        if status != 0:
            raise RuntimeError(lastLine or f"The task was ended from outside (status {status}): try again.")
        return lastLine

    def insert(self, result: object) -> Generator[None, None, object]:
        """Take in what was read, in steps between which the event loop has its turn; return the task's result.

        A generator that is closed before its end leaves the scene as it was.
        """
        yield
        return result

    def whyNotStarted(self, error: Exception) -> str:
        """Return what the user is told where the child cannot be started."""
        return sentence(error)

    def start(self, arguments: list[str], module: str = "LNHGLib") -> None:
        """Start; returns at once.

        Args:
            arguments: What follows ``python -m`` and the module.
            module: Module of the core.
        """
        self._tell(*self.STAGES[0])

        def launch(_result: object) -> None:
            self._child = ChildProcess(self._onChildProgress, onChildEnded, self.folder / "cancel", self._launcher)
            self._child.start([self._python, "-m", module, *arguments], cwd=MODULE_FOLDER)
            self._tell(*self.STAGES[1])

        def onChildEnded(status: int, lastLine: str) -> None:
            if self._isCancelled:
                self._end(TaskOutcome("cancelled", self.CANCELLED))
            else:
                self._tell(*self.STAGES[2])
                self._inThread(lambda: self.read(status, lastLine), self._advance, sentence)

        self._inThread(self.handOver, launch, self.whyNotStarted)

    def cancel(self) -> None:
        """End without a result: at once, or within two seconds where the child works."""
        self._isCancelled = True
        if self._child is None or self._worker is not None or self._steps is not None:
            self._end(TaskOutcome("cancelled", self.CANCELLED))
        else:
            self._child.cancel()

    def stop(self) -> None:
        """End at once, silently: the scene closes, or the module is reloaded or unloaded."""
        self._onProgress, self._onEnded = (lambda *_: None), (lambda *_: None)
        if self._child is not None:
            self._child.kill(self.STOP_GRACE_S)
        if self._worker is not None:
            self._worker.wait(WAIT_AT_STOP_S)
        self._end(TaskOutcome("cancelled"))

    def _tell(self, fraction: float, stage: str) -> None:
        if stage:
            self._onProgress(fraction, stage)

    def _onChildProgress(self, fraction: float, stage: str) -> None:
        start, end = self.STAGES[1][0], self.STAGES[2][0]
        self._onProgress(start + (end - start) * fraction, stage)

    def _inThread(
        self, work: Callable[[], object], proceed: Callable[[object], None], explain: Callable[[Exception], str]
    ) -> None:
        """Do some work in a thread and go on, unless the task has ended meanwhile."""

        def done(result: object, error: Exception | None) -> None:
            self._worker = None
            if self._isOver:
                shutil.rmtree(self.folder, ignore_errors=True)  # once more: the thread was still writing
                return
            try:
                if error is not None:
                    raise error
                proceed(result)
            except Exception as problem:
                self._end(TaskOutcome("failed", explain(problem)))

        self._worker = Worker(work, done)

    def _advance(self, result: object = None) -> None:
        """Begin to take in a result, or go on with it, for a moment; the event loop has its turn between."""
        if self._isOver:
            return
        if self._steps is None:
            self._steps = self.insert(result)
        until = time.perf_counter() + INSERT_S
        try:
            while time.perf_counter() < until:
                next(self._steps)
        except StopIteration as end:
            self._end(TaskOutcome("done", result=end.value))
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            self._end(TaskOutcome("failed", sentence(error)))
        else:
            qt.QTimer.singleShot(0, self._advance)

    def _end(self, outcome: TaskOutcome) -> None:
        if self._isOver:
            return
        self._isOver = True
        if self._steps is not None:
            self._steps.close()
        if self._worker is None:  # else the folder goes when the thread is through with it
            shutil.rmtree(self.folder, ignore_errors=True)
        self._onEnded(outcome)


def sentence(error: Exception) -> str:
    """Return what the user is told about an error."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"The disk with the temporary folder {tempfile.gettempdir()} is full: free some space and try again."
    if isinstance(error, MemoryError):
        return "The computer's memory is full: close other programs and try again."
    return str(error) or type(error).__name__


def pythonSlicer() -> str:
    """Return the path of Slicer's Python interpreter.

    Raises:
        RuntimeError: It is not found.
    """
    python = shutil.which("PythonSlicer")
    if python is None:
        raise RuntimeError("PythonSlicer is not on the PATH: start 3D Slicer by its own launcher and try again.")
    return python
