"""The scores of a reader study: one table for the viewer, the score sheets and the analysis.

A table is CSV, UTF-8, one row per read, with at least the columns `COLUMNS` in any order; others are ignored. The first
four are those of iMRMC. A score sheet is such a table whose score, confidence and seconds are still empty.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from LNHGLib.errors import InputError, quoted
from LNHGLib.files.text import csv_reader, write_csv

CT, CT_MAP = "CT", "CT+map"
MODALITIES = (CT, CT_MAP)
"""The CT alone, and the CT with the heterogeneity map inside the nodule."""

SESSIONS = (1, 2)
COLUMNS = ("readerID", "caseID", "modalityID", "score", "confidence", "seconds", "session", "order", "repeat")
TRUTH_COLUMNS = ("caseID", "truth")
MIN_SCORE, MAX_SCORE = 0.0, 100.0
MIN_CONFIDENCE, MAX_CONFIDENCE = 1, 5
ADVICE = "correct the table or let the reader save it again"


@dataclass(frozen=True)
class Score:
    """One read.

    Attributes:
        reader: name of the reader.
        case: opaque identifier of the case, the same in all sessions and for all readers.
        modality: one of `MODALITIES` in our studies; any text in those of others.
        score: 0 to 100; None where it is not read yet.
        confidence: 1 (guessed) to 5 (certain); None where it is unknown.
        seconds: time that the picture was looked at; None where it is unknown.
        session: 1 or 2, with the wash-out between them.
        order: position of the read in its session, from 1.
        repeat: whether the reader has seen the same case and modality earlier in the session.
    """

    reader: str
    case: str
    modality: str
    score: float | None
    confidence: int | None
    seconds: float | None
    session: int
    order: int
    repeat: bool


def read_scores(paths: Path | Iterable[Path], *, complete: bool = True) -> list[Score]:
    """Read and check score tables, in the order of the files and their rows.

    Args:
        paths: one or several files, together one study.
        complete: refuse reads without a score.

    Returns:
        One score per row.

    Raises:
        InputError: a file cannot be read, lacks a column, holds a wrong value, or the same read occurs twice.
    """
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    scores: list[Score] = []
    known: dict[tuple[object, ...], str] = {}
    for path in map(Path, paths):
        for line, row in _rows(path, COLUMNS):
            where = f"{path} line {line}"
            missing = next((name for name in ("readerID", "caseID", "modalityID") if not row[name]), None)
            if missing:
                raise InputError(f"{where} has no {missing}, expected one in each row; {ADVICE}.")
            value = _number(row, "score", where, MIN_SCORE, MAX_SCORE)
            if value is None and complete:
                raise InputError(
                    f"{where} has no score, expected 0 to 100 for every read; let the reader finish first."
                )
            confidence = _number(row, "confidence", where, MIN_CONFIDENCE, MAX_CONFIDENCE, whole=True)
            score = Score(
                row["readerID"],
                row["caseID"],
                row["modalityID"],
                value,
                None if confidence is None else int(confidence),
                _number(row, "seconds", where, 0, math.inf),
                int(_needed(row, "session", where, 1)),
                int(_needed(row, "order", where, 1)),
                bool(_needed(row, "repeat", where, 0, 1)),
            )
            if not score.repeat:
                _require_new(known, (score.reader, score.case, score.modality), where, "same read")
            _require_new(known, (score.reader, score.session, score.order), where, "same place in the order")
            scores.append(score)
    if not scores:
        raise InputError(f"{', '.join(map(str, paths)) or 'The list'} holds no read, expected a row a read; {ADVICE}.")
    return scores


def write_scores(path: Path, scores: Sequence[Score], extra: Mapping[str, Sequence[str]] | None = None) -> None:
    """Write scores as a table.

    Args:
        path: file to write.
        scores: one row each.
        extra: further columns by name, one value per row.
    """
    extra = extra or {}
    rows = []
    for index, score in enumerate(scores):
        values = (score.score, score.confidence, score.seconds)
        cells = (
            *(score.reader, score.case, score.modality),
            *(None if value is None else f"{value:.10g}" for value in values),
            *(score.session, score.order, int(score.repeat)),
            *(values[index] for values in extra.values()),
        )
        rows.append(dict(zip((*COLUMNS, *extra), cells, strict=True)))
    write_csv(Path(path), rows, (*COLUMNS, *extra))


def read_truth(path: Path) -> dict[str, int]:
    """Read what is true of each case: a table with the columns caseID and truth (0 without, 1 with the disease).

    Raises:
        InputError: the file cannot be read, lacks a column, or holds a wrong or second value for a case.
    """
    truth: dict[str, int] = {}
    for line, row in _rows(Path(path), TRUTH_COLUMNS):
        case, value = row["caseID"], row["truth"]
        if value not in ("0", "1") or not case or case in truth:
            raise InputError(
                f"{path} line {line} has truth {quoted(value)} for case {quoted(case)}, "
                "expected 0 or 1 once a case; correct it."
            )
        truth[case] = int(value)
    return truth


def write_truth(path: Path, truth: Mapping[str, int]) -> None:
    """Write what is true of each case, see `read_truth`.

    Args:
        path: file to write.
        truth: 1 for the disease, 0 without, by case.
    """
    rows = [dict(zip(TRUTH_COLUMNS, (case, int(value)), strict=True)) for case, value in truth.items()]
    write_csv(Path(path), rows, TRUTH_COLUMNS)


def _rows(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Return the rows with their line numbers, blank lines left out and values stripped."""
    try:
        reader = csv_reader(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}), expected a CSV table; check the path.") from error
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        raise InputError(f"{path} has no column {missing[0]}, expected {', '.join(columns)}; {ADVICE}.")
    rows = ((reader.line_num, {name: (row[name] or "").strip() for name in columns}) for row in reader)
    return [(line, row) for line, row in rows if any(row.values())]


def _needed(row: Mapping[str, str], name: str, where: str, lowest: float, highest: float = math.inf) -> float:
    value = _number(row, name, where, lowest, highest, whole=True)
    if value is None:
        raise InputError(f"{where} has no {name}, expected a number; {ADVICE}.")
    return value


def _number(
    row: Mapping[str, str], name: str, where: str, lowest: float, highest: float, *, whole: bool = False
) -> float | None:
    text = row[name]
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and lowest <= value <= highest) or (whole and value != int(value)):
        kind = "a whole number" if whole else "a number"
        upper = f"from {lowest:g} to {highest:g}" if highest < math.inf else f"of {lowest:g} or more"
        raise InputError(f"{where} has {name} {quoted(text)}, expected {kind} {upper}; {ADVICE}.")
    return value


def _require_new(known: dict[tuple[object, ...], str], key: tuple[object, ...], where: str, what: str) -> None:
    if key in known:
        raise InputError(f"{where} is the {what} as {known[key]}, expected each once; remove one of them.")
    known[key] = where
