"""The blinding key of a reader study, and the checksums that show whether anything of the study was changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from LNHGLib.errors import InputError
from LNHGLib.files.checksum import file_sha256
from LNHGLib.files.text import read_json, write_csv, write_json
from LNHGLib.reader_study.design import Read, Secret
from LNHGLib.reader_study.scores import write_truth

SCHEMA = 1
KEY_FOLDER, STUDY_FILE = "sealed", "study.json"
KEY_COLUMNS = ("caseID", "result", "nodule", "truth")
READ_COLUMNS = ("readerID", "session", "order", "caseID", "modalityID", "repeat", "image")
FOLDER_MODE, FILE_MODE = 0o700, 0o600


@dataclass(frozen=True)
class KeyRow:
    """A row of the key: the case's opaque name, its result and nodule, and its truth where that is known."""

    case: str
    result: str
    nodule: int
    truth: int | None


def write_key(folder: Path, study: str, cases: Sequence[KeyRow], reads: Sequence[Read], secret: Secret) -> None:
    """Write what nobody who reads may know, into a folder of its own that only its owner may open.

    Args:
        folder: of the study.
        study: its opaque name.
        cases: in the order of their indices.
        reads: all of the study.
        secret: its seed is kept with the key, as it leads to all names.
    """
    key_folder = folder / KEY_FOLDER
    key_folder.mkdir(mode=FOLDER_MODE)
    rows = [dict(zip(KEY_COLUMNS, (row.case, row.result, row.nodule, row.truth), strict=True)) for row in cases]
    write_csv(key_folder / "key.csv", rows, KEY_COLUMNS)
    shown = [(r.reader, r.session, r.order, cases[r.case].case, r.modality, int(r.repeat), r.name) for r in reads]
    write_csv(key_folder / "reads.csv", [dict(zip(READ_COLUMNS, row, strict=True)) for row in shown], READ_COLUMNS)
    write_json(key_folder / "seed.json", {"schema": SCHEMA, "study": study, "seed": secret.seed})
    truth = {row.case: row.truth for row in cases}
    if None not in truth.values():
        write_truth(key_folder / "truth.csv", truth)
    for file in key_folder.iterdir():
        file.chmod(FILE_MODE)


def write_study_file(folder: Path, description: Mapping[str, object]) -> None:
    """Write what the study is like, and the SHA-256 of every other file.

    Args:
        folder: of the study, all other files written.
        description: goes into the file.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    checksums = {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}
    write_json(folder / STUDY_FILE, {"schema": SCHEMA, **description, "sha256": checksums})


def verify(study: Path, key_folder: Path | None = None) -> int:
    """Check that no file of a study was changed, lost or added since it was made.

    Args:
        study: its folder.
        key_folder: where the folder with the key is kept, if it was moved.

    Returns:
        The number of files checked.

    Raises:
        InputError: it is no study, or something is not as it was.
    """
    try:
        checksums = dict(read_json(study / STUDY_FILE)["sha256"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{study} is no reader study, expected its {STUDY_FILE}; check the path.") from error
    key_folder = key_folder or study / KEY_FOLDER
    faults = []
    for name, checksum in checksums.items():
        path = key_folder / Path(name).name if name.startswith(f"{KEY_FOLDER}/") else study / name
        if not path.is_file():
            faults.append(f"{name} of {study} is missing")
        elif file_sha256(path) != checksum:
            faults.append(f"{name} of {study} was changed")
    there = [path.relative_to(study).as_posix() for path in sorted(study.rglob("*")) if path.is_file()]
    faults += [f"{name} of {study} was added" for name in there if name not in checksums and name != STUDY_FILE]
    if faults:
        more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise InputError(
            f"{faults[0]}{more}: expected the study as it was made; do not analyse it before you know why."
        )
    return len(checksums)
