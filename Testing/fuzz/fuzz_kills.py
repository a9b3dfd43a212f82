"""Kill commands at random moments and go on: nothing is lost or half-written, and the end is as if nothing had been.

    python Testing/fuzz/fuzz_kills.py --count 100 --seed 1

Each command runs in a process group of its own, networks replaced by a threshold, and is killed (SIGKILL) within the
time that it takes after its modules are loaded. Then OUT is there whole or not at all (`batch`, `prepare` and `train`
may leave what they go on from), the same command is given again, with --resume where it has one, and its results are
compared with those of a run that nobody killed.
"""

import argparse
import csv
import gzip
import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(path) for path in (ROOT / "LNHGSegmentation", ROOT / "LNHGTraining", ROOT / "Testing/tools", HERE)]
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import fuzz_worker  # noqa: E402
import numpy as np  # noqa: E402
import small_data  # noqa: E402
from fuzz_inputs import changed_input  # noqa: E402
from fuzz_table import markdown, replace_part  # noqa: E402

READY = "ready"
LONGEST_S = 600
SETTINGS = (
    *("steps=6", "epoch_steps=2", "batch=2", "validate_crops=1", "data.background=[]", "data.train_folds=[0]"),
    *("data.validation_folds=[1]", "generator.width=2", "critic.width=2", "sampling.sides=[[16, 16, 16]]"),
    "loss.adversarial_from_step=1",
)


@dataclass(frozen=True)
class Killed:
    """A command that is killed.

    Attributes:
        make: writes its input into a folder and returns the words of the command; OUT is `out` beside it.
        resume: word that is added when it is given again.
        partial: whether OUT may be there when it was killed.
        content: of OUT, to be compared.
    """

    make: Callable[[Path], list[str]]
    resume: str = ""
    partial: bool = False


def _of_kind(name: str) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        base = fuzz_worker.make_bases([name], folder / "base")[name]
        return changed_input(name, 0, base, folder)

    return make


def _batch(folder: Path) -> list[str]:
    (folder / "in").mkdir(parents=True)
    for number in range(5):
        (folder / "in" / f"scan-{number}.nii.gz").write_text(f"scan {number}")
    import tiny_model

    tiny_model.write_model(folder / "model")
    return ["stand-in", str(folder / "log"), str(folder / "in"), str(folder / "out"), "--model", str(folder / "model")]


def _train(folder: Path) -> list[str]:
    small_data.write_crops(folder / "in")
    changes = [word for setting in SETTINGS for word in ("--set", setting)]
    recipe = small_data.RESOURCES / "segmenter.toml"
    words = ["lnhg-train", "train", "segmenter", "--config", str(recipe), *changes, "--data", str(folder / "in")]
    return [*words, str(folder / "out")]


COMMANDS = {
    "segment": Killed(_of_kind("NIfTI, packed")),
    "batch": Killed(_batch, "--resume", True),
    "prepare": Killed(_of_kind("list of pairs"), partial=True),
    "train": Killed(_train, "--resume", True),
    "report": Killed(_of_kind("result")),
    "study export": Killed(_of_kind("results for a study")),
}


def child(words: Sequence[str]) -> int:
    """Load everything, say so, and run a command; for a process of its own.

    Args:
        words: the program and its arguments.
    """
    program, *arguments = words
    if program == "stand-in":
        import stand_in_work as work
        from LNHGLib.batch import run, segment_case  # noqa: F401

        main = work.main
    else:
        fuzz_worker.import_all()
        fuzz_worker.replace_networks()
        main = fuzz_worker.command(program)
    print(READY, flush=True)
    return main(arguments)


def start(words: Sequence[str], folder: Path) -> subprocess.Popen:
    """Start a command and return when it is about to begin.

    Args:
        words: the program and its arguments.
        folder: worked in.
    """
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    paths = [str(path) for path in (ROOT / "LNHGSegmentation", ROOT / "LNHGTraining", ROOT / "Testing/tools")]
    environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "PYTHONPATH": os.pathsep.join(paths)}
    log = (folder / "said").open("a")
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), "--child", *words],
        stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder, env=environment, start_new_session=True,
    )  # fmt: skip
    for line in process.stdout:
        if line.strip() == READY:
            break
    return process


def finish(process: subprocess.Popen) -> int:
    """Wait for a command and return its exit status."""
    process.stdout.read()
    return process.wait(LONGEST_S)


