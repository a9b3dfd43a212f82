"""The result's picture: each finding on its axial slice, outlined, with its inner signal and legend.

Radiological convention: the patient's right is on the left, anterior is up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from scipy import ndimage

from LNHGLib import heterogeneity
from LNHGLib.segmentation_file import segment_color
from LNHGLib.volume import Grid

if TYPE_CHECKING:
    from LNHGLib.pipeline import Nodule, Result

MOST_SHOWN = 8
FIELD_MM = 50.0
PIXELS = 256
SIGNAL_RANGE = (0.0, 1.0)
DOTS_PER_INCH = 120

BACKGROUND, TEXT, DIM = "#0f1216", "#eceff3", "#98a2b0"
IMAGE, GAP, LEGEND, HEADER, MARGIN, TITLE, FOOTER = 2.5, 0.06, 0.62, 0.62, 0.22, 0.62, 0.36  # inches
ON_IMAGE = [withStroke(linewidth=2, foreground="#000000c0")]  # keeps text readable on bright tissue
IMAGE_TEXT = {"color": TEXT, "fontsize": 8, "path_effects": ON_IMAGE}
PROVENANCE = {
    "fused": "both branches agree",
    "segmenter": "segmenter only",
    "detector-box": "detector only",
}


@dataclass(frozen=True)
class Cut:
    """A square axial cut through the patient, `PIXELS` on a side."""

    center_lps_mm: np.ndarray
    field_mm: float

    @property
    def points(self) -> np.ndarray:
        """Return the pixels' LPS mm positions as (row, column, xyz)."""
        steps = ((np.arange(PIXELS) + 0.5) / PIXELS - 0.5) * self.field_mm
        y, x = np.meshgrid(steps, steps, indexing="ij")
        return self.center_lps_mm + np.stack([x, y, np.zeros_like(x)], axis=-1)

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Return (left, right, bottom, top) in LPS mm for matplotlib."""
        x, y, half = *self.center_lps_mm[:2], self.field_mm / 2
        return x - half, x + half, y + half, y - half

    def crop(self, grid: Grid) -> tuple[tuple[slice, ...], Grid]:
        """Return the part of the grid that the cut touches: its slices (z, y, x) and its own grid."""
        index, last = grid.lps_to_index(self.points), np.array(grid.shape) - 1
        first = np.floor(index.min((0, 1))).astype(int).clip(0, last)
        end = np.ceil(index.max((0, 1))).astype(int).clip(0, last) + 1
        affine = grid.affine.copy()
        affine[:3, 3] = grid.index_to_lps(first)
        return tuple(slice(a, b) for a, b in zip(first, end, strict=True)), Grid(tuple(end - first), affine)

    def sample(self, array: np.ndarray, grid: Grid, fill: float = 0.0) -> np.ndarray:
        """Interpolate `array` linearly at the pixels, `fill` where they lie outside the grid; returns float32."""
        index = np.moveaxis(grid.lps_to_index(self.points), -1, 0)
        size = np.array(grid.shape)[:, None, None]
        outside = ((index < -0.5) | (index > size - 0.5)).any(0)
        values = ndimage.map_coordinates(array.astype(np.float32), index.clip(0, size - 1), order=1)
        return np.where(outside, np.float32(fill), values)


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
        "color_map": "jet",
        "scale": "fixed",
        "signal_range": list(SIGNAL_RANGE),
        "window_hu": [heterogeneity.LUNG_LEVEL_HU, heterogeneity.LUNG_WIDTH_HU],
    }


def _draw_findings(result: "Result", shown: Sequence["Nodule"]) -> Figure:
    columns = 1 if len(shown) <= 3 else 2
    rows = -(-len(shown) // columns)
    card = (3 * IMAGE + 2 * GAP + LEGEND, HEADER + IMAGE)
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
    ax = _axes(figure, MARGIN, TITLE, 2 * IMAGE, 2 * IMAGE)
    _show_ct(ax, whole_cut(grid, middle), result)
    _write_directions(ax, "RLAP")
    return figure


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    note = (
        f"Axial, patient's right on the left  ·  W {heterogeneity.LUNG_WIDTH_HU:.0f} "
        f"L {heterogeneity.LUNG_LEVEL_HU:.0f} HU  ·  research software, not for diagnosis"
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
    whole, close = _cuts(nodule, result.volume.grid)
    axes = [_axes(figure, left + i * (IMAGE + GAP), top + HEADER, IMAGE, IMAGE) for i in range(3)]
    color = segment_color(nodule.number)
    _show_ct(axes[0], whole, result)
    x, y, half = *close.center_lps_mm[:2], close.field_mm / 2
    axes[0].add_patch(Rectangle((x - half, y - half), 2 * half, 2 * half, fill=False, edgecolor=color, linewidth=1.2))
    _write_directions(axes[0], "RLAP")
    grey = _show_ct(axes[1], close, result)
    _draw_scale_bar(axes[1], close)
    _write_directions(axes[1], "RA")
    if nodule.measurement is None:
        _draw_box(axes[1], nodule, color)
        _show_ct(axes[2], close, result)
        _caption(axes[2], "no signal: box only, not segmented")
        return
    inside, signal = _inside(close, result, nodule.number)
    _draw_outline(axes[1], close, inside, color, 1.5)
    ends = np.array(nodule.measurement.long_axis_ends_lps_mm)
    axes[1].plot(ends[:, 0], ends[:, 1], color=color, linewidth=0.8, linestyle=(0, (4, 2)))
    scaled = heterogeneity.scale(signal, inside >= 0.5, "fixed", SIGNAL_RANGE)
    overlay = heterogeneity.composite(grey, heterogeneity.jet(scaled), inside >= 0.5)
    axes[2].imshow(overlay, extent=close.extent, interpolation="bilinear")
    _draw_outline(axes[2], close, inside, color, 0.8)
    _draw_legend(figure, left + 3 * IMAGE + 2 * GAP, top + HEADER)


def _write_header(figure: Figure, nodule: "Nodule", left: float, top: float) -> None:
    width, height = figure.get_size_inches()

    def write(x: float, y: float, text: str, **style: object) -> None:
        figure.text((left + x) / width, 1 - (top + y) / height, text, va="baseline", **style)

    write(0, 0.24, f"Nodule {nodule.number}", color=segment_color(nodule.number), fontsize=12.5, weight="bold")
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


def _cuts(nodule: "Nodule", grid: Grid) -> tuple[Cut, Cut]:
    """Return the whole slice and the close-up, on the slice of the long axis or through the box's center."""
    low, high = np.array(nodule.box_lps_mm, float)
    center, size_mm = (low + high) / 2, float((high - low)[:2].max())
    if nodule.measurement is not None:
        center[2] = np.mean(nodule.measurement.long_axis_ends_lps_mm, axis=0)[2]
        size_mm = nodule.measurement.long_axis_mm
    return whole_cut(grid, center), Cut(center, max(FIELD_MM, 1.5 * size_mm))


