"""Plots of an analyzed reader study, made without a display."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from LNHGLib.reader_study.agreement_tables import ALL
from LNHGLib.reader_study.analysis import Study
from LNHGLib.reader_study.mrmc_tables import DIFFERENCE, MODALITY
from LNHGLib.reader_study.scores import MAX_SCORE, MIN_SCORE
from LNHGLib.stats import mrmc, roc

COLORS = ("#1b6ca8", "#d95f02", "#3a7d44", "#7b4b94")
DPI = 150
SCORES, CURVES, AREAS, REPEATS = "scores.png", "roc.png", "auc.png", "repeats.png"
CAPTIONS = {
    SCORES: "Scores of each reader: every read, the mean and the standard deviation",
    CURVES: "Empirical ROC curves of each reader",
    AREAS: "Areas under the ROC curves with their confidence intervals",
    REPEATS: "Repeated reads: difference over mean, with the limits of agreement over all modalities",
}


def save(study: Study, folder: Path) -> list[str]:
    """Plot what the study has.

    Args:
        study: what was found.
        folder: where the pictures go.

    Returns:
        The names of the pictures.
    """
    names = [SCORES]
    plot_scores(study).savefig(folder / SCORES, dpi=DPI)
    if "auc" in study.tables:
        plot_curves(study).savefig(folder / CURVES, dpi=DPI)
        plot_areas(study).savefig(folder / AREAS, dpi=DPI)
        names += [CURVES, AREAS]
    if "repeats" in study.tables:
        plot_repeats(study).savefig(folder / REPEATS, dpi=DPI)
        names.append(REPEATS)
    return names


def _color(study: Study, modality: str) -> str:
    return COLORS[study.reads.modalities.index(modality) % len(COLORS)]


def _remove_frame(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def plot_scores(study: Study) -> Figure:
    """Plot every score, each reader's mean and standard deviation."""
    readers, modalities = study.reads.readers, study.reads.modalities
    figure = Figure(figsize=(max(5.0, 1.2 + 1.1 * len(readers) * len(modalities)), 4.2), layout="constrained")
    axes = figure.add_subplot()
    generator = np.random.default_rng(0)  # moves the points apart, and nothing else
    width = 0.8 / len(modalities)
    for row in study.tables["readers"]:
        position = modalities.index(row["modality"])
        x = readers.index(row["reader"]) + (position - (len(modalities) - 1) / 2) * width
        values = [score.score for score in study.reads.first[row["reader"], row["modality"]].values()]
        jittered = x + generator.uniform(-0.28, 0.28, len(values)) * width
        color = _color(study, row["modality"])
        axes.scatter(jittered, values, 8, color=color, alpha=0.3, linewidth=0)
        axes.errorbar(
            x, row["mean"], np.nan_to_num(row["sd"]), color="black", capsize=5, marker="o", markersize=6, zorder=3
        )
        axes.annotate(f"{row['mean']:.1f}", (x, row["mean"]), (7, 4), textcoords="offset points", fontsize=8)
    for modality in modalities:
        axes.scatter([], [], 20, color=_color(study, modality), label=modality)
    axes.set_xticks(range(len(readers)), readers)
    axes.set(xlabel="reader", ylabel="score", ylim=(MIN_SCORE - 3, MAX_SCORE + 3))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(modalities), frameon=False, fontsize=9)
    _remove_frame(axes)
    axes.grid(visible=False, axis="x")
    return figure


