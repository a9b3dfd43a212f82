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

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Options:
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


def write_report(options: Options, progress: Progress = lambda *_: None) -> list[str]:
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
    work = _Work(options, read_case(options.result), progress)
    with atomic_folder(options.out, options.overwrite, FILES) as folder:
        work.write(folder)
    progress(1.0, "Done")
    return work.notes


class _Work:
    """One report being written."""

    def __init__(self, options: Options, case: ReportCase, progress: Progress) -> None:
        self.options, self.case, self.progress = options, case, progress
        self.parts = PARTS if options.parts is None else options.parts
        self.notes: list[str] = []
        self.series = None
        self.no_series = ""

    def write(self, folder: Path) -> None:
        if DICOM in self.parts or self.options.identity or self.options.dicom:
            self._find_series()
        if CSV in self.parts:
            from LNHGLib.report import table

            table.write_csv(self.case.nodules, folder / TABLE)
        if DICOM in self.parts:
            self._write_dicom(folder)
        if PAGE in self.parts:
            self._write_pages(folder)

    def _find_series(self) -> None:
        """Find the original series; where it was not asked for by name, its absence is only noted."""
        from LNHGLib.report import dicom_source

        self.progress(0.15, "Looking for the DICOM series")
        asked = self.options.dicom is not None or self.options.parts is not None or self.options.identity
        try:
            path, files = _place(self.case.report, self.options.dicom)
            uid = (self.case.report.get("input") or {}).get("series_uid")
            self.series = dicom_source.find_series(path, uid, files)
        except InputError as error:
            if asked:
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
        from LNHGLib.report import page as report_page

        self.progress(0.6, "Reading the CT")
        no_picture = ""
        try:
            self.case = self._with_volume()
        except InputError as error:
            no_picture = str(error)
            self.notes.append(f"The report has no pictures: {no_picture}")
        self.progress(0.75, "Drawing the report")
        page = report_page.PageOptions(self.options.case, self._identity(), _style(self.case.report), no_picture)
        report_page.write_pages(self.case, folder, self.options.form, page)

    def _with_volume(self) -> ReportCase:
        """Return the case with its CT: from where the result says, else from the DICOM series."""
        from LNHGLib.image.reader import read_volume

        source = self.case.report.get("input") or {}
        path = Path(source.get("path") or "")
        if path.name and path.exists():
            return self.case.with_volume(read_volume(path, source.get("series_uid")))
        if self.series is None:
            raise InputError(f"the CT {source.get('path')} is not there any more; give its DICOM series with --dicom.")
        volume = read_volume(self.series.files[0].parent, self.series.series_uid, self.series.files)
        return self.case.on(self.series).with_volume(volume)

    def _identity(self) -> list[tuple[str, str]]:
        if not self.options.identity or self.series is None:
            return []
        first = self.series.slices[0]
        values = {name: [str(first.get(tag) or "").strip() for tag in tags] for name, tags in IDENTITY.items()}
        return [(name, ", ".join(filter(None, parts)) or "not in the DICOM series") for name, parts in values.items()]


def _place(report: dict, dicom: Path | None) -> tuple[Path, list[Path]]:
    """Return where the original DICOM series lies, and its files where they are known."""
    from LNHGLib.image.dicom_series import is_dicom

    source = report.get("input") or {}
    if dicom is not None:
        return dicom, []
    files = [Path(file) for file in source.get("files", ())]
    if files:
        return files[0].parent, files
    path = Path(source.get("path") or "")
    if not path.name or not path.exists():
        raise InputError(f"the CT {source.get('path')} is not there any more; give its DICOM series with --dicom.")
    if path.is_file() and not is_dicom(path):
        raise InputError(f"{path} is no DICOM series; give the original one with --dicom.")
    return path, []


def _style(report: dict) -> DisplayStyle:
    """Return how the result's own picture was colored."""
    shown = report.get("preview") or {}
    return DisplayStyle(
        shown.get("color_map", DEFAULT_STYLE.color_map),
        shown.get("scale", DEFAULT_STYLE.scale),
        tuple(shown.get("signal_range", DEFAULT_STYLE.signal_range)),
    )
