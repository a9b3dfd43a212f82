"""What a worker does with a case: read, compute and write it while it is at other stages of other cases.

A worker is a process of this computer, which `main` runs, or one of a Dask cluster; this file needs no Dask.
"""

import errno
import faulthandler
import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from LNHGLib import __version__
from LNHGLib.batch import content, peak_memory
from LNHGLib.batch.case import FAILED, Case
from LNHGLib.batch.store import DISK, DONE, ERROR, INPUT, Lease, Record, Withdrawn
from LNHGLib.errors import DiskError, InputError, WorkError
from LNHGLib.files import atomic

NO_SPACE_ERRNOS = (*atomic.DISK_FULL_ERRNOS, errno.EROFS)
REPORT_S = 0.5
MAX_CASES = 3
"""Cases in a worker at the same time: one is read, one computed, one written."""
PROCESS = uuid.uuid4().hex
"""Tells this process from a later one at the same address."""


class Job(Protocol):
    """What is done with a case, in three stages that run at the same time for three cases."""

    def read(self, case: Case, scratch: Path) -> Any:
        """Read a scan; `scratch` is an empty folder for what has to be unpacked."""

    def compute(self, case: Case, scan: Any, progress: Callable[[float, str], None]) -> Any:
        """Turn a scan into a result.

        Args:
            case: The scan.
            scan: What `read` returned.
            progress: Told the fraction done and what is being done.
        """

    def write(self, case: Case, result: Any, folder: Path, seconds: dict[str, float]) -> dict[str, Any]:
        """Make the result folder.

        Args:
            case: The scan.
            result: What `compute` returned.
            folder: To be made.
            seconds: Of the stages before, by name.

        Returns:
            The summary for the tables.
        """


class JobSpec(Protocol):
    """What a worker is sent to set itself up."""

    def prepare(self, index: int, jobs: int) -> Job:
        """Load the model, once per process; `index` is the number of the process among `jobs`."""


class Stages:
    """The stages of one case: their seconds, their peak memory, and the record that ends them.

    Attributes:
        seconds: by stage.
        places: temporary ones that stand for the scan.
        record: how the case ended; None while it is under way.
    """

    def __init__(self, case: Case, attempt: int) -> None:
        self._case, self._attempt = case, attempt
        self._peak_mb: float | None = None
        self._content = {"stamp": content.stamp(case), "content": content.content_sha256(case)}
        self.places: list[Path] = []
        self.seconds: dict[str, float] = {}
        self.record: Record | None = None

    def run(self, name: str, do: Callable[..., Any], *arguments: Any) -> Any:
        """Do one stage, unless an earlier one failed; a failure becomes the record.

        Args:
            name: read, compute or write.
            do: Does the stage.
            arguments: What it is called with.

        Returns:
            What `do` returns; None where this stage or an earlier one failed.
        """
        if self.record:
            return None
        if name == "compute":
            peak_memory.reset_peak()
        began, result, failure = time.perf_counter(), None, None
        try:
            result = do(*arguments)
        except Exception as error:
            failure = error
        self.seconds[name] = round(time.perf_counter() - began, 3)
        if name == "compute":
            self._peak_mb = peak_memory.peak_mb()
        if failure:
            kind, reason = INPUT, str(failure)
            if not isinstance(failure, InputError):
                full = isinstance(failure, OSError) and failure.errno in NO_SPACE_ERRNOS
                kind = DISK if full or isinstance(failure, DiskError) else ERROR
                if not isinstance(failure, WorkError):
                    reason = f"{type(failure).__name__}: {reason or 'no reason given'}"
                logging.getLogger(__name__).error("case %s", self._case.id, exc_info=failure)
            self.end(FAILED, kind=kind, reason=self._told(reason))
        return result

    def _told(self, reason: str) -> str:
        """Return a reason as INPUT names its scans: without the folders above it, and without temporary ones."""
        path, source = self._case.path, PurePosixPath(self._case.source)
        for place in [*self.places, *([path] if path.name else [])]:
            reason = reason.replace(str(place), self._case.source)
        if path.parent.name:
            above = "" if source.parent.name == "" else f"{source.parent}/"
            reason = reason.replace(f"{path.parent}{os.sep}", above)
        return " ".join(reason.split())

    def end(self, status: str, **values: Any) -> None:
        """Make the record."""
        values |= self._content
        values |= {"attempts": self._attempt, "seconds": self.seconds, "peak_memory_mb": self._peak_mb}
        self.record = Record.of(self._case, status, **values)


_reading, _writing, _preparing = threading.Lock(), threading.Lock(), threading.Lock()
_computing = ThreadPoolExecutor(1, "lnhg-compute")  # models are not made for several threads
_jobs: dict[JobSpec, Job] = {}
_listeners: list[Callable[[str, float], None]] = []
"""Told the id of a case that is computed here, and the fraction done."""


