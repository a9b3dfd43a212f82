"""The cases of a cohort: every scan in a folder tree, a CSV list or behind a glob, whatever its file is called."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from LNHGLib.batch import case_names
from LNHGLib.batch.case import FAILED, SKIPPED, Case
from LNHGLib.errors import InputError, listed, quoted
from LNHGLib.files.text import read_csv
from LNHGLib.files.tree import files_below
from LNHGLib.image import dicom_header, single_file, zip_scans
from LNHGLib.image.dicom_header import ADVICE, Header
from LNHGLib.image.dicom_stacks import by_subject

TRIED = {"CT", *ADVICE}
"""Kinds of DICOM images that are CT, or that deserve the reader's own advice."""
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
LIST_COLUMNS = ("path", "case", "series_uid")
RESULT_FILES = ("report.json", "nodules.seg.nrrd")


@dataclass(frozen=True)
class Cohort:
    """The cases sorted by id, and sentences on what was left aside."""

    cases: list[Case]
    notes: list[str]


@dataclass
class _Found:
    """What a search has met so far; names are relative to `base`."""

    base: Path
    images: list[Path] = field(default_factory=list)
    archives: list[Path] = field(default_factory=list)
    headers: list[Header] = field(default_factory=list)
    unreadable: list[Path] = field(default_factory=list)
    left: Counter = field(default_factory=Counter)

    def name(self, path: Path) -> str:
        relative = path.relative_to(self.base) if path.is_relative_to(self.base) else Path(*path.parts[-2:])
        return case_names.readable(relative if relative.parts else Path(path.name))


def find_cases(inputs: Sequence[str], out: Path) -> Cohort:
    """Find the scans of a cohort.

    Args:
        inputs: A folder, a CSV list (columns path, and maybe case and series_uid), a glob, or files and folders.
        out: Where the results go: not looked into.

    Returns:
        A case per scan, broken ones included.

    Raises:
        InputError: There is no such input, no scan in it, or the list is wrong.
    """
    paths: list[Path] = []
    for text in inputs:
        hits = [text] if Path(text).exists() else sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - takes all
        if not hits and not glob.has_magic(text):
            raise InputError(f"{text} does not exist; give a folder, a CSV list, a glob or files.")
        if not hits:
            raise InputError(f"Nothing fits the pattern {text}; check it, and put it in quotation marks.")
        paths += map(Path, hits)
    first = paths[0]
    if len(paths) == 1 and first.suffix.lower() == ".csv":
        return _numbered(_listed(first), [])
    if len(paths) == 1 and first.is_file() and dicom_header.is_dicom(first):  # stands for its series, as in `segment`
        return _numbered([Case("", case_names.readable(Path(first.name)), first.absolute(), size=_bytes([first]))], [])
    base = first.absolute() if first.is_dir() else first.absolute().parent
    if len(paths) > 1:  # names below the deepest common folder are the user's, those above are not shown
        base = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    found = _Found(base)
    for path in paths:
        _search(path, found, out.resolve())
    cases = list(_cases(found))
    if not cases:
        others = f" and {len(inputs) - 1} more" if inputs[1:] else ""
        raise InputError(
            f"{inputs[0]}{others} holds no scan, expected DICOM series, zipped series or volumes "
            f"({', '.join(single_file.SUFFIXES)}); check the path."
        )
    return _numbered(cases, [f"Left aside: {count} {what}." for what, count in sorted(found.left.items())])


def _search(path: Path, found: _Found, out: Path) -> None:
    """Sort the files of an input by what they are."""
    for file in _files(path.absolute(), out, found.left) if path.is_dir() else [path.absolute()]:
        if zip_scans.is_volume(file.name):
            found.images.append(file)
            continue
        if file.suffix.lower() == ".zip":
            found.archives.append(file)
            continue
        if zip_scans.is_dicom_directory(file.name):
            continue
        try:
            headers = dicom_header.read_headers(file)
            starts_as_dicom = bool(headers) or dicom_header.is_dicom(file)
        except OSError:
            headers, starts_as_dicom = [], True
        found.headers += headers
        if headers:
            continue
        if starts_as_dicom or file.suffix.lower() in DICOM_SUFFIXES:
            found.unreadable.append(file)
        else:
            found.left["file(s) of other kinds"] += 1


def _files(folder: Path, out: Path, left: Counter) -> Iterator[Path]:
    """Yield the files of a tree in order, through links but never twice, without hidden ones and LNHG's results."""
    seen: set[Path] = set()
    for place, folders, names in os.walk(folder, followlinks=True, onerror=lambda _: left.update(["closed folder(s)"])):
        here = Path(place).resolve()
        if here in seen or here == out:
            folders.clear()
            continue
        seen.add(here)
        if set(RESULT_FILES) <= set(names):
            left["folder(s) with results of LNHG"] += 1
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        shown = (Path(place, name) for name in sorted(names) if not name.startswith("."))
        yield from (path for path in shown if path.is_file())


