"""What a Dask worker does for a batch; it needs no Dask itself."""

import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from LNHGLib import __version__
from LNHGLib.batch.case import Case
from LNHGLib.batch.store import Record, Store
from LNHGLib.batch.worker import REPORT_S, Recipe, Steps, Task, Work
from LNHGLib.errors import InputError

PROCESS = uuid.uuid4().hex
"""Tells this process from a later one at the same address."""


class Withdrawn(RuntimeError):  # noqa: N818
    """The case was given to another worker, or the run is over: nothing more may be written."""


@dataclass(frozen=True)
class Claim(Store):
    """The right of one worker to write one case.

    It is a folder, made by the run and taken away by it: what a worker has written lies in there until it is complete,
    so that without the folder nothing can get its name, whatever a worker believes that was taken for dead.

    Attributes:
        name: of the folder, new for each time that a case is given to a worker.
    """

    name: str

    @property
    def folder_of_claim(self) -> Path:
        """The folder."""
        return self.memory / "scratch" / self.name

    def scratch(self, case_id: str) -> Path:
        """Folder for what the case needs while it is done."""
        return self.folder_of_claim / "work"

    def save(self, record: Record) -> None:
        """Write a record, see `Store.save`."""
        self.require()
        super().save(record)

    def require(self) -> None:
        """Stop here if the claim was taken away.

        Raises:
            Withdrawn: it was.
        """
        if not self.folder_of_claim.is_dir():
            raise Withdrawn(self.name)

    def make(self) -> "Claim":
        """Make the folder."""
        self.folder_of_claim.mkdir(parents=True)
        return self

    def withdraw(self) -> None:
        """Take the folder away, with all that is in it: first its name, in one step."""
        away = self.folder_of_claim.with_name(f"{self.name}.withdrawn")
        with suppress(OSError):
            self.folder_of_claim.rename(away)
        shutil.rmtree(away, ignore_errors=True)


class _Bench:
    """The work of this process, set up once, and the one thread that computes: models are not made for several."""

    def __init__(self) -> None:
        self._recipe: Recipe | None = None
        self._work: Work | None = None
        self._setting_up = threading.Lock()
        self.computing = ThreadPoolExecutor(1, "lnhg-compute")

    def work(self, recipe: Recipe, index: int, jobs: int) -> Work:
        with self._setting_up:
            if self._work is None or self._recipe != recipe:
                self._work = self.computing.submit(recipe.prepare, index, jobs).result()
                self._recipe = recipe
            return self._work


_bench = _Bench()


def prepare(recipe: Recipe, store: Store, example: Path, version: str, index: int, jobs: int) -> str:
    """Set this process up and see whether it can do the cases; returns `PROCESS`.

    Args:
        recipe: what to set up.
        store: the folder OUT.
        example: a scan of the cohort.
        version: of the run.
        index: number of this process among those on the same computer.
        jobs: how many those are.

    Raises:
        InputError: it cannot: another version, no common file system, or what the recipe says.
    """
    me = f"The Dask worker on {socket.gethostname()}"
    if version != __version__:
        raise InputError(f"{me} has LNHG {__version__}, expected {version} as here; install the same on all computers.")
    for path in (store.memory / "batch.json", example):
        if not path.exists():
            raise InputError(f"{me} does not see {path}, expected the same files on all computers; share the folder.")
    _bench.work(recipe, index, jobs)
    return PROCESS


def do_case(recipe: Recipe, claim: Claim, case: Case, attempt: int, process: str) -> Record:
    """Do a case; several threads of a Dask worker read and write while one computes.

    Raises:
        Withdrawn: the case was given to another worker meanwhile, or this process is not the one that was asked.
    """
    claim.require()
    if process != PROCESS:
        raise Withdrawn(claim.name)
    steps, task = Steps(_bench.work(recipe, 0, 1), claim), Task(case, attempt)
    steps.read(task)
    _bench.computing.submit(steps.compute, task, _watch(claim)).result()
    return steps.write(task)


def _watch(claim: Claim) -> Callable[[float, str], None]:
    """A progress callback that ends the computation of a case that nobody waits for."""
    last = [time.monotonic()]

    def look(_fraction: float, _text: str) -> None:
        if time.monotonic() - last[0] > REPORT_S:
            last[0] = time.monotonic()
            claim.require()

    return look
