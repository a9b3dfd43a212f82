"""Pictures of an evaluation, plotted without a display."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from LNHGLib.figures import colors
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, NullLocator

from LNHGTrainingLib.evaluation.crops import NoduleScore, Picture
from LNHGTrainingLib.evaluation.metrics import CPM_RATES, Froc

READERS = "#d95f02"
MODEL = "#1b6ca8"
METHOD = "#4db8ff"
"""Of a method's outline: lighter, to be seen on dark lung."""
RULE_NAMES = {"consensus": "centroid in the consensus", "luna16_like": "LUNA16-like"}
WINDOW_HU = (-1000, 400)
ZOOM = 16
MAX_COLUMNS = 7
"""Of pictures beside each other; more go into further lines."""
DPI = 150


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _plain_log_axis(axis: Axis, ticks: Sequence[float]) -> None:
    """Write numbers as people do instead of powers of ten."""
    axis.set_major_locator(FixedLocator(list(ticks)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_locator(NullLocator())


def _legend_above(axes: Axes, title: str) -> None:
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=9, frameon=False, title=title)


def dice_vs_diameter(scores: Sequence[NoduleScore], path: Path) -> None:
    """Plot Dice of each nodule over its diameter, the missed at 0, with the readers' leave-one-out Dice.

    Args:
        scores: At least one nodule.
        path: PNG to write.
    """
    figure, axes = _axes(7, 4.5)
    diameter = np.array([score.diameter_mm for score in scores])
    small = 14 if len(scores) > 30 else 40
    human = np.array([score.human_loo_dice for score in scores])
    dice = np.array([score.dice for score in scores])
    axes.scatter(diameter, human, small, color=READERS, alpha=0.45, marker="D", linewidth=0)
    axes.scatter(diameter, dice, small, color=MODEL, alpha=0.65, linewidth=0)
    axes.axhline(dice.mean(), color=MODEL, linewidth=1, label=f"model, mean {dice.mean():.3f} (missed = 0)")
    if np.isfinite(human).any():
        mean = np.nanmean(human)
        axes.axhline(mean, color=READERS, linewidth=1, linestyle="--", label=f"readers, leave-one-out, mean {mean:.3f}")
    axes.set(xlabel="diameter, mm", ylabel="Dice", ylim=(-0.03, 1.03), xscale="log")
    axes.set_xlim(diameter.min() * 0.8, diameter.max() * 1.25)
    low, high = axes.get_xlim()
    _plain_log_axis(axes.xaxis, [tick for tick in (2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50) if low <= tick <= high])
    _legend_above(axes, f"{len(scores)} nodules of {len({score.patient for score in scores})} patients")
    axes.grid(alpha=0.25)
    figure.savefig(path, dpi=DPI)


def bland_altman(scores: Sequence[NoduleScore], path: Path) -> None:
    """Plot relative volume difference over mean volume of the found nodules, with bias and limits of agreement.

    Args:
        scores: Of all nodules.
        path: PNG to write.
    """
    figure, axes = _axes(7, 4.5)
    found = [score for score in scores if score.found]
    own = np.array([score.volume_mm3 for score in found])
    reference = np.array([score.reference_volume_mm3 for score in found])
    if found:
        mean = (own + reference) / 2
        difference = 100 * (own - reference) / mean
        axes.scatter(mean, difference, 16 if len(found) > 30 else 40, color=MODEL, alpha=0.6, linewidth=0)
        bias, spread = difference.mean(), difference.std(ddof=1) if len(found) > 1 else 0.0
        axes.axhline(bias, color=READERS, label=f"bias {bias:+.1f} %")
        label = f"limits of agreement {bias - 1.96 * spread:+.0f} to {bias + 1.96 * spread:+.0f} %"
        axes.axhline(bias - 1.96 * spread, color=READERS, linestyle="--", label=label)
        axes.axhline(bias + 1.96 * spread, color=READERS, linestyle="--")
        _legend_above(axes, f"Volume of {len(found)} found nodules of {len(scores)}")
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set(xlabel="mean of both volumes, mm³", ylabel="(model - consensus) / mean, %", xscale="log")
    axes.grid(alpha=0.25)
    figure.savefig(path, dpi=DPI)


def froc_plot(curves: dict[str, Froc], points: dict[str, dict], path: Path) -> None:
    """Plot FROC curves.

    Args:
        curves: Of each hit rule.
        points: `summary.operating_point` at the model's threshold, under the same names.
        path: PNG to write.
    """
    figure, axes = _axes(7, 4.5)
    edge = CPM_RATES[0] / 2
    for (name, curve), color, line in zip(curves.items(), (MODEL, READERS), ("-", "--"), strict=True):
        rates = np.maximum(curve.false_per_scan, edge)
        ends = np.append(rates, max(16, rates[-1])), np.append(curve.sensitivity, curve.sensitivity[-1])
        axes.step(*ends, where="post", color=color, linestyle=line, label=RULE_NAMES[name])
        point = points[name]
        rate, sensitivity = point["false_per_scan"]["value"], point["sensitivity"]["value"]
        axes.plot(max(rate, edge), sensitivity, "o", color=color, markersize=8)
    axes.plot([], [], "o", color="0.4", label="at the model's threshold")
    axes.set(xlabel="false findings a scan", ylabel="sensitivity", xscale="log", ylim=(-0.03, 1.03))
    axes.set_xlim(edge, 16)
    _plain_log_axis(axes.xaxis, [*CPM_RATES, 16])
    _legend_above(axes, f"{point['scans']} scans, {point['nodules']} nodules")
    axes.grid(alpha=0.25)
    figure.savefig(path, dpi=DPI)


def gallery(worst: Sequence[Picture], best: Sequence[Picture], path: Path) -> None:
    """Plot the worst nodules above, the best below: the slice with most reference, both outlines.

    Args:
        worst: The nodules of the lowest Dice.
        best: The nodules of the highest Dice.
        path: PNG to write.
    """
    columns = max(len(worst), len(best))
    figure = Figure(figsize=(max(6.0, 1.9 * columns), 5.0))
    grid = figure.subplots(2, columns, squeeze=False)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.84, wspace=0.04, hspace=0.22)
    for axes in grid.flat:
        axes.set_axis_off()
    cells = [*zip(grid[0], worst, strict=False), *zip(grid[1], best, strict=False)]
    for axes, picture in cells:
        score = picture.score
        _draw_outlines(axes, picture, {READERS: picture.reference, MODEL: picture.mask})
        axes.set_title(
            f"Dice {score.dice:.2f}, {score.diameter_mm:.1f} mm\n{score.patient} #{score.nodule}", fontsize=7
        )
    figure.suptitle("Worst (top) and best (bottom); blue: model, orange: half consensus of the readers; 1 mm, axial",
                    fontsize=10)  # fmt: skip
    figure.savefig(path, dpi=DPI)


