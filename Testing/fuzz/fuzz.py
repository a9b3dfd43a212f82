"""Change inputs of every kind by seed, run the commands on them, and write a table.

    python Testing/fuzz/fuzz.py --count 10000 --jobs 2 --seed 1

Every input is run in a forked process of at most 2 s of processor time and 1 GiB, networks replaced by a threshold.
`--real N` runs N of them, drawn by seed, through the installed `lnhg` with the bundled model. What fails stays in the
folder `--keep`, one folder each.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(path) for path in (ROOT / "LNHGSegmentation", ROOT / "LNHGTraining", ROOT / "Testing/tools", HERE)]
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import fuzz_worker  # noqa: E402
from fuzz_inputs import KINDS, changed_input  # noqa: E402
from fuzz_table import write_fuzz_table  # noqa: E402

JOB_BYTES = 12 * 2**30
"""Of addresses, most of which libraries never use."""

REAL_S = 600
SLOW = {"DICOM": 2.0}
"""Kinds that get more of the inputs than the others."""


def plan(count: int, seed: int, names: Sequence[str]) -> list[tuple[str, int]]:
    """Share the inputs out among the kinds; each has a seed of its own.

    Args:
        count: of all.
        seed: of the run.
        names: of the kinds.
    """
    weights = [SLOW.get(name, 1.0) for name in names]
    parts = [max(1, round(count * weight / sum(weights))) for weight in weights]
    return [
        (name, seed * 1_000_000 + number)
        for name, part in zip(names, parts, strict=True)
        for number in range(1, part + 1)
    ]


def run_part(
    todo: Sequence[tuple[str, int]], bases: dict[str, Path], folder: Path, keep: Path | None, log: Path
) -> None:
    """Run inputs one after another and write a line for each.

    Args:
        todo: kinds and seeds.
        bases: good inputs by kind.
        folder: to work in.
        keep: where what fails is kept.
        log: gets a line of JSON for each.
    """
    with log.open("w") as stream:
        for name, seed in todo:
            work = folder / f"{list(KINDS).index(name)}-{seed}"
            outcome = fuzz_worker.run_one(name, seed, bases[name], work)
            if outcome.fault and keep:
                shutil.copytree(work, keep / work.name, dirs_exist_ok=True, symlinks=True)
            shutil.rmtree(work)
            stream.write(json.dumps(outcome.row()) + "\n")
            stream.flush()


def fuzz(count: int, seed: int, jobs: int, keep: Path | None = None, names: Sequence[str] = tuple(KINDS)) -> list[dict]:
    """Run changed inputs and return how each ended.

    Args:
        count: how many.
        seed: of the run.
        jobs: processes at a time.
        keep: where what fails is kept.
        names: of the kinds.
    """
    return run_all(plan(count, seed, names), jobs, keep)


def run_all(todo: Sequence[tuple[str, int]], jobs: int, keep: Path | None = None) -> list[dict]:
    """Run the changed inputs of kinds and seeds.

    Args:
        todo: kinds and seeds.
        jobs: processes at a time.
        keep: where what fails is kept.
    """
    fuzz_worker.one_thread()
    names = sorted({name for name, _ in todo}, key=list(KINDS).index)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text).resolve()
        bases = fuzz_worker.make_bases(names, folder)
        running = []
        for job in range(jobs):
            pid = os.fork()
            if pid == 0:
                try:
                    resource.setrlimit(resource.RLIMIT_AS, (JOB_BYTES, JOB_BYTES))
                    fuzz_worker.import_all()
                    fuzz_worker.replace_networks()
                    fuzz_worker.warm_up(bases, folder / f"warm-{job}")
                    run_part(todo[job::jobs], bases, folder, keep, folder / f"log-{job}")
                    os._exit(0)
                except BaseException as error:
                    print(f"fuzz: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                    os._exit(1)
            running.append(pid)
        ended = [os.waitpid(pid, 0)[1] for pid in running]
        if any(ended):
            raise RuntimeError(f"A part of the run ended early: {ended}.")
        return [json.loads(line) for job in range(jobs) for line in (folder / f"log-{job}").read_text().splitlines()]


def run_real(count: int, seed: int, jobs: int, names: Sequence[str] = tuple(KINDS)) -> list[dict]:
    """Run some inputs through the installed commands with the bundled model.

    Args:
        count: how many.
        seed: of the run.
        jobs: commands at a time.
        names: of the kinds.
    """
    rng = random.Random(seed)
    todo = [(rng.choice(names), seed * 1_000_000 + rng.randrange(1, 500)) for _ in range(count)]
    with tempfile.TemporaryDirectory() as text, ThreadPoolExecutor(jobs) as pool:
        folder = Path(text).resolve()
        bases = fuzz_worker.make_bases(names, folder)
        return list(pool.map(lambda n, each: _run_one_real(*each, bases, folder / f"real-{n}"), range(count), todo))


def _run_one_real(name: str, seed: int, bases: dict[str, Path], work: Path) -> dict:
    """Run a changed input through an installed command and return how it ended.

    Args:
        name: of the kind.
        seed: of the change.
        bases: good inputs by kind.
        work: a folder to work in, which is removed.
    """
    (work / "tmp").mkdir(parents=True)
    program, *arguments = changed_input(name, seed, bases[name], work)
    if KINDS[name].arguments[1] == "segment" and not KINDS[name].names[0].startswith("model/"):
        arguments = arguments[:3] + arguments[5:]  # the bundled model
    own = {"TMPDIR": str(work / "tmp"), "LNHG_MODELS": str(work / "home"), "OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    try:
        done = subprocess.run(
            [Path(sys.executable).with_name(program), *arguments],
            capture_output=True, text=True, errors="replace", timeout=REAL_S, env=os.environ | own, cwd=work,
        )  # fmt: skip
        status, said = done.returncode, done.stderr
    except subprocess.TimeoutExpired:
        status, said = -signal.SIGKILL, ""
    seconds = round(time.monotonic() - began, 1)
    fault = fuzz_worker.judge(name, status, said, work)
    shutil.rmtree(work)
    return fuzz_worker.Outcome(name, seed, status, seconds, 0.0, fault, said[-1500:]).row()


def main() -> int:
    """Run what the command line says; exit status 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--real", type=int, default=0, help="so many through the installed commands instead")
    parser.add_argument("--kind", choices=list(KINDS), action="append", help="only these")
    parser.add_argument("--keep", type=Path, help="where what fails is kept")
    parser.add_argument("--write", type=Path, help="page whose table is written anew")
    options = parser.parse_args()
    began = time.monotonic()
    names = tuple(options.kind or KINDS)
    rows = (
        run_real(options.real, options.seed, options.jobs, names)
        if options.real
        else fuzz(options.count, options.seed, options.jobs, options.keep, names)
    )
    wrong = [row for row in rows if row["fault"]]
    for row in wrong:
        print(f"{row['kind']} {row['seed']}: {row['fault']}")
    minutes = (time.monotonic() - began) / 60
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = f"{minutes:.1f} minutes, {(used.ru_utime + used.ru_stime) / 60:.1f} minutes of processors"
    print(f"{len(rows)} inputs, {len(wrong)} faults, {took}")
    if options.write:
        write_fuzz_table(
            options.write,
            rows,
            f"Seed {options.seed}, {options.jobs} processes, {took}",
            bool(options.real),
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
