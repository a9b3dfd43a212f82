"""Where a batch keeps its results and its memory, so that a run that is killed at any moment loses no finished case.

A case's record is written before its result folder gets its name: a folder without a record cannot be, and a record
without a folder is a case to do again.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from LNHGLib.batch.case import FAILED, SKIPPED, Case
from LNHGLib.batch.lock import RunLock
from LNHGLib.errors import InputError
from LNHGLib.files.atomic import PART_SUFFIX, atomic_file

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
    kind: str = ""
    attempts: int = 1
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_mb: float | None = None
    summary: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, case: Case, status: str, **values: Any) -> "Record":
        """Make the record of a case."""
        return cls(case.id, case.source, case.series_uid, case.size, status, **values)

    def is_of(self, case: Case) -> bool:
        """Whether the case is still the same scan."""
        return (self.source, self.series_uid, self.size) == (case.source, case.series_uid, case.size)


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

    def scratch(self, case_id: str) -> Path:
        """Folder for what a case needs while it is done; it is not kept."""
        return self.memory / "scratch" / case_id

    def _record(self, case_id: str) -> Path:
        return self.memory / "records" / f"{case_id}.json"

    def save(self, record: Record) -> None:
        """Write a record in one step."""
        write_whole(self._record(record.case), json.dumps(asdict(record), ensure_ascii=False))

    def finish(self, record: Record, written: Path) -> None:
        """Save the record of a case that is done, and give its written result folder its name."""
        self.save(record)
        target = self.folder(record.case)
        if target.exists():  # an incomplete one: somebody deleted files of it
            target.rename(self.scratch(record.case) / "replaced")
        target.parent.mkdir(exist_ok=True)
        written.rename(target)

    def ended(self, case: Case) -> Record | None:
        """Return how a case ended, None when it is still to be done, or to be done again."""
        try:
            record = Record(**json.loads(self._record(case.id).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        if not record.is_of(case) or record.kind not in LASTING:
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
        with RunLock(self.memory / "lock") as lock:
            self.require_usable(settings, resume)
            shutil.rmtree(self.memory / "scratch", ignore_errors=True)
            for folder in ("records", "scratch"):
                (self.memory / folder).mkdir(exist_ok=True)
            write_whole(self.memory / "batch.json", json.dumps(settings, indent=1))
            try:
                yield lock
            finally:
                shutil.rmtree(self.memory / "scratch", ignore_errors=True)

    def require_usable(self, settings: dict[str, Any], resume: bool) -> None:
        """Refuse a folder that is not this batch's; ask before the work and once more when the folder is held.

        Raises:
            InputError: as `opened`.
        """
        self._require_own()
        self._require_same(settings, resume)

    def _require_own(self) -> None:
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"OUT {self.out} is a file, expected a folder; give another name.")
        there = {entry.name.removesuffix(PART_SUFFIX) for entry in self.out.iterdir()} if self.out.exists() else set()
        foreign = sorted(there - {*TABLES, CASES, SCENES, MEMORY})
        if foreign:
            raise InputError(
                f"OUT {self.out} holds {foreign[0]!r}, which is no result of lnhg batch, expected a new folder; "
                "give another name."
            )

    def _require_same(self, settings: dict[str, Any], resume: bool) -> None:
        path = self.memory / "batch.json"
        if not path.exists():
            return
        if not resume:
            raise InputError(f"OUT {self.out} holds a batch already; add --resume to go on, or give another OUT.")
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(name for name in settings if settings[name] != before.get(name))
        if changed:
            raise InputError(
                f"OUT {self.out} was begun with another {' and '.join(changed)} ({before.get(changed[0])!r}, now "
                f"{settings[changed[0]]!r}), expected the same throughout a cohort; give the same, or another OUT."
            )


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader, or a run that is killed, never sees half of it."""
    with atomic_file(path) as part:
        part.write_text(text, encoding="utf-8", newline="")
