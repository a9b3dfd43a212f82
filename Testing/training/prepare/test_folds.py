import csv
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from LNHGLib.errors import InputError
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.prepare import folds
from LNHGTrainingLib.prepare.folds import Plan, assign_folds


def nodules(*patients, diameter=8.0):
    """Rows: a nodule for every name given."""
    return [
        {"row": str(index), "patient_id": name, "luna_diameter_exact_mm": str(diameter), "kind": "nodule"}
        for index, name in enumerate(patients)
    ]


def many(count=60, seed=0):
    rng = np.random.default_rng(seed)
    rows = nodules(*(f"P{patient}" for patient in range(count) for _ in range(rng.integers(1, 5))))
    for row in rows:
        row["luna_diameter_exact_mm"] = str(round(float(np.exp(rng.normal(2, 0.5))), 2))
    return rows


def write(path, rows):
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_csv(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@settings(deadline=None)
@given(st.lists(st.sampled_from([f"P{index}" for index in range(12)]), min_size=20, max_size=60), st.integers(0, 9))
def test_a_patient_is_in_one_fold_whatever_the_table(patients, seed):
    """Register U5; a patient's second scan is the same patient."""
    rows = nodules(*patients)
    if len(set(patients)) < 3:
        return
    of = {}
    for row, fold in zip(rows, assign_folds(rows, Plan(3, seed)), strict=True):
        of.setdefault(row["patient_id"], set()).add(fold)
    assert all(len(found) == 1 for found in of.values())
    assert set().union(*of.values()) == {0, 1, 2}


def test_folds_are_even_in_nodules_and_in_sizes():
    rows = many(200)
    drawn = np.array(assign_folds(rows, Plan()))
    sizes = np.searchsorted(folds.SIZES_MM, [float(row["luna_diameter_exact_mm"]) for row in rows], side="right")
    for chosen in (np.ones(len(rows), bool), *(sizes == size for size in range(3))):
        counts = np.bincount(drawn[chosen], minlength=5)
        assert np.ptp(counts) <= 3, counts


def test_the_seed_decides():
    rows = many()
    assert assign_folds(rows, Plan(seed=3)) == assign_folds(rows, Plan(seed=3)) != assign_folds(rows, Plan(seed=4))


def test_the_order_of_the_table_does_not_matter():
    rows = many()
    forth = {row["row"]: fold for row, fold in zip(rows, assign_folds(rows, Plan()), strict=True)}
    back = {row["row"]: fold for row, fold in zip(rows[::-1], assign_folds(rows[::-1], Plan()), strict=True)}
    assert forth == back


def test_patients_kept_for_testing_have_no_fold():
    rows = many(20)
    rows[0]["scan_test"] = "1"
    drawn = assign_folds(rows, Plan(hold_out=("P7",)))
    assert {row["patient_id"] for row, fold in zip(rows, drawn, strict=True) if fold == -1} == {"P0", "P7"}


def test_a_split_by_nodule_leaks_and_says_so(tmp_path):
    rows = many(20)
    record = folds.write_folds(write(tmp_path / "in.csv", rows), tmp_path / "out.csv", Plan(split="nodule"))
    assert record["patients_in_more_than_one_fold"] > 10
    with pytest.raises(InputError, match="one fold a patient"):
        folds.assert_disjoint(rows, [int(row["fold"]) for row in read_csv(tmp_path / "out.csv")])


def test_a_split_by_nodule_needs_the_users_word(tmp_path, capsys):
    table = write(tmp_path / "in.csv", many(20))
    arguments = ["folds", str(table), str(tmp_path / "out.csv"), "--split", "nodule"]
    assert main(arguments) == 2
    assert "--i-know-it-leaks" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()
    assert main([*arguments, "--i-know-it-leaks"]) == 0
    assert "leaks" in capsys.readouterr().out


def test_the_published_file_tells_how_and_who(tmp_path):
    table = write(tmp_path / "in.csv", many(20))
    assert main(["folds", str(table), str(tmp_path / "out.csv"), "--folds", "4", "--seed", "7"]) == 0
    record = json.loads((tmp_path / "out.json").read_text())
    assert (record["seed"], record["split"], record["patients_in_more_than_one_fold"]) == (7, "patient", 0)
    assert sorted(name for fold in record["folds"] for name in fold["patients"]) == sorted(f"P{i}" for i in range(20))
    assert sum(fold["nodules"] for fold in record["folds"]) == len(read_csv(tmp_path / "out.csv"))
    for row in read_csv(tmp_path / "out.csv"):
        assert row["patient_id"] in record["folds"][int(row["fold"])]["patients"]


def test_folds_of_another_table_are_kept(tmp_path):
    folds.write_folds(write(tmp_path / "a.csv", many(20)), tmp_path / "a-folds.csv", Plan(seed=5))
    folds.write_folds(
        write(tmp_path / "b.csv", many(30, seed=2)), tmp_path / "b-folds.csv", Plan(like=tmp_path / "a-folds.csv")
    )
    first, second = ({row["patient_id"]: row["fold"] for row in read_csv(tmp_path / f"{n}-folds.csv")} for n in "ab")
    assert first.items() <= second.items()
    assert len(second) == 30


def test_the_development_crops_folds_can_be_kept(data_dir, tmp_path):
    table = data_dir / "crops" / "luna16_crops.csv"
    record = folds.write_folds(table, tmp_path / "same.csv", Plan(like=table))
    before, after = read_csv(table), read_csv(tmp_path / "same.csv")
    assert [row["fold"] for row in before if row["scan_test"] == "0"] == [
        row["fold"] for row in after if row["scan_test"] == "0"
    ]
    assert record["held_out"] == ["LIDC-IDRI-0001", "LIDC-IDRI-0003", "LIDC-IDRI-0063"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hold-out", "Nobody"], "no patient Nobody"),
        (["--folds", "99"], "20 patient"),
        (["--folds", "1"], "2 or more"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, capsys, arguments, message):
    table = write(tmp_path / "in.csv", many(20))
    assert main(["folds", str(table), str(tmp_path / "out.csv"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))
