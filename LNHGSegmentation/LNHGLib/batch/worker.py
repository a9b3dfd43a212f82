"""A worker process of a batch: reads the next case and writes the last one while it computes the present one."""

import errno
import faulthandler
import logging
import os
import queue
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from LNHGLib.batch import peak_memory
from LNHGLib.batch.case import FAILED, Case
from LNHGLib.batch.store import DISK, DONE, ERROR, INPUT, Record, Store
from LNHGLib.errors import DiskError, InputError, WorkError
from LNHGLib.files import atomic

FULL = (*atomic.DISK_FULL_ERRNOS, errno.EROFS)
REPORT_S = 0.5


class Work(Protocol):
    """What a process does with a case, in three steps that run at the same time for three cases."""

    def read(self, case: Case, scratch: Path) -> Any:
        """Read a scan; `scratch` is an empty folder for what has to be unpacked."""

    def compute(self, case: Case, scan: Any, progress: Callable[[float, str], None]) -> Any:
        """Turn what `read` gave into a result."""

    def write(self, case: Case, result: Any, folder: Path, seconds: dict[str, float]) -> dict[str, Any]:
        """Make the result folder; returns the summary for the tables. `seconds` are those of the steps before."""


class Recipe(Protocol):
    """What a process is sent to set itself up."""

    def prepare(self, index: int, jobs: int) -> Work:
        """Load the model, once a process; `index` is the process's number among `jobs`."""


class Task:
    """A case on its way through the steps.

    Attributes:
        record: how it ended; None as long as it is on its way.
    """

    def __init__(self, case: Case, attempt: int) -> None:
        self.case, self._attempt = case, attempt
        self.payload: Any = None
        self.seconds: dict[str, float] = {}
        self.peak_mb: float | None = None
        self.record: Record | None = None

    def step(self, name: str, do: Callable[[], Any]) -> None:
        """Do one step, unless an earlier one failed; a failure becomes the record."""
        if self.record:
            return
        began = time.perf_counter()
        try:
            self.payload = do()
        except Exception as error:
            self.payload = None
            self.record = self._failure(error)
        self.seconds[name] = round(time.perf_counter() - began, 3)

    def end(self, status: str, **values: Any) -> Record:
        """Make the record."""
        values |= {"attempts": self._attempt, "seconds": self.seconds, "peak_memory_mb": self.peak_mb}
        return Record.of(self.case, status, **values)

    def _failure(self, error: Exception) -> Record:
        kind, reason = INPUT, str(error)
        if not isinstance(error, InputError):
            full = isinstance(error, DiskError) or (isinstance(error, OSError) and error.errno in FULL)
            kind = DISK if full else ERROR
            told = isinstance(error, WorkError)
            reason = reason if told else f"{type(error).__name__}: {reason or 'no reason given'}"
            logging.getLogger(__name__).error("case %s", self.case.id, exc_info=error)
        return self.end(FAILED, kind=kind, reason=" ".join(reason.split()))


class Steps:
    """The steps of a case with all that belongs to them: scratch folder, timing, memory, record."""

    def __init__(self, work: Work, store: Store) -> None:
        self._work, self._store = work, store

    def read(self, task: Task) -> None:
        """Read the scan."""
        scratch = self._store.scratch(task.case.id)
        shutil.rmtree(scratch, ignore_errors=True)
        unpacked = scratch / "scan"
        unpacked.mkdir(parents=True)
        task.step("read", lambda: self._work.read(task.case, unpacked))
        shutil.rmtree(unpacked, ignore_errors=True)
        if task.record:
            task.record.reason = _told_by_source(task.record.reason, task.case, unpacked)

    def compute(self, task: Task, progress: Callable[[float, str], None]) -> None:
        """Compute the result."""
        if task.record:
            return
        peak_memory.forget_peak()
        task.step("compute", lambda: self._work.compute(task.case, task.payload, progress))
        task.peak_mb = peak_memory.peak_mb()
        if task.record:
            task.record.peak_memory_mb = task.peak_mb
            task.record.reason = _told_by_source(task.record.reason, task.case, Path())

    def write(self, task: Task) -> Record:
        """Write the result folder and the record, which comes last of all that can fail."""
        scratch = self._store.scratch(task.case.id)
        task.step("write", lambda: self._write(task, scratch / "result"))
        record = task.record or task.end(DONE, summary=task.payload)
        task.payload = None
        if record.status == DONE:
            self._store.finish(record, scratch / "result")
        elif record.kind != DISK:
            self._store.save(record)
        shutil.rmtree(scratch, ignore_errors=True)
        return record

    def _write(self, task: Task, folder: Path) -> dict[str, Any]:
        return self._work.write(task.case, task.payload, folder, task.seconds)


