"""The report of an analyzed reader study in Markdown, its tables as CSV and JSON."""

import math
from collections.abc import Sequence
from pathlib import Path

from LNHGLib import __version__
from LNHGLib.figures.writing import plain_text
from LNHGLib.files.atomic import atomic_folder
from LNHGLib.files.checksum import file_sha256
from LNHGLib.files.text import markdown_table, to_json, write_csv, write_json
from LNHGLib.reader_study import plots
from LNHGLib.reader_study.analysis import Study
from LNHGLib.reader_study.mrmc_tables import AUC, DIFFERENCE, MEAN, MODALITY, TEST
from LNHGLib.reader_study.settings import DELONG, Row
from LNHGLib.stats import mrmc, paired

SCHEMA = 1
REPORT, ANALYSIS = "report.md", "analysis.json"
FILES = (REPORT, ANALYSIS, "*.csv", "*.png")
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
            cells = [
                {
                    column: f"{value:.6g}" if isinstance(value, float) and not math.isnan(value) else value
                    for column, value in row.items()
                }
                for row in rows
            ]
            write_csv(folder / f"{name}.csv", cells, list(rows[0]))
        with plain_text([*study.reads.readers, *study.reads.modalities]):
            pictures = plots.save(study, folder)
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
        write_json(folder / ANALYSIS, to_json(found))


def markdown(study: Study, inputs: Sequence[Row], pictures: Sequence[str] = ()) -> str:
    """Return the report.

    Args:
        study: what was found.
        inputs: rows of file and sha256.
        pictures: names of the pictures that lie beside it.
    """
    design = study.design
    size = (
        f"{len(design['readers'])} readers ({', '.join(design['readers'])}), {design['cases']} cases, modalities "
        f"{', '.join(design['modalities'])}; {design['reads']} reads, {design['repeats']} of them repeats."
    )
    if design["positive_cases"]:
        size += f" Truth: {design['positive_cases']} positive, {design['negative_cases']} negative cases."
    level = f"Intervals are {100 * study.settings.level:g} % confidence intervals. Cases are taken as independent."
    parts = ["# Reader study", size, level, *(f"Note: {note}" for note in study.notes)]
    parts += [f"Made by LNHG {__version__} from:"]
    parts += ["\n".join(f"- {row['file']} (SHA-256 {row['sha256']})" for row in inputs)]
    parts += [_scores(study), *_over_readers(study, AUC), *_over_readers(study, MEAN)]
    parts += [_comparisons(study), _agreement(study), _repeats(study)]
    for picture in pictures:
        parts += [f"![{plots.CAPTIONS[picture]}]({picture})", f"{plots.CAPTIONS[picture]}."]
    return "\n\n".join(part for part in parts if part) + "\n"


def _scores(study: Study) -> str:
    """Return the section about the scores of each reader, and their mean."""
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
    text = markdown_table(("reader", "modality", "cases", "mean", "SD", "median (range)", "seconds, median"), rows)
    source = "Mean with its t interval, standard deviation with its chi square interval."
    if len(study.design["modalities"]) == 1:
        source += " With a single modality there is nothing to compare it with."
    return f"## Scores\n\n{text}\n{source}"


def _over_readers(study: Study, metric: str) -> list[str]:
    """Return the sections about one metric over readers and cases: the mean score, or the AUC after each reader's."""
    rows = [row for row in study.tables.get("mrmc" if metric == AUC else "means", []) if not row["reader"]]
    if not rows:
        return []
    digits = 4 if metric == AUC else 2
    shown = []
    for row in rows:
        name, value, test = row["name"], "", ""
        if row["what"] == TEST:
            name = "all alike?"
        else:
            value = _interval(row, "value", digits)
        if row["statistic"] is not None and not math.isnan(row["statistic"]):
            kind, denominator = ("chi²", "") if math.isinf(row["df"]) else ("F", f" and {row['df']:.2f}")
            test = f"{kind} = {row['statistic']:.3f}, df {row['df_numerator']:g}{denominator}"
        shown.append((name, HOLDS[row["holds_for"]], value, test, "" if row["what"] == MODALITY else _p(row["p"])))
    text = markdown_table(("figure", "holds for", "value", "test", "p"), shown)
    how = (
        "Obuchowski and Rockette (1995) with the degrees of freedom of Hillis (2007) and the intervals of Hillis (2014)"
    )
    if metric == MEAN:
        return [f"## Mean score over readers and cases\n\n{text}\n{how}, applied to mean scores."]
    covariance = "DeLong et al. (1988)" if study.settings.covariance == DELONG else "the jackknife over cases"
    over = f"## AUC over readers and cases\n\n{text}\n{how}; covariance over cases by {covariance}."
    areas = [
        (row["reader"], row["modality"], row["positive"], row["negative"], _interval(row, "auc", 4))
        for row in study.tables["auc"]
    ]
    text = markdown_table(("reader", "modality", "positive", "negative", "AUC"), areas)
    differences = [
        (row["reader"], row["name"], _interval(row, "value", 4), _p(row["p"]))
        for row in study.tables["mrmc"]
        if row["reader"] and row["what"] == DIFFERENCE
    ]
    if differences:
        text += "\n" + markdown_table(("reader", "difference", "AUC", "p"), differences)
    source = "Empirical area, its interval on the logit scale (Pepe 2003); differences for these readers (Hillis 2014)."
    return [f"## AUC of each reader\n\n{text}\n{source}", over]


def _comparisons(study: Study) -> str:
    """Return the section about the paired tests."""
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
    text = markdown_table(("measure", "reader", "comparison", "cases", "test", "difference", "p", "p (Holm)"), rows)
    rule = f"Compared {RULES[study.settings.test]}; the difference is the mean (t) or the pseudomedian (Wilcoxon; "
    rule += "Hodges and Lehmann 1963) of the differences. Holm's (1979) correction is over the readers."
    return f"## Each reader's two modalities on the same cases\n\n{text}\n{rule}"


def _agreement(study: Study) -> str:
    """Return the section about agreement between readers."""
    parts = []
    if rows := study.tables.get("icc"):
        shown = [(row["modality"], row["readers"], row["cases"], _interval(row, "icc", 3)) for row in rows]
        text = markdown_table(("modality", "readers", "cases", "ICC(2,1)"), shown)
        parts.append(f"{text}\nShrout and Fleiss (1979).")
    if rows := study.tables.get("kappa"):
        shown = [
            (row["modality"], f"{row['reader']} and {row['other_reader']}", row["cases"], _interval(row, "kappa", 3))
            for row in rows
        ]
        text = markdown_table(("modality", "readers", "cases", "weighted kappa"), shown)
        parts.append(
            f"{text}\nCohen's weighted kappa (1968) with squared weights of the scores in {study.settings.categories} "
            "equal steps of 0 to 100; standard error of Fleiss, Cohen and Everitt (1969)."
        )
    return "\n\n".join(["## Agreement between readers", *parts]) if parts else ""


def _repeats(study: Study) -> str:
    """Return the section about repeated reads."""
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
    text = markdown_table((*columns, "limits of agreement", "ICC(2,1)", "weighted kappa"), shown)
    source = "Bland and Altman (1986, 1996); the intervals of the limits are in repeats.csv."
    return f"## Agreement of readers with themselves\n\n{text}\n{source}"


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
