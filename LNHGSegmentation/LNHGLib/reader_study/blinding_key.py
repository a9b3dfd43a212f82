"""The sealed key of a reader study, and the checksums that show whether anything of the study was changed."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from LNHGLib.errors import InputError
from LNHGLib.files.checksum import file_sha256
from LNHGLib.reader_study.design import Read, Secret
from LNHGLib.reader_study.scores import write_truth

SCHEMA = 1
SEALED, STUDY_FILE = "sealed", "study.json"
KEY_COLUMNS = ("caseID", "result", "nodule", "truth")
READ_COLUMNS = ("readerID", "session", "order", "caseID", "modalityID", "repeat", "image")
FOLDER_MODE, FILE_MODE = 0o700, 0o600


@dataclass(frozen=True)
class Known:
    """A row of the key: the case's opaque name, its result and nodule, and its truth where that is known."""

    case: str
    result: str
    nodule: int
    truth: int | None


def write_key(folder: Path, study: str, cases: Sequence[Known], reads: Sequence[Read], secret: Secret) -> None:
    """Write what nobody who reads may know, into a folder of its own that only its owner may open.

    Args:
        folder: of the study.
        study: its opaque name.
        cases: in the order of their indices.
        reads: all of the study.
        secret: its seed is kept with the key, as it leads to all names.
    """
    sealed = folder / SEALED
    sealed.mkdir(mode=FOLDER_MODE)
    rows = [(known.case, known.result, known.nodule, "" if known.truth is None else known.truth) for known in cases]
    _write_table(sealed / "key.csv", KEY_COLUMNS, rows)
    shown = [(r.reader, r.session, r.order, cases[r.case].case, r.modality, int(r.repeat), r.name) for r in reads]
    _write_table(sealed / "reads.csv", READ_COLUMNS, shown)
    seed = {"schema": SCHEMA, "study": study, "seed": secret.seed}
    (sealed / "seed.json").write_text(json.dumps(seed, indent=1) + "\n", encoding="utf-8")
    truth = {known.case: known.truth for known in cases}
    if None not in truth.values():
        write_truth(sealed / "truth.csv", truth)
    for file in sealed.iterdir():
        file.chmod(FILE_MODE)


def close(folder: Path, description: Mapping[str, object]) -> None:
    """Write the study file: what the study is like, and the SHA-256 of every other file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    checksums = {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}
    study = {"schema": SCHEMA, **description, "sha256": checksums}
    (folder / STUDY_FILE).write_text(json.dumps(study, indent=1) + "\n", encoding="utf-8")


def verify(study: Path, sealed: Path | None = None) -> int:
    """Check that no file of a study was changed, lost or added since it was made.

    Args:
        study: its folder.
        sealed: where the sealed folder is kept, if it was moved.

    Returns:
        The number of files checked.

    Raises:
        InputError: it is no study, or something is not as it was.
    """
    try:
        known = json.loads((study / STUDY_FILE).read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{study} is no reader study, expected its {STUDY_FILE}; check the path.") from error
    faults = list(_changes(study, known, sealed or study / SEALED))
    if faults:
        more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise InputError(
            f"{faults[0]}{more}: expected the study as it was made; do not analyse it before you know why."
        )
    return len(known)


def _changes(study: Path, known: dict[str, str], sealed: Path) -> Iterator[str]:
    places = {name: study / name for name in known}
    places |= {name: sealed / Path(name).name for name in known if name.startswith(f"{SEALED}/")}
    for name, path in places.items():
        if not path.is_file():
            yield f"{name} of {study} is missing"
        elif file_sha256(path) != known[name]:
            yield f"{name} of {study} was changed"
    for path in (path for path in sorted(study.rglob("*")) if path.is_file()):
        name = path.relative_to(study).as_posix()
        if name not in known and name != STUDY_FILE:
            yield f"{name} of {study} was added"


def _write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
