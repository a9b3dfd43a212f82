"""A cohort from its scans to its tables: what is still to be done, doing it, and saying how far it is."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from LNHGLib import __version__
from LNHGLib.batch.case import FAILED, READY, SKIPPED, Case
from LNHGLib.batch.discover import find_cases
from LNHGLib.batch.executor import DaskCluster, Executor, LocalCluster, connected
from LNHGLib.batch.segment_case import SegmentationSpec
from LNHGLib.batch.store import DISK, DONE, INPUT, SCHEMA, Record, Store
from LNHGLib.batch.tables import write_tables
from LNHGLib.errors import Cancelled, DiskError, InputError
from LNHGLib.files.atomic import DISK_FULL_ERRNOS
from LNHGLib.models import folder

TABLES_EVERY_S = 60.0
Tell = Callable[[float, str, Record | None], None]


@dataclass(frozen=True)
class BatchOptions:
    """What the user asked for; see `lnhg batch --help`."""

    inputs: tuple[str, ...]
    out: Path
    model: str | None = None
    device: str = "auto"
    threshold: float | None = None
    jobs: int = 1
    resume: bool = False
    scheduler: str | None = None
    runtime: str = "auto"
    exact: bool = False


@dataclass(frozen=True)
class BatchOutcome:
    """How a batch ended.

    Attributes:
        counts: cases by status.
        earlier: how many of them ended in an earlier run.
        notes: sentences for the user.
    """

    counts: Counter
    earlier: int
    notes: list[str]


def run(options: BatchOptions, tell: Tell, note: Callable[[str], None] = lambda _: None) -> BatchOutcome:
    """Do all cases of a cohort that are not done yet, and write its tables.

    Args:
        options: What the user asked for.
        tell: Called with the fraction done, how far it is, and the record of a case that has just ended.
        note: Called with sentences for the user before the work begins.

    Returns:
        How it ended.

    Raises:
        InputError: Input, OUT, model or device are wrong, or another run holds OUT; nothing was computed.
        Cancelled: The user wants to stop; what is finished stays, and the tables say so.
    """
    if options.scheduler is not None and options.jobs != 1:
        raise InputError(
            f"--jobs is {options.jobs} beside --scheduler, expected only one of them; a cluster's workers are its jobs."
        )
    if options.jobs < 1:
        raise InputError(f"--jobs is {options.jobs}, expected 1 or more; leave it out for one.")
    for text in options.inputs:
        if Path(text).exists() and Path(text).resolve().is_relative_to(options.out.resolve()):
            raise InputError(f"OUT {options.out} holds the input {text}, expected a folder of its own; give another.")
    model = folder.verify(folder.load(options.model).folder)
    threshold = model.card["threshold"] if options.threshold is None else options.threshold
    settings = {"schema": SCHEMA, "version": __version__, "model": model.name, "threshold": threshold}
    settings["weights"] = dict(model.card["files"])
    store = Store(options.out.absolute())
    store.require_usable(settings, options.resume)
    with ExitStack() as stack:
        client = stack.enter_context(connected(options.scheduler)) if options.scheduler is not None else None
        tell(0.0, "looking for scans", None)
        cohort = find_cases(options.inputs, options.out)
        with _explained(store.out):
            lock = stack.enter_context(store.opened(settings, options.resume))
        if lock.took_over:
            note("An earlier run into this folder ended before its end; its finished cases are kept.")
        for sentence in cohort.notes:
            note(sentence)
        batch = _Batch(store, cohort.cases, f"Model {model.name}, threshold {threshold:g}")
        jobs = min(options.jobs, max(1, len(batch.left)))
        cluster = DaskCluster(client) if client else LocalCluster(jobs, store.memory)
        spec = SegmentationSpec(
            model.folder.absolute(), options.device, options.threshold, options.runtime, options.exact
        )
        batch.work(Executor(spec, store, cluster), tell, lock.heartbeat)
    return BatchOutcome(Counter(record.status for record in batch.records.values()), batch.earlier, cohort.notes)


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    """Say how to go on where the memory or the tables of a batch cannot be written.

    Raises:
        DiskError: They cannot be.
    """
    try:
        yield
    except OSError as error:
        reason = "the disk is full" if error.errno in DISK_FULL_ERRNOS else error.strerror
        raise DiskError(
            f"{out} cannot be written any more ({reason}), expected a folder with room for the tables; finished cases "
            "are kept, make room or bring it back and go on with --resume."
        ) from error


class _Batch:
    """The cases of one run and how each ended.

    Attributes:
        earlier: how many ended in an earlier run.
        records: of the cases that ended, by id.
    """

    def __init__(self, store: Store, cases: Sequence[Case], title: str) -> None:
        self._store, self._cases, self._title = store, cases, title
        self.records = {case.id: record for case in cases if case.state == READY and (record := store.ended(case))}
        self.earlier = len(self.records)
        for case in cases:
            if case.state != READY:
                kind = INPUT if case.state == FAILED else ""
                self.records[case.id] = Record.of(case, case.state, reason=case.reason, kind=kind, attempts=0)
                with _explained(store.out):
                    store.save(self.records[case.id])
        self._tables_written = time.monotonic()

    @property
    def left(self) -> list[Case]:
        """The cases that have not ended."""
        return [case for case in self._cases if case.id not in self.records]

    def work(self, executor: Executor, tell: Tell, heartbeat: Callable[[], None]) -> None:
        """Do what is left; whatever happens, the tables are written at the end.

        Args:
            executor: Does the cases.
            tell: See `run`.
            heartbeat: Called often.

        Raises:
            Cancelled: The user wants to stop.
            InputError: OUT cannot be written any more.
            DiskError: The same, where it is met outside a case.
        """
        clock = _Clock(len(self._cases), len(self.records))
        for record in self.records.values():
            if record.status in (FAILED, SKIPPED):
                tell(clock.fraction, clock.sentence(0), record)
        try:
            with closing(executor.run(self.left)) as events:
                for record in events:
                    with _explained(self._store.out):
                        heartbeat()
                    if record and record.kind == DISK:
                        raise InputError(
                            f"{self._store.out} cannot be written any more ({record.reason}), expected room for the "
                            "results; make room and go on with --resume."
                        )
                    if record:
                        self.records[record.case] = record
                        clock.ended += 1
                    clock.update(executor)
                    failed = sum(record.status == FAILED for record in self.records.values())
                    tell(clock.fraction, clock.sentence(failed), record)
                    if time.monotonic() - self._tables_written > TABLES_EVERY_S:
                        self._write_tables()
        except Cancelled as error:
            self._collect()
            raise Cancelled(
                f"{str(error).rstrip('.')}; {len(self.records)} of {len(self._cases)} cases are finished and kept, "
                "add --resume to go on."
            ) from None
        finally:
            self._collect()
            self._write_tables()

    def _collect(self) -> None:
        """Take in the cases that the workers finished after they had been told to stop."""
        self.records |= {case.id: record for case in self.left if (record := self._store.ended(case))}

    def _write_tables(self) -> None:
        with _explained(self._store.out):
            write_tables(self._store, self._cases, self.records, self._title)
        self._tables_written = time.monotonic()


class _Clock:
    """How far a run is, how fast, and how long it will take; the loading of the model does not count."""

    def __init__(self, total: int, before: int) -> None:
        self._total, self._before = total, before
        self._began: float | None = None
        self._under_way = 0.0
        self.ended = 0

    def update(self, executor: Executor) -> None:
        """See since when the workers work, and how much is done of the cases that they have in hand."""
        self._began, self._under_way = executor.ready_since, sum(executor.fractions.values())

    @property
    def fraction(self) -> float:
        """Part of all cases that is done, cases under way counted by their own fractions."""
        return min(1.0, (self._before + self.ended + self._under_way) / max(1, self._total))

    def sentence(self, failed: int) -> str:
        """Return cases done, failures, rate and remaining time."""
        parts = [f"{self._before + self.ended}/{self._total}"]
        if failed:
            parts.append(f"{failed} failed")
        seconds = time.monotonic() - self._began if self._began else 0.0
        if self.ended and seconds > 0:
            rate = (self.ended + self._under_way) / seconds
            left_s = max(0.0, self._total - self._before - self.ended - self._under_way) / rate
            left = f"{left_s:.0f} s" if left_s < 90 else f"{left_s / 3600:.1f} h"
            left = f"{left_s / 60:.0f} min" if 90 <= left_s < 90 * 60 else left
            parts += [f"{60 * rate:.1f}/min", f"{left} left"]
        return ", ".join(parts)


def summary(outcome: BatchOutcome, out: Path) -> str:
    """Return the sentence that closes a run.

    Args:
        outcome: How it ended.
        out: Where the results are.
    """
    counts = outcome.counts
    told = ", ".join(f"{counts[status]} {status}" for status in (DONE, FAILED, SKIPPED) if counts[status])
    earlier = f" ({outcome.earlier} of them in an earlier run)" if outcome.earlier else ""
    return f"{counts.total()} cases: {told}{earlier}; results are in {out}, open {out / 'overview.html'}"
