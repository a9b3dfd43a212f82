"""A cohort runs to its end whatever happens to cases, workers and the run itself; the work is a stand-in."""

import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import batch_process
import pytest
from batch_content import LIMIT_S, content, make_scans, rows, states, wait_for
from LNHGLib import __main__ as cli
from LNHGLib.batch import lock as run_lock
from LNHGLib.batch import run as batch
from LNHGLib.batch.store import DIED, INPUT, MEMORY, Store
from LNHGLib.results import writer
from stand_in_work import StandIn, computed, noted
from tiny_model import write_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny").folder


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def lnhg(tmp_path, model, log, monkeypatch):
    """Run `lnhg batch` in this process, its workers in processes of their own."""
    monkeypatch.setattr(batch, "SegmentationSpec", lambda *_: StandIn(log))

    def run(*options, out="out"):
        arguments = ["batch", tmp_path / "in", tmp_path / out, "--model", model, *options]
        return cli.main([str(argument) for argument in arguments])

    return run


@pytest.fixture
def started(tmp_path, model, log):
    """Start `lnhg batch` in a process of its own; what is still running at the end is killed."""
    with batch_process.starter(log, tmp_path, model) as start:
        yield start


def test_good_and_bad_cases_go_to_the_end_and_into_the_tables(tmp_path, lnhg, capsys):
    make_scans(tmp_path / "in", a="one", b="unreadable", c="wrong", d="fault", e="two")
    assert lnhg("--jobs", 2) == 0
    out = tmp_path / "out"
    assert states(out) == {"a": "done", "b": "failed", "c": "failed", "d": "failed", "e": "done"}
    reasons = {row["case"]: row["reason"] for row in rows(out)}
    assert reasons["b"] == "b.nii is unreadable; copy it again."
    assert reasons["d"] == "RuntimeError: a fault in the program"
    assert [row["case"] for row in rows(out, "cohort.csv")] == ["a", "e"]
    assert sorted(path.name for path in (out / "cases").iterdir()) == ["a", "e"]
    assert sorted(path.name for path in (out / "cases" / "a").iterdir()) == sorted(writer.FILES)
    told = capsys.readouterr()
    assert told.out.startswith("5 cases: 2 done, 3 failed;")
    assert told.err.count("lnhg: failed: ") == 3
    assert "5/5, 3 failed" in told.err


def test_each_worker_prepares_once_and_its_three_steps_overlap(tmp_path, lnhg, log):
    make_scans(tmp_path / "in", **{f"c{i}": "one" for i in range(8)})
    assert lnhg("--jobs", 2) == 0
    notes = noted(log)
    assert Counter(note["step"] for note in notes)["prepare"] == 2
    spans = {(note["case"], note["step"]): note for note in notes}
    overlaps = Counter()
    for (case, step), span in spans.items():
        for (other, other_step), other_span in spans.items():
            same_time = span["begin"] < other_span["end"] and other_span["begin"] < span["end"]
            if case != other and span["process"] == other_span["process"] and same_time:
                overlaps[step, other_step] += 1
    assert overlaps["compute", "read"] >= 2
    assert overlaps["compute", "write"] >= 2
    assert overlaps["compute", "compute"] == 0


def test_a_worker_that_dies_once_costs_nothing_and_one_that_dies_again_its_case(tmp_path, lnhg, log):
    make_scans(tmp_path / "in", a="one", b="kill once", c="two", d="three", e="four", f="kill")
    assert lnhg("--jobs", 2) == 0
    out = tmp_path / "out"
    assert states(out) == {"a": "done", "b": "done", "c": "done", "d": "done", "e": "done", "f": "failed"}
    by_case = {row["case"]: row for row in rows(out)}
    assert "killed by signal 9 (SIGKILL)" in by_case["f"]["reason"]
    assert (by_case["b"]["attempts"], by_case["f"]["attempts"]) == ("2", "2")
    assert not list((out / ".lnhg-batch").glob("scratch/*"))
    assert computed(log)["f"] == 2  # the last case never waits behind b, whose process dies


