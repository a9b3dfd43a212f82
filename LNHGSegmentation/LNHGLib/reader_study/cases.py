"""What a reader study is made of: nodules in the result folders of `lnhg segment` and `lnhg batch`, with their CTs."""

import csv
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pydicom

from LNHGLib.batch import discover
from LNHGLib.batch.case import READY, Case
from LNHGLib.errors import InputError
from LNHGLib.files import atomic
from LNHGLib.image import dicom_series, zip_scans
from LNHGLib.image.reader import read_volume
from LNHGLib.image.volume import Grid, Source, Volume, from_sitk
from LNHGLib.reader_study.images import Subject

NEEDED = ("report.json", "nodules.csv", "labelmap.nii.gz", "heterogeneity.nii.gz")
LIST_COLUMNS = ("result", "nodule", "truth")
SCENE_CASES = "case-*.npz"
"""Pattern of the files that 3D Slicer hands over in the place of result folders, one per case."""
BURNED_IN_TAGS = ["SOPClassUID", "ImageType", "BurnedInAnnotation", "SeriesInstanceUID"]
ADVICE = "take it out, or look at every picture yourself and insist with --force-burned-in"


@dataclass(frozen=True, eq=False)
class Entry:
    """A case of a study, not loaded yet.

    Attributes:
        origin: what the key tells about where it comes from; a result folder's name.
        nodule: its number there.
        load: reads it; raises InputError.
        truth: 1 with the disease, 0 without, None unknown.
    """

    origin: str
    nodule: int
    load: Callable[[], Subject]
    truth: int | None = None


@dataclass(frozen=True)
class Wish:
    """A row of a case list: which nodule of which result, and what is true of it."""

    result: str
    nodule: int | None
    truth: int | None


def find_entries(
    results: Sequence[Path], ct_root: Path | None = None, wishes: Sequence[Wish] = (), force: bool = False
) -> list[Entry]:
    """Find the nodules to read.

    Args:
        results: result folders, folders of them, or the OUT of a batch; or one folder of `write_scene_case`.
        ct_root: folder to look for CTs in that are no longer where they were.
        wishes: what to take; otherwise the segmented nodule with the highest score of each result.
        force: take CTs with burned-in annotation as well.

    Returns:
        The cases by origin, or in the order of the wishes. A result without a segmented nodule gives none.

    Raises:
        InputError: there is no result, a wish cannot be fulfilled, or two results have the same name.
    """
    if len(results) == 1 and (files := sorted(results[0].glob(SCENE_CASES))):
        return [_read_scene_case(file, force) for file in files]
    folders = _folders(results)
    chosen = [(name, wish.nodule, wish.truth) for wish in wishes for name in [_named(folders, wish.result)]]
    chosen = chosen or [(name, None, None) for name in folders]
    kept = _Results(ct_root, force)
    entries = []
    for name, wanted, truth in chosen:
        number = _number(folders[name], wanted)
        if number is not None:
            entries.append(Entry(name, number, _loader(kept, folders[name], number), truth))
        elif wishes:
            raise InputError(f"The result {name} has no segmented nodule, expected one; take it out of the list.")
    places = [(entry.origin, entry.nodule) for entry in entries]
    twice = next((place for place in places if places.count(place) > 1), None)
    if twice:
        raise InputError(f"Nodule {twice[1]} of {twice[0]} is chosen twice, expected once; take one row out.")
    return entries


def write_scene_case(path: Path, origin: str, nodule: int, subject: Subject, files: Sequence[Path]) -> None:
    """Write a case of 3D Slicer's scene for `find_entries`: a part of the CT, in which the nodule lies.

    Args:
        path: File to write, named as `SCENE_CASES`; the order of the names is that of the cases.
        origin: Name of the CT; only the key tells it.
        nodule: Number of the finding.
        subject: Nodule with the CT around it.
        files: DICOM files of the CT, looked at for burned-in annotation; none where there are none.
    """
    volume, text = subject.volume, json.dumps([str(file) for file in files])
    arrays = {"ct": volume.array, "affine": volume.grid.affine, "mask": subject.mask, "signal": subject.signal}
    np.savez(path, origin=np.array(origin), nodule=np.array(nodule), files=np.array(text), **arrays)


