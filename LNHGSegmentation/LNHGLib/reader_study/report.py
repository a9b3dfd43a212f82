"""The report of an analyzed reader study in Markdown, its tables as CSV and JSON."""

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from LNHGLib import __version__
from LNHGLib.files.atomic import atomic_folder
from LNHGLib.files.checksum import file_sha256
from LNHGLib.reader_study import plots
from LNHGLib.reader_study.analysis import Study
from LNHGLib.reader_study.mrmc_tables import AUC, DIFFERENCE, MEAN, MODALITY, TEST
from LNHGLib.reader_study.settings import DELONG, Row
from LNHGLib.stats import mrmc, paired

SCHEMA = 1
REPORT, FIGURES = "report.md", "analysis.json"
FILES = (REPORT, FIGURES, "*.csv", "*.png")
"""Patterns of all that an analysis writes."""

RULES = {
    paired.WILCOXON: "by the Wilcoxon signed-rank test, chosen beforehand as it needs no normal differences",
    paired.T: "by the paired t test, chosen beforehand",
    paired.BY_NORMALITY: "by a rule fixed beforehand: the paired t test, or the Wilcoxon signed-rank test where "
    "Shapiro and Wilk's test rejects normal differences at 0.05",
}
HOLDS = {
    mrmc.RANDOM: "other readers and other cases (both random)",
    mrmc.FIXED_READERS: "these readers and other cases (readers fixed)",
    mrmc.FIXED_CASES: "other readers and these cases (cases fixed)",
}