def side_by_side(pictures: Mapping[str, Sequence[Picture]], rows: Sequence[str], path: Path) -> None:
    """Plot what methods outline on the same nodules: a block for each nodule, first the readers, then each method.

    Args:
        pictures: Of each method, the nodules in one order.
        rows: What is said of each nodule.
        path: PNG to write.
    """
    first, panels = next(iter(pictures.values())), len(pictures) + 1
    lines = -(-panels // MAX_COLUMNS)
    columns = -(-panels // lines)
    side, text, gap, left = 1.5, 0.36, 0.14, 0.3  # inches
    block = lines * (side + text) + gap
    width, height = left + columns * side + 0.04, len(rows) * block
    figure = Figure(figsize=(width, height))
    for number, said in enumerate(rows):
        top = height - number * block
        label = f"{said}, {first[number].score.diameter_mm:.0f} mm"
        figure.text(0.1 / width, (top - (block - gap) / 2) / height, label, rotation=90, va="center", fontsize=8)
        for place, name in enumerate(["readers", *pictures]):
            down, across = divmod(place, columns)
            corner = (left + across * side) / width, (top - (down + 1) * (side + text)) / height
            axes = figure.add_axes((*corner, 0.97 * side / width, side / height), xticks=[], yticks=[])
            if place:
                picture = pictures[name][number]
                shown = _draw_outlines(axes, picture, {METHOD: picture.mask})
                dice = f"Dice {picture.score.dice:.2f}" + ("" if shown else ", in other slices")
                axes.set_title(f"{name}\n{dice if picture.mask.any() else 'nothing outlined'}", fontsize=7, pad=3)
            else:
                _draw_outlines(axes, first[number], {READERS: first[number].reference})
                scale_bar(axes)
                axes.set_title(name, fontsize=7, pad=3)
    figure.savefig(path, dpi=DPI, format="png")


def scale_bar(axes: Axes) -> None:
    """Draw a bar of 10 mm into the lower left corner of a slice.

    Args:
        axes: Show an image of 1 mm pixels.
    """
    on_ct = {"color": "white", "path_effects": [withStroke(linewidth=3, foreground="black")]}
    bottom = axes.get_ylim()[0]
    axes.plot([1, 11], [bottom - 2] * 2, linewidth=2, solid_capstyle="butt", **on_ct)
    axes.text(6, bottom - 2.7, "10 mm", fontsize=6, ha="center", va="bottom", **on_ct)


@dataclass(frozen=True, eq=False)
class MapPicture:
    """What a row of maps needs.

    Attributes:
        hu: int16 (z, y, x) at 1 mm.
        mask: Where the maps are shown, bool (z, y, x).
        signals: float (z, y, x), by the column's title, all in the unit of the map.
        notes: What is said below each, by the column's title.
    """

    hu: np.ndarray
    mask: np.ndarray
    signals: Mapping[str, np.ndarray]
    notes: Mapping[str, str]


def nodule_maps(pictures: Sequence[MapPicture], rows: Sequence[str], window_hu: Sequence[float], path: Path) -> None:
    """Plot maps as the panel colors them: a row for each nodule, its CT and each map as columns.

    Args:
        pictures: The nodules, all with the same columns.
        rows: What is said of each nodule.
        window_hu: HU that are 0 and 1 in the map.
        path: PNG to write.
    """
    style, columns = colors.DEFAULT_STYLE, ["CT, outline of the readers", *pictures[0].signals]
    side, text, left, right, top = 1.5, 0.42, 0.3, 1.2, 0.3  # inches
    width, height = left + len(columns) * side + right, top + len(rows) * (side + text)
    figure = Figure(figsize=(width, height))
    for number, (name, picture) in enumerate(zip(rows, pictures, strict=True)):
        level = int(picture.mask.sum(axis=(1, 2)).argmax())
        inside = np.argwhere(picture.mask[level])
        middle, half = inside.mean(axis=0).round().astype(int), max(10, int(np.ptp(inside, axis=0).max()) // 2 + 6)
        y, x = (slice(max(0, m - half), m + half) for m in middle)
        gray, mask = colors.window(picture.hu[level, y, x]), picture.mask[level, y, x]
        bottom = (height - top - (number + 1) * side - number * text) / height
        for place, title in enumerate(columns):
            box = ((left + place * side) / width, bottom, 0.97 * side / width, side / height)
            axes = figure.add_axes(box, xticks=[], yticks=[])
            if place:
                scaled = colors.scale(picture.signals[title][level, y, x], mask, "fixed", style.signal_range)
                axes.imshow(colors.composite(gray, colors.COLOR_MAPS[style.color_map](scaled), mask))
                axes.set_xlabel(picture.notes.get(title, ""), fontsize=7)
            else:
                axes.imshow(gray, cmap="gray", vmin=0, vmax=255)
                axes.contour(mask.astype(float), [0.5], colors=[READERS], linewidths=1.4)
                scale_bar(axes)
                axes.set_ylabel(name, fontsize=8)
            if not number:
                axes.set_title(title, fontsize=8)
    low, high = style.signal_range
    bar = figure.add_axes((1 - 0.85 * right / width, 0.5 - 1.4 / height, 0.12 / width, 2.8 / height))
    ticks = colors.legend_ticks(low, high)
    figure.colorbar(ScalarMappable(Normalize(low, high), style.color_map), bar, ticks=ticks)
    hu = [f"{value:.1f} ({window_hu[0] + value * (window_hu[1] - window_hu[0]):.0f} HU)" for value in ticks]
    bar.set_yticklabels(hu, fontsize=7)
    bar.set_title("signal\n(CT of that color)", fontsize=8, loc="left")
    figure.savefig(path, dpi=DPI, format="png")


def _draw_outlines(axes: Axes, picture: Picture, masks: Mapping[str, np.ndarray]) -> bool:
    """Draw the axial slice with most reference around the nodule, and outlines by their colors; tell if one is seen."""
    level = int(picture.reference.sum(axis=(1, 2)).argmax())
    middle = np.argwhere(picture.reference[level]).mean(axis=0).round().astype(int)
    half = max(ZOOM, int(np.ceil(picture.score.diameter_mm / 2)) + 6)
    y, x = (slice(max(0, m - half), m + half) for m in middle)
    axes.imshow(picture.hu[level, y, x], cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
    seen = {color: mask[level, y, x].astype(float) for color, mask in masks.items() if mask[level, y, x].any()}
    for color, mask in seen.items():
        axes.contour(mask, [0.5], colors=[color], linewidths=1.4)
    return bool(seen)


def reliability_plot(report: dict, path: Path) -> None:
    """Plot how many findings of a probability are nodules, in bins of equally many findings.

    Args:
        report: `probability.reliability` of at least one finding.
        path: PNG to write.
    """
    figure, axes = _axes(4.8, 4.8)
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", label="as promised")
    shown, true, size = np.array([[b["probability"], b["nodules"], b["findings"]] for b in report["bins"]]).T
    spread = 1.96 * np.sqrt(np.maximum(true * (1 - true), 0.25 / size) / size)
    axes.errorbar(shown, true, spread, fmt="o-", color=MODEL, capsize=3, label="bins of findings, 95 % by count")
    axes.set(xlabel="mean probability", ylabel="fraction that are nodules", xlim=(0, 1), ylim=(-0.05, 1.05))
    _legend_above(axes, f"{report['findings']} findings, {report['nodules']} on nodules")
    axes.grid(alpha=0.25)
    figure.savefig(path, dpi=DPI)


def froc_of_scores(curves: dict[str, Froc], title: str, path: Path) -> None:
    """Plot FROC curves of several scores of the same findings.

    Args:
        curves: By the score's name, at most four.
        title: Above the legend.
        path: PNG to write.
    """
    figure, axes = _axes(7, 4.8)
    edge = CPM_RATES[0] / 2
    styles = zip((MODEL, READERS, "#4d8f3a", "0.4"), ("-", "--", "-.", ":"), strict=True)
    for (name, curve), (color, line) in zip(curves.items(), styles, strict=False):
        rates = np.maximum(curve.false_per_scan, edge)
        ends = np.append(rates, max(16, rates[-1])), np.append(curve.sensitivity, curve.sensitivity[-1])
        axes.step(*ends, where="post", color=color, linestyle=line, label=name)
    axes.set(xlabel="false findings a scan", ylabel="sensitivity", xscale="log", ylim=(-0.03, 1.03))
    axes.set_xlim(edge, 16)
    _plain_log_axis(axes.xaxis, [*CPM_RATES, 16])
    axes.legend(loc="lower right", fontsize=9, title=title)
    axes.grid(alpha=0.25)
    figure.savefig(path, dpi=DPI)
