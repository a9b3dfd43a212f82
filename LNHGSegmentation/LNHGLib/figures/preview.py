"""The result's picture: each finding on its axial slice, outlined, with its inner signal and legend.

Radiological convention: the patient's right is on the left, anterior is up.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from LNHGLib.figures import colors, nodule_figure
from LNHGLib.figures.axial_plane import full_plane
from LNHGLib.figures.colors import DEFAULT_STYLE
from LNHGLib.figures.nodule_figure import FigureArea
from LNHGLib.figures.segment_style import segment_color, segment_name
from LNHGLib.figures.writing import drawable, plain_text
from LNHGLib.measurement.score_scale import name_of

if TYPE_CHECKING:
    from LNHGLib.segmentation.pipeline import Nodule, Result

MAX_SHOWN = 8
DOTS_PER_INCH = 120

BACKGROUND, TEXT, DIM = "#0f1216", "#eceff3", "#98a2b0"
IMAGE, HEADER, MARGIN, TITLE, FOOTER = 2.5, 0.62, 0.22, 0.62, 0.36  # inches
PROVENANCE = {
    "fused": "both branches agree",
    "segmenter": "segmenter only",
    "detector-box": "detector only",
}


def write_preview(result: "Result", path: Path) -> dict:
    """Plot the findings with the highest scores and write the picture as PNG.

    Args:
        result: what the pipeline found.
        path: file to write.

    Returns:
        What the picture shows and on which scale, for the report: register U3 asks for the scale beside the colors.
    """
    with plain_text([result.volume.source.path]):
        shown = sorted(result.nodules, key=lambda nodule: -nodule.score)[:MAX_SHOWN]
        columns = 1 if len(shown) <= 3 else 2
        rows = -(-len(shown) // columns)
        card_width, card_height = nodule_figure.width_of(IMAGE) + MARGIN, HEADER + IMAGE + MARGIN
        if shown:
            figure = _titled_figure(
                result, columns * card_width + MARGIN, TITLE + rows * card_height + FOOTER, len(shown)
            )
        else:
            figure = _titled_figure(result, 2 * IMAGE + 2 * MARGIN, TITLE + 2 * IMAGE + FOOTER, 0)
            grid = result.volume.grid
            middle = full_plane(grid, grid.index_to_lps((np.array(grid.shape) - 1) / 2))
            ax = nodule_figure.place_axes(figure, MARGIN, TITLE, 2 * IMAGE, 2 * IMAGE)
            nodule_figure.show_ct(ax, middle, result)
            nodule_figure.write_directions(ax, "RLAP", result.volume)
        for index, nodule in enumerate(shown):
            row, column = divmod(index, columns)
            left, top = MARGIN + column * card_width, TITLE + row * card_height
            _write_header(figure, nodule, name_of(result.report).lower(), (left, top))
            nodule_figure.plot_nodule(
                figure, result, nodule, FigureArea(left, top + HEADER, IMAGE), DEFAULT_STYLE, TEXT
            )
        figure.savefig(path, dpi=DOTS_PER_INCH, facecolor=BACKGROUND, pil_kwargs={"compress_level": 1})
        return {
            "nodules": [nodule.number for nodule in shown],
            "color_map": DEFAULT_STYLE.color_map,
            "scale": DEFAULT_STYLE.scale,
            "signal_range": list(DEFAULT_STYLE.signal_range),
            "window_hu": [colors.LUNG_LEVEL_HU, colors.LUNG_WIDTH_HU],
        }


def _titled_figure(result: "Result", width: float, height: float, shown: int) -> Figure:
    """Return a figure with what was found, by which model in which input, and how to read the pictures."""
    figure = Figure(figsize=(width, height), facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    note = (
        f"Axial, {nodule_figure.convention(result.volume)}  ·  W {colors.LUNG_WIDTH_HU:.0f} "
        f"L {colors.LUNG_LEVEL_HU:.0f} HU  ·  research software, not for diagnosis"
    ).replace("-", "\N{MINUS SIGN}")
    figure.text(MARGIN / width, 0.13 / height, note, color=DIM, fontsize=7.5)
    total, threshold = len(result.nodules), result.report.get("options", {}).get("threshold")
    text = f"{total} finding{'s' if total > 1 else ''}" if total else "No nodule found"
    text += "" if threshold is None else f" at threshold {threshold:.2f}"
    text += f", the {shown} with the highest scores shown, {total - shown} more" if total > shown else ""
    figure.text(MARGIN / width, 1 - 0.44 / height, text, color=TEXT, fontsize=14, weight="bold")
    source = "/".join(Path(result.volume.source.path).parts[-2:])  # two parts, as "dicom" alone says little
    origin = "  ·  ".join(part for part in ("LNHG", result.report.get("model", {}).get("name"), source) if part)
    figure.text(1 - MARGIN / width, 1 - 0.2 / height, drawable(origin), color=DIM, fontsize=7.5, ha="right")
    return figure


def _write_header(figure: Figure, nodule: "Nodule", score_name: str, corner: tuple[float, float]) -> None:
    """Write a finding's name, score, size and density above its pictures."""
    (left, top), (width, height) = corner, figure.get_size_inches()

    def write(x: float, y: float, text: str, **style: object) -> None:
        figure.text((left + x) / width, 1 - (top + y) / height, text, va="baseline", **style)

    write(0, 0.24, segment_name(nodule.number), color=segment_color(nodule.number), fontsize=12.5, weight="bold")
    score = f"{score_name} {nodule.score:.2f}  ·  {PROVENANCE[nodule.provenance]}"
    write(1.15, 0.24, score, color=TEXT, fontsize=10)
    m, h = nodule.measurement, nodule.heterogeneity
    if m is None:
        low, high = np.array(nodule.box_lps_mm)
        summary = "box {:.0f} \u00d7 {:.0f} \u00d7 {:.0f} mm  ·  box only, not segmented".format(*(high - low))
    else:
        size = f"{m.long_axis_mm:.1f} \u00d7 {m.short_axis_mm:.1f} mm  ·  {m.volume_mm3:.0f} mm\u00b3"
        density = f"{m.attenuation}, {m.mean_hu:.0f} \u00b1 {m.sd_hu:.0f} HU".replace(" -", " \N{MINUS SIGN}")
        inner = f"  ·  signal {h['mean']:.2f} \u00b1 {h['sd']:.2f}, entropy {h['entropy_bits']:.1f} bits" if h else ""
        summary = f"{size}  ·  {density}{inner}"
    write(0, 0.5, summary, color=DIM, fontsize=8.8)