def whole_cut(grid: Grid, center: np.ndarray) -> Cut:
    """Return the cut at the center's height that shows the whole grid."""
    corners = grid.index_to_lps(np.array(list(np.ndindex(2, 2, 2))) * grid.shape - 0.5)
    low, high = corners.min(0), corners.max(0)
    return Cut(np.array([*(low + high)[:2] / 2, center[2]]), float((high - low)[:2].max()))


def _inside(cut: Cut, result: "Result", number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the nodule's coverage 0..1 on the cut, and its signal interpolated among its own voxels only."""
    box, part = cut.crop(result.volume.grid)
    mask = result.labels[box] == number
    inside = cut.sample(mask, part)
    signal = cut.sample(np.where(mask, result.heterogeneity[box], 0), part)
    return inside, np.divide(signal, inside, out=np.zeros_like(signal), where=inside > 0)


def _axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    full_width, full_height = figure.get_size_inches()
    bottom = full_height - top - height
    ax = figure.add_axes((left / full_width, bottom / full_height, width / full_width, height / full_height))
    ax.set(xticks=[], yticks=[], facecolor="black")
    ax.spines[:].set_visible(False)
    return ax


def _show_ct(ax: Axes, cut: Cut, result: "Result") -> np.ndarray:
    box, part = cut.crop(result.volume.grid)
    grey = heterogeneity.window(cut.sample(result.volume.array[box], part, -1024))
    ax.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=cut.extent, interpolation="bilinear")
    ax.set(xlim=cut.extent[:2], ylim=cut.extent[2:])
    return grey


def _draw_outline(ax: Axes, cut: Cut, inside: np.ndarray, color: tuple[float, ...], width: float) -> None:
    points = cut.points
    ax.contour(points[0, :, 0], points[:, 0, 1], inside, levels=[0.5], colors=[color], linewidths=width)


def _draw_box(ax: Axes, nodule: "Nodule", color: tuple[float, ...]) -> None:
    (x0, y0, _), (x1, y1, _) = nodule.box_lps_mm
    box = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=color, linewidth=1.5, linestyle=(0, (4, 3)))
    ax.add_patch(box)


def _draw_scale_bar(ax: Axes, cut: Cut) -> None:
    left, _, bottom, _ = cut.extent
    x, y = left + 0.05 * cut.field_mm, bottom - 0.05 * cut.field_mm
    ax.plot([x, x + 10], [y, y], color=TEXT, linewidth=2, solid_capstyle="butt", path_effects=ON_IMAGE)
    ax.text(x + 5, y - 0.02 * cut.field_mm, "10 mm", **IMAGE_TEXT, ha="center", va="bottom")


def _write_directions(ax: Axes, letters: str) -> None:
    places = {"R": (0.02, 0.5, "left", "center"), "L": (0.98, 0.5, "right", "center")}
    places |= {"A": (0.5, 0.98, "center", "top"), "P": (0.5, 0.02, "center", "bottom")}
    for letter in letters:
        x, y, horizontal, vertical = places[letter]
        ax.text(x, y, letter, transform=ax.transAxes, **IMAGE_TEXT, ha=horizontal, va=vertical)


def _caption(ax: Axes, text: str) -> None:
    ax.text(0.5, 0.04, text, transform=ax.transAxes, **IMAGE_TEXT, ha="center", va="bottom")


def _draw_legend(figure: Figure, left: float, top: float) -> None:
    ax = _axes(figure, left + 0.1, top + 0.1, 0.12, IMAGE - 0.2)
    ramp = heterogeneity.jet(np.linspace(0, 1, 256))[::-1, None]
    ax.imshow(ramp, extent=(0, 1, *SIGNAL_RANGE), aspect="auto")
    ax.yaxis.tick_right()
    ax.set_yticks(np.linspace(*SIGNAL_RANGE, 6))
    ax.tick_params(colors=TEXT, labelsize=7, length=2, pad=2)
    ax.yaxis.set_label_position("right")
    ax.set_ylabel("signal (relative)", color=DIM, fontsize=7, labelpad=3)
