"""The readers' XML files of LIDC-IDRI: sessions, nodules with their outlines and ratings, and the other marks."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from LNHGLib.errors import InputError, shown

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
    """Return the CT series that the file is about; None when it is no LIDC reading of a CT.

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
    """Return all marks of all readers; the reader is the session's place in the file, from 0.

    Raises:
        InputError: it is no LIDC file, or a mark in it is broken.
    """
    try:
        root = ElementTree.parse(path).getroot()
        sessions = [element for element in root.iter() if _name(element) == "readingSession"]
        return [reading for reader, session in enumerate(sessions) for reading in _session(reader, session)]
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise InputError(
            f"{path} holds no complete LIDC readings ({type(error).__name__}: {shown(error, 80)}); copy the file again."
        ) from error


def _session(reader: int, session: ElementTree.Element) -> Iterator[Reading]:
    """Yield the marks of one reader."""
    for element in session:
        if _name(element) == "unblindedReadNodule":
            rois = [_roi(part, "edgeMap") for part in element if _name(part) == "roi"]
            values = {}
            for part in element:
                if _name(part) == "characteristics":
                    values = {_name(each): float(_text(each) or 0) for each in part}
            ratings = {name: values[name] for name in RATINGS if values.get(name, 0) >= 1}  # 0: left out by the reader
            point = sum(len(roi.points) for roi in rois) == 1
            kind = SMALL if point and not ratings else "nodule"
            yield Reading(reader, _child(element, "noduleID"), kind, rois, ratings)
        elif _name(element) == "nonNodule":
            rois = [_roi(element, "locus")]
            yield Reading(reader, _child(element, "nonNoduleID"), NON_NODULE, rois, {})


def _roi(element: ElementTree.Element, tag: str) -> Roi:
    """Read the outline of a nodule ("edgeMap") or the point of another mark ("locus")."""
    points = [(int(_child(part, "xCoord")), int(_child(part, "yCoord"))) for part in element if _name(part) == tag]
    if not points:
        raise ValueError(f"{'an' if tag == 'edgeMap' else 'a'} {_name(element)} without {tag}")
    inclusion = tag == "locus" or _child(element, "inclusion").upper() != "FALSE"
    points = np.array(points if tag == "edgeMap" else points[:1])
    return Roi(_child(element, "imageSOP_UID"), float(_child(element, "imageZposition")), inclusion, points)


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