def write(study: Study, inputs: Sequence[Path], out: Path, overwrite: bool = False) -> None:
    """Write all files of an analysis, or none.

    Args:
        study: what was found.
        inputs: the files it was found from; their names and SHA-256 go into the report.
        out: folder to make.
        overwrite: replace an earlier analysis there.

    Raises:
        InputError: `out` must not be replaced.
    """
    read = [{"file": path.name, "sha256": file_sha256(path)} for path in inputs]

    with atomic_folder(out, overwrite, FILES) as folder:
        for name, rows in study.tables.items():
            _write_csv(folder / f"{name}.csv", rows)
        pictures = plots.draw(study, folder)
        (folder / REPORT).write_text(markdown(study, read, pictures), encoding="utf-8")
        found = {
            "schema": SCHEMA,
            "version": __version__,
            "inputs": read,
            "settings": vars(study.settings),
            "design": study.design,
            "notes": study.notes,
            **study.tables,
        }
        (folder / FIGURES).write_text(json.dumps(_plain(found), indent=1) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """What JSON can hold: null for figures that there are not, and for infinite degrees of freedom."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    def shown(value: Any) -> Any:
        if isinstance(value, float):
            return "" if math.isnan(value) else f"{value:.6g}"
        return value

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({name: shown(value) for name, value in row.items()} for row in rows)


def markdown(study: Study, inputs: Sequence[Row], pictures: Sequence[str] = ()) -> str:
    """Return the report.

    Args:
        study: what was found.
        inputs: rows of file and sha256.
        pictures: names of the pictures that lie beside it.
    """
    parts = [_head(study, inputs), _scores(study), *_over_readers(study, AUC), *_over_readers(study, MEAN)]
    parts += [_comparisons(study), _agreement(study), _repeats(study)]
    text = "\n\n".join(part for part in parts if part)
    for picture in pictures:
        text += f"\n\n![{plots.CAPTIONS[picture]}]({picture})\n\n{plots.CAPTIONS[picture]}."
    return text + "\n"


def _head(study: Study, inputs: Sequence[Row]) -> str:
    design, settings = study.design, study.settings
    lines = [
        "# Reader study",
        "",
        f"{len(design['readers'])} readers ({', '.join(design['readers'])}), {design['cases']} cases, modalities "
        f"{', '.join(design['modalities'])}; {design['reads']} reads, {design['repeats']} of them repeats.",
    ]
    if design["positive_cases"]:
        lines[-1] += f" Truth: {design['positive_cases']} positive, {design['negative_cases']} negative cases."
    lines += ["", f"Intervals are {100 * settings.level:g} % confidence intervals. Cases are taken as independent."]
    lines += [f"\nNote: {note}" for note in study.notes]
    lines += ["", f"Made by LNHG {__version__} from:", ""]
    lines += [f"- {row['file']} (SHA-256 {row['sha256']})" for row in inputs]
    return "\n".join(lines)


def _scores(study: Study) -> str:
    rows = [
        (
            row["reader"],
            row["modality"],
            row["cases"],
            _interval(row, "mean", 1),
            _interval(row, "sd", 2),
            f"{row['median']:g} ({row['lowest']:g} to {row['highest']:g})",
            "" if math.isnan(row["median_seconds"]) else f"{row['median_seconds']:.1f}",
        )
        for row in study.tables["readers"]
    ]
    for row in study.tables.get("means", []):
        if row["what"] == MODALITY and row["holds_for"] == mrmc.FIXED_READERS:
            rows.append(
                ("mean of readers", row["name"], study.design["complete_cases"], _interval(row, "value", 1), "", "", "")
            )
    text = _table(("reader", "modality", "cases", "mean", "SD", "median (range)", "seconds, median"), rows)
    source = "Mean with its t interval, standard deviation with its chi square interval."
    return f"## Scores\n\n{text}\n\n{source} {_single(study)}".strip()


def _single(study: Study) -> str:
    if len(study.design["modalities"]) > 1:
        return ""
    return "With a single modality there is nothing to compare it with."


def _over_readers(study: Study, figure: str) -> list[str]:
    rows = [row for row in study.tables.get("mrmc" if figure == AUC else "means", []) if not row["reader"]]
    if not rows:
        return []
    digits = 4 if figure == AUC else 2
    shown = [
        (
            row["name"] if row["what"] != TEST else "all alike?",
            HOLDS[row["holds_for"]],
            "" if row["what"] == TEST else _interval(row, "value", digits),
            _statistic(row),
            "" if row["what"] == MODALITY else _p(row["p"]),
        )
        for row in rows
    ]
    text = _table(("figure", "holds for", "value", "test", "p"), shown)
    how = (
        "Obuchowski and Rockette (1995) with the degrees of freedom of Hillis (2007) and the intervals of Hillis (2014)"
    )
    if figure == MEAN:
        return [f"## Mean score over readers and cases\n\n{text}\n\n{how}, applied to mean scores."]
    name = "DeLong et al. (1988)" if study.settings.covariance == DELONG else "the jackknife over cases"
    return [_areas(study), f"## AUC over readers and cases\n\n{text}\n\n{how}; covariance over cases by {name}."]


def _statistic(row: Row) -> str:
    if row["statistic"] is None or math.isnan(row["statistic"]):
        return ""
    if math.isinf(row["df"]):
        return f"chi² = {row['statistic']:.3f}, df {row['df_numerator']:g}"
    return f"F = {row['statistic']:.3f}, df {row['df_numerator']:g} and {row['df']:.2f}"


def _areas(study: Study) -> str:
    rows = [
        (row["reader"], row["modality"], row["positive"], row["negative"], _interval(row, "auc", 4))
        for row in study.tables["auc"]
    ]
    text = _table(("reader", "modality", "positive", "negative", "AUC"), rows)
    apart = [
        (row["reader"], row["name"], _interval(row, "value", 4), _p(row["p"]))
        for row in study.tables.get("mrmc", [])
        if row["reader"] and row["what"] == DIFFERENCE
    ]
    if apart:
        text += "\n\n" + _table(("reader", "difference", "AUC", "p"), apart)
    source = "Empirical area, its interval on the logit scale (Pepe 2003); differences for these readers (Hillis 2014)."
    return f"## AUC of each reader\n\n{text}\n\n{source}"


def _comparisons(study: Study) -> str:
    rows = [
        (
            row["measure"],
            row["reader"],
            row["comparison"],
            row["cases"],
            row["test"],
            _interval(row, "difference", 2),
            _p(row["p"]),
            _p(row["p_holm"]),
        )
        for row in study.tables.get("paired", [])
    ]
    if not rows:
        return ""
    text = _table(("measure", "reader", "comparison", "cases", "test", "difference", "p", "p (Holm)"), rows)
    rule = f"Compared {RULES[study.settings.test]}; the difference is the mean (t) or the pseudomedian (Wilcoxon; "
    rule += "Hodges and Lehmann 1963) of the differences. Holm's (1979) correction is over the readers."
    return f"## Each reader's two modalities on the same cases\n\n{text}\n\n{rule}"


def _agreement(study: Study) -> str:
    parts = []
    if rows := study.tables.get("icc"):
        shown = [(row["modality"], row["readers"], row["cases"], _interval(row, "icc", 3)) for row in rows]
        parts += [_table(("modality", "readers", "cases", "ICC(2,1)"), shown), "Shrout and Fleiss (1979)."]
    if rows := study.tables.get("kappa"):
        shown = [
            (row["modality"], f"{row['reader']} and {row['other_reader']}", row["cases"], _interval(row, "kappa", 3))
            for row in rows
        ]
        parts.append(_table(("modality", "readers", "cases", "weighted kappa"), shown))
        parts.append(
            f"Cohen's weighted kappa (1968) with squared weights of the scores in {study.settings.categories} equal "
            "steps of 0 to 100; standard error of Fleiss, Cohen and Everitt (1969)."
        )
    return "\n\n".join(["## Agreement between readers", *parts]) if parts else ""


def _repeats(study: Study) -> str:
    rows = study.tables.get("repeats")
    if not rows:
        return ""
    shown = [
        (
            row["reader"],
            row["modality"],
            row["pairs"],
            _interval(row, "within_sd", 2),
            _interval(row, "coefficient", 1),
            _interval(row, "bias", 2),
            f"{row['lower_limit']:.1f} to {row['upper_limit']:.1f}",
            _interval(row, "icc", 3),
            _interval(row, "kappa", 3),
        )
        for row in rows
    ]
    columns = ("reader", "modality", "cases", "SD within cases", "repeatability coefficient", "bias of the repeat")
    text = _table((*columns, "limits of agreement", "ICC(2,1)", "weighted kappa"), shown)
    source = "Bland and Altman (1986, 1996); the intervals of the limits are in repeats.csv."
    return f"## Agreement of readers with themselves\n\n{text}\n\n{source}"


def _interval(row: Row, name: str, digits: int) -> str:
    value, low, high = (row[key] for key in (name, f"{name}_low", f"{name}_high"))
    if math.isnan(value):
        return "not defined"
    if math.isnan(low):
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _p(p: float) -> str:
    if math.isnan(p):
        return "not defined"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    cell: Callable[[object], str] = lambda value: str(value).replace("|", "\\|")  # noqa: E731
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell(value) for value in line) + " |" for line in lines)
