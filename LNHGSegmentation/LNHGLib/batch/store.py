"""Where a batch keeps its results and its memory, so that a run that is killed at any moment loses no finished case.

A case's record is written before its result folder gets its name: a folder without a record cannot be, and a record
without a folder is a case to do again.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from LNHGLib.batch import content
from LNHGLib.batch.case import FAILED, SKIPPED, Case
from LNHGLib.batch.lock import RunLock
from LNHGLib.errors import InputError, quoted
from LNHGLib.files.atomic import PART_SUFFIX, atomic_file, require_text
from LNHGLib.files.damage import explain_damage
from LNHGLib.files.text import read_json, write_json

SCHEMA = 1
DONE = "done"
TABLES = ("cohort.csv", "cases.csv", "overview.html")
CASES = "cases"
SCENES = "scenes"  # made by Slicer, see LNHGSegmentationLib/BatchScenes.py
MEMORY = ".lnhg-batch"
INPUT, ERROR, DIED, DISK = "input", "error", "died", "disk"
"""Kinds of failure: the scan is bad; the program failed; its process ended; the disk is full."""
LASTING = ("", INPUT)
"""Kinds that stay the same however often the case is done."""


@dataclass
class Record:
    """How a case ended.

    Attributes:
        case: its id.
        source: the scan below INPUT.
        series_uid: of a DICOM series.
        size: bytes of the scan.
        stamp: of its files, see `content`.
        content: their SHA-256; empty where one could not be read, and in records of older versions.
        status: "done", "failed" or "skipped".
        reason: one sentence where it is not done.
        kind: of the failure.
        attempts: how often it was begun.
        seconds: by stage: read, compute, write.
        peak_memory_mb: highest memory of the worker process while it computed; None where the system does not tell.
        summary: what the tables and the overview show of the result.
    """

    case: str
    source: str
    series_uid: str | None
    size: int
    status: str
    reason: str = ""
    stamp: str = ""
    content: str = ""
    kind: str = ""
    attempts: int = 1
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_mb: float | None = None
    summary: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, case: Case, status: str, **values: Any) -> "Record":
        """Make the record of a case."""
        return cls(case.id, case.source, case.series_uid, case.size, status, **values)


@dataclass(frozen=True)
class Store:
    """The folder OUT of a batch."""

    out: Path

    @property
    def memory(self) -> Path:
        """Folder of what only the program needs."""
        return self.out / MEMORY

    def folder(self, case_id: str) -> Path:
        """Result folder of a case."""
        return self.out / CASES / case_id

    def record_path(self, case_id: str) -> Path:
        """File of a case's record."""
        return self.memory / "records" / f"{case_id}.json"

    def save(self, record: Record) -> None:
        """Write a record in one step."""
        with atomic_file(self.record_path(record.case)) as part:
            write_json(part, asdict(record))

    def ended(self, case: Case) -> Record | None:
        """Return how a case ended, None when it is still to be done, or to be done again."""
        try:
            record = Record(**read_json(self.record_path(case.id)))
        except (OSError, ValueError, TypeError):
            return None
        if (record.source, record.series_uid) != (case.source, case.series_uid) or record.kind not in LASTING:
            return None
        if record.content:
            same = record.stamp == content.stamp(case) or record.content == content.content_sha256(case)
        else:  # a scan that was away may be there again
            same = record.size == case.size and record.status == DONE
        if not same:
            return None
        from LNHGLib.results.files import FILES  # here, as a worker process starts without scipy

        complete = all((self.folder(case.id) / name).is_file() for name in FILES)
        return record if complete or record.status in (FAILED, SKIPPED) else None

    @contextmanager
    def opened(self, settings: dict[str, Any], resume: bool) -> Iterator[RunLock]:
        """Hold the folder for one run: made, locked, checked, without leftovers of a killed run.

        Args:
            settings: what must be the same in every run into this folder.
            resume: go on with an earlier run.

        Raises:
            InputError: another run holds the folder, it is not a batch's, or not of the same settings.
        """
        try:
            self.memory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.out} cannot be written ({error.strerror}); give an OUT in a folder you may write to."
            ) from error
        with RunLock(self.memory / "lock", self.out) as lock:
            self.require_usable(settings, resume)
            shutil.rmtree(self.memory / "scratch", ignore_errors=True)
            for folder in ("records", "scratch"):
                (self.memory / folder).mkdir(exist_ok=True)
            with atomic_file(self.memory / "batch.json") as part:
                write_json(part, settings)
            try:
                yield lock
            finally:
                shutil.rmtree(self.memory / "scratch", ignore_errors=True)

    def require_usable(self, settings: dict[str, Any], resume: bool) -> None:
        """Refuse a folder that is not this batch's; ask before the work and once more when the folder is held.

        Args:
            settings: What must be the same in every run into this folder.
            resume: Go on with an earlier run.

        Raises:
            InputError: As `opened`.
        """
        require_text(self.out)
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"OUT {self.out} is a file, expected a folder; give another name.")
        there = {entry.name.removesuffix(PART_SUFFIX) for entry in self.out.iterdir()} if self.out.exists() else set()
        foreign = sorted(there - {*TABLES, CASES, SCENES, MEMORY})
        if foreign:
            raise InputError(
                f"OUT {self.out} holds {quoted(foreign[0])}, which is no result of lnhg batch, expected a new folder; "
                "give another name."
            )
        path = self.memory / "batch.json"
        if not path.exists():
            return
        if not resume:
            raise InputError(f"OUT {self.out} holds a batch already; add --resume to go on, or give another OUT.")
        with explain_damage(path, "give another OUT"):
            before = dict(read_json(path))
        changed = sorted(name for name in settings if settings[name] != before.get(name))
        if changed:
            raise InputError(
                f"OUT {self.out} was begun with another {' and '.join(changed)} ({quoted(before.get(changed[0]))}, "
                f"now {quoted(settings[changed[0]])}), expected the same for all cases; give another OUT."
            )


