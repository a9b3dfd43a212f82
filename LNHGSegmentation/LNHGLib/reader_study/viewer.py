"""The viewer of a reader study: one HTML file that shows one read at a time, without server or network.

It knows what its own session needs and nothing else: no truth, no picture of the other modality, no origin of a case.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from string import Template

from LNHGLib.paths import HTML
from LNHGLib.reader_study.scores import COLUMNS


@dataclass(frozen=True)
class ShownRead:
    """A read as the viewer knows it.

    Attributes:
        case: opaque name of the case.
        modality: of `MODALITIES`.
        repeat: whether the reader has seen it earlier in the session.
        images: its pictures by file, relative to the viewer.
        start: index of the picture that is shown first.
    """

    case: str
    modality: str
    repeat: bool
    images: tuple[str, ...]
    start: int


@dataclass(frozen=True)
class Session:
    """One session of one reader.

    Attributes:
        study: opaque name of the study.
        reader: name of the reader.
        session: its number.
        sessions: how many there are.
        washout_days: days between two sessions.
        question: what the score answers.
        ends: what 0 and 100 mean.
        reads: in order.
    """

    study: str
    reader: str
    session: int
    sessions: int
    washout_days: int
    question: str
    ends: tuple[str, str]
    reads: Sequence[ShownRead]


def page(session: Session) -> str:
    """Return the viewer of a session as HTML; no name or question in it is read as markup."""
    template = Template((HTML / "viewer.html").read_text(encoding="utf-8"))
    low, high = map(escape, session.ends)
    return template.substitute(
        question=escape(session.question),
        low=low,
        high=high,
        session=json.dumps({**asdict(session), "columns": COLUMNS}).replace("<", "\\u003c"),
        script=(HTML / "viewer.js").read_text(encoding="utf-8"),
    )
