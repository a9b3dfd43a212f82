"""`lnhg-train compare`: evaluations of the same nodules beside each other and the readers, with paired tests."""

import csv
import json
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from LNHGLib.errors import InputError
from LNHGLib.files.atomic import atomic_folder
from LNHGLib.stats import paired

from LNHGTrainingLib import output_files
from LNHGTrainingLib.evaluation import metrics
from LNHGTrainingLib.evaluation.markdown import INTERVAL_NOTE, NOT_MEASURED, interval, number, table
from LNHGTrainingLib.evaluation.summary import patient_means, to_json

READERS = "readers, leave-one-out"
SAME = ("diameter_mm", "reference_volume_mm3", "human_loo_dice")
"""Columns that describe the nodule and its readers, so they cannot differ between methods."""

PAIR_COLUMNS = ("first", "second", "nodules", "patients", "difference", "low", "high", "wilcoxon_p",
                "wilcoxon_p_holm", "tost_p", "tost_p_holm")  # fmt: skip

ALPHA = 0.05

TESTS_NOTE = (
    "Differences are of Dice a nodule with missed nodules at 0, first minus second. Wilcoxon (two-sided signed-rank) "
    "and equivalence (two one-sided t-tests, margin {margin:g} Dice) are paired and take one mean difference a "
    "patient, as the nodules of a patient are not independent. p values are adjusted over all pairs (Holm); a "
    "difference or an equivalence is called one below {alpha:g}. A large p of Wilcoxon alone is no proof of equality."
)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `lnhg-train evaluate` wrote: name of the method, its summary, its row for each nodule that counts."""

    name: str
    summary: dict
    rows: dict[tuple[str, ...], dict[str, str]]


def read_evaluation(folder: Path) -> Evaluation:
    """Read the folder of an evaluation.

    Raises:
        InputError: it is none, or was written by an earlier version.
    """
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        with (folder / "nodules.csv").open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder} holds no summary.json and nodules.csv that can be read; expected a folder that "
            "lnhg-train evaluate wrote."
        ) from error
    if summary.get("schema") != 2 or summary.get("kind") not in ("crops", "scans"):
        raise InputError(
            f"{folder} has a summary of schema {summary.get('schema')!r}, expected 2; run lnhg-train evaluate again."
        )
    place = ("patient", "series", "nodule") if summary["kind"] == "crops" else ("case", "nodule")
    counted = {tuple(row[key] for key in place): row for row in rows if row.get("counts", "1") == "1"}
    return Evaluation(summary["model"]["name"], summary, counted)


def read_evaluations(folders: list[Path]) -> list[Evaluation]:
    """Read evaluations that can be compared; methods of one name are told apart by their folders.

    Raises:
        InputError: a single one without readers to compare with, of different kinds or protocols, or of different
            nodules.
    """
    read = [read_evaluation(folder) for folder in folders]
    if len(read) < 2 and not any(row["human_loo_dice"] for row in read[0].rows.values()):
        raise InputError(
            f"{folders[0]} is one evaluation without readers' Dice, expected two or more; add folders before OUT."
        )
    for folder, other in zip(folders[1:], read[1:], strict=True):
        _check_same(folders[0], read[0], folder, other)
    names = [one.name for one in read]
    labels = [name if names.count(name) == 1 else f"{name} ({f.name})" for name, f in zip(names, folders, strict=True)]
    if len(set(labels)) < len(labels):
        labels = [f"{label} {number}" for number, label in enumerate(labels, 1)]
    return [Evaluation(label, one.summary, one.rows) for label, one in zip(labels, read, strict=True)]


def _check_same(first: Path, a: Evaluation, second: Path, b: Evaluation) -> None:
    for part in ("kind", "protocol"):
        if a.summary[part] != b.summary[part]:
            raise InputError(f"{first} and {second} differ in their {part}; evaluate both in the same way.")
    odd = sorted(a.rows.keys() ^ b.rows.keys())
    if odd:
        raise InputError(
            f"{first} scores {len(a.rows)} nodules and {second} {len(b.rows)}, {len(odd)} of them not in both "
            f"(first: {' '.join(odd[0])}); expected the same nodules: evaluate both on the same data and folds."
        )
    for key, row in a.rows.items():
        for column in SAME:
            if row[column] != b.rows[key][column]:
                raise InputError(
                    f"Nodule {' '.join(key)} has {column} {row[column]} in {first} and {b.rows[key][column]} in "
                    f"{second}; expected the same reference: evaluate both on the same data."
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
    return to_json(
        {
            "schema": 1,
            "kind": first.summary["kind"],
            "protocol": first.summary["protocol"],
            "data": first.summary["data"],
            "nodules": len(keys),
            "patients": len(set(patients)),
            "margin": margin,
            "bootstrap": {"unit": "patient", "samples": metrics.BOOTSTRAP_SAMPLES, "seed": seed},
            "methods": [_method(one) for one in evaluations],
        }
    ) | {"pairs": pairs(dice, patients, margin, seed, with_first)}


def _method(evaluation: Evaluation) -> dict:
    kept = ("model", "split", "threshold", "elsewhere", "groups", "operating_point", "froc", "scan_dice")
    return {"name": evaluation.name} | {key: evaluation.summary[key] for key in kept if key in evaluation.summary}


def pairs(
    dice: dict[str, np.ndarray], patients: list[str], margin: float, seed: int = 0, with_first: bool = False
) -> list[dict]:
    """Differences and tests of each pair of methods, with p values adjusted over all pairs (Holm).

    Args:
        dice: Name of the method to Dice of each nodule, missed nodules at 0; NaN leaves the nodule out of its pairs.
        patients: Of each nodule.
        margin: Of equivalence.
        seed: Of the bootstrap.
        with_first: Only the pairs of the first method.
    """
    chosen = list(combinations(dice, 2))[: len(dice) - 1 if with_first else None]
    found = [_pair(names, dice, patients, margin, seed) for names in chosen]
    for test in ("wilcoxon_p", "tost_p"):
        adjusted = paired.holm([pair[test] for pair in found])
        for pair, value in zip(found, adjusted, strict=True):
            pair |= {test: _p(pair[test]), f"{test}_holm": _p(value)}
    return found


def _p(value: float) -> float | None:
    """A p value at three significant digits, as small as it is; None where there was no test."""
    return float(f"{value:.3g}") if np.isfinite(value) else None


def _pair(names: tuple[str, str], dice: dict[str, np.ndarray], patients: list[str], margin: float, seed: int) -> dict:
    differences = dice[names[0]] - dice[names[1]]
    interval = metrics.mean_interval(differences, patients, seed)
    own, means = patient_means(differences, patients)
    return {
        "first": names[0],
        "second": names[1],
        "nodules": int(np.isfinite(differences).sum()),
        "patients": len(own),
        "difference": to_json(asdict(interval)),
        "wilcoxon_p": paired.wilcoxon_p(means),
        "tost_p": paired.tost_p(means, margin),
    }


def write(report: dict, out: Path, overwrite: bool = False) -> None:
    """Write `comparison.json`, `comparison.md` and `pairs.csv` into a folder.

    Raises:
        InputError: the folder holds something that must not be replaced.
    """
    rows = [pair | pair["difference"] | {"difference": pair["difference"]["value"]} for pair in report["pairs"]]
    with atomic_folder(out, overwrite, output_files.COMPARISON) as folder:
        output_files.write_table(rows, list(PAIR_COLUMNS), folder / "pairs.csv", digits=6)
        output_files.write_json(report, folder / "comparison.json")
        (folder / "comparison.md").write_text(render(report), encoding="utf-8")


def render(report: dict) -> str:
    """The tables of a comparison.

    Args:
        report: As in `comparison.json`.
    """
    count = len(report["methods"])
    parts = [
        f"# {count} method{'s' * (count > 1)} on {report['nodules']} nodules of {report['patients']} patients\n",
        _methods(report),
        _groups(report),
        _detection(report) if report["kind"] == "scans" else "",
        _pairs(report),
        TESTS_NOTE.format(margin=report["margin"], alpha=ALPHA) + "\n",
        INTERVAL_NOTE.format(**report["bootstrap"]) + "\n",
        _sources(report),
    ]
    return "\n".join(part for part in parts if part)


def _methods(report: dict) -> str:
    header = ["method", "found", "Dice a nodule, missed = 0", "Dice a nodule, found only", "Dice a patient, missed = 0",
              "Dice a patient, found only", "HD95, mm", "volume error", "absolute volume error"]  # fmt: skip
    counted = any("elsewhere" in method for method in report["methods"])
    if counted:
        header.append("marked elsewhere, a cube")
    dice = ("found_share", "dice_all", "dice_found", "dice_per_patient", "dice_found_per_patient")
    rows = []
    for method in report["methods"]:
        whole = method["groups"]["all"]
        coarse = (interval(whole[key], 2) for key in ("hd95_mm", "volume_error", "absolute_volume_error"))
        rows.append([method["name"], *(interval(whole[key]) for key in dice), *coarse])
        if counted:
            rows[-1].append(interval(method.get("elsewhere", NOT_MEASURED), 2))
    whole = report["methods"][0]["groups"]["all"]
    human = [interval(whole[key]) for key in ("human_loo_dice", "human_loo_dice_per_patient")]
    rows.append(["readers, leave-one-out", "-", human[0], "-", human[1], *["-"] * (4 + counted)])
    return table(header, rows)


def _groups(report: dict) -> str:
    first = report["methods"][0]["groups"]
    header = ["Dice a nodule, missed = 0", *(f"{name}, n = {group['nodules']}" for name, group in first.items())]
    rows = [
        [method["name"], *(interval(method["groups"][name]["dice_all"]) for name in first)]
        for method in report["methods"]
    ]
    rows.append(["readers, leave-one-out", *(interval(group["human_loo_dice"]) for group in first.values())])
    return table(header, rows)


def _detection(report: dict) -> str:
    header = ["method", "recall", "precision", "F1", "false findings a scan", "CPM", "CPM, LUNA16-like",
              "whole-scan Dice"]  # fmt: skip
    rows = []
    for method in report["methods"]:
        point = method["operating_point"]["consensus"]
        rates = (interval(point[key]) for key in ("sensitivity", "precision", "f1"))
        curves = (interval(method["froc"][rule]["cpm"]) for rule in ("consensus", "luna16_like"))
        false = interval(point["false_per_scan"], 2)
        rows.append([method["name"], *rates, false, *curves, interval(method["scan_dice"])])
    return table(header, rows)


def _pairs(report: dict) -> str:
    header = ["first", "second", "n", "patients", "difference of Dice", "p, Wilcoxon", "p, adjusted",
              "p, equivalence", "p, adjusted", "reading"]  # fmt: skip
    tests = ("wilcoxon_p", "wilcoxon_p_holm", "tost_p", "tost_p_holm")
    rows = [
        [pair["first"], pair["second"], pair["nodules"], pair["patients"], interval(pair["difference"]),
         *(p_text(pair[test]) for test in tests), reading(pair)]
        for pair in report["pairs"]
    ]  # fmt: skip
    return table(header, rows)


def p_text(value: float | None) -> str:
    """A p value as text; a dash where there was no test."""
    return "< 0.001" if value is not None and value < 0.001 else number(value)


def reading(pair: dict) -> str:
    """What both adjusted tests say together."""
    differ, same = (pair[key] is not None and pair[key] < ALPHA for key in ("wilcoxon_p_holm", "tost_p_holm"))
    if differ:
        return "different, within the margin" if same else "different"
    return "equivalent" if same else "undecided"


def _sources(report: dict) -> str:
    lines = [f"- Protocol: {report['protocol']}", f"- Data: {report['data']['name']}"]
    for method in report["methods"]:
        weights = ", ".join(f"{name} {sha}" for name, sha in sorted(method["model"]["sha256"].items()))
        threshold = "" if method["threshold"] is None else f" Threshold {method['threshold']:g}."
        lines.append(f"- {method['name']}: {method['split']}{threshold} SHA-256: {weights}")
    return "\n".join([*lines, ""])