def _cases(found: _Found) -> Iterator[Case]:
    """Make the cases of what a search has met, still without ids."""
    for path in found.images:
        yield Case("", found.name(path), path, size=_bytes([path]))
    for path in found.archives:
        yield from _archive(path, found.name(path))
    for uid, headers in by_subject(found.headers):
        files = tuple(sorted({header.path for header in headers}))
        folder = Path(os.path.commonpath([file.parent for file in files]))
        size = _bytes(files)
        yield Case("", found.name(folder), folder, uid, files, size=size, **_verdict(headers))
    folders: dict[Path, list[Path]] = {}
    for path in found.unreadable:
        folders.setdefault(path.parent, []).append(path)
    for folder, files in folders.items():
        yield Case("", f"{found.name(folder)}/{files[0].name}", folder, **_unreadable([file.name for file in files]))


def _bytes(files: Iterable[Path]) -> int:
    """Return the size of files; those that went away since they were found have none, and fail when they are read."""
    total = 0
    for file in files:
        with suppress(OSError):
            total += file.stat().st_size
    return total


def _unreadable(names: Sequence[str]) -> dict[str, str]:
    reason = f"{len(names)} DICOM file(s) cannot be read or belong to no series, such as {names[0]}"
    return {"state": FAILED, "reason": f"{reason}; copy or export them again."}


def _verdict(headers: Iterable[Header]) -> dict[str, str]:
    """Say why a series is not even tried: a localizer or a dose report is no broken CT."""
    kinds = Counter(header.kind for header in headers)
    if TRIED & kinds.keys():
        return {}
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return {"state": SKIPPED, "reason": f"The series holds no CT slices but other images ({listed})."}


def _archive(path: Path, name: str) -> list[Case]:
    """Return the cases of an archive, one that failed when it cannot be read or holds none."""
    whole = Case("", name, path, size=_bytes([path]))
    try:
        content = zip_scans.look_into(path)
    except InputError as error:
        return [replace(whole, state=FAILED, reason=str(error).replace(str(path), name))]
    cases = [replace(whole, source=f"{name}/{image}", members=content.with_voxels(image)) for image in content.images]
    for uid, headers in by_subject(content.headers):
        members = tuple(sorted({header.path.as_posix() for header in headers}))
        cases.append(replace(whole, series_uid=uid, members=members, **_verdict(headers)))
    if content.unreadable:
        cases.append(replace(whole, source=f"{name}/{content.unreadable[0]}", **_unreadable(content.unreadable)))
    reason = f"{name} holds no scan among its {len(content.others)} file(s); zip the DICOM files of a chest CT."
    return cases or [replace(whole, state=FAILED, reason=reason)]


def _listed(list_file: Path) -> list[Case]:
    """Return a case per row of a CSV list; paths are relative to the list's folder."""
    rows = read_csv(list_file)
    columns = {str(name).strip().lower(): name for name in (rows[0] if rows else {})}
    if "path" not in columns:
        raise InputError(
            f"{list_file} has {'the columns ' + listed(columns) if columns else 'no rows'}, expected a column path "
            f"(and maybe {', '.join(LIST_COLUMNS[1:])}) with a scan a row; add it."
        )
    found, cases = _Found(list_file.absolute().parent), []
    for row in rows:
        given, id_, uid = ((row.get(columns.get(key, "")) or "").strip() for key in LIST_COLUMNS)
        path = found.base / given
        case = Case(case_names.cleaned([id_]), found.name(path), path, uid or None)
        if not given or not path.exists():
            reason = f"{given or 'The empty path'} does not exist; correct the list."
            case = replace(case, source=given, state=FAILED, reason=reason)
        elif path.is_dir():
            case = replace(case, size=_bytes(files_below(path)))
        else:
            case = replace(case, size=_bytes([path]))
            if path.suffix.lower() == ".zip":
                inside = _archive(path, case.source)
                tried = [each for each in inside if uid in ("", each.series_uid) and each.state != SKIPPED]
                meant = tried if len(tried) == 1 else inside
                if len(meant) == 1:
                    case = replace(meant[0], id=case.id)
                else:
                    reason = (
                        f"{case.source} holds {len(tried)} such scans, expected one; name it in the column series_uid."
                    )
                    case = replace(case, state=FAILED, reason=reason)
        cases.append(case)
    return cases


def _numbered(cases: list[Case], notes: list[str]) -> Cohort:
    """Give every case its id; those of a list's column `case` must be unique."""
    given = Counter(case_names.key_of(case.id) for case in cases if case.id)
    twice = next((case.id for case in cases if given[case_names.key_of(case.id)] > 1), None)
    if twice:
        count = given[case_names.key_of(twice)]
        raise InputError(f"The list names {count} cases {quoted(twice)}, expected a name a case; rename.")
    ids = case_names.unique([(case.id, case.source, case.series_uid or "") for case in cases])
    named = [replace(case, id=id_) for case, id_ in zip(cases, ids, strict=True)]
    return Cohort(sorted(named, key=lambda case: case.id), notes)