def _told_by_source(reason: str, case: Case, unpacked: Path) -> str:
    """Name the scan as INPUT does: no folder above it, no temporary one."""
    for path in (unpacked, case.path):
        if path.name:
            reason = reason.replace(str(path), case.source)
    return reason


class Conveyor:
    """Three threads, one a step, with room for one case between two of them."""

    def __init__(self, connection: Connection, store: Store) -> None:
        """Make a conveyor that gets its cases through a connection and answers through it."""
        self._connection, self._store = connection, store
        self._sending, self._writing = threading.Lock(), threading.Lock()
        self._inbox: queue.SimpleQueue = queue.SimpleQueue()
        self._read: queue.Queue = queue.Queue(1)
        self._computed: queue.Queue = queue.Queue(1)

    def run(self, recipe: Recipe, index: int, jobs: int) -> None:
        """Work until the other side says that it is over, or is gone."""
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            steps = Steps(recipe.prepare(index, jobs), self._store)
        except Exception as error:
            logging.getLogger(__name__).error("preparing", exc_info=error)
            wrong = isinstance(error, InputError)
            self._send("unfit", str(error) if wrong else f"{type(error).__name__}: {error}", wrong)
            return
        self._send("ready")
        reader = threading.Thread(target=self._reading, args=(steps,), daemon=True)
        writer = threading.Thread(target=self._writing_out, args=(steps,), daemon=True)
        reader.start()
        writer.start()
        while (task := self._read.get()) is not None:
            steps.compute(task, self._reporter(task.case.id))
            self._send("computed", task.case.id)
            self._computed.put(task)
        self._computed.put(None)
        writer.join()

    def _listen(self) -> None:
        """Take orders; when the other side is gone or wants to stop, this process ends here and now."""
        while True:
            try:
                order, *values = self._connection.recv()
            except (EOFError, OSError):
                os._exit(1)
            if order == "stop":
                with self._writing:
                    os._exit(0)
            self._inbox.put(Task(*values) if order == "case" else None)

    def _reading(self, steps: Steps) -> None:
        while (task := self._inbox.get()) is not None:
            steps.read(task)
            self._read.put(task)
        self._read.put(None)

    def _writing_out(self, steps: Steps) -> None:
        while (task := self._computed.get()) is not None:
            with self._writing:
                record = steps.write(task)
            self._send("ended", record)

    def _send(self, *message: Any) -> None:
        with self._sending:
            self._connection.send(message)

    def _reporter(self, case_id: str) -> Callable[[float, str], None]:
        last = [0.0]

        def report(fraction: float, _text: str) -> None:
            if time.monotonic() - last[0] > REPORT_S:
                last[0] = time.monotonic()
                self._send("at", case_id, fraction)

        return report


def main(connection: Connection, recipe: Recipe, store: Store, index: int, jobs: int) -> None:
    """Run a worker process; what libraries print goes to a log of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the first one decides
    with (store.memory / f"worker-{index}.log").open("a", encoding="utf-8") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        logging.basicConfig(stream=log, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
        faulthandler.enable(log)
        Conveyor(connection, store).run(recipe, index, jobs)
        sys.stdout.flush()
