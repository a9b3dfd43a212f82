"""Whether the scan of a case is still the same: by its files' content, which is read only where their stamps differ."""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from LNHGLib.batch.case import Case
from LNHGLib.files.checksum import file_sha256
from LNHGLib.files.tree import files_below


def stamp(case: Case) -> str:
    """Return a digest of names, sizes and times of a scan's files; empty where one is away."""
    try:
        parts = [(str(file), *_state(file)) for file in _files(case)]
    except OSError:
        return ""
    return _digest(repr(part).encode("utf-8", "backslashreplace") for part in parts)


def content_sha256(case: Case) -> str:
    """Return the SHA-256 of the content of a scan's files; empty where one is away or cannot be read."""
    try:
        sums = (_archive_sha256(file, *_state(file)) if case.members else file_sha256(file) for file in _files(case))
        return _digest(each.encode() for each in sums)
    except OSError:
        return ""


def _state(file: Path) -> tuple[int, int, int]:
    met = file.stat()
    return met.st_size, met.st_mtime_ns, met.st_ctime_ns


@lru_cache
def _archive_sha256(file: Path, *_state: int) -> str:
    """Return the SHA-256 of an archive, which is read once for all scans in it."""
    return file_sha256(file)


def _files(case: Case) -> list[Path]:
    if case.files:
        return list(case.files)
    if case.path.is_dir():
        return files_below(case.path)
    stem = case.path.with_suffix("")  # .mhd keeps its voxels in another file of the same stem
    beside = [file for file in case.path.parent.iterdir() if file.with_suffix("") == stem and file.is_file()]
    return [case.path, *sorted(file for file in beside if file != case.path)]


def _digest(parts: Iterable[bytes]) -> str:
    digest, count = hashlib.sha256(), 0
    for part in parts:
        digest.update(part)
        count += 1
    return digest.hexdigest() if count else ""
