"""A cohort from its scans to its tables: what is still to be done, doing it, and saying how far it is."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from LNHGLib import __version__
from LNHGLib.batch.case import FAILED, READY, SKIPPED, Case
from LNHGLib.batch.discover import find_cases
from LNHGLib.batch.pool import Pool
from LNHGLib.batch.segment_case import Segmentation
from LNHGLib.batch.store import DISK, DONE, INPUT, SCHEMA, Record, Store
from LNHGLib.batch.tables import write_tables
from LNHGLib.batch.worker import Recipe
from LNHGLib.errors import Cancelled, InputError
from LNHGLib.models import folder

TABLES_EVERY_S = 60.0
Told = Callable[[float, str, Record | None], None]


@dataclass(frozen=True)
class Options:
    """What the user asked for; see `lnhg batch --help`."""

    inputs: tuple[str, ...]
    out: Path
    model: str | None = None
    device: str = "auto"
    threshold: float | None = None
    jobs: int = 1
    resume: bool = False
    scheduler: str | None = None


@dataclass(frozen=True)
class Outcome:
    """How a batch ended.

    Attributes:
        counts: cases by status.
        earlier: how many of them ended in an earlier run.
        notes: sentences for the user.
    """

    counts: Counter
    earlier: int
    notes: list[str]


def run(options: Options, tell: Told, note: Callable[[str], None] = lambda _: None) -> Outcome:
    """Do all cases of a cohort that are not done yet, and write its tables.

    Args:
        options: what the user asked for.
        tell: called with the fraction done, how far it is, and the record of a case that has just ended.
        note: called with sentences for the user before the work begins.

    Raises:
        InputError: input, OUT, model or device are wrong, or another run holds OUT; nothing was computed.
        Cancelled: the user wants to stop; what is finished stays, and the tables say so.
    """
    _require_apart(options)
    model = folder.verify(folder.load(options.model).folder)
    threshold = model.card["threshold"] if options.threshold is None else options.threshold
    settings = {"schema": SCHEMA, "version": __version__, "model": model.name, "threshold": threshold}
    settings["weights"] = dict(model.card["files"])
    store = Store(options.out.absolute())
    store.require_usable(settings, options.resume)
    with _cluster(options.scheduler) as cluster:
        tell(0.0, "looking for scans", None)
        cohort = find_cases(options.inputs, options.out)
        with store.opened(settings, options.resume) as lock:
            if lock.took_over:
                note("An earlier run into this folder ended before its end; its finished cases are kept.")
            for sentence in cohort.notes:
                note(sentence)
            batch = _Batch(store, cohort.cases, f"Model {model.name}, threshold {threshold:g}")
            recipe = Segmentation(model.folder.absolute(), options.device, options.threshold)
            pool = cluster(recipe, store) if cluster else Pool(recipe, store, options.jobs)
            batch.work(pool, tell, lock.beat)
    return Outcome(Counter(record.status for record in batch.records.values()), batch.earlier, cohort.notes)


@contextmanager
def _cluster(scheduler: str | None) -> Iterator[Callable[[Recipe, Store], Pool] | None]:
    """What makes the pool of a Dask cluster; None without a scheduler."""
    if scheduler is None:
        yield None
        return
    from LNHGLib.batch import dask_executor

    with dask_executor.connected(scheduler) as client:
        yield lambda recipe, store: dask_executor.DaskPool(recipe, store, client)


def _require_apart(options: Options) -> None:
    if options.scheduler is not None and options.jobs != 1:
        raise InputError(
            f"--jobs is {options.jobs} beside --scheduler, expected only one of them; a cluster's workers are its jobs."
        )
    if options.jobs < 1:
        raise InputError(f"--jobs is {options.jobs}, expected 1 or more; leave it out for one.")
    out = options.out.resolve()
    for text in options.inputs:
        if Path(text).exists() and Path(text).resolve().is_relative_to(out):
            raise InputError(f"OUT {options.out} holds the input {text}, expected a folder of its own; give another.")


class _Batch:
    """The cases of one run and how each ended."""

    def __init__(self, store: Store, cases: Sequence[Case], title: str) -> None:
        self._store, self._cases, self._title = store, cases, title
        ended = {case.id: record for case in cases if case.state == READY and (record := store.ended(case))}
        self.earlier = len(ended)
        known = {case.id: _as_found(case) for case in cases if case.state != READY}
        for record in known.values():
            store.save(record)
        self.records: dict[str, Record] = ended | known
        self._written = time.monotonic()

    def work(self, pool: Pool, tell: Told, beat: Callable[[], None]) -> None:
        """Do what is left; whatever happens, the tables are written at the end."""
        left = [case for case in self._cases if case.id not in self.records]
        clock = _Clock(len(self._cases), len(self.records))
        for record in self.records.values():
            if record.status in (FAILED, SKIPPED):
                tell(clock.fraction, clock.told(0), record)
        try:
            with closing(pool.run(left)) as events:
                self._follow(events, pool, clock, tell, beat)
        except Cancelled as error:
            self._collect(left)
            raise Cancelled(
                f"{str(error).rstrip('.')}; {len(self.records)} of {len(self._cases)} cases are finished and kept, "
                "add --resume to go on."
            ) from None
        finally:
            self._collect(left)
            self._write()

    def _follow(
        self, events: Iterator[Record | None], pool: Pool, clock: "_Clock", tell: Told, beat: Callable[[], None]
    ) -> None:
        for record in events:
            beat()
            if record:
                self._keep(record)
                clock.ended += 1
            clock.look(pool)
            failed = sum(record.status == FAILED for record in self.records.values())
            tell(clock.fraction, clock.told(failed), record)
            if time.monotonic() - self._written > TABLES_EVERY_S:
                self._write()

    def _keep(self, record: Record) -> None:
        if record.kind == DISK:
            raise InputError(
                f"{self._store.out} cannot be written any more ({record.reason}), expected room for the results; "
                "make room and go on with --resume."
            )
        self.records[record.case] = record

    def _collect(self, left: Sequence[Case]) -> None:
        """Take in the cases that the workers finished after they had been told to stop."""
        unheard = [case for case in left if case.id not in self.records]
        self.records |= {case.id: record for case in unheard if (record := self._store.ended(case))}

    def _write(self) -> None:
        write_tables(self._store, self._cases, self.records, self._title)
        self._written = time.monotonic()


def _as_found(case: Case) -> Record:
    return Record.of(case, case.state, reason=case.reason, kind=INPUT if case.state == FAILED else "", attempts=0)


class _Clock:
    """How far a run is, how fast, and how long it will take; the loading of the model does not count."""

    def __init__(self, total: int, before: int) -> None:
        self._total, self._before = total, before
        self._began: float | None = None
        self._under_way = 0.0
        self.ended = 0

    def look(self, pool: Pool) -> None:
        """See since when the workers work, and how much is done of the cases that they have in hand."""
        self._began, self._under_way = pool.ready_since, sum(pool.fractions.values())

    @property
    def fraction(self) -> float:
        """Part of all cases that is done, cases under way counted by their own fractions."""
        return min(1.0, (self._before + self.ended + self._under_way) / max(1, self._total))

    def told(self, failed: int) -> str:
        """Return cases done, failures, rate and remaining time."""
        parts = [f"{self._before + self.ended}/{self._total}"]
        if failed:
            parts.append(f"{failed} failed")
        seconds = time.monotonic() - self._began if self._began else 0.0
        if self.ended and seconds > 0:
            pace = (self.ended + self._under_way) / seconds
            left = self._total - self._before - self.ended - self._under_way
            parts += [f"{60 * pace:.1f}/min", f"{_duration(max(0.0, left) / pace)} left"]
        return ", ".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def summary(outcome: Outcome, out: Path) -> str:
    """Return the sentence that closes a run."""
    counts = outcome.counts
    told = ", ".join(f"{counts[status]} {status}" for status in (DONE, FAILED, SKIPPED) if counts[status])
    earlier = f" ({outcome.earlier} of them in an earlier run)" if outcome.earlier else ""
    return f"{counts.total()} cases: {told}{earlier}; results are in {out}, open {out / 'overview.html'}"
