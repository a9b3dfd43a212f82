"""What a reader study is made of: nodules in the result folders of `lnhg segment` and `lnhg batch`, with their CTs."""

import json
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pydicom

from LNHGLib.errors import InputError, listed, quoted, shown
from LNHGLib.files.damage import explain_damage
from LNHGLib.files.text import read_csv, read_json
from LNHGLib.files.tree import files_below
from LNHGLib.image import dicom_header, single_file
from LNHGLib.image.dicom_stacks import uid_of
from LNHGLib.image.volume import Grid, Source, Volume, from_sitk
from LNHGLib.reader_study.images import NoduleVoxels
from LNHGLib.results.original_ct import OriginalCT, read_original

NEEDED = ("report.json", "nodules.csv", "labelmap.nii.gz", "heterogeneity.nii.gz")
LIST_COLUMNS = ("result", "nodule", "truth")
SEGMENT_AGAIN, EXPORT_AGAIN = "segment the CT again", "export the study again"
SCENE_CASES = "case-*.npz"
"""Pattern of the files that 3D Slicer hands over in the place of result folders, one per case."""
BURNED_IN_TAGS = ["SOPClassUID", "ImageType", "BurnedInAnnotation", "SeriesInstanceUID"]
ADVICE = "take it out, or look at every picture yourself and insist with --force-burned-in"


@dataclass(frozen=True, eq=False)
class StudyCase:
    """A case of a study, not loaded yet.

    Attributes:
        origin: what the key tells about where it comes from; a result folder's name.
        nodule: its number there.
        load: reads it; raises InputError.
        truth: 1 with the disease, 0 without, None unknown.
    """

    origin: str
    nodule: int
    load: Callable[[], NoduleVoxels]
    truth: int | None = None


@dataclass(frozen=True)
class CaseSelection:
    """A row of a case list: which nodule of which result, and what is true of it."""

    result: str
    nodule: int | None
    truth: int | None


def find_study_cases(
    results: Sequence[Path], ct_root: Path | None = None, selections: Sequence[CaseSelection] = (), force: bool = False
) -> list[StudyCase]:
    """Find the nodules to read.

    Args:
        results: result folders, folders of them, or the OUT of a batch; or one folder of `write_scene_case`.
        ct_root: folder to look for CTs in that are no longer where they were.
        selections: what to take; otherwise the segmented nodule with the highest score of each result.
        force: take CTs with burned-in annotation as well.

    Returns:
        The cases by origin, or in the order of the selections. A result without a segmented nodule gives none.

    Raises:
        InputError: there is no result, a selection does not fit, or two results have the same name.
    """
    if len(results) == 1 and (files := sorted(results[0].glob(SCENE_CASES))):
        with explain_damage(results[0], EXPORT_AGAIN):
            return [_read_scene_case(file, force) for file in files]
    folders = _result_folders(results)
    unknown = next((each.result for each in selections if each.result not in folders), None)
    if unknown is not None:
        raise InputError(
            f"The list names the result {quoted(unknown)}, which is not among the {len(folders)} given; correct it."
        )
    reader = _ResultReader(ct_root, force)
    cases: list[StudyCase] = []
    for selection in selections or [CaseSelection(name, None, None) for name in folders]:
        name, folder = selection.result, folders[selection.result]
        missing = [file for file in NEEDED if not (folder / file).is_file()]
        if missing:
            raise InputError(f"The result {folder} lacks {missing[0]}, expected a whole result; segment the CT again.")
        with explain_damage(folder / "nodules.csv", SEGMENT_AGAIN):
            rows = read_csv(folder / "nodules.csv")
            scores = {int(row["number"]): float(row["score"]) for row in rows if row["provenance"] != "detector-box"}
        number = max(scores, key=scores.__getitem__, default=None) if selection.nodule is None else selection.nodule
        if number is None and selections:
            raise InputError(
                f"The result {shown(name)} has no segmented nodule, expected one; take it out of the list."
            )
        if number is None:
            continue
        if number not in scores:
            raise InputError(
                f"The result {folder} has no segmented nodule {shown(number)}, expected one of "
                f"{listed(sorted(scores))}; correct the list."
            )
        if any((case.origin, case.nodule) == (name, number) for case in cases):
            raise InputError(
                f"Nodule {shown(number)} of {shown(name)} is chosen twice, expected once; take one row out."
            )
        cases.append(StudyCase(name, number, partial(reader.nodule, folder, number), selection.truth))
    return cases


def write_scene_case(path: Path, origin: str, nodule: int, voxels: NoduleVoxels, files: Sequence[Path]) -> None:
    """Write a case of 3D Slicer's scene for `find_study_cases`: a part of the CT, in which the nodule lies.

    Args:
        path: file to write, named as `SCENE_CASES`; the order of the names is that of the cases.
        origin: name of the CT; only the key tells it.
        nodule: number of the finding.
        voxels: the nodule with the CT around it.
        files: DICOM files of the CT, searched for burned-in annotation; none where there are none.
    """
    volume, text = voxels.volume, json.dumps([str(file) for file in files])
    arrays = {"ct": volume.array, "affine": volume.grid.affine, "mask": voxels.mask, "signal": voxels.signal}
    np.savez(path, origin=np.array(origin), nodule=np.array(nodule), files=np.array(text), **arrays)