def content(out: Path) -> dict[str, str]:
    """Return what the files of a folder hold, by name, without times, seconds and what is drawn by chance."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_dir() or "tfevents" in name or any(part.startswith(".") for part in path.relative_to(out).parts):
            continue
        found[name] = hashlib.sha256(_steady(path)).hexdigest() if path.suffix in (".csv", ".gz", ".npz", ".pt") else ""
    return found


def _steady(path: Path) -> bytes:
    """Return the part of a file that is the same in every run."""
    if path.suffix == ".csv":
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
        head = rows[0] if rows else []
        kept = [
            i
            for i, name in enumerate(head)
            if not any(word in name for word in ("second", "_s", "time", "mb", "attempts", "source", "path"))
        ]
        return "\n".join(",".join(row[i] for i in kept if i < len(row)) for row in rows).encode()
    if path.suffix == ".pt":
        import torch

        state = torch.load(path, map_location="cpu", weights_only=True)
        weights = state.get("generator", state)
        return b"".join(np.ascontiguousarray(weights[name].float().numpy()).tobytes() for name in sorted(weights))
    data = path.read_bytes()
    return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data


def kill_one(name: str, reference: dict[str, str], seconds: float, rng: random.Random, folder: Path) -> dict:
    """Kill a command, give it again, and return how that ended.

    Args:
        name: of the command.
        reference: content of the results of a run that nobody killed.
        seconds: that it takes.
        rng: gives the moment.
        folder: to work in.
    """
    command = COMMANDS[name]
    words = command.make(folder)
    after = rng.uniform(0, 1.05 * seconds)
    process = start(words, folder)
    time.sleep(after)
    ended = process.poll()
    with_group = ended is None
    if with_group:
        os.killpg(process.pid, signal.SIGKILL)
    process.stdout.read()
    process.wait()
    row = {"command": name, "after_s": round(after, 2), "killed": with_group, "fault": ""}
    out = folder / "out"
    there = content(out) if out.exists() else {}
    if there and not command.partial and there != reference:
        return row | {"fault": f"half-written: {sorted(there.keys() ^ reference.keys()) or 'other content'}"}
    if there and not command.partial:
        return row
    resume = [command.resume] if command.resume and out.exists() and any(out.iterdir()) else []
    status = finish(start([*words, *resume], folder))
    if status:
        return row | {"fault": f"goes not on: {(folder / 'said').read_text()[-200:]}"}
    if content(out) != reference:
        met = content(out)
        differing = sorted(path for path in met.keys() | reference.keys() if met.get(path) != reference.get(path))
        return row | {"fault": f"another result: {', '.join(differing[:4])}"}
    return row


def kills(count: int, seed: int, names: Sequence[str] = tuple(COMMANDS)) -> list[dict]:
    """Kill each command as often as the others.

    Args:
        count: of all kills.
        seed: of the moments.
        names: of the commands.
    """
    rng, rows = random.Random(seed), []
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text).resolve()
        for name in names:
            place = folder / f"{list(COMMANDS).index(name)}-whole"
            words = COMMANDS[name].make(place)
            process, began = start(words, place), time.monotonic()
            if finish(process):
                raise RuntimeError(f"{name} cannot be done: {(place / 'said').read_text()[-600:]}")
            seconds, reference = time.monotonic() - began, content(place / "out")
            for number in range(-(-count // len(names))):
                rows.append(kill_one(name, reference, seconds, rng, folder / f"{list(COMMANDS).index(name)}-{number}"))
    return rows


def write_table(page: Path, rows: Sequence[dict], how: str) -> None:
    """Write how the kills ended, a row per command.

    Args:
        page: between whose marks the table stands.
        rows: of the kills.
        how: seed and time.
    """
    table = []
    for name in dict.fromkeys(row["command"] for row in rows):
        own = [row for row in rows if row["command"] == name]
        killed = sum(row["killed"] for row in own)
        table.append([name, len(own), killed, len(own) - killed, sum(bool(row["fault"]) for row in own)])
    table.append(["**all**", *(sum(row[column] for row in table) for column in range(1, 5))])
    head = ["command", "runs", "killed", "ended before", "faults"]
    replace_part(page, "kills", f"{how}.\n\n{markdown(head, table)}")


def main() -> int:
    """Run what the command line says; exit status 1 where something failed."""
    if sys.argv[1:2] == ["--child"]:
        return child(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--command", choices=list(COMMANDS), action="append", help="only these")
    parser.add_argument("--write", type=Path, help="page whose table is written anew")
    options = parser.parse_args()
    began = time.monotonic()
    rows = kills(options.count, options.seed, tuple(options.command or COMMANDS))
    wrong = [row for row in rows if row["fault"]]
    for row in wrong:
        print(f"{row['command']} after {row['after_s']} s: {row['fault']}")
    minutes = (time.monotonic() - began) / 60
    print(f"{len(rows)} kills, {len(wrong)} faults, {minutes:.1f} minutes")
    if options.write:
        write_table(options.write, rows, f"Seed {options.seed}, {minutes:.1f} minutes")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
