"""`lnhg-train compare`: evaluations of the same nodules beside each other and the readers, with paired tests.

Intervals and tests say how nodules vary and not how trainings do, and another seed alone can make a difference. So
methods that were trained several times are compared by the spread over their trainings (`--trainings`).
"""

from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from LNHGLib.errors import InputError, quoted, shown
from LNHGLib.files.atomic import atomic_folder
from LNHGLib.files.text import markdown_table, read_csv, read_json, write_csv, write_json
from LNHGLib.stats import paired

from LNHGTrainingLib import output_files
from LNHGTrainingLib.evaluation import metrics
from LNHGTrainingLib.evaluation.markdown import INTERVAL_NOTE, NOT_MEASURED, interval, number
from LNHGTrainingLib.evaluation.summary import patient_means, to_rounded_json

READERS = "readers, leave-one-out"
SAME = ("diameter_mm", "reference_volume_mm3", "human_loo_dice")
"""Columns that describe the nodule and its readers, so they cannot differ between methods."""

PAIR_COLUMNS = ("first", "second", "nodules", "patients", "difference", "low", "high", "wilcoxon_p",
                "wilcoxon_p_holm", "tost_p", "tost_p_holm")  # fmt: skip

KEPT = ("model", "split", "threshold", "elsewhere", "groups", "operating_point", "froc", "scan_dice")
"""Parts of a summary that a comparison keeps."""

ALPHA = 0.05

TESTS_NOTE = (
    "Differences are of Dice a nodule with missed nodules at 0, first minus second. Wilcoxon (two-sided signed-rank) "
    "and equivalence (two one-sided t-tests, margin {margin:g} Dice) are paired and take one mean difference a "
    "patient, as the nodules of a patient are not independent. p values are adjusted over all pairs (Holm); a "
    "difference or an equivalence is called one below {alpha:g}. A large p of Wilcoxon alone is no proof of equality."
)


