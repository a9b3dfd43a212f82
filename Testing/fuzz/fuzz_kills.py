"""Kill commands at random moments and go on: nothing is lost or half-written, and the end is as if nothing had been.

    python Testing/fuzz/fuzz_kills.py --count 100 --seed 1

Each command runs in a forked process with a group of its own, networks replaced by a threshold, and is killed
(SIGKILL) within the time that it takes; modules are loaded once, before. Then OUT is there whole or not at all, except
that `batch`, `prepare` and `train` may leave what they go on from. The same command is given again, with --resume where
it has one, and its results are compared with those of a run that nobody killed.
"""

import argparse
import csv
import hashlib
import io
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(path) for path in (ROOT / "LNHGSegmentation", ROOT / "LNHGTraining", ROOT / "Testing/tools", HERE)]
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import fuzz_worker  # noqa: E402
import h5py  # noqa: E402
import small_data  # noqa: E402
import stand_in_work  # noqa: E402
import tiny_model  # noqa: E402
import torch  # noqa: E402
from fuzz_inputs import changed_input  # noqa: E402
from fuzz_table import markdown, replace_part  # noqa: E402

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


@dataclass(frozen=True)
class Running:
    """A command under way.

    Attributes:
        pid: of its process, which leads its group.
        output: ends when the last process of the group has ended.
    """

    pid: int
    output: int

    def finish(self) -> int:
        """Wait until no process of the group is left, and return the exit status, below 0 for a signal."""
        while os.read(self.output, 1 << 16):
            pass
        os.close(self.output)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def start(words: Sequence[str], folder: Path) -> Running:
    """Start a command in a forked process.

    Args:
        words: the program and its arguments.
        folder: worked in.
    """
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    output, end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        os.dup2(end, 1)
        os.dup2(os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        os.closerange(3, 256)
        os._exit(_child(words, folder))
    with suppress(PermissionError, ProcessLookupError):  # the child has done it, or ended
        os.setpgid(pid, pid)
    os.close(end)
    return Running(pid, output)


def _child(words: Sequence[str], folder: Path) -> int:
    """Run a command and return its exit status; for a forked process."""
    program, *arguments = words
    try:
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        sys.modules["__main__"] = types.ModuleType("__main__")  # or each process of a batch would load this file
        os.environ["TMPDIR"], tempfile.tempdir = str(folder / "tmp"), None
        os.chdir(folder)
        if program == "stand-in":
            return stand_in_work.main(arguments)
        fuzz_worker.replace_networks()
        return fuzz_worker.command(program)(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else fuzz_worker.UNCAUGHT
    except BaseException:
        traceback.print_exc()
        return fuzz_worker.UNCAUGHT
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def content(out: Path) -> dict[str, str]:
    """Return digests of a folder's files by name; of what differs from run to run (times, UIDs) only the names."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_dir() or "tfevents" in name or any(part.startswith(".") for part in path.relative_to(out).parts):
            continue
        found[name] = hashlib.sha256(_steady(path)).hexdigest()
    return found


def _steady(path: Path) -> bytes:
    """Return the part of a file that is the same in every run."""
    if path.name in ("report.json", "overview.html") or path.suffix == ".pdf":
        return b""
    if path.suffix == ".pt":
        return _flat(torch.load(path, map_location="cpu", weights_only=True) | {"config": None})
    if path.suffix == ".h5":
        parts: list[bytes] = []
        with h5py.File(path) as file:
            file.visititems(
                lambda name, item: parts.extend([name.encode(), item[()].tobytes()] if hasattr(item, "shape") else [])
            )
        return b"".join(parts)
    if path.suffix == ".csv":
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
        head = rows[0] if rows else []
        kept = [
            i
            for i, name in enumerate(head)
            if not any(word in name for word in ("second", "_s", "time", "mb", "attempts", "source", "path"))
        ]
        return "\n".join(",".join(row[i] for i in kept if i < len(row)) for row in rows).encode()
    return path.read_bytes()


def _flat(value: object) -> bytes:
    """Return what a checkpoint holds, in one order; how it shares its memory does not count."""
    if isinstance(value, dict):
        return b"".join(repr(key).encode() + _flat(value[key]) for key in sorted(value, key=repr))
    if isinstance(value, list | tuple):
        return b"".join(map(_flat, value))
    return value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode()


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
    running = start(words, folder)
    time.sleep(after)
    os.killpg(running.pid, signal.SIGKILL)  # an ended process has its group until it is waited for
    killed = running.finish() == -signal.SIGKILL
    row = {"command": name, "after_s": round(after, 2), "killed": killed, "fault": ""}
    out = folder / "out"
    there = content(out) if out.exists() else {}
    if there and not command.partial and there != reference:
        return row | {"fault": f"half-written: {sorted(there.keys() ^ reference.keys()) or 'other content'}"}
    if there and not command.partial:
        return row
    resume = [command.resume] if command.resume and out.exists() and any(out.iterdir()) else []
    if start([*words, *resume], folder).finish():
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
    fuzz_worker.one_thread()
    fuzz_worker.import_all()
    rng, rows = random.Random(seed), []
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text).resolve()
        for name in names:
            place = folder / f"{list(COMMANDS).index(name)}-whole"
            words = COMMANDS[name].make(place)
            began = time.monotonic()
            if start(words, place).finish():
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
