"""The report of one case on A4 pages: table of the kept findings, then their pictures. PDF or PNG.

Nothing about the patient stands there unless it is handed over, and nothing is left out silently: what does not fit on
a page goes on the next one, and pictures beyond `MAX_PICTURES` are counted in words.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from LNHGLib.figures import colors, nodule_figure
from LNHGLib.figures.colors import DEFAULT_STYLE, DisplayStyle
from LNHGLib.figures.nodule_figure import FigureArea
from LNHGLib.figures.segment_style import segment_color
from LNHGLib.figures.writing import drawable, plain_text
from LNHGLib.measurement.score_scale import NAMES
from LNHGLib.report.case import ReportCase
from LNHGLib.report.dicom_codes import model_of, version_of
from LNHGLib.report.table import SCORE_LINES, Column, cells, columns, details, size_lines, size_summary

WIDTH, HEIGHT, MARGIN, FOOTER = 8.27, 11.69, 0.5, 0.55  # inches, A4
PICTURE, MIN_PICTURE, PICTURE_GAP = 1.62, 1.12, 0.14
LINE, TABLE_ROW = 0.16, 0.36
DOTS_PER_INCH = 150
MAX_PICTURES = 24
INK, GRAY, RULE = "#16191d", "#5b6570", "#c9ced4"
WARNING = "RESEARCH USE ONLY · NOT A MEDICAL DEVICE"
EMPTY_CASE = "_" * 40


@dataclass(frozen=True)
class PageOptions:
    """What the report says about itself.

    Attributes:
        case: name of the case; empty leaves a line to write on.
        patient: what is known of the patient as (name, value), only if the user asked for it.
        style: how the signal is colored.
        no_picture: why there are no pictures, where the case has no CT.
        written: when the report was made.
    """

    case: str = ""
    patient: Sequence[tuple[str, str]] = ()
    style: DisplayStyle = DEFAULT_STYLE
    no_picture: str = ""
    written: datetime = field(default_factory=datetime.now)


def write_pages(case: ReportCase, folder: Path, form: str, options: PageOptions) -> list[Path]:
    """Write the report.

    Args:
        case: the kept findings.
        folder: where to write.
        form: "pdf" for report.pdf; "png" for report.png, or report-1.png and so on where it has several pages.
        options: what the report says about itself.

    Returns:
        The files.
    """
    with plain_text(names_on_pages(case, options)):
        pages = _Pages(case, options).compose()
        if form == "pdf":
            path = folder / "report.pdf"
            with PdfPages(path, metadata={"Title": "Lung nodule report (research use)", "Creator": "LNHG"}) as pdf:
                for page in pages:
                    pdf.savefig(page)
            return [path]
        names = ["report.png"] if len(pages) == 1 else [f"report-{number}.png" for number in range(1, len(pages) + 1)]
        for name, page in zip(names, pages, strict=True):
            page.savefig(folder / name, dpi=DOTS_PER_INCH)
        return [folder / name for name in names]


def names_on_pages(case: ReportCase, options: PageOptions) -> list[str]:
    """Return the texts on the pages that users and files give, in any script.

    Args:
        case: the kept findings.
        options: what the report says about itself.
    """
    patient = [value for _, value in options.patient]
    return [options.case, options.no_picture, *patient, model_of(case.report), *(each.label for each in case.nodules)]


class _Pages:
    """The pages while they are composed; `top` is where the next thing goes, in inches from the page's upper edge."""

    def __init__(self, case: ReportCase, options: PageOptions) -> None:
        self.case, self.options = case, options
        self.columns = columns(case.score_scale)
        self.pages: list[Figure] = []
        self.top = 0.0

    def compose(self) -> list[Figure]:
        """Return the pages: header, table and pictures in this order, with a footer on each."""
        self._new_page()
        self._header()
        self._table()
        self._pictures()
        window = f"W {colors.LUNG_WIDTH_HU:.0f} L {colors.LUNG_LEVEL_HU:.0f} HU".replace("-", "\N{MINUS SIGN}")
        left = (
            f"Axial slices, {nodule_figure.convention(self.case.volume)}, {window}; colors: relative signal of the "
            "network, not HU. Research use only, not for diagnosis."
        )
        style = {"fontsize": 6.3, "color": GRAY}
        for number, page in enumerate(self.pages, 1):
            page.text(MARGIN / WIDTH, 0.32 / HEIGHT, left, **style)
            page.text(1 - MARGIN / WIDTH, 0.32 / HEIGHT, f"{number} of {len(self.pages)}", ha="right", **style)
        return self.pages

    def _new_page(self) -> None:
        figure = Figure(figsize=(WIDTH, HEIGHT), facecolor="white")
        FigureCanvasAgg(figure)
        self.pages.append(figure)
        self.top = MARGIN
        first = len(self.pages) == 1
        title = "Lung nodule report" + ("" if first or not self.options.case else f", {self.options.case[:40]}")
        self._write(MARGIN, title, size=15 if first else 9, weight="bold")
        self._write(WIDTH - MARGIN, WARNING, size=8, weight="bold", ha="right")
        self.top += 0.32 if first else 0.24

    def _room_for(self, height: float) -> bool:
        """Start a new page if what comes does not fit on this one; tell whether it did."""
        if self.top + height <= HEIGHT - FOOTER:
            return False
        self._new_page()
        return True

    def _write(self, left: float, text: str, size: float = 7.5, color: str = INK, down: float = 0.0, **style) -> None:
        figure = self.pages[-1]
        y = 1 - (self.top + down + size / 72) / HEIGHT
        figure.text(left / WIDTH, y, drawable(text), fontsize=size, color=color, va="baseline", **style)

    def _rule(self, color: str = RULE) -> None:
        y = 1 - self.top / HEIGHT
        line = Line2D([MARGIN / WIDTH, 1 - MARGIN / WIDTH], [y, y], color=color, linewidth=0.6)
        self.pages[-1].add_artist(line)

    def _header(self) -> None:
        """Write case, patient, CT, model and number of findings, one line each."""
        report, grid = self.case.report, self.case.grid
        nz, ny, nx = grid.shape
        dz, dy, dx = grid.spacing_mm
        threshold = (report.get("options") or {}).get("threshold")
        score = NAMES[self.case.score_scale].lower()
        rejected = f", {self.case.rejected} rejected by the reader" if self.case.rejected else ""
        for name, value in (
            ("Case", self.options.case or EMPTY_CASE),
            *self.options.patient,
            ("CT", f"{nx} \u00d7 {ny} \u00d7 {nz} voxels of {dx:.3g} \u00d7 {dy:.3g} \u00d7 {dz:.3g} mm"),
            (
                "Model",
                model_of(report) + ("" if threshold is None else f", findings of {score} {threshold:.2f} and more"),
            ),
            ("Findings", f"{len(self.case.nodules)} kept{rejected}"),
            ("Written", f"{self.options.written:%Y-%m-%d %H:%M}, LNHG {version_of(report)}"),
        ):
            self._write(MARGIN, name, color=GRAY)
            self._write(MARGIN + 1.0, value)
            self.top += LINE
        self.top += 0.08

    def _table(self) -> None:
        self._table_head()
        for nodule in self.case.nodules:
            if self._room_for(TABLE_ROW):
                self._table_head()
            left = MARGIN
            for column, text in zip(self.columns, cells(nodule), strict=True):
                self._cell(left, column, text, down=0.05, weight="bold" if column is self.columns[0] else "normal")
                left += column.width
            swatch = Rectangle(
                ((MARGIN - 0.12) / WIDTH, 1 - (self.top + 0.16) / HEIGHT), 0.07 / WIDTH, 0.1 / HEIGHT,
                color=segment_color(nodule.number), transform=self.pages[-1].transFigure,
            )  # fmt: skip
            self.pages[-1].add_artist(swatch)
            self._write(MARGIN, size_summary(nodule), size=6.3, color=GRAY, down=0.2)
            self.top += TABLE_ROW
            self._rule()
        if not self.case.nodules:
            self._write(MARGIN, "No nodule was kept.", size=9, down=0.06)
            self.top += TABLE_ROW
        self._rule(INK)
        self.top += 0.05
        for line in (SCORE_LINES[self.case.score_scale], *size_lines()):
            self._room_for(LINE)
            self._write(MARGIN, line, size=6.3, color=GRAY)
            self.top += 0.12
        self.top += 0.14

    def _table_head(self) -> None:
        self._rule(INK)
        left = MARGIN
        for column in self.columns:
            self._cell(left, column, column.title, size=6.8, color=GRAY, down=0.04)
            left += column.width
        self.top += 0.2
        self._rule()

    def _cell(self, left: float, column: Column, text: str, **style) -> None:
        if column.right:
            self._write(left + column.width - 0.1, text, ha="right", **style)
        else:
            self._write(left, text, ha="left", **style)

    def _pictures(self) -> None:
        """Show each finding's pictures with its numbers beside them, on this page if they are not too small there."""
        if self.case.volume is None:
            self._room_for(LINE)
            self._write(MARGIN, f"No pictures: {self.options.no_picture or 'the CT is not at hand.'}", color=GRAY)
            return
        shown = [nodule for nodule in self.case.nodules if nodule.box_lps_mm is not None][:MAX_PICTURES]
        fitting = (HEIGHT - FOOTER - self.top + PICTURE_GAP) / max(len(shown), 1) - PICTURE_GAP
        size = min(fitting, PICTURE) if fitting >= MIN_PICTURE else PICTURE
        left = MARGIN + nodule_figure.width_of(size) + 0.1
        for nodule in shown:
            self._room_for(size)
            area = FigureArea(MARGIN, self.top, size)
            nodule_figure.plot_nodule(self.pages[-1], self.case, nodule, area, self.options.style, INK)
            self._write(left, nodule.label[:22], size=9, weight="bold")
            for index, line in enumerate(details(nodule, self.case.score_scale)):
                self._write(left, line, size=6.8, down=0.2 + 0.135 * index)
            self.top += size + PICTURE_GAP
        missing = len(self.case.nodules) - len(shown)
        if missing:
            self._room_for(LINE)
            some = f"{missing} finding{' has' if missing == 1 else 's have'} no pictures here"
            self._write(MARGIN, f"{some}: the first {len(shown)} are shown; the table holds all.", weight="bold")
