"""Changed inputs of every kind end well: a short run, what once failed, and faults that are planted to be found."""

import json
import random
import subprocess
import sys
from pathlib import Path

import fuzz_mutations
import fuzz_table
import pytest

HERE = Path(__file__).parent
CORPUS = json.loads((HERE / "corpus.json").read_text(encoding="utf-8"))


def run(code: str) -> list[dict]:
    """Run fuzzing in a process of its own, which forks before any thread is made."""
    program = f"import json, sys; sys.path.insert(0, {str(HERE)!r}); import fuzz, fuzz_worker; {code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_short_run_finds_nothing():
    rows = run("print(json.dumps(fuzz.fuzz(60, 7, 1)))")
    assert {row["kind"]: row["fault"] for row in rows if row["fault"]} == {}
    assert len({row["kind"] for row in rows}) == 15


@pytest.mark.slow
def test_what_once_failed_ends_well():
    rows = run(f"print(json.dumps(fuzz.run_all({[(each['kind'], each['seed']) for each in CORPUS]!r}, 1)))")
    assert [(row["kind"], row["seed"], row["fault"]) for row in rows if row["fault"]] == []
    assert len(rows) == len(CORPUS)


@pytest.mark.slow
def test_commands_that_are_killed_lose_nothing():
    rows = run("import fuzz_kills; print(json.dumps(fuzz_kills.kills(6, 5)))")
    assert {row["command"]: row["fault"] for row in rows if row["fault"]} == {}
    assert len({row["command"] for row in rows}) == 6


KILL_A_PLANTED_ONE = """
import pathlib, random, tempfile, time, fuzz_kills
def write(arguments):
    file = pathlib.Path("out/a.csv")
    file.parent.mkdir(exist_ok=True)
    before = file.read_text() if file.exists() else ""
    file.write_text("half")
    time.sleep(2)
    file.write_text(before + "whole")
    return int(before == arguments[0])
fuzz_worker.command = lambda program: write
fuzz_worker.replace_networks = lambda: None
met = []
for partial, fatal in ((False, ""), (True, ""), (True, "half")):
    with tempfile.TemporaryDirectory() as text:
        folder = pathlib.Path(text).resolve()
        fuzz_kills.COMMANDS["x"] = fuzz_kills.Killed(lambda folder: ["lnhg", fatal], partial=partial)
        fuzz_kills.start(["lnhg", "none"], folder / "whole").finish()
        reference = fuzz_kills.content(folder / "whole/out")
        moment = random.Random()
        moment.uniform = lambda least, most: 1.0
        met.append(fuzz_kills.kill_one("x", reference, 2.0, moment, folder / "killed"))
print(json.dumps(met))
"""


@pytest.mark.slow
def test_what_a_killed_command_leaves_and_goes_on_from_is_looked_at():
    met = run(KILL_A_PLANTED_ONE)
    assert [row["killed"] for row in met] == [True] * 3
    assert [row["fault"].split(":")[0] for row in met] == ["half-written", "another result", "goes not on"]


@pytest.mark.parametrize(
    ("status", "said", "fault"),
    [
        (0, "", ""),
        (2, "lnhg: ct is empty, expected a CT; copy it again.", ""),
        (1, "lnhg: the computer's memory does not suffice (x); close other programs and try again.", ""),
        (1, "lnhg: failed: KeyError: 'a'; set LNHG_DEBUG=1 to see where.", "fails"),
        (2, "lnhg: ct is empty. Copy it again.", "no sentence"),
        (2, "lnhg-train: None of the 2 scans in /a/list.csv could be prepared; see /a/out/report.csv.", ""),
        (2, "lnhg: 'grid. Kind' is unknown, expected one of kind; mend the model card.", ""),
        (2, "lnhg: the reader's CT is empty. Copy it to the reader's folder; try again.", "no sentence"),
        (2, f"lnhg: '{'a' * 300}' is unknown, expected one of kind; mend the model card.", "no sentence"),
        (99, "Traceback (most recent call last):", "traceback"),
        (-9, "", "hangs"),
        (-11, "", "crashes: signal SIGSEGV"),
        (3, "", "exit status 3"),
    ],
)
def test_every_wrong_end_is_told(tmp_path, status, said, fault):
    from fuzz_worker import judge

    (tmp_path / "tmp").mkdir()
    if status == 0:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "report.json").touch()
    met = judge("MHA", status, said, tmp_path)
    assert met.startswith(fault)
    assert bool(met) == bool(fault)


def test_files_that_are_left_are_told(tmp_path):
    from fuzz_worker import judge

    (tmp_path / "tmp").mkdir()
    assert judge("MHA", 0, "", tmp_path) == "says it is done and leaves no results"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.part").touch()
    assert judge("MHA", 2, "lnhg: wrong; mend it.", tmp_path) == "leaves OUT though it failed"
    assert judge("MHA", 0, "", tmp_path) == "leaves a.part in OUT"
    (tmp_path / ".out-1").mkdir()
    assert judge("MHA", 0, "", tmp_path) == "leaves .out-1 beside OUT"
    (tmp_path / "tmp" / "x").touch()
    assert judge("MHA", 0, "", tmp_path) == "leaves x in the temporary folder"


def test_mutations_are_the_seeds_and_change_something():
    data = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 4 4 4\n\n" + bytes(128)
    changes = (*set(fuzz_mutations.BYTES), fuzz_mutations.change_text)
    for change in changes:  # zeros may be exchanged for zeros
        met = [change(data, random.Random(seed)) for seed in range(20)]
        assert met == [change(data, random.Random(seed)) for seed in range(20)]
        assert sum(each != data for each in met) > 10, change.__name__


def test_json_stays_json_or_is_broken_on_purpose():
    text = json.dumps({"a": [1, {"b": "c"}], "d": None}).encode()
    met = {fuzz_mutations.change_json(text, random.Random(seed)) for seed in range(200)}
    assert len(met) > 50


def test_the_table_has_a_row_per_kind_and_their_sum(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("Before.\n\n<!-- fuzz -->\nold\n<!-- /fuzz -->\n\nAfter.\n")
    rows = [
        {"kind": kind, "status": status, "fault": "", "seconds": 0.5} for kind, status in (("a", 0), ("a", 2), ("b", 1))
    ]
    fuzz_table.write_fuzz_table(page, rows, "seed 1")
    text = page.read_text()
    assert "old" not in text
    assert text.startswith("Before.")
    assert text.endswith("After.\n")
    assert "| a | 2 | 1 | 1 | 0 | 0 | 0.5 |" in text
    assert "| **all** | 3 | 1 | 1 | 1 | 0 | 0.5 |" in text
    with pytest.raises(LookupError, match="no marks"):
        fuzz_table.replace_part(page, "kills", "x")
