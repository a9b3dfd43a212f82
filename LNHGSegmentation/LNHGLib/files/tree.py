"""The files of a folder and of all folders below it, linked ones included."""

import os
from pathlib import Path


def files_below(folder: Path) -> list[Path]:
    """Return all files in and below a folder, sorted; links to folders are followed, each folder is entered once."""
    seen: set[Path] = set()
    found: list[Path] = []
    for place, folders, names in os.walk(folder, followlinks=True):
        here = Path(place).resolve()
        if here in seen:
            folders.clear()
            continue
        seen.add(here)
        folders.sort()
        found += [path for path in (Path(place, name) for name in names) if path.is_file()]
    return sorted(found)
