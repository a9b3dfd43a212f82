"""A model folder in a zip archive: its files by their plain names, without trusting the archive."""

import re
import shutil
from pathlib import Path, PurePosixPath

from LNHGLib.errors import InputError, quoted

CARD = "model.json"
PLAIN_NAME = re.compile(r"[\w-][\w.-]*")
MAX_BYTES = 2**31
"""Larger than any model: an archive that claims more is refused before it fills the disk."""


def unpack(path: Path, folder: Path) -> None:
    """Unpack the files of one model, which may lie in a folder of the archive, into `folder`.

    Args:
        path: zip archive that holds `model.json` once, and beside it nothing but files with plain names.
        folder: an empty folder.

    Raises:
        InputError: the archive is damaged or encrypted, holds no model or something beside it, or is too large.
    """
    from LNHGLib.image import zip_scans  # here: it loads pydicom and SimpleITK, and most callers have a folder

    with zip_scans.Opened(path, expected="a zipped model") as archive:
        names = list(zip_scans.members(archive))
        homes = [PurePosixPath(name).parent for name in names if PurePosixPath(name).name == CARD]
        if len(homes) != 1:
            raise InputError(
                f"{path} holds {len(homes) or 'no'} files named {CARD}, expected one; give the archive of a model."
            )
        for name in names:  # each in the card's folder, with a name on every system that leads nowhere else
            where = PurePosixPath(name)
            if where.parent != homes[0] or ".." in where.parts or not PLAIN_NAME.fullmatch(where.name):
                raise InputError(
                    f"{path} holds {quoted(name)} outside or below the model's folder, expected only {CARD} and the "
                    "files it lists; take the model again from its source."
                )
        size = sum(archive.getinfo(name).file_size for name in names)
        room = min(MAX_BYTES, shutil.disk_usage(folder).free - zip_scans.SPARE_BYTES)
        if size > room:
            raise InputError(
                f"{path} unpacks to {size / 2**20:.0f} MB, expected at most {max(room, 0) / 2**20:.0f} MB (a model's "
                "size, and what is free on the disk); make room, or take the model again from its source."
            )
        for name in names:
            with archive.open(name) as packed, (folder / PurePosixPath(name).name).open("wb") as file:
                shutil.copyfileobj(packed, file)
