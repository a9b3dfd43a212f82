"""Scans in zip archives: what is in one, and its members as files, without trusting the archive."""

import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from LNHGLib.errors import InputError
from LNHGLib.image import dicom_header, single_file
from LNHGLib.image.dicom_header import HEAD_BYTES, Header

SPARE_BYTES = 2**28  # left free on the disk that an archive is unpacked to
FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError)
"""What `zipfile` raises for an archive that is damaged, encrypted or packed in an unknown way."""


@dataclass(frozen=True, eq=False)
class Content:
    """What an archive holds.

    Attributes:
        images: Names of single-file volumes.
        headers: Those of the DICOM images; `path` is the member's name.
        unreadable: Names of members that start as DICOM and cannot be read.
        others: Names of members that are no scan.
    """

    images: tuple[str, ...]
    headers: tuple[Header, ...]
    unreadable: tuple[str, ...]
    others: tuple[str, ...]

    def with_voxels(self, image: str) -> tuple[str, ...]:
        """Return the members that make up a volume: .mhd keeps its voxels in another file of the same stem."""
        stem = PurePosixPath(image).with_suffix("")
        return (image, *(name for name in self.others if PurePosixPath(name).with_suffix("") == stem))


def look_into(path: Path) -> Content:
    """List the scans of an archive; only the heads of its members are unpacked.

    Raises:
        InputError: The archive is damaged or encrypted.
    """
    images: list[str] = []
    headers: list[Header] = []
    unreadable: list[str] = []
    others: list[str] = []
    with Opened(path) as archive:
        for name in members(archive):
            if is_volume(name):
                images.append(name)
                continue
            with archive.open(name) as file:
                if not dicom_header.starts_as_dicom(file.read(HEAD_BYTES)):
                    others.append(name)
                    continue
                file.seek(0)
                found = dicom_header.read_headers(Path(name), file)
            headers += found
            if not found and not is_dicom_directory(name):
                unreadable.append(name)
    return Content(tuple(images), tuple(headers), tuple(unreadable), tuple(others))


def unpack(path: Path, members: tuple[str, ...], folder: Path) -> list[Path]:
    """Unpack members into a folder under names that cannot lead out of it, as an archive's own may.

    A volume keeps its name without any folder; DICOM images are numbered, as many of them may share a name.

    Args:
        path: The archive.
        members: Names in it: those of a volume, the volume's own first, or those of DICOM images.
        folder: Where the files go.

    Returns:
        The files, in the order of `members`.

    Raises:
        InputError: The archive is damaged or encrypted, or needs more room than the disk has.
    """
    files = []
    with Opened(path) as archive:
        needed = sum(archive.getinfo(member).file_size for member in members)
        free = shutil.disk_usage(folder).free
        if needed > free - SPARE_BYTES:
            raise InputError(
                f"{path} unpacks to {needed / 2**20:.0f} MB, but {free / 2**20:.0f} MB are free where the results go; "
                "make room."
            )
        for member in members:
            own_name = re.split(r"[\\/:]", member)[-1] if is_volume(members[0]) else f"{len(files):06d}.dcm"
            target = folder / own_name
            with archive.open(member) as packed, target.open("wb") as file:
                shutil.copyfileobj(packed, file)
            files.append(target)
    return files


def is_volume(name: str) -> bool:
    """Tell whether a name is that of a single-file volume; Slicer's segmentations are not."""
    lower = name.lower()
    return lower.endswith(single_file.SUFFIXES) and not lower.endswith(".seg.nrrd")


def is_dicom_directory(name: str) -> bool:
    """Tell whether a name is that of the index file of a DICOM medium, which holds no image."""
    return PurePosixPath(name).name.upper() == "DICOMDIR"


class Opened:
    """An archive for reading whose faults become sentences; `expected` stands in them for what it should hold."""

    def __init__(self, path: Path, expected: str = "a zipped chest CT") -> None:
        self._path, self._expected = path, expected

    def __enter__(self) -> zipfile.ZipFile:
        try:
            self._archive = zipfile.ZipFile(self._path)
        except FAULTS as error:
            raise self._fault(error) from error
        return self._archive

    def __exit__(self, kind: type | None, error: BaseException | None, _trace: object) -> None:
        self._archive.close()
        if isinstance(error, FAULTS):
            raise self._fault(error) from error

    def _fault(self, error: Exception) -> InputError:
        if "password" in str(error) or "encrypted" in str(error):
            return InputError(f"{self._path} is encrypted, expected a plain zip archive; unpack it first.")
        if isinstance(error, OSError) and error.errno:
            return InputError(f"{self._path} cannot be unpacked ({error.strerror}); check the file and the disk.")
        return InputError(
            f"{self._path} is damaged or no zip archive, expected {self._expected}; copy or export it again."
        )


def members(archive: zipfile.ZipFile) -> Iterator[str]:
    """Yield the names of the files that a user knows of; hidden ones are the computer's own."""
    for member in archive.infolist():
        parts = set(PurePosixPath(member.filename).parts) - {".."}
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
        if not member.is_dir() and not hidden:
            yield member.filename
