"""Names of cases: readable, unique, fit for a folder on any system, and made of nothing above INPUT."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from LNHGLib.image import single_file

MAX_LENGTH = 80
MARK = 8  # hexadecimal digits that tell cases of the same name apart
SUFFIXES = (*sorted(single_file.SUFFIXES, key=len, reverse=True), ".zip")


def cleaned(parts: Sequence[str]) -> str:
    """Join the parts of a path to a name of letters, digits, points and dashes; empty when nothing is left."""
    text = unicodedata.normalize("NFC", "-".join(part for part in parts if part not in ("", ".", "..")))
    text = re.sub(r"[^\w.-]+", "_", text).strip("._-")
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - MARK - 1]}-{_mark(text)}"


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
    count = Counter(name.casefold() for name in names)
    taken: Counter = Counter()
    final = []
    for name, (given, source, uid) in zip(names, cases, strict=True):
        if count[name.casefold()] > 1 and not given:
            name = f"{name}-{_mark(f'{source}|{uid}')}"
        taken[name.casefold()] += 1
        number = taken[name.casefold()]
        final.append(name if number == 1 else f"{name}-{number}")  # the same scan twice in a list
    return final


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:MARK]