def plot_curves(study: Study) -> Figure:
    """Plot the ROC curves of each reader."""
    readers = study.reads.readers
    columns = min(len(readers), 4)
    rows = -(-len(readers) // columns)
    figure = Figure(figsize=(3.0 * columns + 0.4, 3.5 * rows + 0.2), layout="compressed")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(readers) :]:
        axes.set_axis_off()
    areas = {(row["reader"], row["modality"]): row["auc"] for row in study.tables["auc"]}
    for axes, reader in zip(grid.flat, readers, strict=False):
        axes.plot([0, 1], [0, 1], color="0.75", linewidth=1)
        for modality in study.reads.modalities:
            if (reader, modality) not in areas:
                continue
            cases = [case for case in study.reads.first[reader, modality] if case in study.truth]
            truth = np.array([study.truth[case] for case in cases], bool)
            label = f"{modality}: {areas[reader, modality]:.3f}"
            curve = roc.curve(study.reads.scores(reader, modality, cases), truth)
            axes.plot(*curve, color=_color(study, modality), label=label, linewidth=1.6)
        axes.set_title(reader, fontsize=10)
        axes.set(aspect="equal", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.legend(loc="lower right", fontsize=8, title="AUC", title_fontsize=8)
        _remove_frame(axes)
    figure.supxlabel("false positive fraction", fontsize=10)
    figure.supylabel("true positive fraction", fontsize=10)
    return figure


def plot_areas(study: Study) -> Figure:
    """Plot each reader's areas and below them those over readers; beside them the differences."""
    modalities = study.reads.modalities
    over = [row for row in study.tables.get("mrmc", []) if row["holds_for"] in (mrmc.RANDOM, mrmc.FIXED_READERS)]
    kind = mrmc.RANDOM if any(row["holds_for"] == mrmc.RANDOM for row in over) else mrmc.FIXED_READERS
    labels = [*study.reads.readers, f"all readers\n({kind})"]
    two = len(modalities) > 1
    figure = Figure(figsize=(9.0 if two else 5.5, 1.3 + 0.55 * len(labels)), layout="constrained")
    left, *right = figure.subplots(1, 2 if two else 1, sharey=True, squeeze=False)[0]
    for row in study.tables["auc"]:
        _plot_interval(
            left, study, row["modality"], labels.index(row["reader"]), (row["auc"], row["auc_low"], row["auc_high"])
        )
    for row in over:
        interval = row["value"], row["value_low"], row["value_high"]
        if row["what"] == MODALITY and row["holds_for"] == kind:
            _plot_interval(left, study, row["name"], len(labels) - 1, interval)
        elif row["what"] == DIFFERENCE and (row["reader"] or row["holds_for"] == kind):
            position = labels.index(row["reader"]) if row["reader"] else len(labels) - 1
            _plot_interval(right[0], study, row["name"].split(" - ")[0], position, interval, named=False)
    left.set_yticks(range(len(labels)), labels)
    left.set_ylim(len(labels) - 0.4, -0.6)
    left.set_xlabel("AUC")
    left.axhline(len(labels) - 1.5, color="0.8", linewidth=0.8)
    for axes in right:
        axes.axvline(0, color="0.5", linewidth=1)
        axes.axhline(len(labels) - 1.5, color="0.8", linewidth=0.8)
        names = dict.fromkeys(row["name"] for row in over if row["what"] == DIFFERENCE)
        axes.set_xlabel(f"difference of AUC: {', '.join(names)}")
    for axes in (left, *right):
        _remove_frame(axes)
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside upper center", ncols=len(modalities), frameon=False, fontsize=9
    )
    return figure


def _plot_interval(
    axes: Axes, study: Study, modality: str, position: int, interval: tuple[float, float, float], named: bool = True
) -> None:
    index, count = study.reads.modalities.index(modality), len(study.reads.modalities)
    y = position + (index - (count - 1) / 2) * 0.24 if named else position
    value, low, high = interval
    known = axes.get_legend_handles_labels()[1]
    axes.errorbar(
        value,
        y,
        xerr=np.array([[value - low], [high - value]]),
        color=_color(study, modality) if named else "0.2",
        marker="o",
        capsize=3,
        label=modality if named and modality not in known else None,
    )


def plot_repeats(study: Study) -> Figure:
    """Plot the differences of repeated reads over their means (Bland and Altman)."""
    rows = [row for row in study.tables["repeats"] if row["modality"] == ALL]
    columns = min(len(rows), 4)
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(3.4 * columns + 0.4, 3.1 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(rows) :]:
        axes.set_axis_off()
    for axes, row in zip(grid.flat, rows, strict=False):
        for modality in study.reads.modalities:
            first, second = study.reads.pairs(row["reader"], modality)
            axes.scatter(
                (first + second) / 2,
                second - first,
                22,
                color=_color(study, modality),
                alpha=0.7,
                label=modality,
                linewidth=0,
            )
        axes.axhline(0, color="0.7", linewidth=0.8)
        axes.axhline(row["bias"], color="black", linewidth=1.2)
        for limit in ("lower_limit", "upper_limit"):
            axes.axhline(row[limit], color="black", linewidth=1.2, linestyle="--")
        axes.set_title(f"{row['reader']}: coefficient {row['coefficient']:.1f}", fontsize=10)
        _remove_frame(axes)
    figure.supxlabel("mean of both scores", fontsize=10)
    figure.supylabel("repeat - first score", fontsize=10)
    figure.legend(
        *grid.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False, fontsize=9
    )
    return figure
