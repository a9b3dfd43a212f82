"""Names of cases: readable, unique, fit for a folder on any system, and made of nothing above INPUT."""

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath, PurePosixPath

from LNHGLib.image import single_file

MAX_LENGTH, MAX_BYTES = 80, 120
"""Of a name: file systems keep 255 bytes, encrypted ones 143, and the names of records and folders add some."""
MARK = 8  # hexadecimal digits that tell cases of the same name apart
SUFFIXES = (*sorted(single_file.SUFFIXES, key=len, reverse=True), ".zip")
RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])(?=\.|$)", re.IGNORECASE)
"""Names of devices on Windows, with any suffix."""


def cleaned(parts: Sequence[str]) -> str:
    """Join the parts of a path to a name of letters, digits, points and dashes; empty when nothing is left."""
    text = unicodedata.normalize("NFC", "-".join(part for part in parts if part not in ("", ".", "..")))
    kept = {char for char in text if char.isalnum() or char in "_.-" or unicodedata.category(char)[0] == "M"}  # accents
    text = "".join(char if char in kept else " " for char in text)
    text = re.sub(r" +", "_", text).strip("._-")
    text = RESERVED.sub(r"\1_", text, count=1) if RESERVED.match(text) else text
    if len(text) <= MAX_LENGTH and len(text.encode()) <= MAX_BYTES:
        return text
    room = MAX_BYTES - MARK - 1
    short = text[: MAX_LENGTH - MARK - 1].encode()[:room].decode(errors="ignore").rstrip("._-")
    return f"{short}-{_mark(text)}"


def unique(cases: Sequence[tuple[str, str, str]]) -> list[str]:
    """Name every case.

    Args:
        cases: Given name ("" for none), source below INPUT and series UID ("" for none), per case.

    Returns:
        The given name, else one made of the source; equal ones get a mark made of source and series UID, which is
        the same in every run.
    """
    names = []
    for given, source, _ in cases:
        path = PurePosixPath(source)
        suffix = next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), "")
        parts = [*path.parent.parts, path.name[: len(path.name) - len(suffix)]]
        made = cleaned([re.sub(r"\.zip$", "", part, flags=re.IGNORECASE) for part in parts])
        names.append(given or made or "case")
    count = Counter(map(key_of, names))
    taken = {key_of(given) for given, _, _ in cases if given}
    final = []
    for name, (given, source, uid) in zip(names, cases, strict=True):
        if given:
            final.append(name)
            continue
        if count[key_of(name)] > 1:
            name = f"{name}-{_mark(f'{source}|{uid}')}"
        number, free = 1, name
        while key_of(free) in taken:  # the same scan twice in a list
            number += 1
            free = f"{name}-{number}"
        taken.add(key_of(free))
        final.append(free)
    return final


def key_of(name: str) -> str:
    """Return what names have in common that a file system may take for the same: case and how accents are stored."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", name).casefold())


def readable(path: PurePath) -> str:
    """Return a path as text: bytes of a name that are none of a text become their numbers."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:MARK]
