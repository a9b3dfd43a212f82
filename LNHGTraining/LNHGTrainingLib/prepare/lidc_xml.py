"""The readers' XML files of LIDC-IDRI: sessions, nodules with their outlines and ratings, and the other marks."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from LNHGLib.errors import InputError

RATINGS = (
    "subtlety", "internalStructure", "calcification", "sphericity", "margin", "lobulation", "spiculation", "texture",
    "malignancy",
)  # fmt: skip
"""What readers rated nodules of 3 mm and more by; texture runs from 1, ground glass, to 5, solid."""

SMALL, NON_NODULE = "small-nodule", "non-nodule"
"""Marks that are a point: a nodule below 3 mm, and a finding of 3 mm or more that is no nodule."""


@dataclass(frozen=True, eq=False)
class Roi:
    """One outline: the slice by its SOP instance UID and its z position, pixels int (N, 2) xy."""

    sop_uid: str
    z_mm: float
    inclusion: bool
    points: np.ndarray


@dataclass(frozen=True, eq=False)
class Reading:
    """What one reader marked at one place; `kind` is "nodule", "small-nodule" or "non-nodule"."""

    reader: int
    name: str
    kind: str
    rois: list[Roi]
    ratings: dict[str, float]


def series_of(path: Path) -> str | None:
    """The CT series that the file is about; None when it is no LIDC reading of a CT.

    Raises:
        InputError: it is no XML.
    """
    try:
        for _, element in ElementTree.iterparse(path):
            if _name(element).lower() == "seriesinstanceuid":
                return _text(element)
            if _name(element) == "readingSession":
                return None
    except (ElementTree.ParseError, OSError) as error:
        raise InputError(f"{path} cannot be read as XML ({error}), expected LIDC readings; copy it again.") from error
    return None


def read_readings(path: Path) -> list[Reading]:
    """All marks of all readers; the reader is the session's place in the file, from 0.

    Raises:
        InputError: it is no LIDC file, or a mark in it is broken.
    """
    try:
        root = ElementTree.parse(path).getroot()
        sessions = [element for element in root.iter() if _name(element) == "readingSession"]
        return [reading for reader, session in enumerate(sessions) for reading in _readings(reader, session)]
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise InputError(
            f"{path} holds no complete LIDC readings ({type(error).__name__}: {error}); copy the file again."
        ) from error


def _readings(reader: int, session: ElementTree.Element) -> Iterator[Reading]:
    for element in session:
        if _name(element) == "unblindedReadNodule":
            rois = [_outline(part) for part in element if _name(part) == "roi"]
            ratings = _ratings(element)
            point = sum(len(roi.points) for roi in rois) == 1
            kind = SMALL if point and not ratings else "nodule"
            yield Reading(reader, _child(element, "noduleID"), kind, rois, ratings)
        elif _name(element) == "nonNodule":
            yield Reading(reader, _child(element, "nonNoduleID"), NON_NODULE, [_locus(element)], {})


def _ratings(nodule: ElementTree.Element) -> dict[str, float]:
    values = {}
    for part in nodule:
        if _name(part) == "characteristics":
            values = {_name(each): float(_text(each) or 0) for each in part}
    return {name: values[name] for name in RATINGS if values.get(name, 0) >= 1}  # 0: left out by the reader


def _outline(roi: ElementTree.Element) -> Roi:
    points = [_point(part) for part in roi if _name(part) == "edgeMap"]
    if not points:
        raise ValueError("an roi without edgeMap")
    inclusion = _child(roi, "inclusion").upper() != "FALSE"
    return Roi(_child(roi, "imageSOP_UID"), float(_child(roi, "imageZposition")), inclusion, np.array(points))


def _locus(mark: ElementTree.Element) -> Roi:
    points = [_point(part) for part in mark if _name(part) == "locus"]
    if not points:
        raise ValueError("a nonNodule without locus")
    return Roi(_child(mark, "imageSOP_UID"), float(_child(mark, "imageZposition")), True, np.array(points[:1]))


def _point(element: ElementTree.Element) -> tuple[int, int]:
    return int(_child(element, "xCoord")), int(_child(element, "yCoord"))


def _child(element: ElementTree.Element, name: str) -> str:
    for part in element:
        if _name(part) == name:
            return _text(part)
    raise LookupError(f"a {_name(element)} without {name}")


def _name(element: ElementTree.Element) -> str:
    """The tag without its name space."""
    return element.tag.rsplit("}", 1)[-1]


def _text(element: ElementTree.Element) -> str:
    return (element.text or "").strip()
