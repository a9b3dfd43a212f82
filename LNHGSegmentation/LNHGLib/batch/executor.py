"""Who does which case of a cohort, and what happens when a worker dies.

Workers are processes of this computer (`LocalCluster`) or of a Dask cluster (`DaskCluster`); both are asked through
futures. A worker that dies takes no case down but the one that kills it: all that were in it are tried again when the
others are given out, each alone, and only a case in which workers die again and again has failed.
"""

import asyncio
import itertools
import logging
import math
import multiprocessing
import signal
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from LNHGLib import __version__
from LNHGLib.batch import worker as batch_worker
from LNHGLib.batch.case import FAILED, Case
from LNHGLib.batch.store import DIED, Lease, Record, Store
from LNHGLib.batch.worker import JobSpec
from LNHGLib.errors import Cancelled, InputError, WorkError

if TYPE_CHECKING:
    from distributed import Client

TICK_S, POLL_S = 0.25, 0.02
GRACE_S = 20.0
"""A process that is to stop may finish the files it is writing."""
CONNECT_S, FETCH_S = 10.0, 10.0
PATIENCE_S = 10.0
"""A cluster without workers for so long is worth a note."""
MAX_STILLBORN = 3

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Worker:
    """A worker, and the cases in it.

    Attributes:
        address: its name in the cluster.
        preparing: future of its preparation; None when that is over.
        process: what the preparation returned; empty until then.
        alone: holds a case that is tried again, and gets no other.
        cases: with their leases, by future.
    """

    address: str
    preparing: Future | None
    process: str = ""
    alone: bool = False
    cases: dict[Future, tuple[Case, Lease]] = field(default_factory=dict)

    @property
    def futures(self) -> list[Future]:
        """What it was asked and has not been heard of."""
        return [*([self.preparing] if self.preparing else []), *self.cases]

    def take(self, future: Future) -> Case:
        """Take a case out; the worker may write it no more."""
        case, lease = self.cases.pop(future)
        lease.withdraw()
        self.alone = self.alone and bool(self.cases)
        return case