def _read_scene_case(path: Path, force: bool) -> Entry:
    def load() -> Subject:
        with np.load(path, allow_pickle=False) as case:
            files = [Path(file) for file in json.loads(str(case["files"]))]
            if files and not force:
                require_clean(files[0].parent, files=files)
            ct = case["ct"].astype(np.float32)
            return Subject(Volume(ct, Grid(ct.shape, case["affine"]), Source("")), case["mask"], case["signal"])

    with np.load(path, allow_pickle=False) as case:
        return Entry(str(case["origin"]), int(case["nodule"]), load)


def read_list(path: Path) -> list[Wish]:
    """Read a case list: CSV with the columns result (a folder's name), and maybe nodule and truth (0 or 1).

    Raises:
        InputError: it cannot be read or a row is wrong.
    """
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read, expected a CSV list with the column result; check it.") from error
    wishes = []
    for line, row in enumerate(rows, 2):
        values = [(row.get(name) or "").strip() for name in LIST_COLUMNS]
        result, nodule, truth = values
        if not result or (nodule and not nodule.isdecimal()) or truth not in ("", "0", "1"):
            raise InputError(
                f"{path} line {line} has result {result!r}, nodule {nodule!r} and truth {truth!r}, expected a folder's "
                "name, a number or nothing, and 0, 1 or nothing; correct it."
            )
        wishes.append(Wish(result, int(nodule) if nodule else None, int(truth) if truth else None))
    if not wishes:
        raise InputError(f"{path} lists no case, expected a row a case under the heading result; fill it.")
    return wishes


def _folders(results: Sequence[Path]) -> dict[str, Path]:
    """Return the result folders by name, sorted."""
    folders: dict[str, Path] = {}
    for path in results:
        if not path.is_dir():
            raise InputError(f"{path} is no folder, expected results of lnhg segment or lnhg batch; check the path.")
        reports = (report.relative_to(path) for report in sorted(path.rglob("report.json")))
        found = [path / report.parent for report in reports if not any(part.startswith(".") for part in report.parts)]
        if not found:
            raise InputError(f"{path} holds no result, expected folders with report.json; run lnhg segment or batch.")
        for folder in found:
            name = folder.resolve().name
            if folders.setdefault(name, folder).resolve() != folder.resolve():
                raise InputError(f"Two results are called {name} ({folders[name]} and {folder}); rename one of them.")
    return dict(sorted(folders.items()))


def _named(folders: dict[str, Path], name: str) -> str:
    if name not in folders:
        raise InputError(
            f"The list names the result {name!r}, which is not among the {len(folders)} given; correct it."
        )
    return name


