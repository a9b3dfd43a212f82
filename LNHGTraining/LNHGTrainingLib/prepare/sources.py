"""What every layout of input gives to `prepare`: subjects that are read one at a time."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from LNHGLib.batch import case_names

from LNHGTrainingLib.prepare.cubes import Scan, mark_rows, samples
from LNHGTrainingLib.prepare.storage import Sample


@dataclass(frozen=True, eq=False)
class Content:
    """What one subject gives: cubes, the rows of its marks, and sentences for the report."""

    cubes: Iterable[Sample]
    rows: Iterable[dict] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Subject:
    """One scan to prepare.

    Attributes:
        name: unique; names its file.
        read: reads it; raises InputError when it cannot be used.
    """

    name: str
    read: Callable[[], Content]


@dataclass(frozen=True)
class PrepareOptions:
    """What the user asks for beside the input.

    Attributes:
        xml: folder of LIDC readings, where they do not lie in the input.
        patients: table with `series_uid` and `patient_id`, where the images do not tell (LUNA16).
        negatives: cubes without a nodule for each scan, sampled from LUNA16's candidates.
        seed: of that sampling.
        source: what the table says the data are, where it is not the layout's own.
        licence: what it says of their license.
    """

    xml: Path | None = None
    patients: Path | None = None
    negatives: int = 5
    seed: int = 0
    source: str | None = None
    licence: str | None = None


@dataclass(frozen=True, eq=False)
class Found:
    """The subjects of an input, and what is left out before anything is read: name to reason."""

    subjects: list[Subject]
    left_out: dict[str, str] = field(default_factory=dict)


def of_scan(name: str, read: Callable[[], Scan]) -> Subject:
    """Return the subject that is a whole scan.

    Args:
        name: names its file.
        read: reads it.
    """

    def content() -> Content:
        scan = read()
        return Content(samples(scan), mark_rows(scan), scan.volume.source.notes + scan.notes)

    return Subject(file_name(name), content)


def file_name(name: str) -> str:
    """Return a name that every file system takes, in the letters of any script."""
    return case_names.cleaned([name]) or "_"


def unique_names(names: Sequence[str]) -> list[str]:
    """Return a file's name for each case; those that a file system may take for the same are told apart."""
    return case_names.unique([("", name.replace("/", "_"), name) for name in names])