class Executor:
    """Does the cases of a cohort in the workers of a cluster.

    Attributes:
        fractions: how much is done of the cases under way, by id.
        ready_since: when the first worker was ready, by the monotonic clock.
    """

    def __init__(self, spec: JobSpec, store: Store, cluster: "LocalCluster | DaskCluster") -> None:
        """Note what is to be done; no worker is asked yet.

        Args:
            spec: What a worker sets itself up with.
            store: Where the results go.
            cluster: Has the workers.
        """
        self._spec, self._store, self._cluster = spec, store, cluster
        self._workers: list[Worker] = []
        self._unfit: set[str] = set()
        self._stillborn = 0
        self._attempts: Counter = Counter()
        self._shared: tuple[Path, ...] = ()
        self._waiting, self._suspects, self._ended = deque[Case](), deque[Case](), deque[Record]()
        self.fractions: dict[str, float] = cluster.fractions
        self.ready_since: float | None = None

    def run(self, cases: Sequence[Case]) -> Iterator[Record | None]:
        """Do all cases; close the generator to stop, which leaves undone what is not being written.

        Args:
            cases: The scans.

        Yields:
            The record of each case as it ends, and None from time to time.

        Raises:
            InputError: The workers say that model or device is wrong.
            RuntimeError: The workers cannot start.
            WorkError: The cluster is gone.
        """
        self._waiting.extend(cases)
        if cases and not self._cluster.local:
            self._shared = (self._store.memory / "batch.json", cases[0].path)
        try:
            while self._waiting or self._suspects or any(worker.cases for worker in self._workers):
                self.ensure_workers()
                self._hand_out()
                self._cluster.wait([future for worker in self._workers for future in worker.futures])
                for worker in list(self._workers):
                    for future in worker.futures:
                        if future.done():
                            self.handle_message(worker, future)
                while self._ended:
                    yield self._ended.popleft()
                yield None
        finally:
            self._cluster.end([future for worker in self._workers for future in worker.futures])
            for worker in self._workers:
                for future in list(worker.cases):
                    worker.take(future)
            self._workers = []

    def ensure_workers(self) -> None:
        """Have workers for what is left to do: take in new ones, and take out dead ones, whose cases are put aside.

        Raises:
            RuntimeError: Workers end before they are ready.
        """
        alive = self._cluster.alive(len(self._waiting) + bool(self._suspects))
        for worker in [worker for worker in self._workers if worker.address not in alive]:
            self._workers.remove(worker)
            how = self._cluster.release(worker.address, worker.futures)
            if not worker.process:
                self._stillborn += 1
                if self._stillborn >= MAX_STILLBORN and (self._cluster.local or self.ready_since is None):
                    raise self._cluster.stillborn_error
            if worker.cases and not self._cluster.local:
                logger.warning("lnhg: note: A %s was lost; its cases are tried again.", self._cluster.name)
            for future in list(worker.cases):
                self._set_aside(worker.take(future), how)
        self._unfit &= alive.keys()
        for address in alive.keys() - {worker.address for worker in self._workers} - self._unfit:
            arguments = (self._spec, *alive[address], __version__, self._shared)
            self._workers.append(Worker(address, self._cluster.submit(address, batch_worker.prepare, *arguments)))

    def _hand_out(self) -> None:
        """Give each worker, also one that is not ready yet, as many cases; the last ones wait for who is free first."""
        ready = [worker for worker in self._workers if worker.process]
        for limit in range(1, self._cluster.max_cases + 1):
            for worker in ready:
                others = sum(max(limit - len(other.cases), 0) for other in self._workers if other is not worker)
                enough = len(self._waiting) > (0 if limit == 1 else others)
                if enough and not worker.alone and len(worker.cases) < limit:
                    self._give(worker, self._waiting.popleft())
        for worker in ready:
            beside = self._workers if self._cluster.local else [worker]  # they share this computer's memory
            if self._suspects and not self._waiting and not any(other.cases for other in beside):
                self._give(worker, self._suspects.popleft())
                worker.alone = True

    def _give(self, worker: Worker, case: Case) -> None:
        self._attempts[case.id] += 1
        try:
            lease = Lease(self._store.out, f"{case.id}-{uuid.uuid4().hex[:12]}").make()
        except OSError as error:
            self._ended.append(batch_worker.unrecorded(case, error, self._attempts[case.id]))
            return
        arguments = (self._spec, lease, case, self._attempts[case.id], worker.process)
        worker.cases[self._cluster.submit(worker.address, batch_worker.do_case, *arguments)] = case, lease

    def handle_message(self, worker: Worker, future: Future) -> None:
        """Take in that a worker is ready or unfit, or how a case ended.

        Args:
            worker: Whose future it is.
            future: One that is done.

        Raises:
            InputError: The last worker says that model or device is wrong.
            RuntimeError: The last worker fails otherwise.
        """
        value = result_or_error(future)
        if future is not worker.preparing:
            case = worker.take(future)
            self.fractions.pop(case.id, None)
            if isinstance(value, Record):
                self._ended.append(value)
            else:
                self._set_aside(case, f"{self._cluster.name} gave the case up ({value!r})")
            return
        worker.preparing = None
        if isinstance(value, str):
            worker.process = value
            self.ready_since = self.ready_since or time.monotonic()
            return
        self._workers.remove(worker)
        if isinstance(value, CancelledError | TimeoutError | asyncio.CancelledError):  # lost, as is told soon
            return
        self._unfit.add(worker.address)
        if not self._workers:
            known = isinstance(value, InputError | RuntimeError)
            raise value if known else RuntimeError(f"{type(value).__name__}: {value}")
        logger.warning("lnhg: note: A %s is left out: %s", self._cluster.name, value)

    def _set_aside(self, case: Case, how: str) -> None:
        """Try a case again later whose worker has died, unless it has been tried often enough."""
        self.fractions.pop(case.id, None)
        record = self._store.ended(case)  # it may have died after its last word was written and before it was said
        if record is None and self._attempts[case.id] < self._cluster.max_attempts:
            self._suspects.append(case)
            return
        if record is None:
            reason = f"The {how}, as one did in this case before; try it with more memory and --resume."
            record = Record.of(case, FAILED, kind=DIED, reason=reason, attempts=self._attempts[case.id])
            with suppress(OSError):  # it is told all the same
                self._store.save(record)
        self._ended.append(record)


