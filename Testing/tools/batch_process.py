"""`lnhg batch` with stand-in work in processes of their own, for tests that kill, signal or watch a run."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import stand_in_work
from LNHGLib import __main__ as cli

ROOT = Path(cli.__file__).parents[1]
PYTHONPATH = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
"""What a process of its own needs to import the core and the stand-ins."""


@contextmanager
def starter(log: Path, home: Path, model: Path, *options: object) -> Iterator[Callable[..., subprocess.Popen]]:
    """Yield what starts a batch from `home`/in into `home`/out; what is still running at the end is killed.

    Args:
        log: of the stand-in, see `stand_in_work`.
        home: folder with the folder of scans.
        model: its folder.
        options: of all batches; a call may give more.
    """
    command = [sys.executable, stand_in_work.__file__, log, home / "in", home / "out", "--model", model, *options]
    running: list[subprocess.Popen] = []

    def start(*more: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [str(part) for part in (*command, *more)],
            env={**os.environ, "PYTHONPATH": PYTHONPATH},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    try:
        yield start
    finally:
        for process in running:
            process.kill()
            process.communicate()
