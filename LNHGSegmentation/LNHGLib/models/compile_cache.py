"""Compiled networks in the user's cache folder, by checksum: written in one step, never needed, removed on demand."""

import hashlib
import os
import sys
from pathlib import Path

from LNHGLib.files.atomic import temporary_folder

SUFFIX = ".compiled"
DIGEST_BYTES = hashlib.sha256().digest_size


def cache_folder() -> Path:
    """Where compiled networks are kept: $LNHG_CACHE, or the platform's folder for the user's caches."""
    if os.environ.get("LNHG_CACHE"):
        return Path(os.environ["LNHG_CACHE"])
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "LNHG" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "LNHG"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lnhg"


def read(key: str) -> bytes | None:
    """Return what was kept under a key; None where nothing whole is there."""
    try:
        content = (cache_folder() / f"{key}{SUFFIX}").read_bytes()
    except OSError:
        return None
    digest, compiled = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    return compiled if hashlib.sha256(compiled).digest() == digest else None


def keep(key: str, compiled: bytes) -> None:
    """Keep a compiled network.

    Args:
        key: names it; letters, digits and hyphens.
        compiled: its content.
    """
    store(f"{key}{SUFFIX}", hashlib.sha256(compiled).digest() + compiled)


def store(name: str, content: bytes) -> None:
    """Write a file of the cache in one step, also where other processes write it; without room nothing happens.

    Args:
        name: of the file.
        content: all of it.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder) as temporary:
            written = temporary / name
            written.write_bytes(content)
            written.replace(folder / name)
    except OSError:
        return


def clear() -> int:
    """Remove what is kept, and return how many bytes that were.

    Raises:
        OSError: a file cannot be removed.
    """
    removed = 0
    for path in cache_folder().glob(f"*{SUFFIX}"):
        removed += path.stat().st_size
        path.unlink(missing_ok=True)
    return removed
