"""The three pictures of a finding: its full slice, a close-up with its outline, and the signal inside with legend."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from LNHGLib.figures import colors
from LNHGLib.figures.axial_plane import AxialPlane, nodule_planes, sample_ct, sample_nodule
from LNHGLib.figures.colors import DisplayStyle
from LNHGLib.figures.segment_style import segment_color

if TYPE_CHECKING:
    from LNHGLib.image.volume import Volume
    from LNHGLib.measurement.nodule import Nodule
    from LNHGLib.segmentation.pipeline import Result

LIGHT = "#eceff3"
GAP, LEGEND = 0.06, 0.62  # inches
ON_IMAGE = [withStroke(linewidth=2, foreground="#000000c0")]  # keeps text readable on bright tissue
MIN_TEXT, MAX_TEXT, TEXT_PER_INCH = 5.5, 8.0, 3.2  # points
DIRECTIONS = {
    "R": (0.02, 0.5, "left", "center"),
    "L": (0.98, 0.5, "right", "center"),
    "A": (0.5, 0.98, "center", "top"),
    "P": (0.5, 0.02, "center", "bottom"),
}


@dataclass(frozen=True)
class FigureArea:
    """Where pictures stand on a figure, in inches from its upper left corner; `size` is a picture's side."""

    left: float
    top: float
    size: float


def width_of(size: float) -> float:
    """Return the width in inches of three pictures of that size with the legend."""
    return 3 * size + 2 * GAP + LEGEND


def plot_nodule(
    figure: Figure, result: "Result", nodule: "Nodule", area: FigureArea, style: DisplayStyle, text_color: str = LIGHT
) -> None:
    """Plot the three pictures of a finding.

    Args:
        figure: to plot on.
        result: CT, label map and signal.
        nodule: the finding; one without voxels shows its box and no signal.
        area: where the pictures stand.
        style: how the signal is colored.
        text_color: of the legend.
    """
    full, close = nodule_planes(nodule, result.volume.grid)
    steps = [area.left + i * (area.size + GAP) for i in range(3)]
    axes = [place_axes(figure, left, area.top, area.size, area.size) for left in steps]
    color = segment_color(nodule.number)
    for ax, plane in zip(axes, (full, close, close), strict=True):
        gray = show_ct(ax, plane, result)
    x, y, half = *close.center_lps_mm[:2], close.field_mm / 2
    axes[0].add_patch(Rectangle((x - half, y - half), 2 * half, 2 * half, fill=False, edgecolor=color, linewidth=1.2))
    write_directions(axes[0], "RLAP", result.volume)
    x, y = x - half + 0.05 * close.field_mm, y + half - 0.05 * close.field_mm
    axes[1].plot([x, x + 10], [y, y], color=LIGHT, linewidth=2, solid_capstyle="butt", path_effects=ON_IMAGE)
    axes[1].text(x + 5, y - 0.02 * close.field_mm, "10 mm", **_text_style(axes[1]), ha="center", va="bottom")
    write_directions(axes[1], "RA", result.volume)
    if nodule.measurement is None:
        (x0, y0, _), (x1, y1, _) = nodule.box_lps_mm
        dashed = {"edgecolor": color, "linewidth": 1.5, "linestyle": (0, (4, 3))}
        axes[1].add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, **dashed))
        note = {"transform": axes[2].transAxes, "ha": "center", "va": "bottom"}
        axes[2].text(0.5, 0.04, "no signal:\nbox only, not segmented", **note, **_text_style(axes[2]))
        return
    arrays = result.labels, nodule.number, result.heterogeneity
    covered, signal = (image[0] for image in sample_nodule(*arrays, result.volume.grid, close.grid()))
    _plot_outline(axes[1], close, covered, color, 1.5)
    for ends in (nodule.measurement.long_axis_ends_lps_mm, nodule.measurement.short_axis_ends_lps_mm):
        if ends is not None:
            (x0, y0, _), (x1, y1, _) = ends
            axes[1].plot([x0, x1], [y0, y1], color=color, linewidth=0.8, linestyle=(0, (4, 2)))
    low, high = style.signal_range
    if style.scale == "nodule" and (covered >= 0.5).any():
        low, high = (float(end(signal[covered >= 0.5])) for end in (np.min, np.max))
    signal_range = (low, high) if high > low else (low, low + 1.0)
    scaled = colors.scale(signal, covered >= 0.5, "fixed", signal_range)
    overlay = colors.composite(gray, colors.COLOR_MAPS[style.color_map](scaled), covered >= 0.5)
    axes[2].imshow(overlay, extent=close.extent, interpolation="bilinear")
    _plot_outline(axes[2], close, covered, color, 0.8)
    _plot_legend(figure, area, style.color_map, signal_range, text_color)


