"""Turns LIDC-IDRI, LUNA16, CTs with masks, or crops into training data, a scan at a time; a killed run goes on."""

import csv
import importlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from LNHGLib.errors import InputError
from LNHGLib.files.atomic import atomic_file

from LNHGTrainingLib.prepare.sources import Content, Found, Options, Subject
from LNHGTrainingLib.prepare.storage import SCANS, read_content, write_index, write_scan

REPORT, SETTINGS = "report.csv", "prepare.json"
SCHEMA = 1


@dataclass(frozen=True)
class Layout:
    """A kind of input: the module whose `find` lists its subjects, and what the table says of the data's origin."""

    module: str
    source: str
    licence: str


LAYOUTS = {
    "lidc": Layout("lidc", "LIDC-IDRI (doi 10.7937/K9/TCIA.2015.LO9QL9SX)", "CC BY 3.0"),
    "luna16": Layout("luna16", "LUNA16 (Setio 2017) from LIDC-IDRI", "CC BY 4.0"),
    "pairs": Layout("ct_mask_pairs", "own", "not stated"),
    "crops": Layout("existing_crops", "LUNA16 cubes with LIDC-IDRI outlines", "CC BY 4.0 and CC BY 3.0"),
}


@dataclass(frozen=True)
class Line:
    """A row of the report."""

    subject: str
    status: str
    cubes: int | str
    text: str


def prepare(
    layout: str,
    place: Path,
    out: Path,
    options: Options,
    progress: Callable[[float, str], None] | None = None,
) -> Counter:
    """Write `scans/`, `volumes.h5`, `manifest.csv` and `report.csv` into `out`.

    A scan that `out` holds already is not read again; one that was skipped is tried again.

    Args:
        layout: "lidc", "luna16", "pairs" or "crops".
        place: The input.
        out: New or empty folder, or one of a run with the same settings.
        options: What else there is to say.
        progress: Told the fraction done and the scan.

    Returns:
        Numbers of prepared and skipped scans and of cubes.

    Raises:
        InputError: the input has nothing to prepare, or `out` holds something else.
    """
    known = LAYOUTS[layout]
    source = {"source": options.source or known.source, "licence": options.licence or known.licence}
    draw = {"negatives": options.negatives, "seed": options.seed}
    _claim(out, {"schema": SCHEMA, "layout": layout, **source, **draw})
    found = importlib.import_module(f"LNHGTrainingLib.prepare.{known.module}").find(place, options)
    lines = [Line(name, "skipped", "", reason) for name, reason in found.left_out.items()]
    lines += _all(found, out / SCANS, source, progress)
    done = sorted(line.subject for line in lines if line.status == "prepared")
    with atomic_file(out / REPORT) as part:
        _write_report(part, lines)
    if not done:
        raise InputError(f"None of the {len(lines)} scan(s) in {place} could be prepared; see {out / REPORT}.")
    rows = write_index(out, done)
    return Counter(line.status for line in lines) + Counter(cubes=sum("key" in row for row in rows))


def _claim(out: Path, settings: dict) -> None:
    """Make `out`, or take up what an earlier run with the same settings left there."""
    known = out / SETTINGS
    if out.is_file() or (out.is_dir() and not known.is_file() and _foreign(out)):
        raise InputError(f"{out} holds something else, expected a new folder or prepared data; name another.")
    if known.is_file():
        earlier = json.loads(known.read_text(encoding="utf-8"))
        differing = [name for name in settings if earlier.get(name) != settings[name]]
        if differing:
            name = differing[0]
            raise InputError(
                f"{out} was prepared with {name} {earlier.get(name)!r}, now it is {settings[name]!r}; "
                "name another folder, or give the same settings to go on."
            )
    (out / SCANS).mkdir(parents=True, exist_ok=True)
    if not known.is_file():
        with atomic_file(known) as part:
            part.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    for stale in (*out.glob("*.part"), *(out / SCANS).glob("*.part")):
        stale.unlink()


def _foreign(out: Path) -> list[Path]:
    """What no run could have left there before it wrote its settings."""
    allowed = {SCANS, f"{SETTINGS}.part"}
    return [path for path in out.iterdir() if path.name not in allowed]


def _all(found: Found, folder: Path, source: dict, progress: Callable[[float, str], None] | None) -> Iterator[Line]:
    for number, subject in enumerate(found.subjects):
        if progress:
            progress(number / len(found.subjects), subject.name)
        yield _one(subject, folder / f"{subject.name}.h5", source)


def _one(subject: Subject, path: Path, source: dict) -> Line:
    """Prepare one scan, unless it is there; whatever is wrong with it is said in the report."""
    if not path.exists():
        try:
            _write(path, subject.read(), source)
        except InputError as error:
            return Line(subject.name, "skipped", "", str(error))
        except Exception as error:  # one broken scan must not end a run of hours
            return Line(subject.name, "skipped", "", f"It failed unexpectedly: {type(error).__name__}: {error}.")
    content = read_content(path)
    return Line(subject.name, "prepared", sum("key" in row for row in content["rows"]), " ".join(content["notes"]))


def _write(path: Path, content: Content, source: dict) -> None:
    cubes = (replace(cube, row=source | cube.row) for cube in content.cubes)
    write_scan(path, cubes, (source | row for row in content.rows), content.notes)


def _write_report(path: Path, lines: list[Line]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["subject", "status", "cubes", "text"])
        writer.writerows([line.subject, line.status, line.cubes, line.text] for line in lines)


def say(fraction: float, text: str) -> None:
    """A line of progress for people."""
    print(f"{fraction:4.0%} {text}", file=sys.stderr, flush=True)
