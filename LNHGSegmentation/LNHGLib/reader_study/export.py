"""Writes a reader study: a package for each reader and session, and the blinding key, all of it or nothing.

STUDY/study.json                     design, and the SHA-256 of every other file
STUDY/README.txt                     what the coordinator does with it
STUDY/packages/R1-session-1/         what reader R1 gets for the first session, and nothing else:
    viewer.html, images/*.png, scores.csv, dicom/*.dcm (optional)
STUDY/sealed/                        the blinding key, to be kept apart:
    key.csv, reads.csv, seed.json, truth.csv (if known)
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path

from LNHGLib import __version__
from LNHGLib.errors import CANCELLED, Cancelled, InputError
from LNHGLib.figures import colors
from LNHGLib.files.atomic import atomic_folder
from LNHGLib.files.checksum import file_sha256
from LNHGLib.reader_study import blinding_key, secondary_capture, viewer
from LNHGLib.reader_study.cases import StudyCase
from LNHGLib.reader_study.design import Read, Secret, plan
from LNHGLib.reader_study.images import Pictures, RenderStyle, png, render
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
class StudyOptions:
    """What a study is like.

    Attributes:
        readers: their names.
        repeats: fraction of the cases read twice in a session.
        seed: source of all random choices; None chooses one.
        washout_days: least days between the sessions.
        question: what the score answers.
        ends: what 0 and 100 mean.
        style: of the pictures.
        dicom: whether to write DICOM Secondary Capture too.
        forced: whether inputs with burned-in annotation were taken.
    """

    readers: Sequence[str] = ("R1", "R2", "R3")
    repeats: float = 0.1
    seed: int | None = None
    washout_days: int = WASHOUT_DAYS
    question: str = QUESTION
    ends: tuple[str, str] = ENDS
    style: RenderStyle = field(default_factory=RenderStyle)
    dicom: bool = False
    forced: bool = False


@dataclass(frozen=True)
class ExportedStudy:
    """What was written: the numbers of cases and reads, and the SHA-256 of study.json, to be noted apart from it."""

    cases: int
    reads: int
    sha256: str


def require_new(out: Path) -> None:
    """Refuse a folder that exists: a study is never replaced, since readers may have begun.

    Raises:
        InputError: it exists.
    """
    if out.exists():
        raise InputError(f"The study folder {out} already exists, expected a new one; give another name.")


def export_study(
    cases: Sequence[StudyCase],
    out: Path,
    options: StudyOptions,
    progress: Callable[[float, str], None] = lambda _fraction, _text: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> ExportedStudy:
    """Make a study.

    Args:
        cases: each is loaded once, in their order.
        out: folder to make.
        options: what the study is like.
        progress: told a fraction and a sentence, which names no case.
        cancelled: asked before each case.

    Raises:
        InputError: `out` exists, there is no case, or a case cannot be loaded.
        Cancelled: `cancelled` said so; nothing is left behind.
    """
    out = Path(out).absolute()
    require_new(out)
    secret = Secret.new() if options.seed is None else Secret(options.seed)
    reads = plan([case.truth for case in cases], options.readers, options.repeats, secret)
    with atomic_folder(out, what="The study") as folder:
        writer = _StudyWriter(folder, cases, reads, options, secret)
        for number, case in enumerate(cases):
            if cancelled():
                raise Cancelled(CANCELLED)
            progress(number / len(cases), f"Drawing case {number + 1} of {len(cases)}")
            writer.add(number, render(case.load(), options.style))
        writer.finish()
        require_new(out)  # a study that was made there meanwhile
        return ExportedStudy(len(cases), len(reads), file_sha256(folder / blinding_key.STUDY_FILE))


class _StudyWriter:
    """A study while it is written.

    Args:
        folder: to fill.
        cases: of the study.
        reads: planned ones, by reader, session and order.
        options: what the study is like.
        secret: source of all names.
    """

    def __init__(
        self, folder: Path, cases: Sequence[StudyCase], reads: Sequence[Read], options: StudyOptions, secret: Secret
    ) -> None:
        self.folder, self.cases, self.reads, self.options, self.secret = folder, cases, reads, options, secret
        (self.name,) = secret.names(1, "study")
        self.case_names = secret.names(len(cases), "cases")
        self.shown: dict[str, viewer.ShownRead] = {}

    def package(self, reader: str, session: int) -> Path:
        """Return the folder that a reader gets for a session."""
        return self.folder / PACKAGES / f"{reader}-session-{session}"

    def add(self, case: int, pictures: Pictures) -> None:
        """Write the pictures of a case into the packages, each read's under a name of its own.

        Args:
            case: its index.
            pictures: in both modalities.
        """
        encoded = {modality: [png(frame) for frame in pictures.frames[modality]] for modality in MODALITIES}
        for read in (read for read in self.reads if read.case == case):
            contents = encoded[read.modality]
            files = tuple(f"images/{read.name}-{number:02d}.png" for number in range(1, len(contents) + 1))
            folder = self.package(read.reader, read.session)
            (folder / "images").mkdir(parents=True, exist_ok=True)
            for file, content in zip(files, contents, strict=True):
                (folder / file).write_bytes(content)
            self.shown[read.name] = viewer.ShownRead(
                self.case_names[case], read.modality, read.repeat, files, pictures.start
            )
            if self.options.dicom:
                frames, clean = pictures.frames[read.modality], not self.options.forced
                (folder / "dicom").mkdir(exist_ok=True)
                captures = secondary_capture.captures(frames, pictures.pixel_mm, self.name, read, self.secret, clean)
                for number, capture in enumerate(captures, 1):
                    capture.save_as(folder / "dicom" / f"{read.name}-{number:03d}.dcm", enforce_file_format=True)

    def finish(self) -> None:
        """Write what needs all cases: viewers, score sheets, key, and the study file with all checksums."""
        options, sheets = self.options, self.folder / SHEETS
        sheets.mkdir()
        for reader, session in product(options.readers, SESSIONS):
            reads = [read for read in self.reads if (read.reader, read.session) == (reader, session)]
            shown = [self.shown[read.name] for read in reads]
            page = viewer.page(
                viewer.Session(
                    *(self.name, reader, session, len(SESSIONS)),
                    *(options.washout_days, options.question, options.ends, shown),
                )
            )
            package = self.package(reader, session)
            (package / "viewer.html").write_text(page, encoding="utf-8")
            sheet = [
                Score(reader, each.case, read.modality, None, None, None, session, read.order, read.repeat)
                for read, each in zip(reads, shown, strict=True)
            ]
            images = [Path(each.images[each.start]).name for each in shown]
            write_scores(sheets / f"{package.name}.csv", sheet, {"image": images})
        cases = [
            blinding_key.KeyRow(name, case.origin, case.nodule, case.truth)
            for name, case in zip(self.case_names, self.cases, strict=True)
        ]
        blinding_key.write_key(self.folder, self.name, cases, self.reads, self.secret)
        text = README.format(version=__version__, washout=options.washout_days)
        (self.folder / "README.txt").write_text(text, encoding="utf-8")
        description = {
            "study": self.name,
            "lnhg": __version__,
            "cases": len(self.cases),
            "readers": list(options.readers),
            "sessions": len(SESSIONS),
            "modalities": list(MODALITIES),
            "repeats": sum(read.repeat for read in self.reads) // (len(SESSIONS) * len(options.readers)),
            "washout_days": options.washout_days,
            "question": options.question,
            "ends": list(options.ends),
            "look": asdict(options.style),
            "window_hu": {"width": colors.LUNG_WIDTH_HU, "level": colors.LUNG_LEVEL_HU},
            "burned_in_annotation_taken": options.forced,
        }
        blinding_key.write_study_file(self.folder, description)
