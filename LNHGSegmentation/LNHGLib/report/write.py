"""A report of a result folder: table, pages, DICOM SEG and SR, each whole or not at all."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from LNHGLib.errors import Cancelled, InputError, WorkError
from LNHGLib.figures.colors import DEFAULT_STYLE, DisplayStyle
from LNHGLib.files.atomic import atomic_folder, require_free
from LNHGLib.report.case import ReportCase, read_case
from LNHGLib.results.original_ct import read_original

if TYPE_CHECKING:
    from LNHGLib.report.dicom_source import OriginalSeries

CSV, PAGE, DICOM = "csv", "page", "dicom"
PARTS = (CSV, PAGE, DICOM)
TABLE, SEG, SR = "nodules.csv", "nodules_seg.dcm", "nodules_sr.dcm"
FILES = (TABLE, SEG, SR, "report.pdf", "report.png", "report-*.png")
IDENTITY = {
    "Patient": ("PatientName", "PatientID"),
    "Born, sex": ("PatientBirthDate", "PatientSex"),
    "Study": ("StudyDate", "AccessionNumber"),
}

MAX_NAMES = 4
"""Of what a series does not state as DICOM has it: so many are told."""
NO_CT = "the CT {} is not there any more; give its DICOM series with --dicom."

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class ReportOptions:
    """What to write.

    Attributes:
        result: folder of `lnhg segment`.
        out: folder to write.
        dicom: folder of the original DICOM series; None: looked for where the result says the CT was.
        form: "pdf" or "png".
        parts: those of `PARTS` that are wanted; None: all that can be written.
        case: name of the case on the pages.
        identity: put the patient's name, number, birth date, sex and study on the pages.
        overwrite: replace an earlier report in `out`.
    """

    result: Path
    out: Path
    dicom: Path | None = None
    form: str = "pdf"
    parts: tuple[str, ...] | None = None
    case: str = ""
    identity: bool = False
    overwrite: bool = False


def write_report(options: ReportOptions, progress: Progress = lambda *_: None) -> list[str]:
    """Write a report: table, pages, SEG and SR each whole or not at all, whatever becomes of the others.

    Args:
        options: what to write.
        progress: called with the fraction done and what is being done.

    Returns:
        Sentences for the user: what could not be written, and why.

    Raises:
        InputError: a folder is wrong, a series that was asked for is not the result's, or nothing can be written.
    """
    if options.result.resolve().is_relative_to(options.out.resolve()):
        raise InputError(f"OUT {options.out} holds the result itself, expected a folder of its own; give another OUT.")
    require_free(options.out, options.overwrite, FILES)
    progress(0.0, "Reading the result")
    work = _ReportWriter(options, read_case(options.result), progress)
    with atomic_folder(options.out, options.overwrite, FILES) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, about headers that break the standard in harmless ways
        work.write(folder)
    progress(1.0, "Done")
    return work.notes


class _ReportWriter:
    """One report being written."""

    def __init__(self, options: ReportOptions, case: ReportCase, progress: Progress) -> None:
        self.options, self.case, self.progress = options, case, progress
        self.parts = PARTS if options.parts is None else options.parts
        self.notes: list[str] = []
        self.faults: list[InputError] = []
        self.series: OriginalSeries | None = None
        self.on_series: ReportCase | None = None
        self.no_series = ""

    def write(self, folder: Path) -> None:
        """Write the parts that are wanted into a folder."""
        if DICOM in self.parts or self.options.identity or self.options.dicom:
            self._find_series()
        if CSV in self.parts:
            from LNHGLib.report.table import write_table

            with self._alone("No table", folder):
                write_table(self.case.nodules, self.case.score_scale, folder / TABLE)
        if DICOM in self.parts:
            self._write_dicom(folder)
        if PAGE in self.parts:
            with self._alone("No page", folder):
                self._write_pages(folder)
        if self.faults and not any(folder.iterdir()):
            raise self.faults[0]

    @contextmanager
    def _alone(self, what: str, folder: Path) -> Iterator[None]:
        """Let what fails in the block keep no other part back: it leaves no file, and a sentence that says why."""
        before = set(folder.iterdir())
        try:
            yield
        except (Cancelled, WorkError, OSError, MemoryError):  # what keeps the other parts back as well
            raise
        except Exception as error:
            for file in set(folder.iterdir()) - before:
                file.unlink()
            reason = " ".join(str(error).split()) or type(error).__name__
            if not isinstance(error, InputError):
                logging.getLogger(__name__).debug(what, exc_info=error)
                reason = f"it failed unexpectedly ({reason}); report this, with LNHG_DEBUG=1 set."
            self.notes.append(f"{what} was written: {reason}")
            self.faults.append(InputError(self.notes[-1]))

    def _find_series(self) -> None:
        """Find the original series; where it was not asked for by name, its absence is only noted."""
        from LNHGLib.image.dicom_header import is_dicom
        from LNHGLib.report.dicom_source import find_series, require_same_values

        self.progress(0.15, "Looking for the DICOM series")
        source = self.case.report.get("input") or {}
        files = [] if self.options.dicom is not None else [Path(file) for file in source.get("files", ())]
        path = self.options.dicom or (files[0].parent if files else Path(source.get("path") or ""))
        try:
            if self.options.dicom is None and not files:
                if not path.name or not path.exists():
                    raise InputError(NO_CT.format(source.get("path")))
                if path.is_file() and not is_dicom(path):
                    raise InputError(f"{path} is no DICOM series; give the original one with --dicom.")
            self.series = find_series(path, source.get("series_uid"), files)
            self.progress(0.25, "Comparing the result with the DICOM series")
            case, original = self.case.on(self.series), self.case.original
            if original.voxels_sha256 and original.series_uid:
                case = case.with_volume(self.series.read())
            else:
                require_same_values(self.series, case.labels, case.nodules)
            self.on_series = case
        except InputError as error:
            self.series = None
            if self.options.dicom is not None or self.options.parts is not None or self.options.identity:
                raise
            self.no_series = str(error)

    def _write_dicom(self, folder: Path) -> None:
        if self.series is None:
            self.notes.append(f"No DICOM SEG and SR were written: {self.no_series}")
            return
        if not self.case.nodules:
            self.notes.append("No DICOM SEG and SR were written: no nodule was kept.")
            return
        from LNHGLib.report import dicom_seg, dicom_sr

        self.progress(0.4, "Writing DICOM SEG and SR")
        segmentation, outlined = None, dicom_seg.segmented(self.on_series)
        with self._alone("No DICOM SEG", folder):
            if outlined:
                made = dicom_seg.make_segmentation(self.on_series, self.series)
                made.save_as(folder / SEG)
                segmentation = made
        if not outlined:
            self.notes.append("No DICOM SEG was written: none of the kept findings is outlined.")
        with self._alone("No DICOM SR", folder):
            dicom_sr.make_report(self.on_series, self.series, segmentation).save_as(folder / SR)
        if self.series.faults:
            names = ", ".join(self.series.faults[:MAX_NAMES]) + (", ..." if len(self.series.faults) > MAX_NAMES else "")
            self.notes.append(
                f"The DICOM series states {names} not as DICOM has it: SEG and SR leave such values out, and texts in "
                "unknown characters may be wrong; check them."
            )

    def _write_pages(self, folder: Path) -> None:
        """Write the pages, with pictures if the CT is in the DICOM series or where the result says."""
        from LNHGLib.figures.writing import undrawable
        from LNHGLib.report.page import PageOptions, names_on_pages, write_pages

        self.progress(0.6, "Reading the CT")
        case, no_picture = self.case, ""
        try:
            case = self._with_pictures()
        except InputError as error:
            no_picture = str(error)
            self.notes.append(f"The report has no pictures: {no_picture}")
        self.progress(0.75, "Drawing the report")
        shown = self.case.report.get("preview") or {}  # how the result's own picture was colored
        style = DisplayStyle(
            shown.get("color_map", DEFAULT_STYLE.color_map),
            shown.get("scale", DEFAULT_STYLE.scale),
            tuple(shown.get("signal_range", DEFAULT_STYLE.signal_range)),
        )
        patient = []
        if self.options.identity and self.series is not None:
            from LNHGLib.report.dicom_identity import text_of

            for name, tags in IDENTITY.items():
                values = (text_of(self.series.slices[0], tag) or text_of(self.series.stated, tag) for tag in tags)
                patient.append((name, ", ".join(filter(None, values)) or "not in the DICOM series"))
        options = PageOptions(self.options.case, patient, style, no_picture)
        if strange := undrawable(names_on_pages(case, options)):
            some = f"{strange[:MAX_NAMES]}{'...' if len(strange) > MAX_NAMES else ''}"
            self.notes.append(
                f"No font of this computer draws {some}: they stand in Latin letters on the pages, ideographs as read "
                "in Mandarin; install a font of that script, such as Noto Sans."
            )
        write_pages(case, folder, self.options.form, options)

    def _with_pictures(self) -> ReportCase:
        """Return the case with its CT.

        Raises:
            InputError: it is not at hand.
        """
        if self.on_series is not None and self.on_series.volume is not None:
            return self.on_series
        try:
            return self.case.with_volume(read_original(self.case.original, self.options.result, "--dicom"))
        except InputError:
            if self.on_series is None:
                raise
        return replace(self.on_series, volume=self.series.read())
