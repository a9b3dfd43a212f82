"""The result's picture: each finding on its axial slice, outlined, with its inner signal and legend.

Radiological convention: the patient's right is on the left, anterior is up.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from LNHGLib.figures import colors, nodule_figure
from LNHGLib.figures.axial_plane import whole_cut
from LNHGLib.figures.nodule_figure import Place, Shading
from LNHGLib.figures.segment_style import segment_color, segment_name

if TYPE_CHECKING:
    from LNHGLib.segmentation.pipeline import Nodule, Result

MOST_SHOWN = 8
SHADING = Shading()
DOTS_PER_INCH = 120

BACKGROUND, TEXT, DIM = "#0f1216", "#eceff3", "#98a2b0"
IMAGE, HEADER, MARGIN, TITLE, FOOTER = 2.5, 0.62, 0.22, 0.62, 0.36  # inches
PROVENANCE = {
    "fused": "both branches agree",
    "segmenter": "segmenter only",
    "detector-box": "detector only",
}


def write_preview(result: "Result", path: Path) -> dict:
    """Draw the findings with the highest scores and write the picture as PNG.

    Args:
        result: what the pipeline found.
        path: file to write.

    Returns:
        What the picture shows and on which scale, for the report: register U3 asks for the scale beside the colors.
    """
    shown = sorted(result.nodules, key=lambda nodule: -nodule.score)[:MOST_SHOWN]
    figure = _draw_findings(result, shown) if shown else _draw_nothing_found(result)
    figure.savefig(path, dpi=DOTS_PER_INCH, facecolor=BACKGROUND)
    return {
        "nodules": [nodule.number for nodule in shown],
        "color_map": SHADING.color_map,
        "scale": SHADING.scale,
        "signal_range": list(SHADING.signal_range),
        "window_hu": [colors.LUNG_LEVEL_HU, colors.LUNG_WIDTH_HU],
    }


def _draw_findings(result: "Result", shown: Sequence["Nodule"]) -> Figure:
    columns = 1 if len(shown) <= 3 else 2
    rows = -(-len(shown) // columns)
    card = (nodule_figure.width_of(IMAGE), HEADER + IMAGE)
    width = columns * (card[0] + MARGIN) + MARGIN
    figure = _figure(width, TITLE + rows * (card[1] + MARGIN) + FOOTER)
    _write_title(figure, result, len(shown))
    for index, nodule in enumerate(shown):
        row, column = divmod(index, columns)
        left, top = MARGIN + column * (card[0] + MARGIN), TITLE + row * (card[1] + MARGIN)
        _draw_card(figure, result, nodule, left, top)
    return figure


def _draw_nothing_found(result: "Result") -> Figure:
    figure = _figure(2 * IMAGE + 2 * MARGIN, TITLE + 2 * IMAGE + FOOTER)
    _write_title(figure, result, 0)
    grid = result.volume.grid
    middle = grid.index_to_lps((np.array(grid.shape) - 1) / 2)
    ax = nodule_figure.place_axes(figure, MARGIN, TITLE, 2 * IMAGE, 2 * IMAGE)
    nodule_figure.show_ct(ax, whole_cut(grid, middle), result)
    nodule_figure.write_directions(ax, "RLAP")
    return figure


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    note = (
        f"Axial, patient's right on the left  ·  W {colors.LUNG_WIDTH_HU:.0f} "
        f"L {colors.LUNG_LEVEL_HU:.0f} HU  ·  research software, not for diagnosis"
    ).replace("-", "\N{MINUS SIGN}")
    figure.text(MARGIN / width, 0.13 / height, note, color=DIM, fontsize=7.5)
    return figure


def _write_title(figure: Figure, result: "Result", count: int) -> None:
    width, height = figure.get_size_inches()
    total = len(result.nodules)
    threshold = result.report.get("options", {}).get("threshold")
    at = "" if threshold is None else f" at threshold {threshold:.2f}"
    if not total:
        text = f"No nodule found{at}"
    else:
        text = f"{total} finding{'s' if total > 1 else ''}{at}"
        text += f", the {count} with the highest scores shown, {total - count} more" if total > count else ""
    figure.text(MARGIN / width, 1 - 0.44 / height, text, color=TEXT, fontsize=14, weight="bold")
    _write_origin(figure, result)


def _write_origin(figure: Figure, result: "Result") -> None:
    """Name model and input above the right edge: the last two parts of the path, as "dicom" alone says little."""
    width, height = figure.get_size_inches()
    model = result.report.get("model", {}).get("name")
    source = "/".join(Path(result.volume.source.path).parts[-2:])
    origin = "  ·  ".join(part for part in ("LNHG", model, source) if part)
    figure.text(1 - MARGIN / width, 1 - 0.2 / height, origin, color=DIM, fontsize=7.5, ha="right")


def _draw_card(figure: Figure, result: "Result", nodule: "Nodule", left: float, top: float) -> None:
    _write_header(figure, nodule, left, top)
    nodule_figure.draw(figure, result, nodule, Place(left, top + HEADER, IMAGE), SHADING, TEXT)


def _write_header(figure: Figure, nodule: "Nodule", left: float, top: float) -> None:
    width, height = figure.get_size_inches()

    def write(x: float, y: float, text: str, **style: object) -> None:
        figure.text((left + x) / width, 1 - (top + y) / height, text, va="baseline", **style)

    write(0, 0.24, segment_name(nodule.number), color=segment_color(nodule.number), fontsize=12.5, weight="bold")
    score = f"score {nodule.score:.2f}  ·  {PROVENANCE[nodule.provenance]}"
    write(1.15, 0.24, score, color=TEXT, fontsize=10)
    write(0, 0.5, _summary(nodule), color=DIM, fontsize=8.8)


def _summary(nodule: "Nodule") -> str:
    if nodule.measurement is None:
        low, high = np.array(nodule.box_lps_mm)
        return "box {:.0f} \u00d7 {:.0f} \u00d7 {:.0f} mm  ·  box only, not segmented".format(*(high - low))
    m, h = nodule.measurement, nodule.heterogeneity
    size = f"{m.long_axis_mm:.1f} \u00d7 {m.short_axis_mm:.1f} mm  ·  {m.volume_mm3:.0f} mm\u00b3"
    density = f"{m.attenuation}, {m.mean_hu:.0f} \u00b1 {m.sd_hu:.0f} HU".replace(" -", " \N{MINUS SIGN}")
    inner = f"  ·  signal {h['mean']:.2f} \u00b1 {h['sd']:.2f}, entropy {h['entropy_bits']:.1f} bits" if h else ""
    return f"{size}  ·  {density}{inner}"
