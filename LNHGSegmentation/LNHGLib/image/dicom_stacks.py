"""The volumes of DICOM series: one acquisition of one patient each, told apart by what the slices say."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from LNHGLib.errors import UID_LETTERS, InputError, shown
from LNHGLib.image.dicom_header import ADVICE, PARTS, SUBJECT, Header

MIN_SLICES = 10
OTHER_BODY_PARTS = {"HEAD", "BRAIN", "SKULL", "NECK", "ABDOMEN", "PELVIS", "KNEE", "HIP", "LSPINE", "CSPINE", "LEG"}
AXIAL_COSINE = 0.8  # a gantry tilts by at most 30 degrees
SAME_POSITION_MM = 0.01
SPACING_TOLERANCE = 0.01
POSITION_TOLERANCE_MM = 0.1  # scanners round positions to a tenth of a millimeter
PAUSE_S = 30.0
"""Slices that were made with a longer pause between them are of two acquisitions, if they also overlap."""
NAMED = 4
"""Volumes that a sentence lists."""
JOINED = "The series holds {} acquisitions that lie end to end; they were joined."

ToldBy = tuple[tuple[str, str], ...]
"""Kinds and values that tell a volume from the others of its series, such as (("acquisition", "2"),)."""


@dataclass(frozen=True, eq=False)
class Stack:
    """CT slices of one volume: same series, patient, orientation, pixel spacing, size and acquisition.

    Attributes:
        headers: its slices.
        told_by: what tells it from the other volumes of its series.
        mixed: of what its slices, or stray slices beside it, are of more than one; empty where all is well.
        number: from 1 among the volumes of its series; 0 where it is the only one.
    """

    headers: list[Header]
    told_by: ToldBy = ()
    mixed: str = ""
    number: int = 0

    @property
    def normal(self) -> np.ndarray:
        """Unit vector across the slices, LPS."""
        return _normal(self.headers)

    @property
    def distances(self) -> np.ndarray:
        """The different positions along the normal, mm, sorted."""
        return distances(self.headers)

    @property
    def rank(self) -> tuple[bool, bool, int]:
        """Order of preference: axial, not marked as another body part, number of slice positions."""
        axial = bool(abs(self.normal[2]) >= AXIAL_COSINE)
        return axial, self.headers[0].body_part not in OTHER_BODY_PARTS, len(self.distances)

    @property
    def name(self) -> str:
        """The series, with the number of the volume where it has several: what `--series` takes."""
        uid = self.headers[0].series_uid
        return f"{uid}#{self.number}" if self.number else uid

    @property
    def subject(self) -> ToldBy:
        """Who and what was scanned, as far as it tells the volume from others of its series."""
        return tuple(part for part in self.told_by if part[0] in SUBJECT.values())

    def __str__(self) -> str:
        what = ", ".join(f"{kind} {value}".strip() for kind, value in self.told_by)
        what = what or self.headers[0].description or "no description"
        return f"{self.name} ({what}, {len(self.headers)} slices)"


def uid_of(name: str) -> str:
    """Return the SeriesInstanceUID of a volume's name."""
    return name.partition("#")[0]


def volumes(headers: Iterable[Header]) -> list[Stack]:
    """Sort the CT slices of any series into volumes; slices that cannot be told apart stay together.

    The whole volumes of a series are numbered, if there are several.
    """
    by_series: dict[str, list[Header]] = {}
    for header in headers:
        if header.kind == "CT":
            by_series.setdefault(header.series_uid, []).append(header)
    found: list[Stack] = []
    for _, own in sorted(by_series.items()):
        stacks = _parts(own)
        stacks.sort(key=lambda stack: ([_natural(value) for _, value in stack.told_by], stack.distances[0]))
        whole = [stack for stack in stacks if len(stack.distances) >= MIN_SLICES]
        if len(whole) > 1:
            stacks = [replace(stack, number=whole.index(stack) + 1 if stack in whole else 0) for stack in stacks]
        found += stacks
    return found


def by_subject(headers: Sequence[Header]) -> list[tuple[str, list[Header]]]:
    """Return the scans of any series: two patients, studies or frames of reference under one UID are two scans.

    Args:
        headers: of all images.

    Returns:
        The name of each scan, for `read_series`, with all images of its series.
    """
    series: dict[str, list[Header]] = {}
    for header in headers:
        series.setdefault(header.series_uid, []).append(header)
    scans: dict[str, list[Header]] = {}
    for uid, own in sorted(series.items()):
        best: dict[tuple, Stack] = {}
        for stack in volumes(own):
            if stack.number and (stack.subject not in best or stack.rank > best[stack.subject].rank):
                best[stack.subject] = stack
        names = [stack.name for stack in best.values()] if len(best) > 1 else [uid]
        scans |= dict.fromkeys(names, own)
    return list(scans.items())


