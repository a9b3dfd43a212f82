"""Writes a reader study: a package for each reader and session, and the sealed key, all of it or nothing.

STUDY/study.json                     design, and the SHA-256 of every other file
STUDY/README.txt                     what the coordinator does with it
STUDY/packages/R1-session-1/         what reader R1 gets for the first session, and nothing else:
    viewer.html, images/*.png, scores.csv, dicom/*.dcm (optional)
STUDY/sealed/                        who is who, to be kept apart: key.csv, reads.csv, seed.json, truth.csv (if known)
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from LNHGLib import __version__
from LNHGLib.errors import CANCELLED, Cancelled, InputError
from LNHGLib.figures import colors
from LNHGLib.files import atomic
from LNHGLib.files.checksum import file_sha256
from LNHGLib.reader_study import blinding_key, secondary_capture, viewer
from LNHGLib.reader_study.cases import Entry
from LNHGLib.reader_study.design import Read, Secret, plan
from LNHGLib.reader_study.images import Look, Pictures, draw, png
from LNHGLib.reader_study.scores import MODALITIES, SESSIONS, Score, write_scores

PACKAGES, SHEETS = "packages", "sheets"
QUESTION = "How likely is it that the nodule in the middle is malignant?"
ENDS = ("certainly benign", "certainly malignant")
WASHOUT_DAYS = 28

README = """A reader study made by LNHG {version}.

1. Keep the folder "sealed" apart from all readers: it tells which case is which. Its files are readable by you alone.
   Note the SHA-256 of study.json, shown when the study was made; `lnhg reader-study verify` finds any later change.
2. Give each reader the folder of his or her first session (packages/<reader>-session-1), alone. The reader opens
   viewer.html in a browser, on the same screen in both sessions, and sends you the scores that it saves.
3. Give the folder of the second session {washout} days later or more, after the scores of the first have come.
4. Run `lnhg reader-study analyse SCORES.csv ... OUT --truth sealed/truth.csv` with all the files you have got.

For readings on a workstation instead of the viewer fill the tables in sheets/; their column image names the picture.
They tell which reads are of the same case: keep them from the readers too.
Research software, not for diagnosis.
"""


@dataclass(frozen=True)
class Options:
    """What a study is like.

    Attributes:
        readers: their names.
        repeats: share of the cases read twice in a session.
        seed: what everything is drawn from; None draws one.
        washout_days: least days between the sessions.
        question: what the score answers.
        ends: what 0 and 100 mean.
        look: of the pictures.
        dicom: whether to write DICOM Secondary Capture too.
        forced: whether inputs with burned-in annotation were taken.
    """

    readers: Sequence[str] = ("R1", "R2", "R3")
    repeats: float = 0.1
    seed: int | None = None
    washout_days: int = WASHOUT_DAYS
    question: str = QUESTION
    ends: tuple[str, str] = ENDS
    look: Look = field(default_factory=Look)
    dicom: bool = False
    forced: bool = False


@dataclass(frozen=True)
class Outcome:
    """What was written: cases, reads, and the SHA-256 of study.json, to be noted apart from the study."""

    cases: int
    reads: int
    seal: str


def check_target(out: Path) -> None:
    """Refuse a folder that exists: a study is never replaced, since readers may have begun.

    Raises:
        InputError: it exists.
    """
    if out.exists():
        raise InputError(f"The study folder {out} already exists, expected a new one; give another name.")


def export(
    entries: Sequence[Entry],
    out: Path,
    options: Options,
    progress: Callable[[float, str], None] = lambda _fraction, _text: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Make a study of the entries.

    Args:
        entries: the cases; each is loaded once, in their order.
        out: folder to make.
        options: what the study is like.
        progress: told a share and a sentence, which names no case.
        cancelled: asked before each case.

    Raises:
        InputError: `out` exists, there is no case, or a case cannot be loaded.
        Cancelled: `cancelled` said so; nothing is left behind.
    """
    out = Path(out).absolute()
    check_target(out)
    secret = Secret.new() if options.seed is None else Secret(options.seed)
    reads = plan([entry.truth for entry in entries], options.readers, options.repeats, secret)
    home = next(folder for folder in out.parents if folder.is_dir())
    with atomic.explain_disk_errors(home, "The study"), atomic.temporary_folder(home) as scratch:
        study = _Study(scratch / "new", entries, reads, options, secret)
        for number, entry in enumerate(entries):
            if cancelled():
                raise Cancelled(CANCELLED)
            progress(number / len(entries), f"Drawing case {number + 1} of {len(entries)}")
            study.add(number, draw(entry.load(), options.look))
        study.finish()
        seal = file_sha256(study.folder / blinding_key.STUDY_FILE)
        out.parent.mkdir(parents=True, exist_ok=True)
        study.folder.rename(out)
    return Outcome(len(entries), len(reads), seal)