MEASURES = {
    "dice_all": ("Dice a nodule, missed = 0", 3),
    "found_share": ("found", 3),
    "dice_found": ("Dice a nodule, found only", 3),
    "hd95_mm": ("HD95, mm", 2),
}
"""What is averaged over trainings, with its name in the table and its decimals."""
TRAININGS_NOTE = (
    "{nodules} nodules of {patients} patients, the same for all. Each value is the mean over a method's trainings, "
    "with the least and the greatest in brackets; SD is their standard deviation. The difference is of the mean Dice, "
    "the method's minus that of {first}. Trainings are too few for a test: a difference within the spread of one "
    "method's own trainings says nothing."
)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `lnhg-train evaluate` wrote.

    Attributes:
        name: Of the method.
        summary: The content of `summary.json`.
        rows: Of `nodules.csv`, for each nodule that counts, by what identifies it.
    """

    name: str
    summary: dict
    rows: dict[tuple[str, ...], dict[str, str]]


def read_evaluation(folder: Path) -> Evaluation:
    """Read the folder of an evaluation.

    Raises:
        InputError: It is none, or was written by an earlier version.
    """
    try:
        summary = dict(read_json(folder / "summary.json"))
        rows = read_csv(folder / "nodules.csv")
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{folder} holds no summary.json and nodules.csv that can be read; expected a folder that "
            "lnhg-train evaluate wrote."
        ) from error
    if summary.get("schema") != 2 or summary.get("kind") not in ("crops", "scans"):
        raise InputError(
            f"{folder} has a summary of schema {quoted(summary.get('schema'))}, expected 2; run lnhg-train evaluate "
            "again."
        )
    identity = ("patient", "series", "nodule") if summary["kind"] == "crops" else ("case", "nodule")
    counted = {tuple(row[key] for key in identity): row for row in rows if row.get("counts", "1") == "1"}
    return Evaluation(summary["model"]["name"], summary, counted)


def read_evaluations(folders: list[Path]) -> list[Evaluation]:
    """Read evaluations that can be compared; methods of one name are told apart by their folders.

    Raises:
        InputError: A single one without readers to compare with, of different kinds or protocols, or of different
            nodules.
    """
    read = [read_evaluation(folder) for folder in folders]
    if len(read) < 2 and not any(row["human_loo_dice"] for row in read[0].rows.values()):
        raise InputError(
            f"{folders[0]} is one evaluation without readers' Dice, expected two or more; add folders before OUT."
        )
    for folder, other in zip(folders[1:], read[1:], strict=True):
        require_same_nodules(folders[0], read[0], folder, other)
    names = [one.name for one in read]
    labels = [name if names.count(name) == 1 else f"{name} ({f.name})" for name, f in zip(names, folders, strict=True)]
    if len(set(labels)) < len(labels):
        labels = [f"{label} {number}" for number, label in enumerate(labels, 1)]
    return [Evaluation(label, one.summary, one.rows) for label, one in zip(labels, read, strict=True)]


def require_same_nodules(first: Path, a: Evaluation, second: Path, b: Evaluation) -> None:
    """Refuse two evaluations that cannot be compared.

    Args:
        first: Folder of `a`.
        a: An evaluation.
        second: Folder of `b`.
        b: Another one.

    Raises:
        InputError: They differ in kind, protocol, nodules, or what is known of the nodules.
    """
    for part in ("kind", "protocol"):
        if a.summary[part] != b.summary[part]:
            raise InputError(f"{first} and {second} differ in their {part}; evaluate both in the same way.")
    odd = sorted(a.rows.keys() ^ b.rows.keys())
    if odd:
        raise InputError(
            f"{first} scores {len(a.rows)} nodules and {second} {len(b.rows)}, {len(odd)} of them not in both "
            f"({shown(' '.join(odd[0]))}), expected the same; evaluate both on the same folds."
        )
    for key, row in a.rows.items():
        for column in SAME:
            if row[column] != b.rows[key][column]:
                raise InputError(
                    f"Nodule {shown(' '.join(key))} has {column} {shown(row[column], 20)} in {first} and "
                    f"{shown(b.rows[key][column], 20)} in {second}, expected the same; evaluate both on the same data."
                )


def compare(evaluations: list[Evaluation], margin: float, seed: int = 0, with_first: bool = False) -> dict:
    """Compare methods and the readers on the same nodules.

    Args:
        evaluations: As from `read_evaluations`.
        margin: Of equivalence, in Dice.
        seed: Of the bootstrap.
        with_first: Test the first alone against each other, as for ablations; fewer tests, so less adjusted.

    Returns:
        The content of `comparison.json`.
    """
    first = evaluations[0]
    keys = sorted(first.rows)
    patients = [first.rows[key]["patient"] for key in keys]
    dice = {one.name: np.array([float(one.rows[key]["dice"]) for key in keys]) for one in evaluations}
    human = np.array([float(first.rows[key]["human_loo_dice"] or "nan") for key in keys])
    if np.isfinite(human).any():
        dice[READERS] = human
    return to_rounded_json(
        {
            "schema": 1,
            "kind": first.summary["kind"],
            "protocol": first.summary["protocol"],
            "data": first.summary["data"],
            "nodules": len(keys),
            "patients": len(set(patients)),
            "margin": margin,
            "bootstrap": {"unit": "patient", "samples": metrics.BOOTSTRAP_SAMPLES, "seed": seed},
            "methods": [
                {"name": one.name} | {key: one.summary[key] for key in KEPT if key in one.summary}
                for one in evaluations
            ],
        }
    ) | {"pairs": pairs(dice, patients, margin, seed, with_first)}


def pairs(
    dice: dict[str, np.ndarray], patients: list[str], margin: float, seed: int = 0, with_first: bool = False
) -> list[dict]:
    """Return differences and tests of each pair of methods, with p values adjusted over all pairs (Holm).

    Args:
        dice: Name of the method to Dice of each nodule, missed nodules at 0; NaN leaves the nodule out of its pairs.
        patients: Of each nodule.
        margin: Of equivalence.
        seed: Of the bootstrap.
        with_first: Only the pairs of the first method.
    """
    chosen = list(combinations(dice, 2))[: len(dice) - 1 if with_first else None]
    found = []
    for first, second in chosen:
        differences = dice[first] - dice[second]
        own, means = patient_means(differences, patients)
        found.append(
            {
                "first": first,
                "second": second,
                "nodules": int(np.isfinite(differences).sum()),
                "patients": len(own),
                "difference": to_rounded_json(asdict(metrics.mean_interval(differences, patients, seed))),
                "wilcoxon_p": paired.wilcoxon_p(means),
                "tost_p": paired.tost_p(means, margin),
            }
        )
    for test in ("wilcoxon_p", "tost_p"):
        adjusted = paired.holm([pair[test] for pair in found])
        for pair, value in zip(found, adjusted, strict=True):
            pair |= {test: _p(pair[test]), f"{test}_holm": _p(value)}
    return found


def _p(value: float) -> float | None:
    """Return a p value at three significant digits, as small as it is; None where there was no test."""
    return float(f"{value:.3g}") if np.isfinite(value) else None


def write(report: dict, out: Path, overwrite: bool = False) -> None:
    """Write `comparison.json`, `comparison.md` and, with tests, `pairs.csv` into a folder.

    Args:
        report: Of `compare` or `over_trainings`.
        out: Folder to write.
        overwrite: Replace an earlier comparison there.

    Raises:
        InputError: The folder holds something that must not be replaced.
    """
    rows = [pair | pair["difference"] | {"difference": pair["difference"]["value"]} for pair in report.get("pairs", ())]
    with atomic_folder(out, overwrite, output_files.COMPARISON) as folder:
        if "pairs" in report:
            write_csv(folder / "pairs.csv", rows, PAIR_COLUMNS, decimals=6)
        write_json(folder / "comparison.json", report)
        (folder / "comparison.md").write_text(render(report), encoding="utf-8")


def render(report: dict) -> str:
    """Return the tables of a comparison.

    Args:
        report: As in `comparison.json`.
    """
    if report["kind"] == "trainings":
        return render_trainings(report)
    count = len(report["methods"])
    header = ["first", "second", "n", "patients", "difference of Dice", "p, Wilcoxon", "p, adjusted",
              "p, equivalence", "p, adjusted", "reading"]  # fmt: skip
    rows = []
    for pair in report["pairs"]:
        tests = (pair[test] for test in ("wilcoxon_p", "wilcoxon_p_holm", "tost_p", "tost_p_holm"))
        p_values = ["< 0.001" if p is not None and p < 0.001 else number(p) for p in tests]
        names = [pair[key] for key in ("first", "second", "nodules", "patients")]
        rows.append([*names, interval(pair["difference"]), *p_values, reading(pair)])
    sources = [f"- Protocol: {report['protocol']}", f"- Data: {report['data']['name']}"]
    for method in report["methods"]:
        weights = ", ".join(f"{name} {sha}" for name, sha in sorted(method["model"]["sha256"].items()))
        threshold = "" if method["threshold"] is None else f" Threshold {method['threshold']:g}."
        sources.append(f"- {method['name']}: {method['split']}{threshold} SHA-256: {weights}")
    parts = [
        f"# {count} method{'s' * (count > 1)} on {report['nodules']} nodules of {report['patients']} patients\n",
        *_segmentation_tables(report),
        *([_detection_table(report)] if report["kind"] == "scans" else []),
        markdown_table(header, rows),
        TESTS_NOTE.format(margin=report["margin"], alpha=ALPHA) + "\n",
        INTERVAL_NOTE.format(**report["bootstrap"]) + "\n",
        "\n".join([*sources, ""]),
    ]
    return "\n".join(parts)


def _segmentation_tables(report: dict) -> list[str]:
    """Return the metrics of each method and of the readers: on all nodules, and Dice by group."""
    header = ["method", "found", "Dice a nodule, missed = 0", "Dice a nodule, found only", "Dice a patient, missed = 0",
              "Dice a patient, found only", "HD95, mm", "volume error", "absolute volume error"]  # fmt: skip
    counted = any("elsewhere" in method for method in report["methods"])
    if counted:
        header.append("marked elsewhere, a cube")
    first = report["methods"][0]["groups"]
    keys = ("found_share", "dice_all", "dice_found", "dice_per_patient", "dice_found_per_patient")
    rows, group_rows = [], []
    for method in report["methods"]:
        whole = method["groups"]["all"]
        coarse = (interval(whole[key], 2) for key in ("hd95_mm", "volume_error", "absolute_volume_error"))
        rows.append([method["name"], *(interval(whole[key]) for key in keys), *coarse])
        if counted:
            rows[-1].append(interval(method.get("elsewhere", NOT_MEASURED), 2))
        group_rows.append([method["name"], *(interval(method["groups"][name]["dice_all"]) for name in first)])
    human = [interval(first["all"][key]) for key in ("human_loo_dice", "human_loo_dice_per_patient")]
    rows.append([READERS, "-", human[0], "-", human[1], *["-"] * (4 + counted)])
    group_rows.append([READERS, *(interval(group["human_loo_dice"]) for group in first.values())])
    group_header = ["Dice a nodule, missed = 0", *(f"{name}, n = {group['nodules']}" for name, group in first.items())]
    return [markdown_table(header, rows), markdown_table(group_header, group_rows)]


def _detection_table(report: dict) -> str:
    """Return the detection metrics of each method."""
    header = ["method", "recall", "precision", "F1", "false findings a scan", "CPM", "CPM, LUNA16-like",
              "whole-scan Dice"]  # fmt: skip
    rows = []
    for method in report["methods"]:
        point = method["operating_point"]["consensus"]
        rates = (interval(point[key]) for key in ("sensitivity", "precision", "f1"))
        curves = (interval(method["froc"][rule]["cpm"]) for rule in ("consensus", "luna16_like"))
        false = interval(point["false_per_scan"], 2)
        rows.append([method["name"], *rates, false, *curves, interval(method["scan_dice"])])
    return markdown_table(header, rows)


def reading(pair: dict) -> str:
    """Return what both adjusted tests say together."""
    differ, same = (pair[key] is not None and pair[key] < ALPHA for key in ("wilcoxon_p_holm", "tost_p_holm"))
    if differ:
        return "different, within the margin" if same else "different"
    return "equivalent" if same else "undecided"


def over_trainings(evaluations: list[Evaluation]) -> dict:
    """Return the content of `comparison.json`: each method's mean over its trainings, and their spread.

    Args:
        evaluations: of the same nodules; those of one method bear one name in their summaries.

    Raises:
        InputError: no method was trained twice.
    """
    trained: dict[str, list[dict]] = {}
    for one in evaluations:
        trained.setdefault(one.summary["model"]["name"], []).append(one.summary["groups"]["all"])
    if max(map(len, trained.values())) < 2:
        raise InputError(
            f"All {len(trained)} evaluations have names of their own, expected several of a method; give trainings of "
            "a method one --name, or leave out --trainings."
        )
    methods = []
    for name, groups in trained.items():
        values = {key: np.array([group[key]["value"] for group in groups], float) for key in MEASURES}
        spread = {
            key: {"mean": np.nanmean(found), "least": np.nanmin(found), "greatest": np.nanmax(found)}
            for key, found in values.items()
            if np.isfinite(found).any()
        }
        sd = values["dice_all"].std(ddof=1) if len(groups) > 1 else np.nan
        methods.append({"name": name, "trainings": len(groups), "sd": sd} | spread)
    first = evaluations[0].summary
    return to_rounded_json(
        {
            "schema": 1,
            "kind": "trainings",
            "protocol": first["protocol"],
            "data": first["data"],
            "nodules": len(evaluations[0].rows),
            "patients": len({row["patient"] for row in evaluations[0].rows.values()}),
            "methods": methods,
        }
    )


def render_trainings(report: dict) -> str:
    """Return the table.

    Args:
        report: of `over_trainings`.
    """
    header = ["method", "trainings", *(name for name, _ in MEASURES.values()), "SD of Dice", "difference of Dice"]
    first, rows = report["methods"][0], []
    for method in report["methods"]:
        row = [method["name"], method["trainings"]]
        for key, (_, decimals) in MEASURES.items():
            found = method.get(key)
            shown = found and [f"{found[part]:.{decimals}f}" for part in ("mean", "least", "greatest")]
            spread = " ({1} to {2})" if method["trainings"] > 1 else ""
            row.append(("{0}" + spread).format(*shown) if shown else "-")
        row.append("-" if method["sd"] is None else f"{method['sd']:.3f}")
        row.append("-" if method is first else f"{method['dice_all']['mean'] - first['dice_all']['mean']:+.3f}")
        rows.append(row)
    return f"{markdown_table(header, rows)}\n{TRAININGS_NOTE.format(**report, first=first['name'])}\n"
