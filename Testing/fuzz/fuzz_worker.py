"""One changed input in a process of its own, limited in time and memory, and what must hold of its end."""

import gc
import importlib
import io
import os
import pkgutil
import re
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from fuzz_inputs import KINDS, changed_input

CPU_S, CLOCK_S, MEMORY_BYTES = 2, 40.0, 2**30
"""The clock may run longer than the processor where others work on the same one."""

UNCAUGHT = 99
SHORT = re.compile(r"memory does not suffice|cannot be written|No space left|disk is full|no case could be done")
"""What may end with status 1: the computer's memory or disk, and a batch none of whose cases can be read."""

PACKAGES = ("LNHGLib", "LNHGTrainingLib")
ENTRIES = ("__main__", "packages", "slurm")

TOO_LONG = 300
"""Letters of a sentence on standard error, paths cut out."""

QUOTED = re.compile(r"(?<!\w)'[^']*'(?!\w)|\"[^\"]*\"|`[^`]*`")
"""What a sentence quotes, in which there may be any signs."""

PATH = re.compile(r"\S*/\S*")


@dataclass(frozen=True)
class Outcome:
    """How one input ended: `fault` is empty where all is as it should be."""

    kind: str
    seed: int
    status: int
    seconds: float
    megabytes: float
    fault: str
    said: str

    def row(self) -> dict:
        """As JSON."""
        return asdict(self)


def replace_networks() -> None:
    """Let a threshold stand for the generators and nothing for the detector; their files are read all the same."""
    from LNHGLib.batch import run as batch
    from LNHGLib.models.folder import Model
    from LNHGLib.models.gan import PaperGenerator
    from LNHGLib.segmentation import pipeline

    class Threshold(PaperGenerator):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x - 0.35)

    def load(network: Callable, where: torch.device, _monitor: object) -> torch.nn.Module | None:
        return None if network(where) is None else Threshold(width=1).eval()

    def no_boxes(scan: object, model: object, where: torch.device, monitor: object) -> tuple[np.ndarray, int]:
        model.detector(where)
        return np.empty((0, 6)), 1

    def classify(scan: object, found: object, model: object, where: torch.device, monitor: object) -> object:
        if model.spec.classifier is not None:
            model.classifier(where)
        return found

    pipeline.load_network, pipeline.detect_boxes, pipeline.classify_findings = load, no_boxes, classify
    Model.runs_on_openvino = lambda _model: False  # nothing is compiled: weights are read as torch reads them
    batch.Executor.run = lambda _executor, _cases: (nothing for nothing in ())


def import_all() -> None:
    """Import what commands import when they run, so that each forked process has it."""
    for package in map(importlib.import_module, PACKAGES):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.rpartition(".")[2] not in ENTRIES and "nnunet" not in module.name:
                importlib.import_module(module.name)
    for name in ("matplotlib.backends.backend_agg", "matplotlib.pyplot", "highdicom", "LNHGLib.__main__"):
        importlib.import_module(name)


def warm_up(bases: dict[str, Path], folder: Path) -> None:
    """Read the good inputs, so that forked processes have what libraries load late, and share all of it.

    Args:
        bases: good inputs by kind.
        folder: to work in.
    """
    for number, (name, base) in enumerate(bases.items()):
        if KINDS[name].arguments[1] == "models":  # these would be added to this computer's
            continue
        work = folder / str(number)
        work.mkdir(parents=True)
        program, *arguments = changed_input(name, 0, base, work)
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            command(program)(arguments)
    gc.collect()
    gc.freeze()


def one_thread() -> None:
    """Compute in the calling thread alone: threads do not live on in a forked process."""
    import SimpleITK as sitk

    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultThreader("Platform")
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    sitk.ProcessObject.SetGlobalDefaultDirectionTolerance(1e-6)


def command(program: str) -> Callable[[Sequence[str]], int]:
    """Return the main function of a command line."""
    if program == "lnhg":
        from LNHGLib.__main__ import main
    else:
        from LNHGTrainingLib.__main__ import main
    return main