def _parts(headers: list[Header]) -> list[Stack]:
    """Take one series' slices apart: by subject, layout, acquisition and spacing."""
    stacks: list[Stack] = []
    for subject, of_subject in _by_subject(headers):
        layouts: list[list[Header]] = []
        for header in of_subject:
            group = next((group for group in layouts if _same_layout(group[0], header)), None)
            if group is None:
                layouts.append([header])
            else:
                group.append(header)
        for layout in layouts:
            stacks += [
                Stack(part, (*subject, *told_by), mixed)
                for told_by, of_acquisition, mixed in _by_acquisition(layout)
                for told_by, part in _by_spacing(told_by, of_acquisition)
            ]
    for i, stack in enumerate(stacks):
        others = [
            other
            for other in stacks
            if other.subject != stack.subject and _same_layout(other.headers[0], stack.headers[0])
        ]
        if any(len(other.distances) < MIN_SLICES for other in others):
            stacks[i] = replace(stack, mixed=(stack.subject or others[0].subject)[0][0])
    return stacks


def _by_subject(headers: list[Header]) -> list[tuple[ToldBy, list[Header]]]:
    """Part slices of different patients, studies or frames of reference; what says nothing is with the only other."""
    groups = [((), headers)]
    for index, kind in enumerate(SUBJECT.values()):
        parted = []
        for told_by, group in groups:
            values = sorted({header.subject[index] for header in group} - {""})
            if len(values) < 2:
                parted.append((told_by, group))
                continue
            for number, value in enumerate([*values, ""], 1):
                own = [header for header in group if header.subject[index] == value]
                parted += [((*told_by, (kind, str(number))), own)] if own else []
        groups = parted
    return groups


def _by_acquisition(headers: list[Header]) -> list[tuple[ToldBy, list[Header], str]]:
    """Part slices that lie among each other and say that they are of different acquisitions, if each is whole.

    Acquisitions that lie end to end, as a scanner without a helix makes one per rotation, stay together.

    Returns:
        What tells each part, its slices, and "acquisition" where acquisitions are mixed and not whole.
    """
    mixed = ""
    for tag, kind in PARTS.items():
        groups: dict[str, list[Header]] = {}
        for header, value in zip(headers, _values(headers, tag), strict=True):
            groups.setdefault(value, []).append(header)
        if len(groups) < 2:
            continue
        spans = sorted((places[0], places[-1]) for places in map(distances, groups.values()))
        if not any(later[0] <= earlier[1] + SAME_POSITION_MM for earlier, later in pairwise(spans)):
            continue
        if all(_is_whole(group) for group in groups.values()):
            return [
                (((kind, value or "unnamed"), *told_by), part, inner)
                for value, group in sorted(groups.items(), key=lambda item: _natural(item[0]))
                for told_by, part, inner in _by_acquisition(group)
            ]
        if tag == "AcquisitionNumber":
            mixed = PARTS[tag]
    return [((), headers, mixed)]


def _by_spacing(told_by: ToldBy, headers: list[Header]) -> list[tuple[ToldBy, list[Header]]]:
    """Part slices that lie close in one stretch and far apart in another, if each is whole."""
    normal, places = _normal(headers), distances(headers)
    runs, start = [], 0
    for i in range(1, len(places)):
        last = i == len(places) - 1
        gap = places[start + 1] - places[start]
        if last or abs(places[i + 1] - places[i] - gap) > max(POSITION_TOLERANCE_MM, SPACING_TOLERANCE * gap):
            if i - start + 1 >= MIN_SLICES:
                runs.append((places[start], places[i], gap))
            start = i
    if len(runs) < 2 or len({round(gap, 1) for *_, gap in runs}) < 2:
        return [(told_by, headers)]
    room = SAME_POSITION_MM
    return [
        (
            (*told_by, ("spacing", f"{gap:.4g} mm apart from {low:.5g} to {high:.5g} mm")),
            [header for header in headers if low - room <= header.position @ normal <= high + room],
        )
        for low, high, gap in runs
    ]


def distances(headers: Sequence[Header]) -> np.ndarray:
    """Return the different positions of slices along their normal, mm, sorted."""
    normal = _normal(headers)
    places = np.sort([float(header.position @ normal) for header in headers])
    return places[np.diff(places, prepend=-np.inf) > SAME_POSITION_MM]


def _normal(headers: Sequence[Header]) -> np.ndarray:
    return np.cross(headers[0].layout[:3], headers[0].layout[3:6])


def _values(headers: Sequence[Header], tag: str) -> list[str]:
    """Return what each slice says under a tag; times by the bursts that they come in, if each is a DICOM time."""
    values = [header.told.get(tag, "") for header in headers]
    if PARTS[tag] != "time":
        return values
    seconds: list[float] = []
    for value in values:
        found = re.fullmatch(r"(\d{8})?(\d\d)(\d\d)(\d\d)(\.\d+)?(?:[+-]\d{4})?", value.strip())
        if not found:
            return [""] * len(values)
        day, hours, minutes, whole = (int(part or 0) for part in found.group(1, 2, 3, 4))
        seconds.append(day * 86400 + hours * 3600 + minutes * 60 + whole + float(found[5] or 0))
    starts = [later for earlier, later in pairwise(sorted(set(seconds))) if later - earlier > PAUSE_S]
    first = [min(seconds), *starts]
    return [values[seconds.index(max(start for start in first if start <= second))] for second in seconds]


