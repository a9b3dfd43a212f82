"""Folds by patient, balanced over the number and the size of nodules, chosen from a seed and written down.

A split by nodule, as in the original (register U5), leaks: it is here to show by how much it inflates Dice.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from LNHGLib.errors import InputError, shown
from LNHGLib.files.atomic import atomic_file
from LNHGLib.files.checksum import file_sha256
from LNHGLib.files.text import csv_reader, write_csv, write_json

SIZES_MM = (6.0, 10.0, 20.0)
"""Bounds between the size classes that every fold gets some of."""
SCHEMA = 1


@dataclass(frozen=True)
class Plan:
    """How to make folds: their number, seed, "patient" or "nodule", patients kept for testing, folds given already."""

    count: int = 5
    seed: int = 0
    split: str = "patient"
    hold_out: tuple[str, ...] = ()
    like: Path | None = None


def read_table(path: Path) -> tuple[list[str], list[dict]]:
    """Return the columns and the rows of a table of nodules.

    Raises:
        InputError: it cannot be read or lacks a column.
    """
    try:
        reader = csv_reader(path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}), expected the table of prepared data; check the path."
        ) from error
    columns, rows = list(reader.fieldnames or []), list(reader)
    missing = [name for name in ("row", "patient_id", "luna_diameter_exact_mm") if name not in columns]
    if missing or not rows:
        raise InputError(
            f"{path} {'lacks ' + ', '.join(missing) if missing else 'is empty'}, expected a table; give prepare's."
        )
    return columns, rows


def assign_folds(rows: list[dict], plan: Plan) -> list[int]:
    """Return the fold of every row, 0 to `count` - 1; -1 for patients kept for testing.

    Args:
        rows: of the table of nodules.
        plan: how to make folds.

    Raises:
        InputError: there are fewer patients than folds, or a patient to hold out is not in the table.
    """
    held = {row["patient_id"] for row in rows if row.get("scan_test") == "1"} | set(plan.hold_out)
    unknown = sorted(set(plan.hold_out) - {row["patient_id"] for row in rows})
    if unknown:
        raise InputError(f"The table has no patient {shown(unknown[0])} to hold out; check --hold-out.")
    groups = defaultdict(list)
    for index, row in enumerate(rows):
        if row["patient_id"] not in held:  # what must stay together; with the leaky split a nodule alone
            together = plan.split == "patient" or not row["row"]
            groups[row["patient_id"] if together else f"row {index}"].append(index)
    if len(groups) < plan.count:
        raise InputError(
            f"The table has {len(groups)} patient(s), expected at least {plan.count} for as many folds; ask for fewer."
        )
    given = {name: fold for name, fold in given_folds(plan).items() if name in groups}
    folds = [-1] * len(rows)
    for name, fold in balance({name: _load(rows, of) for name, of in groups.items()}, plan, given).items():
        for index in groups[name]:
            folds[index] = fold
    if plan.split == "patient":
        assert_disjoint(rows, folds)
    return folds


def _load(rows: list[dict], indices: list[int]) -> np.ndarray:
    """Count one patient, its nodules, and its nodules by size class: (2 + classes,)."""
    nodules = [rows[index] for index in indices if rows[index].get("kind", "nodule") == "nodule" and rows[index]["row"]]
    sizes = [float(row["luna_diameter_exact_mm"] or 0) for row in nodules]
    by_size = np.bincount(np.searchsorted(SIZES_MM, sizes, side="right"), minlength=len(SIZES_MM) + 1)
    return np.array([1, len(nodules), *by_size], float)


def balance(loads: dict[str, np.ndarray], plan: Plan, given: dict[str, int]) -> dict[str, int]:
    """Give one group after the other, those with most nodules first, to the fold that it evens out most.

    Args:
        loads: of each group, as `_load` counts.
        plan: number of folds and seed.
        given: groups that have a fold already.

    Returns:
        The fold of each group.
    """
    names = sorted(set(loads) - set(given))
    order = np.random.default_rng(plan.seed).permutation(len(names))
    names = sorted((names[index] for index in order), key=lambda name: -loads[name][1])
    mean = sum(loads.values()) / plan.count
    scale = np.where(mean > 0, mean, 1)
    sums = np.zeros((plan.count, len(scale)))
    folds = dict(given)
    for name, fold in given.items():
        sums[fold] += loads[name]
    for name in names:
        grown = ((sums + loads[name]) / scale) ** 2 - (sums / scale) ** 2
        fold = int(grown.sum(axis=1).argmin())
        folds[name] = fold
        sums[fold] += loads[name]
    return folds


def given_folds(plan: Plan) -> dict[str, int]:
    """Return the folds of another table's patients.

    Raises:
        InputError: the table lacks them, or has a patient in two folds.
    """
    if plan.like is None:
        return {}
    reader = csv_reader(plan.like)
    if not {"patient_id", "fold"} <= set(reader.fieldnames or []):
        raise InputError(f"{plan.like} lacks the columns patient_id and fold; give a table with folds.")
    rows = list(reader)
    folds = [int(row["fold"] or -1) for row in rows]
    if max(folds) >= plan.count:
        raise InputError(
            f"{plan.like} has a fold {max(folds)}, expected less than --folds {plan.count}; ask for more folds."
        )
    assert_disjoint(rows, folds)
    return {row["patient_id"]: fold for row, fold in zip(rows, folds, strict=True) if fold >= 0}


def assert_disjoint(rows: list[dict], folds: list[int]) -> None:
    """Refuse a patient in two folds (register U5).

    Args:
        rows: of the table.
        folds: of each row.

    Raises:
        InputError: names one.
    """
    seen: dict[str, int] = {}
    for row, fold in zip(rows, folds, strict=True):
        if seen.setdefault(row["patient_id"], fold) != fold:
            raise InputError(
                f"Patient {shown(row['patient_id'])} is in fold {seen[row['patient_id']]} and in fold {fold}, "
                "expected one fold a patient; draw the folds anew."
            )


def write_folds(manifest: Path, out: Path, plan: Plan) -> dict:
    """Write the table with its folds to `out`, and the folds alone, to publish, to a .json file beside it.

    Args:
        manifest: table of nodules.
        out: table to write.
        plan: how to make folds.

    Returns:
        What the .json file says.

    Raises:
        InputError: as `assign_folds`, or `out` is no .csv.
    """
    if out.suffix.lower() != ".csv":
        raise InputError(f"{out} ends in {out.suffix or 'nothing'}, expected a .csv file to write; name one.")
    columns, rows = read_table(manifest)
    folds = assign_folds(rows, plan)
    members = defaultdict(set)
    for row, fold in zip(rows, folds, strict=True):
        members[fold].add(row["patient_id"])
    held = members.pop(-1, set())
    shared = sum(sum(name in of for of in members.values()) > 1 for name in set().union(*members.values()))
    summary = []
    for fold in range(plan.count):
        load = _load(rows, [index for index, each in enumerate(folds) if each == fold])
        nodules, by_size = int(load[1]), load[2:].astype(int).tolist()
        patients = sorted(members[fold])
        summary.append({"fold": fold, "nodules": nodules, "nodules_by_size": by_size, "patients": patients})
    record = {
        "schema": SCHEMA, "table": manifest.name, "table_sha256": file_sha256(manifest),
        "seed": plan.seed, "split": plan.split, "patients_in_more_than_one_fold": shared,
        "size_classes_mm": list(SIZES_MM), "folds": summary, "held_out": sorted(held),
    }  # fmt: skip
    if plan.split == "nodule":
        record["nodules"] = {row.get("key") or row["row"]: f for row, f in zip(rows, folds, strict=True) if row["row"]}
    columns += [name for name in ("fold", "scan_test") if name not in columns]
    for row, fold in zip(rows, folds, strict=True):
        row |= {"fold": fold, "scan_test": int(row["patient_id"] in held)}
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(out) as part:
        write_csv(part, rows, columns)
    with atomic_file(out.with_suffix(".json")) as part:
        write_json(part, record)
    return record
