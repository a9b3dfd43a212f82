"""The three pictures of a finding: its whole slice, a close-up with its outline, and the signal inside with legend."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from LNHGLib.figures import colors
from LNHGLib.figures.axial_plane import Cut, cuts
from LNHGLib.figures.segment_style import segment_color
from LNHGLib.measurement.size import Measurement

if TYPE_CHECKING:
    from LNHGLib.measurement.nodule import Nodule
    from LNHGLib.segmentation.pipeline import Result

LIGHT = "#eceff3"
GAP, LEGEND = 0.06, 0.62  # inches
ON_IMAGE = [withStroke(linewidth=2, foreground="#000000c0")]  # keeps text readable on bright tissue
LEAST_TEXT, MOST_TEXT, TEXT_PER_INCH = 5.5, 8.0, 3.2  # points


@dataclass(frozen=True)
class Shading:
    """How the signal inside a nodule is colored.

    Attributes:
        color_map: "jet" or "viridis".
        scale: "fixed", the same `signal_range` for all, or "nodule", from a nodule's least signal to its greatest.
        signal_range: what the first and the last color stand for, in mode "fixed".
    """

    color_map: str = "jet"
    scale: str = "fixed"
    signal_range: tuple[float, float] = (0.0, 1.0)

    def range_of(self, signal: np.ndarray) -> tuple[float, float]:
        """Return what the first and the last color stand for in a nodule with these signal values."""
        own = self.scale == "nodule" and signal.size > 0
        low, high = (float(signal.min()), float(signal.max())) if own else self.signal_range
        return (low, high) if high > low else (low, low + 1.0)


@dataclass(frozen=True)
class Place:
    """Where pictures stand on a figure, in inches from its upper left corner; `size` is a picture's side."""

    left: float
    top: float
    size: float


def width_of(size: float) -> float:
    """Return the width in inches of three pictures of that size with the legend."""
    return 3 * size + 2 * GAP + LEGEND


def draw(
    figure: Figure, result: "Result", nodule: "Nodule", place: Place, shading: Shading, text_color: str = LIGHT
) -> None:
    """Draw the three pictures of a finding.

    Args:
        figure: to draw on.
        result: CT, label map and signal.
        nodule: the finding; one without voxels shows its box and no signal.
        place: where the pictures stand.
        shading: how the signal is colored.
        text_color: of the legend.
    """
    whole, close = cuts(nodule, result.volume.grid)
    steps = [place.left + i * (place.size + GAP) for i in range(3)]
    axes = [place_axes(figure, left, place.top, place.size, place.size) for left in steps]
    color = segment_color(nodule.number)
    show_ct(axes[0], whole, result)
    x, y, half = *close.center_lps_mm[:2], close.field_mm / 2
    axes[0].add_patch(Rectangle((x - half, y - half), 2 * half, 2 * half, fill=False, edgecolor=color, linewidth=1.2))
    write_directions(axes[0], "RLAP")
    greys = [show_ct(ax, close, result) for ax in axes[1:]]
    _draw_scale_bar(axes[1], close)
    write_directions(axes[1], "RA")
    if nodule.measurement is None:
        _draw_box(axes[1], nodule, color)
        _caption(axes[2], "no signal:\nbox only, not segmented")
        return
    inside, signal = _inside(close, result, nodule.number)
    _draw_outline(axes[1], close, inside, color, 1.5)
    _draw_diameters(axes[1], nodule.measurement, color)
    signal_range = shading.range_of(signal[inside >= 0.5])
    scaled = colors.scale(signal, inside >= 0.5, "fixed", signal_range)
    overlay = colors.composite(greys[1], colors.COLOR_MAPS[shading.color_map](scaled), inside >= 0.5)
    axes[2].imshow(overlay, extent=close.extent, interpolation="bilinear")
    _draw_outline(axes[2], close, inside, color, 0.8)
    _draw_legend(figure, place, shading.color_map, signal_range, text_color)


