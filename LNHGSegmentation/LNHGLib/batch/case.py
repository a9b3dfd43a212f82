"""A case of a cohort: one scan, as it is handed from process to process. Imports nothing that takes time."""

from dataclasses import dataclass
from pathlib import Path

READY, FAILED, SKIPPED = "ready", "failed", "skipped"


@dataclass(frozen=True)
class Case:
    """One scan.

    Attributes:
        id: readable, unique in the cohort, usable as a folder's name.
        source: where it lies below INPUT, as the tables show it.
        path: file, folder or archive to read.
        series_uid: the DICOM series to take.
        files: the DICOM files of the series; empty: look for them in `path`.
        members: what to take of an archive.
        size: bytes, to see whether a scan is still the same.
        state: "ready", or what is known of it already: "failed" or "skipped".
        reason: why it failed or is skipped, one sentence.
    """

    id: str
    source: str
    path: Path
    series_uid: str | None = None
    files: tuple[Path, ...] = ()
    members: tuple[str, ...] = ()
    size: int = 0
    state: str = READY
    reason: str = ""