def result_or_error(future: Future) -> Any:
    """Return what a future holds that is done, or the error; a worker may be lost before it has handed it over."""
    try:
        return future.result(timeout=FETCH_S)
    except Cancelled:  # by our user, at this moment
        raise
    except (Exception, asyncio.CancelledError) as error:
        return error


class LocalCluster:
    """Worker processes of this computer, asked through pipes, which tell also when a process has died.

    Attributes:
        name: of a worker, in sentences.
        local: the workers share the memory of this computer, and start when they are needed.
        max_attempts: how often a case is tried.
        max_cases: in a worker at the same time.
        fractions: how much is done of the cases under way, by id.
        stillborn_error: raised when several workers end before they are ready.
    """

    name, local, max_attempts, max_cases = "worker process", True, 2, batch_worker.MAX_CASES

    def __init__(self, jobs: int, folder: Path) -> None:
        """Start no process yet.

        Args:
            jobs: Processes at the most.
            folder: For their logs.
        """
        self._jobs, self._folder = jobs, folder
        self._processes: dict[str, tuple[int, multiprocessing.Process, Any]] = {}
        self._dead: set[str] = set()
        self._calls: dict[int, Future] = {}
        self._numbers = itertools.count()
        self.fractions: dict[str, float] = {}
        self.stillborn_error = RuntimeError(f"worker processes end before they are ready; {folder} has their logs")

    def alive(self, needed: int) -> dict[str, tuple[int, int]]:
        """Start the processes that are needed and not there; dead ones have to be released before.

        Args:
            needed: Workers that the work left can use.

        Returns:
            Number of each living process and how many there may be, by address.
        """
        context = multiprocessing.get_context("spawn")
        while len(self._processes) < min(self._jobs, needed):
            index = min(set(range(self._jobs)) - {index for index, *_ in self._processes.values()})
            ours, theirs = context.Pipe()
            arguments = (theirs, self._folder / f"worker-{index}.log")
            process = context.Process(target=batch_worker.main, args=arguments, name=f"lnhg-{index}", daemon=True)
            process.start()
            theirs.close()
            self._processes[str(process.pid)] = index, process, ours
        return {key: (index, self._jobs) for key, (index, *_) in self._processes.items() if key not in self._dead}

    def submit(self, address: str, function: Callable[..., Any], *arguments: Any) -> Future:
        """Let a process call a function in a thread.

        Args:
            address: Of the process.
            function: One of `batch.worker`.
            arguments: What it is called with.
        """
        number, future = next(self._numbers), Future()
        self._calls[number] = future
        with suppress(OSError):  # it has died, which its connection tells as soon as it is asked
            self._processes[address][2].send((number, function, *arguments))
        return future

    def wait(self, _futures: Sequence[Future]) -> None:
        """Take in messages, for a quarter of a second at the most."""
        addresses = {ours: address for address, (_, _, ours) in self._processes.items() if address not in self._dead}
        for connection in wait(list(addresses), TICK_S):
            try:
                number, value = connection.recv()
            except (EOFError, OSError):
                self._dead.add(addresses[connection])
                continue
            if number is None:
                self.fractions[value[0]] = value[1]
            else:
                self._calls.pop(number).set_result(value)

    def release(self, address: str, _futures: Sequence[Future]) -> str:
        """Forget a process that has died.

        Args:
            address: Of the process.
            _futures: What it was asked; not needed here.

        Returns:
            How it ended.
        """
        _, process, connection = self._processes.pop(address)
        self._dead.discard(address)
        process.join(GRACE_S)
        process.kill()  # where it has closed its pipe and lives
        connection.close()
        status = process.exitcode
        if status is None or status >= 0:
            return f"worker process ended with status {status}"
        name = signal.Signals(-status).name if -status in set(signal.Signals) else "unknown"
        return f"worker process was killed by signal {-status} ({name})"

    def end(self, _futures: Sequence[Future]) -> None:
        """Let the processes end after what they are writing."""
        for _, _, connection in self._processes.values():
            with suppress(OSError):
                connection.send(None)
        until = time.monotonic() + GRACE_S
        for _, process, connection in self._processes.values():
            process.join(max(0.0, until - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
            connection.close()
        self._processes = {}


class DaskCluster:
    """The workers of a Dask cluster, which come and go. What one is asked is tied to it: Dask gives it to no other.

    Attributes are those of `LocalCluster`; `fractions` stays empty, as these workers do not tell.
    """

    name, local, max_attempts, max_cases = "Dask worker", False, 3, 2

    def __init__(self, client: "Client") -> None:
        """Take a connection to the scheduler."""
        self._client = client
        self._empty_since: float | None = None
        self.fractions: dict[str, float] = {}
        self.stillborn_error = WorkError(
            "The Dask workers end before they are ready; give them more memory, or look into their logs."
        )

    def alive(self, _needed: int) -> dict[str, tuple[int, int]]:
        """Ask which workers there are.

        Returns:
            Number of each worker among those on its computer and how many those are, by address.

        Raises:
            WorkError: The scheduler does not answer.
        """
        try:
            addresses = sorted(self._client.nthreads())
        except Cancelled:
            raise
        except (OSError, RuntimeError) as error:
            raise WorkError(
                "The Dask scheduler does not answer any more; what is finished is kept, start the cluster again and "
                "go on with --resume."
            ) from error
        if addresses:
            self._empty_since = None
        elif self._empty_since is None:
            self._empty_since = time.monotonic()
        elif time.monotonic() - self._empty_since > PATIENCE_S:  # all right on a busy cluster: said once
            self._empty_since = math.inf
            logger.warning("lnhg: note: The Dask scheduler has no workers now; waiting for some to join.")
        by_host: dict[str | None, list[str]] = {}
        for address in addresses:
            by_host.setdefault(urlsplit(address).hostname, []).append(address)
        return {each: (index, len(there)) for there in by_host.values() for index, each in enumerate(there)}

    def submit(self, address: str, function: Callable[..., Any], *arguments: Any) -> Future:
        """Let a worker call a function.

        Args:
            address: Of the worker.
            function: One of `batch.worker`.
            arguments: What it is called with.
        """
        key = f"lnhg-{uuid.uuid4().hex}"
        tied = {"workers": [address], "allow_other_workers": False, "pure": False}
        return self._client.submit(function, *arguments, key=key, **tied)

    def wait(self, futures: Sequence[Future]) -> None:
        """Wait until one of the futures is done, for a quarter of a second at the most."""
        until = time.monotonic() + TICK_S
        while time.monotonic() < until and not any(future.done() for future in futures):
            time.sleep(POLL_S)

    def release(self, _address: str, futures: Sequence[Future]) -> str:
        """Take back what a lost worker was asked.

        Args:
            _address: Of the worker; not needed here.
            futures: What it was asked.

        Returns:
            How it ended.
        """
        self.end(futures)
        return "Dask worker was lost (killed, out of memory, or its computer went away)"

    def end(self, futures: Sequence[Future]) -> None:
        """Take back what workers were asked."""
        if futures and self._client.status == "running":
            self._client.cancel(list(futures), force=True)


@contextmanager
def connected(address: str) -> Iterator["Client"]:
    """Connect to a Dask scheduler.

    Args:
        address: Such as tcp://host:8786, or the scheduler's file.

    Raises:
        InputError: Dask is missing, or no scheduler answers there.
    """
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise InputError(
            "--scheduler needs the package distributed, which is not installed; install slicer-lnhg[cluster]."
        ) from error
    for name in ("distributed", "distributed.client"):  # the run itself tells what matters
        logging.getLogger(name).setLevel(logging.CRITICAL)
    place = {"scheduler_file": address} if Path(address).is_file() else {"address": address}
    try:
        client = Client(**place, timeout=CONNECT_S, set_as_default=False, name="lnhg")
    except (OSError, ValueError) as error:
        raise InputError(
            f"No Dask scheduler answers at {address} ({type(error).__name__}), expected an address (tcp://host:8786) "
            "or a scheduler's file; start it with `dask scheduler`."
        ) from error
    try:
        yield client
    finally:
        client.close(timeout=CONNECT_S)