class Withdrawn(RuntimeError):  # noqa: N818
    """The case was given to another worker, or the run is over: nothing more may be written."""


@dataclass(frozen=True)
class Lease(Store):
    """The right of one worker to write one case.

    It is a folder that the run makes and takes away: what a worker writes lies in it until it is complete. Without the
    folder nothing can get its final name, whatever a worker believes that was taken for dead.

    Attributes:
        name: of the folder, new each time that a case is given to a worker.
    """

    name: str

    @property
    def lease_folder(self) -> Path:
        """The folder."""
        return self.memory / "scratch" / self.name

    def save(self, record: Record) -> None:
        """Write a record, see `Store.save`.

        Raises:
            Withdrawn: As `require`.
        """
        self.require()
        super().save(record)

    def finish(self, record: Record, written: Path) -> None:
        """Save the record of a case that is done, and give its result folder its name.

        Args:
            record: Of the case.
            written: The result, in the folder of the lease.

        Raises:
            Withdrawn: As `require`.
        """
        self.save(record)
        target = self.folder(record.case)
        if target.exists():  # an incomplete one: somebody deleted files of it
            target.rename(self.lease_folder / "replaced")
        target.parent.mkdir(exist_ok=True)
        written.rename(target)

    def require(self) -> None:
        """Stop here if the lease was withdrawn.

        Raises:
            Withdrawn: It was.
        """
        if not self.lease_folder.is_dir():
            raise Withdrawn(self.name)

    def make(self) -> "Lease":
        """Make the folder."""
        self.lease_folder.mkdir(parents=True)
        return self

    def withdraw(self) -> None:
        """Take the folder away with all that is in it: first its name, in one step."""
        away = self.lease_folder.with_name(f"{self.name}.withdrawn")
        with suppress(OSError):
            self.lease_folder.rename(away)
        shutil.rmtree(away, ignore_errors=True)
