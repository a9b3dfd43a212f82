"""The CT that a result was made of: where it lies now, and the proof that it is the one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from LNHGLib.errors import InputError, shown
from LNHGLib.files.atomic import temporary_folder
from LNHGLib.image import zip_scans
from LNHGLib.image.dicom_stacks import uid_of
from LNHGLib.image.fingerprint import voxels_sha256
from LNHGLib.image.reader import read_volume
from LNHGLib.image.volume import Grid, Volume

MEAN_HU_TOLERANCE = 2.0


@dataclass(frozen=True, eq=False)
class OriginalCT:
    """What a result tells of the CT that it was made of.

    Attributes:
        path: where it was; empty where there was no file.
        series_uid: of a DICOM series.
        voxels_sha256: see `fingerprint`; None in results of older versions.
        grid: of the result.
        labels: (z, y, x) on `grid`, value = nodule number.
        mean_hu: of the measured nodules, by number.
    """

    path: str
    series_uid: str | None
    voxels_sha256: str | None
    grid: Grid
    labels: np.ndarray
    mean_hu: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls, stated: Mapping[str, Any], grid: Grid, labels: np.ndarray, mean_hu: Mapping[int, float]
    ) -> "OriginalCT":
        """Take what report.json states of its input.

        Args:
            stated: `input` of report.json.
            grid: as the attribute.
            labels: as the attribute.
            mean_hu: as the attribute.
        """
        path, uid, sha256 = (stated.get(name) for name in ("path", "series_uid", "voxels_sha256"))
        return cls(str(path or ""), uid, sha256, grid, labels, mean_hu)

    def require(self, volume: Volume) -> None:
        """Refuse another CT, whatever its path.

        A result of an older version knows the CT by its grid and by the mean HU of its nodules alone.

        Raises:
            InputError: it is another one.
        """
        if not volume.grid.matches(self.grid):
            raise InputError(
                f"{volume.source.path} does not fit the result: it has {_size(volume.grid)} voxels, the result "
                f"{_size(self.grid)}, or lies elsewhere, expected the CT that was segmented; give that one."
            )
        if self.voxels_sha256:
            if voxels_sha256(volume) != self.voxels_sha256:
                raise InputError(
                    f"{volume.source.path} does not fit the result: its voxels are those of another CT, expected the "
                    "CT that was segmented; give that one."
                )
            return
        for number, expected in self.mean_hu.items():
            inside = volume.array[self.labels == number]
            if inside.size and abs(float(inside.mean()) - expected) > MEAN_HU_TOLERANCE:
                raise InputError(
                    f"{volume.source.path} does not fit the result: nodule {number} has {inside.mean():.0f} HU in it, "
                    f"measured were {shown(f'{expected:.0f}')}, expected the CT that was segmented; give that one."
                )


def read_original(
    stated: OriginalCT,
    folder: Path,
    option: str,
    root: Path | None = None,
    look: Callable[[Path, str | None, Sequence[Path]], None] = lambda *_: None,
) -> Volume:
    """Read the CT of a result: from its place, or from where it was moved to together with the result.

    Args:
        stated: what the result tells of it.
        folder: of the result.
        option: of the command, by which the user says where the CT is.
        root: folder to look in first, with as many folders of its path as lead to it.
        look: called with path, series and files before a CT is read; may raise InputError to refuse it.

    Raises:
        InputError: it is not there, cannot be read, or another one lies in its place.
    """
    path, fault = Path(stated.path), None
    for place in _places(stated, folder, root):
        try:
            with _contents(place, stated.series_uid) as contents:
                for ct, series_uid, files in contents:
                    look(ct, series_uid, files)
                    volume = read_volume(ct, series_uid, files)
                    try:
                        stated.require(volume)
                    except InputError as error:
                        fault = fault or error
                        continue
                    return volume
        except InputError as error:
            fault = fault or error
    if fault is not None:
        raise fault
    if not stated.path:
        raise InputError(f"The result does not say where its CT lies; name it with {option}, or segment the CT again.")
    raise InputError(
        f"The CT {path} is not there{f', nor in {root}' if root else ''}, expected the input of the result; "
        f"name the folder that holds it with {option}."
    )


def _places(stated: OriginalCT, folder: Path, root: Path | None) -> Iterator[Path]:
    """Yield where the CT may lie, the likeliest first.

    A relative path, of an older version, was relative to a folder that nobody knows any more: it counts below `root`.
    """
    path = Path(stated.path)
    if not path.name:
        return
    tails = [Path(*path.parts[start:]) for start in range(1 if path.is_absolute() else 0, len(path.parts))]
    found = [root / tail for tail in tails if (root / tail).exists()][:1] if root else []
    if path.is_absolute() and path.exists():
        found.append(path)
    if stated.voxels_sha256 or not path.is_absolute():
        beside = (above / tail for tail in tails for above in folder.absolute().parents)
        found += [place for place in beside if place.exists() and place not in found]
    yield from dict.fromkeys(found)


@contextmanager
def _contents(path: Path, series_uid: str | None) -> Iterator[Iterator[tuple[Path, str | None, Sequence[Path]]]]:
    """Give what may be the CT as `read_volume` takes it; an archive is unpacked for as long as the block lasts."""
    if path.suffix.lower() != ".zip" or path.is_dir():
        yield iter([(path, series_uid, ())])
        return
    with temporary_folder() as scratch:

        def unpacked() -> Iterator[tuple[Path, str | None, Sequence[Path]]]:
            content = zip_scans.look_into(path)
            members = {
                header.path.as_posix() for header in content.headers if header.series_uid == uid_of(series_uid or "")
            }
            sets = [tuple(sorted(members))] if series_uid else map(content.with_voxels, content.images)
            for number, names in enumerate(filter(None, sets)):
                home = scratch / str(number)
                home.mkdir()
                files = zip_scans.unpack(path, names, home)
                yield (home, series_uid, files) if series_uid else (files[0], None, ())

        yield unpacked()


def _size(grid: Grid) -> str:
    return " x ".join(map(str, grid.shape))
