"""The worker processes of a batch on this computer: who does which case, and what happens when one of them dies."""

import multiprocessing
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait

from LNHGLib.batch import worker as batch_worker
from LNHGLib.batch.case import FAILED, Case
from LNHGLib.batch.store import DIED, Record, Store
from LNHGLib.batch.worker import Recipe
from LNHGLib.errors import InputError

AHEAD = 2  # cases a worker has at hand: one to compute, one to read meanwhile
TICK_S = 0.25
GRACE_S = 20.0  # a worker that is to stop may finish the files it is writing
MOST_STILLBORN = 3


class _Worker:
    """One process and the cases in it, the uncomputed ones apart."""

    def __init__(self, recipe: Recipe, store: Store, index: int, jobs: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        arguments = (theirs, recipe, store, index, jobs)
        self.index, self.ready = index, False
        self.cases: dict[str, Case] = {}
        self.ahead: set[str] = set()
        self.process = context.Process(target=batch_worker.main, args=arguments, name=f"lnhg-{index}", daemon=True)
        self.process.start()
        theirs.close()

    def give(self, case: Case, attempt: int) -> None:
        self.cases[case.id] = case
        self.ahead.add(case.id)
        self.order("case", case, attempt)

    def order(self, *message: object) -> None:
        try:
            self.connection.send(message)
        except OSError:  # it has died, which its connection tells as soon as it is asked
            return


class Pool:
    """Runs a recipe over cases in several processes.

    A process that dies takes no case down but the one that kills it: all that were in it are tried again at the end,
    alone, one by one, and only a case in which a process dies a second time has failed.

    Attributes:
        fractions: how much is done of the cases under way, by id.
        ready_since: when the first worker was ready, by the monotonic clock.
        last_attempt: how often a case is tried at the most.
    """

    last_attempt = 2

    def __init__(self, recipe: Recipe, store: Store, jobs: int) -> None:
        """Prepare; no process is started yet."""
        self._recipe, self._store, self._jobs = recipe, store, jobs
        self._workers: list[_Worker] = []
        self._stillborn = 0
        self._attempts: Counter = Counter()
        self.fractions: dict[str, float] = {}
        self.ready_since: float | None = None

    def run(self, cases: Sequence[Case]) -> Iterator[Record | None]:
        """Do all cases; gives the record of each as it ends, and None from time to time.

        Close the generator to stop: cases that are being written are finished, the others are left undone.

        Raises:
            InputError: the workers say that model or device is wrong.
            RuntimeError: the workers cannot start.
        """
        self._waiting, self._suspects = deque(cases), deque()
        try:
            while self._waiting or self._suspects or any(worker.cases for worker in self._workers):
                self._staff(min(self._jobs, len(cases)))
                self._hand_out()
                yield from self._listen()
                yield None
            self._end("end")
        finally:
            self._end("stop")

    def _staff(self, jobs: int) -> None:
        """Start the workers that the work left needs, also in the place of dead ones."""
        while len(self._workers) < min(jobs, len(self._waiting) + bool(self._suspects)):
            index = min(set(range(jobs)) - {worker.index for worker in self._workers})
            self._workers.append(_Worker(self._recipe, self._store, index, jobs))

    def _hand_out(self) -> None:
        """Give every idle worker a case before any gets a second; the last few wait for who is free first."""
        for limit in range(1, AHEAD + 1):
            for worker in self._workers:
                enough = len(self._waiting) >= (1 if limit == 1 else len(self._workers))
                if worker.ready and enough and len(worker.ahead) < limit:
                    self._give(worker, self._waiting.popleft())
        ready = next((worker for worker in self._workers if worker.ready), None)
        if ready and self._suspects and not self._waiting and not any(worker.cases for worker in self._workers):
            self._give(ready, self._suspects.popleft())

    def _give(self, worker: _Worker, case: Case) -> None:
        self._attempts[case.id] += 1
        worker.give(case, self._attempts[case.id])

    def _listen(self) -> Iterator[Record]:
        by_connection = {worker.connection: worker for worker in self._workers}
        for connection in wait(list(by_connection), TICK_S):
            worker = by_connection[connection]
            try:
                yield from self._hear(worker, *connection.recv())
            except (EOFError, OSError):
                yield from self._bury(worker)

    def _hear(self, worker: _Worker, what: str, *values: object) -> Iterator[Record]:
        if what == "ready":
            worker.ready = True
            self.ready_since = self.ready_since or time.monotonic()
        elif what == "unfit":
            sentence, wrong = values
            raise InputError(sentence) if wrong else RuntimeError(sentence)
        elif what == "at":
            self.fractions[values[0]] = values[1]
        elif what == "computed":
            worker.ahead.discard(values[0])
        else:
            record = values[0]
            del worker.cases[record.case]
            self.fractions.pop(record.case, None)
            yield record

    def _bury(self, worker: _Worker) -> Iterator[Record]:
        """Take a dead worker out, and put its cases aside."""
        worker.process.join(GRACE_S)
        worker.connection.close()
        self._workers.remove(worker)
        self._stillborn += not worker.ready
        if self._stillborn >= MOST_STILLBORN:
            raise RuntimeError(f"worker processes end before they are ready; {self._store.memory} has their logs")
        how = f"worker process {_ended(worker.process.exitcode)}"
        for case in worker.cases.values():
            yield from self._set_aside(case, how)

    def _set_aside(self, case: Case, how: str) -> Iterator[Record]:
        """Try a case again later whose process has died, unless it has been tried often enough."""
        self.fractions.pop(case.id, None)
        record = self._store.ended(case)  # it may have died after its last word was written and before it was said
        if record is None and self._attempts[case.id] < self.last_attempt:
            self._suspects.append(case)
            return
        if record is None:
            reason = f"The {how}, as one did in this case before; try it with more memory and --resume."
            record = Record.of(case, FAILED, kind=DIED, reason=reason, attempts=self._attempts[case.id])
            self._store.save(record)
        yield record

    def _end(self, order: str) -> None:
        for worker in self._workers:
            worker.order(order)
        until = time.monotonic() + GRACE_S
        for worker in self._workers:
            worker.process.join(max(0.0, until - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.connection.close()
        self._workers = []


def _ended(status: int | None) -> str:
    if status is None or status >= 0:
        return f"ended with status {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else "unknown"
    return f"was killed by signal {-status} ({name})"