class _Study:
    """A study while it is written."""

    def __init__(
        self, folder: Path, entries: Sequence[Entry], reads: Sequence[Read], options: Options, secret: Secret
    ) -> None:
        self.folder, self.entries, self.reads, self.options, self.secret = folder, entries, reads, options, secret
        (self.name,) = secret.names(1, "study")
        self.case_names = secret.names(len(entries), "cases")
        self.shown: dict[str, viewer.ShownRead] = {}
        folder.mkdir()

    def package(self, reader: str, session: int) -> Path:
        return self.folder / PACKAGES / f"{reader}-session-{session}"

    def add(self, case: int, pictures: Pictures) -> None:
        """Write the pictures of a case into the packages, each read's under a name of its own."""
        encoded = {modality: [png(frame) for frame in pictures.frames[modality]] for modality in MODALITIES}
        for read in (read for read in self.reads if read.case == case):
            files = _picture_names(read.name, len(encoded[read.modality]))
            folder = self.package(read.reader, read.session)
            (folder / "images").mkdir(parents=True, exist_ok=True)
            for file, content in zip(files, encoded[read.modality], strict=True):
                (folder / file).write_bytes(content)
            self.shown[read.name] = viewer.ShownRead(
                self.case_names[case], read.modality, read.repeat, files, pictures.start
            )
            if self.options.dicom:
                self._add_dicom(read, folder, pictures.frames[read.modality], pictures.pixel_mm)

    def _add_dicom(self, read: Read, folder: Path, frames: Sequence[np.ndarray], pixel_mm: float) -> None:
        captures = secondary_capture.captures(frames, pixel_mm, self.name, read, self.secret, not self.options.forced)
        (folder / "dicom").mkdir(exist_ok=True)
        for number, capture in enumerate(captures, 1):
            capture.save_as(folder / "dicom" / f"{read.name}-{number:03d}.dcm", enforce_file_format=True)

    def finish(self) -> None:
        """Write what needs all cases: viewers, score sheets, key, and the study file with all checksums."""
        for reader in self.options.readers:
            for session in SESSIONS:
                self._finish_package(reader, session)
        cases = [
            blinding_key.KeyRow(name, entry.origin, entry.nodule, entry.truth)
            for name, entry in zip(self.case_names, self.entries, strict=True)
        ]
        blinding_key.write_key(self.folder, self.name, cases, self.reads, self.secret)
        text = README.format(version=__version__, washout=self.options.washout_days)
        (self.folder / "README.txt").write_text(text, encoding="utf-8")
        blinding_key.write_study_file(self.folder, {"study": self.name, **self._description()})

    def _finish_package(self, reader: str, session: int) -> None:
        reads = [read for read in self.reads if (read.reader, read.session) == (reader, session)]
        shown = [self.shown[read.name] for read in reads]
        options = self.options
        page = viewer.page(
            viewer.Session(
                *(self.name, reader, session, len(SESSIONS)),
                *(options.washout_days, options.question, options.ends, shown),
            )
        )
        folder = self.package(reader, session)
        (folder / "viewer.html").write_text(page, encoding="utf-8")
        sheet = [
            Score(reader, each.case, read.modality, None, None, None, session, read.order, read.repeat)
            for read, each in zip(reads, shown, strict=True)
        ]
        sheets = self.folder / SHEETS
        sheets.mkdir(exist_ok=True)
        images = [Path(each.images[each.start]).name for each in shown]
        write_scores(sheets / f"{folder.name}.csv", sheet, {"image": images})

    def _description(self) -> dict[str, object]:
        options = self.options
        return {
            "lnhg": __version__,
            "cases": len(self.entries),
            "readers": list(options.readers),
            "sessions": len(SESSIONS),
            "modalities": list(MODALITIES),
            "repeats": sum(read.repeat for read in self.reads) // (len(SESSIONS) * len(options.readers)),
            "washout_days": options.washout_days,
            "question": options.question,
            "ends": list(options.ends),
            "look": asdict(options.look),
            "window_hu": {"width": colors.LUNG_WIDTH_HU, "level": colors.LUNG_LEVEL_HU},
            "burned_in_annotation_taken": options.forced,
        }


def _picture_names(name: str, number: int) -> tuple[str, ...]:
    return tuple(f"images/{name}-{index:02d}.png" for index in range(1, number + 1))
