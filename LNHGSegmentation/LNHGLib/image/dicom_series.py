"""DICOM CT series: finding, checking and stacking the slices of one volume, whatever the files are called."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from LNHGLib.errors import MAX_LISTED, UID_LETTERS, InputError, shown
from LNHGLib.files.tree import files_below
from LNHGLib.image import dicom_stacks
from LNHGLib.image.dicom_geometry import SliceGrid, require_axes, slice_grid
from LNHGLib.image.dicom_header import Header, is_directory, read_headers
from LNHGLib.image.dicom_pixels import PixelReader, read_slices
from LNHGLib.image.dicom_stacks import MIN_SLICES, SAME_POSITION_MM, Stack, uid_of
from LNHGLib.image.volume import LOWEST_HU


@dataclass(frozen=True, eq=False)
class Slices:
    """The slices of one volume, their pixels not read yet.

    Attributes:
        name: the series, with the number of the volume where it has several; what `read_series` takes.
        headers: sorted along the normal.
        place: where they lie.
        notes: for the user.
    """

    name: str
    headers: list[Header]
    place: SliceGrid
    notes: list[str]


@dataclass(frozen=True, eq=False)
class Series:
    """One stacked volume: `array` zyx in HU on the grid of its slices."""

    array: np.ndarray
    slices: Slices
    notes: tuple[str, ...]


def read_series(
    path: Path,
    name: str | None = None,
    files: Sequence[Path] = (),
    meanwhile: Callable[[], object] = lambda: None,
) -> Series:
    """Read one CT volume from a folder with everything below it, or the series that a single file belongs to.

    Args:
        path: Folder or file. A file's series is looked for in its own folder.
        name: The SeriesInstanceUID to take, with # and the number of the volume where the series holds several; else
            the file's own, else the axial CT with most slices.
        files: Look at these only, where they are known.
        meanwhile: As `read_slices` takes it.

    Returns:
        The slices sorted along their normal, with the geometry of ImagePositionPatient and ImageOrientationPatient.
        Slices of a tilted gantry are shifted so that they lie straight.

    Raises:
        InputError: No CT series, an unknown UID, or slices that do not form one regular grid.
    """
    slices = find_slices(path, name, files)
    place, below = slices.place, 0
    layers, padded = read_slices(slices.headers, meanwhile)
    if place.is_tilted:
        below = sum(np.count_nonzero(pixels < LOWEST_HU) for pixels in layers)
        layers = [place.straighten(pixels, index) for index, pixels in enumerate(layers)]
    notes, count = list(slices.notes), len(layers) * place.size[0] * place.size[1]
    if padded:
        notes.append(
            f"{padded / count:.1%} of the voxels are marked as padding (Pixel Padding Value) and were set to "
            f"{LOWEST_HU} HU."
        )
    if below:
        notes.append(f"{below / count:.1%} of the voxels were below {LOWEST_HU} HU (padding) and set to it.")
    return Series(layers if isinstance(layers, np.ndarray) else np.stack(layers), slices, tuple(notes))


def find_slices(path: Path, name: str | None = None, files: Sequence[Path] = ()) -> Slices:
    """Find the slices of a volume as `read_series` does; each header is read once.

    Args:
        path: Folder or file, as in `read_series`; the index of a medium (DICOMDIR) stands for its folder.
        name: As in `read_series`.
        files: As in `read_series`.

    Raises:
        InputError: As `read_series`.
    """
    if not files and path.is_file() and is_directory(path):
        path = path.parent
    files = files or (
        files_below(path) if path.is_dir() else [file for file in path.parent.iterdir() if file.is_file()]
    )
    if not files:
        raise InputError(f"{path} is an empty folder, expected the DICOM files of a chest CT; check the path.")
    found = {file: headers for file in sorted(files) if (headers := read_headers(file))}
    _, mark, number = (name or "").partition("#")
    if mark and not (number.isdecimal() and int(number)):
        raise InputError(f"{path} cannot have a series {shown(name)}, expected UID or UID#NUMBER; correct the name.")
    uid = uid_of(name) if name else None
    if path.is_file() and uid is None:
        own = found.get(path) if path in files else read_headers(path)
        found, uid = (found, own[0].series_uid) if own else ({}, None)
    if not found:
        raise InputError(
            f"{path} has no readable DICOM image among {len(files)} file(s), expected the slices of a chest CT; "
            "check the path or copy the files again."
        )
    headers = [header for own in found.values() for header in own]
    chosen = [header for header in headers if uid in (None, header.series_uid)]
    if not chosen:
        kinds = Counter((header.series_uid, header.kind) for header in headers)
        found_here = "; ".join(
            f"{shown(found_uid, UID_LETTERS)} ({count} {shown(kind)})"
            for (found_uid, kind), count in sorted(kinds.items())[:MAX_LISTED]
        )
        raise InputError(
            f"{path} has no series {shown(uid, UID_LETTERS)}, expected one of those found: {found_here}; name one of "
            "them."
        )
    stack, notes = dicom_stacks.choose(path, chosen, int(number or 0))
    require_axes(path, stack.headers[0])
    ordered = _sort_slices(path, stack, notes)
    place = slice_grid(path, ordered, notes)
    if not stack.rank[0]:
        notes.append("The series is not axial; thin axial slices give the best result.")
    return Slices(stack.name, ordered, place, notes)


def _sort_slices(path: Path, stack: Stack, notes: list[str]) -> list[Header]:
    """Sort the slices along their normal, dropping exact duplicates."""
    ordered: list[Header] = []
    reader, dropped = PixelReader(), 0
    for header in sorted(stack.headers, key=lambda header: float(header.position @ stack.normal)):
        gap = abs((header.position - ordered[-1].position) @ stack.normal) if ordered else np.inf
        if gap > SAME_POSITION_MM:
            ordered.append(header)
        elif np.array_equal(reader.read(header), reader.read(ordered[-1])):
            dropped += 1
        else:
            raise InputError(
                f"{path} has different images at the same position ({header.position[2]:g} mm: "
                f"{ordered[-1].path.name} and {header.path.name}), expected one image a position; "
                "export a single time point and reconstruction as its own series."
            )
    if dropped:
        notes.append(f"{dropped} exact duplicate slice(s) were dropped.")
    if len(ordered) < MIN_SLICES:
        raise InputError(
            f"{path} has {len(ordered)} CT slice(s), expected at least {MIN_SLICES}; give the whole chest CT series."
        )
    return ordered
