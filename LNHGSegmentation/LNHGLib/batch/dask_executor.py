"""A batch on the workers of a Dask cluster: the same cases, the same files, workers that come and go."""

import logging
import math
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from LNHGLib import __version__
from LNHGLib.batch import dask_worker
from LNHGLib.batch.case import Case
from LNHGLib.batch.dask_worker import Claim
from LNHGLib.batch.pool import AHEAD, MOST_STILLBORN, TICK_S, Pool
from LNHGLib.batch.store import Record, Store
from LNHGLib.batch.worker import Recipe
from LNHGLib.errors import Cancelled, InputError, WorkError

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT_S = 10
PATIENCE_S = 10
POLL_S = 0.02
FETCH_S = 10.0

logger = logging.getLogger(__name__)


@contextmanager
def connected(address: str) -> Iterator["Client"]:
    """A connection to a scheduler.

    Args:
        address: such as tcp://host:8786, or the scheduler's file.

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
            f"No Dask scheduler answers at {address} ({type(error).__name__}), expected an address such as "
            "tcp://host:8786 or a scheduler's file; start one with: dask scheduler"
        ) from error
    try:
        yield client
    finally:
        client.close(timeout=CONNECT_S)


def _result(future: "Future") -> Any:
    """What a finished future holds; None where its worker was lost before it could be fetched."""
    try:
        return future.result(timeout=FETCH_S)
    except TimeoutError:
        return None


class _Node:
    """A Dask worker and the cases in it."""

    def __init__(self, address: str, getting_ready: "Future", pool: "DaskPool") -> None:
        self.address, self.getting_ready, self._pool = address, getting_ready, pool
        self.ready, self.alone, self.process = False, False, ""
        self.cases: dict[str, Case] = {}
        self.given: dict[Future, tuple[Case, Claim]] = {}

    def give(self, case: Case, attempt: int) -> None:
        self.cases[case.id] = case
        future, claim = self._pool.submit(self, case, attempt)
        self.given[future] = (case, claim)

    @property
    def futures(self) -> "list[Future]":
        return [future for future in (self.getting_ready, *self.given) if future]

    def done(self) -> "list[Future]":
        return [future for future in self.futures if future.done()]

    def take(self, future: "Future") -> tuple[Case, Claim]:
        case, claim = self.given.pop(future)
        del self.cases[case.id]
        self.alone = self.alone and bool(self.cases)
        return case, claim


class DaskPool(Pool):
    """Runs a recipe over cases on Dask workers.

    Each case is tied to a worker, so that Dask never runs it twice by itself. The cases of a worker that is lost are
    tried again when the others are done, each alone in a worker; one that has lost three workers has failed.
    """

    last_attempt = 3

    def __init__(self, recipe: Recipe, store: Store, client: "Client") -> None:
        """Prepare; nothing is sent to the workers yet."""
        super().__init__(recipe, store, 1)
        self._client = client
        self._workers: list[_Node] = []
        self._known: dict[str, int] = {}
        self._unfit: dict[str, Exception] = {}
        self._lonely_since: float | None = None

    def run(self, cases: Sequence[Case]) -> Iterator[Record | None]:
        """Do all cases, see `Pool.run`.

        Raises:
            InputError: none of the workers can do the cases.
            WorkError: the scheduler is gone.
        """
        self._example = cases[0].path if cases else self._store.out
        yield from super().run(cases)

    def submit(self, node: _Node, case: Case, attempt: int) -> tuple["Future", Claim]:
        """Send a case to a worker."""
        name = f"{case.id}-{uuid.uuid4().hex[:12]}"
        claim = Claim(self._store.out, name).make()
        values = (self._recipe, claim, case, attempt, node.process)
        return self._send(node.address, f"lnhg-{name}", dask_worker.do_case, *values), claim

    def _send(self, address: str, key: str, function: object, *values: object) -> "Future":
        return self._client.submit(function, *values, key=key, workers=[address], allow_other_workers=False, pure=False)

    def _staff(self, _jobs: int) -> None:
        """Take in workers that have joined the cluster, however many."""
        try:
            self._known = self._client.nthreads()
        except Cancelled:
            raise
        except (OSError, RuntimeError) as error:
            raise WorkError(
                "The Dask scheduler does not answer any more; what is finished is kept, start the cluster again and "
                "go on with --resume."
            ) from error
        self._unfit = {address: error for address, error in self._unfit.items() if address in self._known}
        here = {node.address for node in self._workers}
        for address in self._known.keys() - here - self._unfit.keys():
            host = urlsplit(address).hostname
            beside = sum(urlsplit(other).hostname == host for other in self._known)
            index = sum(urlsplit(node.address).hostname == host for node in self._workers)
            values = (self._recipe, self._store, self._example, __version__, index, beside)
            key = f"lnhg-prepare-{uuid.uuid4().hex[:12]}"
            self._workers.append(_Node(address, self._send(address, key, dask_worker.prepare, *values), self))
        self._tell_of_waiting()

    def _tell_of_waiting(self) -> None:
        """Say once that there is no worker, which may be all right on a busy cluster."""
        if self._known:
            self._lonely_since = None
        elif self._lonely_since is None:
            self._lonely_since = time.monotonic()
        elif time.monotonic() - self._lonely_since > PATIENCE_S:
            self._lonely_since = math.inf
            logger.warning("lnhg: note: The Dask scheduler has no workers now; waiting for some to join.")

    def _hand_out(self) -> None:
        """As on one computer; a case that was lost with its worker gets one of its own when the others are given."""
        for limit in range(1, AHEAD + 1):
            for node in self._workers:
                enough = len(self._waiting) >= (1 if limit == 1 else len(self._workers))
                if node.ready and not node.alone and enough and len(node.cases) < limit:
                    self._give(node, self._waiting.popleft())
        for node in self._workers:
            if node.ready and not node.cases and self._suspects and not self._waiting:
                self._give(node, self._suspects.popleft())
                node.alone = True

    def _listen(self) -> Iterator[Record]:
        for node in [node for node in self._workers if node.address not in self._known]:
            yield from self._bury(node)
        until = time.monotonic() + TICK_S
        while time.monotonic() < until and not any(node.done() for node in self._workers):
            time.sleep(POLL_S)
        for node in list(self._workers):
            for future in node.done():
                if future is node.getting_ready:
                    self._begin(node)
                else:
                    yield from self._end_of(node, future)

    def _begin(self, node: _Node) -> None:
        """Use a worker that has set itself up, and no other."""
        getting_ready, node.getting_ready = node.getting_ready, None
        error = getting_ready.exception() if getting_ready.status == "error" else None
        process = _result(getting_ready) if getting_ready.status == "finished" else None
        if process is not None:
            node.ready, node.process = True, process
            self.ready_since = self.ready_since or time.monotonic()
            return
        self._workers.remove(node)
        if error is None:  # cancelled: the worker was lost, which the scheduler tells soon
            return
        self._unfit[node.address] = error
        logger.warning("lnhg: note: A Dask worker is left out: %s", error)
        if not self._workers:
            raise error if isinstance(error, InputError) else RuntimeError(f"{type(error).__name__}: {error}")

    def _end_of(self, node: _Node, future: "Future") -> Iterator[Record]:
        case, claim = node.take(future)
        claim.withdraw()
        record = _result(future) if future.status == "finished" else None
        if record is not None:
            yield record
            return
        reason = repr(future.exception()) if future.status == "error" else future.status
        yield from self._set_aside(case, f"Dask worker at {node.address} gave the case up ({reason})")

    def _bury(self, node: _Node) -> Iterator[Record]:
        """Take a lost worker out, and put its cases aside."""
        self._workers.remove(node)
        self._stillborn += not node.ready
        if self._stillborn >= MOST_STILLBORN and self.ready_since is None:
            raise WorkError(
                "The Dask workers end before they are ready; give them more memory, or look into their logs."
            )
        if node.cases:
            logger.warning("lnhg: note: A Dask worker was lost; its cases are tried again.")
        self._client.cancel(node.futures, force=True)
        for future in list(node.given):
            case, claim = node.take(future)
            claim.withdraw()
            yield from self._set_aside(case, "Dask worker was lost (killed, out of memory, or its computer went away)")

    def _end(self, order: str) -> None:
        """Give the workers back: cases under way may write nothing any more, and end soon."""
        for node in self._workers:
            for _, claim in node.given.values():
                claim.withdraw()
            if node.futures and self._client.status == "running":
                self._client.cancel(node.futures, force=True)
        self._workers = []
