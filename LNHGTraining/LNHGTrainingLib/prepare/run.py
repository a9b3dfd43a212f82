"""Turns LIDC-IDRI, LUNA16, CTs with masks, or crops into training data, scan by scan; a killed run goes on."""

import importlib
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

from LNHGLib.errors import InputError, quoted
from LNHGLib.files.atomic import atomic_file
from LNHGLib.files.damage import explain_damage
from LNHGLib.files.text import read_json, write_csv, write_json

from LNHGTrainingLib.prepare.sources import PrepareOptions, Subject
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
    location: Path,
    out: Path,
    options: PrepareOptions,
    progress: Callable[[float, str], None] | None = None,
) -> Counter:
    """Write `scans/`, `volumes.h5`, `manifest.csv` and `report.csv` into `out`.

    A scan that `out` holds already is not read again; one that was skipped is tried again.

    Args:
        layout: "lidc", "luna16", "pairs" or "crops".
        location: The input.
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
    sampling = {"negatives": options.negatives, "seed": options.seed}
    claim_folder(out, {"schema": SCHEMA, "layout": layout, **source, **sampling})
    found = importlib.import_module(f"LNHGTrainingLib.prepare.{known.module}").find(location, options)
    lines = [Line(name, "skipped", "", reason) for name, reason in found.left_out.items()]
    for number, subject in enumerate(found.subjects):
        if progress:
            progress(number / len(found.subjects), subject.name)
        lines.append(prepare_subject(subject, out / SCANS / f"{subject.name}.h5", source))
    done = sorted(line.subject for line in lines if line.status == "prepared")
    with atomic_file(out / REPORT) as part:
        write_csv(part, map(vars, lines), [field.name for field in fields(Line)])
    if not done:
        raise InputError(f"None of the {len(lines)} scan(s) in {location} could be prepared; see {out / REPORT}.")
    rows = write_index(out, done)
    return Counter(line.status for line in lines) + Counter(cubes=sum("key" in row for row in rows))


def claim_folder(out: Path, settings: dict) -> None:
    """Make a folder for prepared data, or take up what an earlier run with the same settings left there.

    Args:
        out: the folder.
        settings: of this run.

    Raises:
        InputError: it holds something else, or data with other settings.
    """
    known = out / SETTINGS
    allowed = {SCANS, f"{SETTINGS}.part"}  # what a run could have left there before it wrote its settings
    foreign = out.is_dir() and any(path.name not in allowed for path in out.iterdir())
    if out.is_file() or (foreign and not known.is_file()):
        raise InputError(f"{out} holds something else, expected a new folder or prepared data; name another.")
    if known.is_file():
        with explain_damage(known, "name another folder"):
            earlier = dict(read_json(known))
        differing = [name for name in settings if earlier.get(name) != settings[name]]
        if differing:
            name = differing[0]
            raise InputError(
                f"{out} was prepared with {name} {quoted(earlier.get(name))}, now it is {quoted(settings[name])}; "
                "name another folder, or give the same settings to go on."
            )
    (out / SCANS).mkdir(parents=True, exist_ok=True)
    if not known.is_file():
        with atomic_file(known) as part:
            write_json(part, settings)
    for left in (*out.glob("*.part"), *(out / SCANS).glob("*.part")):
        left.unlink()


def prepare_subject(subject: Subject, path: Path, source: dict) -> Line:
    """Prepare one scan, unless it is there; whatever is wrong with it is said in the report.

    Args:
        subject: the scan.
        path: its file.
        source: columns of the table that say where the data are from.
    """
    if not path.exists():
        try:
            content = subject.read()
            cubes = (replace(cube, row=source | cube.row) for cube in content.cubes)
            write_scan(path, cubes, (source | row for row in content.rows), content.notes)
        except InputError as error:
            return Line(subject.name, "skipped", "", str(error))
        except Exception as error:  # one broken scan must not end a run of hours
            return Line(subject.name, "skipped", "", f"It failed unexpectedly: {type(error).__name__}: {error}.")
    content = read_content(path)
    return Line(subject.name, "prepared", sum("key" in row for row in content["rows"]), " ".join(content["notes"]))


def say(fraction: float, text: str) -> None:
    """Print a line of progress for people.

    Args:
        fraction: done, 0 to 1.
        text: what is being done.
    """
    print(f"{fraction:4.0%} {text}", file=sys.stderr, flush=True)