def prepare(spec: JobSpec, index: int, jobs: int, version: str, shared: Sequence[Path]) -> str:
    """Set this process up to do cases.

    Args:
        spec: What to set up; only the first call with it does something.
        index: Number of this process among those on the same computer.
        jobs: How many those are.
        version: Of the run.
        shared: Files of the run that this process must see.

    Returns:
        `PROCESS`, which `do_case` wants to see again.

    Raises:
        InputError: Another version, no common file system, or a wrong model or device.
        RuntimeError: It fails otherwise.
    """
    me = f"The Dask worker on {socket.gethostname()}"
    if version != __version__:
        raise InputError(f"{me} has LNHG {__version__}, expected {version} as here; install the same on all computers.")
    for path in shared:
        if not path.exists():
            raise InputError(f"{me} does not see {path}, expected the same files on all computers; share the folder.")
    try:
        with _preparing:
            if spec not in _jobs:
                _jobs.clear()
                _jobs[spec] = _computing.submit(spec.prepare, index, jobs).result()
    except InputError:
        raise
    except Exception as error:
        logging.getLogger(__name__).error("preparing", exc_info=error)
        raise RuntimeError(f"{type(error).__name__}: {error}") from error
    return PROCESS


def do_case(spec: JobSpec, lease: Lease, case: Case, attempt: int, process: str) -> Record:
    """Do a case; several threads of a worker do several at the same time, each at another stage.

    Args:
        spec: What this process was set up with.
        lease: The right to write the case.
        case: The scan.
        attempt: How often it has been begun, this time included.
        process: What `prepare` returned.

    Returns:
        How it ended; it has been saved, unless the disk is full.

    Raises:
        Withdrawn: The case was given to another worker meanwhile, or this process is not the one that was asked.
    """
    lease.require()
    if process != PROCESS:
        raise Withdrawn(lease.name)
    unpacked, folder = lease.lease_folder / "scan", lease.lease_folder / "result"
    with _reading:
        job, stages = _jobs[spec], Stages(case, attempt)
        stages.places.append(unpacked)
        unpacked.mkdir()
        scan = stages.run("read", job.read, case, unpacked)
        shutil.rmtree(unpacked, ignore_errors=True)
    computing = _computing.submit(stages.run, "compute", job.compute, case, scan, report_progress(lease, case.id))
    del scan  # so that its memory is free while the result is written
    result = computing.result()
    with _writing:
        summary = stages.run("write", job.write, case, result, folder, stages.seconds)
        try:
            if stages.record is None:
                stages.end(DONE, summary=summary)
                lease.finish(stages.record, folder)
            elif stages.record.kind != DISK:
                lease.save(stages.record)
        except OSError as error:
            return unrecorded(case, error, attempt)
    return stages.record


def unrecorded(case: Case, error: OSError, attempt: int) -> Record:
    """Return how a case ended whose record or result cannot be written: it is told, and done again with --resume.

    Args:
        case: The scan.
        error: What was met.
        attempt: How often the case was begun.
    """
    kind = DISK if error.errno in NO_SPACE_ERRNOS else ERROR
    reason = f"Its result cannot be kept ({error.strerror or error}); check OUT and go on with --resume."
    return Record.of(case, FAILED, kind=kind, reason=reason, attempts=attempt)


def report_progress(lease: Lease, case_id: str) -> Callable[[float, str], None]:
    """Return a progress callback that tells the run twice per second, and ends a computation that nobody waits for.

    Args:
        lease: Of the case; the callback raises `Withdrawn` when it has been withdrawn.
        case_id: The case.
    """
    last = [0.0]

    def progress(fraction: float, _text: str) -> None:
        if time.monotonic() - last[0] > REPORT_S:
            last[0] = time.monotonic()
            lease.require()
            for listener in _listeners:
                listener(case_id, fraction)

    return progress


def main(connection: Connection, log_file: Path) -> None:
    """Run a worker process: call what the other side asks for, in threads, and answer.

    Args:
        connection: Gives a number, a function and its arguments; None in their place ends the process after what is
            being written. Answers are the number with what was returned or raised, and None with case and fraction.
        log_file: For what libraries print.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the first one decides
    sending, threads = threading.Lock(), ThreadPoolExecutor(MAX_CASES)

    def send(number: int | None, value: object) -> None:
        with sending:
            connection.send((number, value))

    def answer(number: int, function: Callable[..., object], *arguments: object) -> None:
        try:
            value = function(*arguments)
        except Exception as error:  # of other kinds not all survive the way
            kept = isinstance(error, InputError) or type(error) is RuntimeError
            value = error if kept else RuntimeError(f"{type(error).__name__}: {error}")
        send(number, value)

    with log_file.open("a", encoding="utf-8") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        logging.basicConfig(stream=log, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
        faulthandler.enable(log)
        _listeners.append(lambda case_id, fraction: send(None, (case_id, fraction)))
        while True:
            try:
                call = connection.recv()
            except (EOFError, OSError):  # the other side is gone
                os._exit(1)
            if call is None:
                with _writing:
                    sys.stdout.flush()
                    os._exit(0)
            threads.submit(answer, *call)