def run_one(name: str, seed: int, base: Path, folder: Path) -> Outcome:
    """Run a changed input in a forked process.

    Args:
        name: its kind.
        seed: of the change; 0 is the good input.
        base: the good input.
        folder: to work in; it is made, and stays.
    """
    for part in ("tmp", "home"):
        (folder / part).mkdir(parents=True)
    program, *arguments = changed_input(name, seed, base, folder)
    main = command(program)
    pid = os.fork()
    if pid == 0:
        os._exit(_child(main, arguments, folder))
    status, usage = _wait(pid)
    said = (folder / "stderr").read_text(errors="replace")
    fault = judge(name, status, said, folder)
    seconds = usage.ru_utime + usage.ru_stime
    return Outcome(name, seed, status, round(seconds, 3), usage.ru_maxrss / 1024, fault, said[-1500:])


def judge(name: str, status: int, said: str, folder: Path) -> str:
    """Return what is wrong with the end of a command; empty where all is as it should be.

    Args:
        name: of the kind.
        status: its exit status, below 0 for a signal.
        said: on standard error.
        folder: worked in.
    """
    return _ended_wrong(status, said) or _left_wrong(KINDS[name], status, folder)


def _child(main: Callable[[Sequence[str]], int], arguments: list[str], folder: Path) -> int:
    """Run a command with its limits and return its exit status; for a forked process."""
    try:
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        os.environ.update(
            TMPDIR=str(folder / "tmp"), HOME=str(folder / "home"), LNHG_MODELS=str(folder / "home" / "models")
        )
        import tempfile

        tempfile.tempdir = None
        os.chdir(folder)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES,) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        return main(arguments) or 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else UNCAUGHT
    except BaseException:
        traceback.print_exc()
        return UNCAUGHT
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _wait(pid: int) -> tuple[int, resource.struct_rusage]:
    """Wait for a process, end it when its time is over, and return its status, below 0 for a signal."""
    ended = os.pidfd_open(pid)
    if not select.select([ended], [], [], CLOCK_S)[0]:
        os.kill(pid, signal.SIGKILL)
    os.close(ended)
    _, status, usage = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), usage


def _ended_wrong(status: int, said: str) -> str:
    """Return what is wrong with an exit status and what was said on standard error."""
    lines = [line for line in said.splitlines() if line.startswith(("lnhg: ", "lnhg-train: "))]
    last = lines[-1].split(": ", 1)[1] if lines else ""
    if status in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"hangs: more than {CPU_S} s"
    if status < 0:
        return f"crashes: signal {signal.Signals(-status).name}"
    if status == UNCAUGHT or "Traceback (most recent" in said:
        return "traceback"
    if status == 1 and not SHORT.search(last):
        return f"fails: {last}"
    if status not in (0, 1, 2):
        return f"exit status {status}"
    own, plain = QUOTED.sub("X", last), PATH.sub("", last)
    again = ". " in PATH.sub("", own).rstrip(".")
    if status == 2 and (not own.endswith(".") or again or len(plain) > TOO_LONG or ";" not in own):
        return f"no sentence: {last}"
    return ""


def _left_wrong(kind: object, status: int, folder: Path) -> str:
    """Return what is wrong with the files that are left."""
    out, left = folder / "out", sorted(path.name for path in (folder / "tmp").iterdir())
    if left:
        return f"leaves {left[0]} in the temporary folder"
    beside = sorted(
        path.name for path in folder.iterdir() if path.name not in ("in", "out", "tmp", "home", "stdout", "stderr")
    )
    if beside:
        return f"leaves {beside[0]} beside OUT"
    if status and out.exists() and not kind.resumed:
        return "leaves OUT though it failed"
    parts = sorted(path.name for path in out.rglob("*") if path.name.endswith(".part") or path.name.startswith(".tmp"))
    if parts:
        return f"leaves {parts[0]} in OUT"
    if not status and any(arg == "{out}" for arg in kind.arguments) and not (out.is_dir() and any(out.iterdir())):
        return "says it is done and leaves no results"
    return ""


def make_bases(names: Sequence[str], folder: Path) -> dict[str, Path]:
    """Write the good inputs in a forked process, so that none of its threads are met here.

    Args:
        names: of the kinds.
        folder: to write to.
    """
    pid = os.fork()
    if pid == 0:
        try:
            for number, name in enumerate(names):
                base = folder / f"base-{number}"
                base.mkdir(parents=True)
                KINDS[name].make(base)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError("The good inputs cannot be made.")
    return {name: folder / f"base-{number}" for number, name in enumerate(names)}
