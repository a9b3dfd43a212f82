"""`lnhg-train compare`: evaluations of the same nodules beside each other and the readers, with paired tests."""

import csv
import json
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from LNHGLib.errors import InputError

from LNHGTrainingLib import compare_tables, metrics, outputs, significance
from LNHGTrainingLib.summary import patient_means, plain

READERS = "readers, leave-one-out"
SAME = ("diameter_mm", "reference_volume_mm3", "human_loo_dice")
"""Columns that describe the nodule and its readers, so they cannot differ between methods."""

PAIR_COLUMNS = ("first", "second", "nodules", "patients", "difference", "low", "high", "wilcoxon_p",
                "wilcoxon_p_holm", "tost_p", "tost_p_holm")  # fmt: skip


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
    return plain(
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
        adjusted = significance.holm([pair[test] for pair in found])
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
        "difference": plain(asdict(interval)),
        "wilcoxon_p": significance.wilcoxon_p(means),
        "tost_p": significance.tost_p(means, margin),
    }


def write(report: dict, out: Path, overwrite: bool = False) -> None:
    """Write `comparison.json`, `comparison.md` and `pairs.csv` into a folder.

    Raises:
        InputError: the folder holds something that must not be replaced.
    """
    rows = [pair | pair["difference"] | {"difference": pair["difference"]["value"]} for pair in report["pairs"]]
    with outputs.whole_folder(out, overwrite, outputs.COMPARISON) as folder:
        outputs.write_table(rows, list(PAIR_COLUMNS), folder / "pairs.csv", digits=6)
        outputs.write_json(report, folder / "comparison.json")
        (folder / "comparison.md").write_text(compare_tables.render(report), encoding="utf-8")