def test_resume_keeps_bad_scans_and_tries_again_what_killed_its_worker(tmp_path, lnhg, log):
    make_scans(tmp_path / "in", a="one", b="wrong", c="kill")
    assert lnhg() == 0
    store = Store(tmp_path / "out")
    kinds = {case: json.loads(store.record_path(case).read_text())["kind"] for case in "abc"}
    assert kinds == {"a": "", "b": INPUT, "c": DIED}
    (tmp_path / "in" / "c.nii").write_text("okay")
    (tmp_path / "in" / "new.nii").write_text("one")
    before = computed(log)
    assert lnhg("--resume") == 0
    assert computed(log) - before == Counter(c=1, new=1)
    assert states(tmp_path / "out") == {"a": "done", "b": "failed", "c": "done", "new": "done"}


def test_a_changed_scan_and_a_damaged_result_are_done_again(tmp_path, lnhg, log):
    make_scans(tmp_path / "in", a="one", b="two", c="three")
    assert lnhg() == 0
    (tmp_path / "in" / "a.nii").write_text("another")
    (tmp_path / "out" / "cases" / "b" / "report.json").unlink()
    before = computed(log)
    assert lnhg("--resume") == 0
    assert computed(log) - before == Counter(a=1, b=1)
    assert "ANOTHER" in (tmp_path / "out" / "cases" / "a" / "report.json").read_text()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_run_killed_at_a_random_moment_resumes_to_the_same_files(tmp_path, lnhg, started, log, seed):
    make_scans(tmp_path / "in", **{f"c{i:02}": "wrong" if i == 5 else f"scan {i}" for i in range(14)})
    process = started("--jobs", "2")
    wait_for(lambda: any(note["step"] == "begin" for note in noted(log)))
    time.sleep(random.Random(seed).uniform(0, 0.8))
    process.kill()
    process.wait()
    records = (tmp_path / "out" / ".lnhg-batch" / "records").glob("*.json")
    finished = {path.stem for path in records if (tmp_path / "out" / "cases" / path.stem).exists()}
    folders = list((tmp_path / "out").glob("cases/*"))
    assert all(sorted(f.name for f in folder.iterdir()) == sorted(writer.FILES) for folder in folders)
    time.sleep(0.3)  # the workers end with the run
    before = computed(log)
    assert lnhg("--jobs", "2", "--resume") == 0
    again = computed(log) - before
    assert not finished & set(again)
    assert lnhg("--jobs", "1", out="uninterrupted") == 0
    assert content(tmp_path / "out") == content(tmp_path / "uninterrupted")
    print(f"killed with {len(finished)} of 14 cases finished")


def test_workers_end_when_the_run_is_killed(tmp_path, started, log):
    make_scans(tmp_path / "in", a="long", b="long")
    process = started("--jobs", "2")
    wait_for(lambda: len(computed(log)) == 2)
    process.kill()
    process.wait()
    workers = {note["process"] for note in noted(log)}
    assert len(workers) == 2
    wait_for(lambda: not any(Path(f"/proc/{worker}/cmdline").exists() and is_alive(worker) for worker in workers), 5)


