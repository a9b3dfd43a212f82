"""A report of a result folder: table, pages, DICOM SEG and SR, all or nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from LNHGLib.errors import InputError
from LNHGLib.figures.colors import DEFAULT_STYLE, DisplayStyle
from LNHGLib.files.atomic import atomic_folder, require_free
from LNHGLib.report.case import ReportCase, read_case

CSV, PAGE, DICOM = "csv", "page", "dicom"
PARTS = (CSV, PAGE, DICOM)
TABLE, SEG, SR = "nodules.csv", "nodules_seg.dcm", "nodules_sr.dcm"
FILES = (TABLE, SEG, SR, "report.pdf", "report.png", "report-*.png")
IDENTITY = {
    "Patient": ("PatientName", "PatientID"),
    "Born, sex": ("PatientBirthDate", "PatientSex"),
    "Study": ("StudyDate", "AccessionNumber"),
}

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
    """Write a report.

    Args:
        options: what to write.
        progress: called with the fraction done and what is being done.

    Returns:
        Sentences for the user: what could not be written, and why.

    Raises:
        InputError: a folder is wrong, or a part that was asked for cannot be written.
    """
    if options.result.resolve().is_relative_to(options.out.resolve()):
        raise InputError(f"OUT {options.out} holds the result itself, expected a folder of its own; give another OUT.")
    require_free(options.out, options.overwrite, FILES)
    progress(0.0, "Reading the result")
    work = _ReportWriter(options, read_case(options.result), progress)
    with atomic_folder(options.out, options.overwrite, FILES) as folder:
        work.write(folder)
    progress(1.0, "Done")
    return work.notes


class _ReportWriter:
    """One report being written."""

    def __init__(self, options: ReportOptions, case: ReportCase, progress: Progress) -> None:
        self.options, self.case, self.progress = options, case, progress
        self.parts = PARTS if options.parts is None else options.parts
        self.notes: list[str] = []
        self.series = None
        self.no_series = ""

    def write(self, folder: Path) -> None:
        """Write the parts that are wanted into a folder."""
        if DICOM in self.parts or self.options.identity or self.options.dicom:
            self._find_series()
        if CSV in self.parts:
            from LNHGLib.report.table import write_table

            write_table(self.case.nodules, self.case.score_scale, folder / TABLE)
        if DICOM in self.parts:
            self._write_dicom(folder)
        if PAGE in self.parts:
            self._write_pages(folder)

    def _find_series(self) -> None:
        """Find the original series; where it was not asked for by name, its absence is only noted."""
        from LNHGLib.image.dicom_series import is_dicom
        from LNHGLib.report.dicom_source import find_series

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
        except InputError as error:
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
        from LNHGLib.report import dicom_seg, dicom_source, dicom_sr

        self.progress(0.25, "Comparing the result with the DICOM series")
        case = self.case.on(self.series)
        dicom_source.require_same_values(self.series, case.labels, case.nodules)
        self.progress(0.4, "Writing DICOM SEG and SR")
        segmentation = dicom_seg.make_segmentation(case, self.series) if dicom_seg.segmented(case) else None
        if segmentation is not None:
            segmentation.save_as(folder / SEG)
        else:
            self.notes.append("No DICOM SEG was written: none of the kept findings is outlined.")
        dicom_sr.make_report(case, self.series, segmentation).save_as(folder / SR)

    def _write_pages(self, folder: Path) -> None:
        """Write the pages, with pictures if the CT is where the result says or the DICOM series is there."""
        from LNHGLib.image.reader import read_volume
        from LNHGLib.report.page import PageOptions, write_pages

        self.progress(0.6, "Reading the CT")
        case, no_picture = self.case, ""
        source = case.report.get("input") or {}
        path = Path(source.get("path") or "")
        try:
            if path.name and path.exists():
                volume = read_volume(path, source.get("series_uid"))
            elif self.series is not None:
                volume = read_volume(self.series.files[0].parent, self.series.series_uid, self.series.files)
                case = case.on(self.series)
            else:
                raise InputError(NO_CT.format(source.get("path")))
            case = case.with_volume(volume)
        except InputError as error:
            case, no_picture = self.case, str(error)
            self.notes.append(f"The report has no pictures: {no_picture}")
        self.progress(0.75, "Drawing the report")
        patient = []
        if self.options.identity and self.series is not None:
            for name, tags in IDENTITY.items():
                values = [str(self.series.slices[0].get(tag) or "").strip() for tag in tags]
                patient.append((name, ", ".join(filter(None, values)) or "not in the DICOM series"))
        shown = self.case.report.get("preview") or {}  # how the result's own picture was colored
        style = DisplayStyle(
            shown.get("color_map", DEFAULT_STYLE.color_map),
            shown.get("scale", DEFAULT_STYLE.scale),
            tuple(shown.get("signal_range", DEFAULT_STYLE.signal_range)),
        )
        write_pages(case, folder, self.options.form, PageOptions(self.options.case, patient, style, no_picture))