def place_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Return axes for a picture, placed in inches from the figure's upper left corner.

    Args:
        figure: holds the axes.
        left: distance of their left edge from the figure's.
        top: distance of their upper edge from the figure's.
        width: of the axes.
        height: of the axes.
    """
    full_width, full_height = figure.get_size_inches()
    bottom = full_height - top - height
    ax = figure.add_axes((left / full_width, bottom / full_height, width / full_width, height / full_height))
    ax.set(xticks=[], yticks=[], facecolor="black")
    ax.spines[:].set_visible(False)
    return ax


def show_ct(ax: Axes, plane: AxialPlane, result: "Result") -> np.ndarray:
    """Show the CT in the lung window.

    Args:
        ax: to plot on, from `place_axes`.
        plane: what to show.
        result: has the CT.

    Returns:
        The gray picture, (row, column), uint8.
    """
    gray = sample_ct(result.volume, plane.grid())[0]
    ax.imshow(gray, cmap="gray", vmin=0, vmax=255, extent=plane.extent, interpolation="bilinear")
    ax.set(xlim=plane.extent[:2], ylim=plane.extent[2:])
    return gray


def convention(volume: "Volume | None") -> str:
    """Say which side of a picture is which side of the patient, as far as the CT tells."""
    known = volume is None or volume.source.oriented
    return "patient's right on the left" if known else "left and right of the patient not known"


def write_directions(ax: Axes, letters: str, volume: "Volume") -> None:
    """Write directions at a picture's edges, if the CT tells them.

    Args:
        ax: the picture, from `place_axes`.
        letters: some of R, L, A and P.
        volume: the CT.
    """
    for letter in letters if volume.source.oriented else "":
        x, y, horizontal, vertical = DIRECTIONS[letter]
        ax.text(x, y, letter, transform=ax.transAxes, **_text_style(ax), ha=horizontal, va=vertical)


def _plot_outline(ax: Axes, plane: AxialPlane, covered: np.ndarray, color: tuple[float, ...], width: float) -> None:
    left, right, bottom, top = plane.extent
    half = plane.field_mm / plane.pixels / 2
    x, y = (np.linspace(low + half, high - half, plane.pixels) for low, high in ((left, right), (top, bottom)))
    ax.contour(x, y, covered, levels=[0.5], colors=[color], linewidths=width)


def _text_style(ax: Axes) -> dict:
    """Return how text looks on a picture: smaller on small ones."""
    side = ax.figure.get_size_inches()[0] * ax.get_position().width
    size = min(max(TEXT_PER_INCH * side, MIN_TEXT), MAX_TEXT)
    return {"color": LIGHT, "fontsize": size, "path_effects": ON_IMAGE}


def _plot_legend(
    figure: Figure, area: FigureArea, color_map: str, signal_range: tuple[float, float], text_color: str
) -> None:
    left = area.left + 3 * area.size + 2 * GAP + 0.1
    ax = place_axes(figure, left, area.top + 0.1, 0.12, area.size - 0.2)
    ramp = colors.COLOR_MAPS[color_map](np.linspace(0, 1, 256))[::-1, None]
    ax.imshow(ramp, extent=(0, 1, *signal_range), aspect="auto")
    ax.yaxis.tick_right()
    ticks = colors.legend_ticks(*signal_range)
    ax.set_yticks(ticks)
    ax.yaxis.set_major_formatter("{x:.1f}" if np.allclose(ticks, ticks.round(1)) else "{x:.2f}")
    ax.tick_params(colors=text_color, labelsize=7, length=2, pad=2)
    ax.yaxis.set_label_position("right")
    ax.set_ylabel("signal (relative)", color=text_color, fontsize=7, labelpad=3)