def is_alive(process: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_its_tables_and_resume_goes_on(tmp_path, lnhg, started, log, number):
    make_scans(tmp_path / "in", a="one", b="two", c="long")
    process = started("--jobs", "1")
    wait_for(
        lambda: "c" in computed(log) and {"a", "b"} <= {note["case"] for note in noted(log) if note["step"] == "write"}
    )
    began = time.monotonic()
    process.send_signal(number)
    _, told = process.communicate(timeout=LIMIT_S)
    assert time.monotonic() - began < 10
    assert process.returncode == 1
    assert "cancelled by the user; 2 of 3 cases are finished and kept, add --resume to go on." in told
    assert "Traceback" not in told
    assert states(tmp_path / "out") == {"a": "done", "b": "done", "c": "pending"}
    assert (tmp_path / "out" / ".lnhg-batch" / "lock").read_text() == ""
    (tmp_path / "in" / "c.nii").write_text("okay")
    assert lnhg("--resume") == 0
    assert computed(log) == Counter(a=1, b=1, c=2)


def test_a_second_run_into_the_same_folder_is_refused_while_the_first_lives(tmp_path, lnhg, started, log, capsys):
    make_scans(tmp_path / "in", a="long")
    process = started()
    wait_for(lambda: computed(log))
    assert lnhg("--resume") == 2
    refusal = capsys.readouterr().err
    assert f"is being written by another run (process {process.pid} on " in refusal
    assert "give another OUT" in refusal
    process.kill()
    process.wait()
    (tmp_path / "in" / "a.nii").write_text("okay")
    assert lnhg("--resume") == 0
    assert "An earlier run into this folder ended before its end" in capsys.readouterr().err


def test_a_run_on_another_computer_counts_as_dead_only_after_a_long_silence(tmp_path, lnhg, capsys):
    make_scans(tmp_path / "in", a="one")
    assert lnhg() == 0
    lock = tmp_path / "out" / ".lnhg-batch" / "lock"
    lock.write_text('{"process": 1, "host": "elsewhere"}')
    assert lnhg("--resume") == 2
    assert "process 1 on elsewhere" in capsys.readouterr().err
    silent = time.time() - run_lock.SILENT_S - 1
    os.utime(lock, (silent, silent))
    assert lnhg("--resume") == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "holds a batch already; add --resume"),
        (["--resume", "--threshold", "0.9"], "begun with another threshold (0.3, now 0.9)"),
        (["--jobs", "0"], "--jobs is 0, expected 1 or more"),
    ],
)
def test_wrong_options_are_refused_and_change_nothing(tmp_path, lnhg, capsys, options, words):
    make_scans(tmp_path / "in", a="one")
    assert lnhg() == 0
    before = content(tmp_path / "out")
    assert lnhg(*options) == 2
    assert words in capsys.readouterr().err
    assert content(tmp_path / "out") == before


@pytest.mark.parametrize("text", ["", "{", "[1]", '"x"', "1", "null", '{"a": ' * 3000])
def test_a_batch_whose_notes_are_damaged_is_not_gone_on_with(tmp_path, lnhg, capsys, text):
    make_scans(tmp_path / "in", a="one")
    assert lnhg() == 0
    (tmp_path / "out" / MEMORY / "batch.json").write_text(text)
    assert lnhg("--resume") == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "batch.json is damaged or was changed (" in last
    assert last.endswith("; give another OUT.")


def test_a_foreign_folder_and_a_folder_with_the_input_are_no_out(tmp_path, lnhg, capsys):
    make_scans(tmp_path / "in", a="one")
    assert lnhg(out=".") == 2
    assert "holds the input" in capsys.readouterr().err
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("precious")
    assert lnhg(out="thesis") == 2
    assert "'chapter.txt', which is no result of lnhg batch" in capsys.readouterr().err


def test_an_unfit_device_ends_the_run_before_any_case(tmp_path, lnhg, log, capsys):
    make_scans(tmp_path / "in", a="one")
    (log.parent / "unfit").touch()
    assert lnhg() == 2
    assert "lnhg: The device is not there; choose another." in capsys.readouterr().err
    assert not computed(log)


def test_a_full_disk_stops_the_run_and_resume_loses_nothing(tmp_path, lnhg, capsys):
    make_scans(tmp_path / "in", a="one", b="disk")
    assert lnhg() == 2
    assert "make room and go on with --resume" in capsys.readouterr().err
    assert states(tmp_path / "out")["b"] == "pending"
    (tmp_path / "in" / "b.nii").write_text("okay")
    assert lnhg("--resume") == 0
    assert states(tmp_path / "out") == {"a": "done", "b": "done"}


def test_a_cohort_of_bad_scans_only_ends_with_1_and_lines_for_programs_rise(tmp_path, lnhg, capsys):
    make_scans(tmp_path / "in", a="wrong", b="unreadable")
    with pytest.raises(SystemExit) as ended:
        lnhg("--json")
    assert ended.value.code == 1
    told = capsys.readouterr().out.splitlines()
    fractions = [float(line.split()[1]) for line in told]
    assert all(line.startswith("PROGRESS ") for line in told)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