def _read_scene_case(path: Path, force: bool) -> StudyCase:
    """Return the case of `write_scene_case`; its voxels are read when it is loaded."""

    def load() -> NoduleVoxels:
        with explain_damage(path, EXPORT_AGAIN), np.load(path, allow_pickle=False) as case:
            files = [Path(file) for file in json.loads(str(case["files"]))]
            if files and not force:
                require_no_burned_in_text(files[0].parent, files=files)
            ct = case["ct"].astype(np.float32)
            return NoduleVoxels(Volume(ct, Grid(ct.shape, case["affine"]), Source("")), case["mask"], case["signal"])

    with np.load(path, allow_pickle=False) as case:
        return StudyCase(str(case["origin"]), int(case["nodule"]), load)


def read_case_list(path: Path) -> list[CaseSelection]:
    """Read a case list: CSV with the columns result (a folder's name), and maybe nodule and truth (0 or 1).

    Raises:
        InputError: it cannot be read or a row is wrong.
    """
    try:
        rows = read_csv(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read, expected a CSV list with the column result; check it.") from error
    selections = []
    for line, row in enumerate(rows, 2):
        result, nodule, truth = ((row.get(name) or "").strip() for name in LIST_COLUMNS)
        if not result or (nodule and not re.fullmatch(r"\d{1,9}", nodule)) or truth not in ("", "0", "1"):
            raise InputError(
                f"{path} line {line} has result {quoted(result, 20)}, nodule {quoted(nodule, 12)} and truth "
                f"{quoted(truth, 12)}, expected a folder's name, a number or nothing, and 0, 1 or nothing; mend it."
            )
        selections.append(CaseSelection(result, int(nodule) if nodule else None, int(truth) if truth else None))
    if not selections:
        raise InputError(f"{path} lists no case, expected a row a case under the heading result; fill it.")
    return selections


def _result_folders(results: Sequence[Path]) -> dict[str, Path]:
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
                raise InputError(
                    f"Two results are called {shown(name)} ({folders[name]} and {folder}); rename one of them."
                )
    return dict(sorted(folders.items()))


class _ResultReader:
    """Reads results with their CTs; keeps the last one, as several nodules may come from it.

    Args:
        ct_root: folder to look for CTs in that are no longer where they were.
        force: take CTs with burned-in annotation as well.
    """

    def __init__(self, ct_root: Path | None, force: bool) -> None:
        self.ct_root, self.force = ct_root, force
        self._last: tuple[Path, Volume, np.ndarray, np.ndarray] | None = None

    def nodule(self, folder: Path, number: int) -> NoduleVoxels:
        """Return a nodule of a result.

        Args:
            folder: of the result.
            number: of the nodule.

        Raises:
            InputError: the CT is not there, does not fit, or has burned-in annotation.
        """
        if self._last is None or self._last[0] != folder:
            self._last = None  # two results at once may not fit the memory
            labels, grid = from_sitk(single_file.read_image(folder / "labelmap.nii.gz"))
            signal, _ = from_sitk(single_file.read_image(folder / "heterogeneity.nii.gz"))
            with explain_damage(folder / "report.json", SEGMENT_AGAIN):
                report = read_json(folder / "report.json")
                measured = {row["number"]: row.get("measurement") for row in report.get("nodules", ())}
                means = {number: values["mean_hu"] for number, values in measured.items() if values}
                stated = OriginalCT.of(report["input"], grid, labels, means)
            look = (lambda *_: None) if self.force else require_no_burned_in_text
            self._last = folder, read_original(stated, folder, "--ct", self.ct_root, look), labels, signal
        _, volume, labels, signal = self._last
        return NoduleVoxels(volume, labels == number, signal)


def require_no_burned_in_text(path: Path, series_uid: str | None = None, files: Sequence[Path] = ()) -> None:
    """Refuse a DICOM series whose pictures may show who the patient is; other formats cannot tell.

    Args:
        path: as `read_volume` takes it.
        series_uid: the series; every DICOM file of `path` where it is None.
        files: its files, where they are known.

    Raises:
        InputError: an image says that it has burned-in annotation, or is a secondary capture.
    """
    if path.is_file() and not dicom_header.is_dicom(path):
        return
    files = files or (
        files_below(path) if path.is_dir() else [file for file in path.parent.iterdir() if file.is_file()]
    )
    for file in filter(dicom_header.is_dicom, sorted(files)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=BURNED_IN_TAGS, force=True)
                types = {str(value).upper() for value in header.get("ImageType") or ()}
            except Exception:  # what cannot be read is no part of the CT either
                continue
        if series_uid and str(header.get("SeriesInstanceUID", "")) != uid_of(series_uid):
            continue
        sop_class = str(header.get("SOPClassUID", ""))
        if str(header.get("BurnedInAnnotation", "")).strip().upper() == "YES":
            fault = "says that it has burned-in annotation"
        elif sop_class.startswith(dicom_header.SECONDARY_CAPTURE) or types & dicom_header.CAPTURE_TYPES:
            fault = "is a secondary capture"
        else:
            continue
        raise InputError(f"{file} {fault}, expected a CT without text in its pictures; {ADVICE}.")