def _number(folder: Path, wanted: int | None) -> int | None:
    """Return the number of the nodule to take, None where nothing is segmented."""
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise InputError(f"The result {folder} lacks {missing[0]}, expected a whole result; segment the CT again.")
    with (folder / "nodules.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    scores = {int(row["number"]): float(row["score"]) for row in rows if row["provenance"] != "detector-box"}
    if wanted is None:
        return max(scores, key=scores.__getitem__, default=None)
    if wanted not in scores:
        raise InputError(
            f"The result {folder} has no segmented nodule {wanted}, expected one of {sorted(scores)}; correct the list."
        )
    return wanted


def _loader(results: "_Results", folder: Path, number: int) -> Callable[[], Subject]:
    def load() -> Subject:
        volume, labels, signal = results.loaded(folder)
        return Subject(volume, labels == number, signal)

    return load


class _Results:
    """Reads results; the last one is kept, as several nodules may come from it."""

    def __init__(self, ct_root: Path | None, force: bool) -> None:
        self.ct_root, self.force = ct_root, force
        self.loaded = lru_cache(maxsize=1)(self._load)

    def _load(self, folder: Path) -> tuple[Volume, np.ndarray, np.ndarray]:
        labels, grid = _image(folder / "labelmap.nii.gz")
        signal, _ = _image(folder / "heterogeneity.nii.gz")
        source = json.loads((folder / "report.json").read_text(encoding="utf-8"))["input"]
        path = _located(Path(source["path"]), self.ct_root)
        with _candidates(path, source.get("series_uid")) as cases:
            for ct, series_uid, files in cases:
                if not self.force:
                    require_clean(ct, series_uid, files)
                volume = read_volume(ct, series_uid, files)
                if volume.grid.matches(grid):
                    return volume, labels, signal
        raise InputError(
            f"The CT {path} does not fit the result {folder}, expected the one it was made of; put it back."
        )


def _image(path: Path) -> tuple[np.ndarray, Grid]:
    from LNHGLib.image import single_file

    return from_sitk(single_file.read_image(path))


def _located(path: Path, root: Path | None) -> Path:
    """Return where a CT lies now: at its place, or under `root` with as many folders of its path as lead to it."""
    if path.exists() and root is None:
        return path
    tails = [Path(*path.parts[start:]) for start in range(1 if path.is_absolute() else 0, len(path.parts))]
    hit = next((root / tail for tail in tails if (root / tail).exists()), None) if root else None
    if hit is None and not path.exists():
        raise InputError(
            f"The CT {path} is not there{f', nor in {root}' if root else ''}, expected the input of the result; "
            "name the folder that holds it with --ct."
        )
    return hit or path


@contextmanager
def _candidates(path: Path, series_uid: str | None) -> Iterator[Iterator[tuple[Path, str | None, Sequence[Path]]]]:
    """Give what may be the CT as `read_volume` takes it; an archive is unpacked for as long."""
    if path.suffix.lower() != ".zip" or path.is_dir():
        yield iter([(path, series_uid, ())])
        return
    cases = [case for case in discover.find_cases([str(path)], path.parent / "none").cases if case.state == READY]
    with atomic.temporary_folder() as scratch:
        yield (
            _unpacked(case, scratch / str(number))
            for number, case in enumerate(cases)
            if series_uid in (None, case.series_uid)
        )


def _unpacked(case: Case, folder: Path) -> tuple[Path, str | None, Sequence[Path]]:
    folder.mkdir()
    files = zip_scans.unpack(case.path, case.members, folder)
    return (folder, case.series_uid, files) if case.series_uid else (files[0], None, ())


def require_clean(path: Path, series_uid: str | None = None, files: Sequence[Path] = ()) -> None:
    """Refuse a DICOM series whose pictures may show who the patient is; other formats cannot tell.

    Args:
        path: as `read_volume` takes it.
        series_uid: the series; every DICOM file of `path` where it is None.
        files: its files, where they are known.

    Raises:
        InputError: an image says that it has burned-in annotation, or is a secondary capture.
    """
    if path.is_file() and not dicom_series.is_dicom(path):
        return
    files = files or [file for file in (path.rglob("*") if path.is_dir() else path.parent.iterdir()) if file.is_file()]
    for file in sorted(files):
        fault = _burned_in(file, series_uid)
        if fault:
            raise InputError(f"{file} {fault}, expected a CT without text in its pictures; {ADVICE}.")


def _burned_in(file: Path, series_uid: str | None) -> str | None:
    if not dicom_series.is_dicom(file):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=BURNED_IN_TAGS, force=True)
            types = {str(value).upper() for value in header.get("ImageType") or ()}
        except Exception:  # what cannot be read is no part of the CT either
            return None
    if series_uid and str(header.get("SeriesInstanceUID", "")) != series_uid:
        return None
    if str(header.get("BurnedInAnnotation", "")).strip().upper() == "YES":
        return "says that it has burned-in annotation"
    if (
        str(header.get("SOPClassUID", "")).startswith(dicom_series.SECONDARY_CAPTURE)
        or types & dicom_series.CAPTURE_TYPES
    ):
        return "is a secondary capture"
    return None