def _inside(cut: Cut, result: "Result", number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the nodule's coverage 0..1 on the cut, and its signal interpolated among its own voxels only."""
    box, part = cut.crop(result.volume.grid)
    mask = result.labels[box] == number
    inside = cut.sample(mask, part)
    signal = cut.sample(np.where(mask, result.heterogeneity[box], 0), part)
    return inside, np.divide(signal, inside, out=np.zeros_like(signal), where=inside > 0)


def place_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Return axes for a picture, placed in inches from the figure's upper left corner."""
    full_width, full_height = figure.get_size_inches()
    bottom = full_height - top - height
    ax = figure.add_axes((left / full_width, bottom / full_height, width / full_width, height / full_height))
    ax.set(xticks=[], yticks=[], facecolor="black")
    ax.spines[:].set_visible(False)
    return ax


def show_ct(ax: Axes, cut: Cut, result: "Result") -> np.ndarray:
    """Draw the CT in the lung window; returns the grey picture (row, column), uint8."""
    box, part = cut.crop(result.volume.grid)
    grey = colors.window(cut.sample(result.volume.array[box], part, -1024))
    ax.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=cut.extent, interpolation="bilinear")
    ax.set(xlim=cut.extent[:2], ylim=cut.extent[2:])
    return grey


def _draw_outline(ax: Axes, cut: Cut, inside: np.ndarray, color: tuple[float, ...], width: float) -> None:
    points = cut.points
    ax.contour(points[0, :, 0], points[:, 0, 1], inside, levels=[0.5], colors=[color], linewidths=width)


def _text_style(ax: Axes) -> dict:
    """Return how text looks on a picture: smaller on small ones."""
    side = ax.figure.get_size_inches()[0] * ax.get_position().width
    return {
        "color": LIGHT,
        "fontsize": min(max(TEXT_PER_INCH * side, LEAST_TEXT), MOST_TEXT),
        "path_effects": ON_IMAGE,
    }


def _draw_diameters(ax: Axes, measurement: Measurement, color: tuple[float, ...]) -> None:
    for ends in (measurement.long_axis_ends_lps_mm, measurement.short_axis_ends_lps_mm):
        if ends is not None:
            (x0, y0, _), (x1, y1, _) = ends
            ax.plot([x0, x1], [y0, y1], color=color, linewidth=0.8, linestyle=(0, (4, 2)))


def _draw_box(ax: Axes, nodule: "Nodule", color: tuple[float, ...]) -> None:
    (x0, y0, _), (x1, y1, _) = nodule.box_lps_mm
    box = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=color, linewidth=1.5, linestyle=(0, (4, 3)))
    ax.add_patch(box)


def _draw_scale_bar(ax: Axes, cut: Cut) -> None:
    left, _, bottom, _ = cut.extent
    x, y = left + 0.05 * cut.field_mm, bottom - 0.05 * cut.field_mm
    ax.plot([x, x + 10], [y, y], color=LIGHT, linewidth=2, solid_capstyle="butt", path_effects=ON_IMAGE)
    ax.text(x + 5, y - 0.02 * cut.field_mm, "10 mm", **_text_style(ax), ha="center", va="bottom")


def write_directions(ax: Axes, letters: str) -> None:
    """Write some of R, L, A and P at the picture's edges."""
    places = {"R": (0.02, 0.5, "left", "center"), "L": (0.98, 0.5, "right", "center")}
    places |= {"A": (0.5, 0.98, "center", "top"), "P": (0.5, 0.02, "center", "bottom")}
    for letter in letters:
        x, y, horizontal, vertical = places[letter]
        ax.text(x, y, letter, transform=ax.transAxes, **_text_style(ax), ha=horizontal, va=vertical)


def _caption(ax: Axes, text: str) -> None:
    ax.text(0.5, 0.04, text, transform=ax.transAxes, **_text_style(ax), ha="center", va="bottom")


def _draw_legend(
    figure: Figure, place: Place, color_map: str, signal_range: tuple[float, float], text_color: str
) -> None:
    left = place.left + 3 * place.size + 2 * GAP + 0.1
    ax = place_axes(figure, left, place.top + 0.1, 0.12, place.size - 0.2)
    ramp = colors.COLOR_MAPS[color_map](np.linspace(0, 1, 256))[::-1, None]
    ax.imshow(ramp, extent=(0, 1, *signal_range), aspect="auto")
    ax.yaxis.tick_right()
    ax.set_yticks(np.linspace(*signal_range, 6))
    ax.yaxis.set_major_formatter("{x:.1f}" if signal_range[1] - signal_range[0] >= 0.5 else "{x:.2f}")
    ax.tick_params(colors=text_color, labelsize=7, length=2, pad=2)
    ax.yaxis.set_label_position("right")
    ax.set_ylabel("signal (relative)", color=text_color, fontsize=7, labelpad=3)