def _is_whole(headers: list[Header]) -> bool:
    """Tell whether slices make a volume of their own: enough of them, and evenly spaced."""
    places = distances(headers)
    if len(places) < MIN_SLICES:
        return False
    even = np.linspace(places[0], places[-1], len(places))
    tolerance = max(POSITION_TOLERANCE_MM, SPACING_TOLERANCE * (even[1] - even[0]))
    return bool(np.abs(places - even).max() <= tolerance)


def _same_layout(one: Header, other: Header) -> bool:
    return np.allclose(one.layout, other.layout, rtol=0, atol=1e-3)


def _natural(text: str) -> list:
    """Return a key that sorts numbers in texts by their size."""
    return [(0, float(part), "") if part.isdecimal() else (1, 0.0, part) for part in re.split(r"(\d+)", text) if part]


def choose(path: Path, headers: Sequence[Header], number: int = 0) -> tuple[Stack, list[str]]:
    """Take the best volume, or the one asked for, and say what was left aside.

    Args:
        path: what the user gave.
        headers: of the images to choose from.
        number: of the volume in its series; 0 for the best.

    Returns:
        The volume and notes for the user.

    Raises:
        InputError: there is none, or slices are mixed in a way that nothing tells apart.
    """
    stacks = volumes(headers)
    if not stacks:
        found = Counter(header.kind for header in headers)
        listed = ", ".join(f"{count} {shown(kind)}" for kind, count in found.most_common(NAMED))
        advice = ADVICE.get(found.most_common(1)[0][0], "choose the folder of the CT series")
        raise InputError(f"{path} holds no CT slices but other images ({listed}), expected a chest CT; {advice}.")
    if number:
        asked = next((stack for stack in stacks if stack.number == number), None)
        if asked is None:
            count = max(stack.number for stack in stacks)
            expected = f"#1 to #{count}" if count else "the name of the series alone, as it holds one volume"
            raise InputError(
                f"{path} has no volume #{shown(number)} in that series, expected {expected}; correct the name."
            )
        return asked, []
    if path.is_file():
        stacks = [stack for stack in stacks if any(header.path == path for header in stack.headers)] or stacks
    best = max(sorted(stacks, key=str), key=lambda stack: (stack.rank, -stack.number))
    _require_one_volume(path, best, stacks)
    return best, _notes(best, stacks, headers)


def _notes(best: Stack, stacks: Sequence[Stack], headers: Sequence[Header]) -> list[str]:
    """Say what was left aside for a volume: other series, other volumes of its series, other images."""
    notes: list[str] = []
    uid = best.headers[0].series_uid
    series = {stack.headers[0].series_uid: stack for stack in sorted(stacks, key=lambda stack: stack.rank)}
    del series[uid]
    if series:
        notes.append(f"{len(series) + 1} CT series found: took {best}, left {_listed(series.values())}.")
    same = [stack for stack in stacks if stack.number and stack.headers[0].series_uid == uid and stack is not best]
    if same:
        notes.append(
            f"The series holds {len(same) + 1} volumes: took {best}, left {_listed(same)}; name another to take it "
            f"(--series {same[0].name})."
        )
    taken = {id(header) for stack in (best, *same) for header in stack.headers}
    left = sum(header.series_uid == uid and id(header) not in taken for header in headers)
    numbers = {header.told.get("AcquisitionNumber") for header in best.headers}
    if 1 < len(numbers) <= len(best.headers) / MIN_SLICES:
        notes.append(JOINED.format(len(numbers)))
    if left:
        notes.append(f"{left} image(s) of the series with another view or size were left out.")
    return notes


def _require_one_volume(path: Path, best: Stack, stacks: Sequence[Stack]) -> None:
    """Refuse what must not be chosen from without the user's word, and what is mixed."""
    if best.mixed:
        raise InputError(
            f"{path} mixes slices of more than one {best.mixed} in one series, expected one; "
            "export each as a series of its own."
        )
    uid = best.headers[0].series_uid
    own = [stack for stack in stacks if stack.number and stack.headers[0].series_uid == uid]
    told = {kind: {dict(stack.told_by).get(kind) for stack in own} for kind, _ in best.told_by}
    times, names = len(told.get("time point", ())), f"--series {shown(uid, UID_LETTERS)}#1 to #{len(own)}"
    if times > 2:
        raise InputError(f"{path} is a 4-D series of {times} time points, expected one; take one with {names}.")
    if len(told.get("kV", ())) > 1:
        raise InputError(
            f"{path} is a dual-energy series with {len(told['kV'])} tube voltages, expected one; take one with {names}."
        )
    if "spacing" in told:
        longest = max(own, key=lambda stack: stack.distances[-1] - stack.distances[0])
        raise InputError(
            f"{path} has slices {shown(dict(longest.told_by)['spacing'])} and others elsewhere, expected one spacing; "
            f"take that longest part with --series {shown(longest.name, UID_LETTERS)}."
        )


def _listed(stacks: Iterable[Stack]) -> str:
    texts = sorted(map(str, stacks), key=_natural)
    return ", ".join(texts[:NAMED]) + (", ..." if len(texts) > NAMED else "")
