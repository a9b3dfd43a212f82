"""A real Dask cluster on the loopback, for tests."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from batch_content import wait_for
from batch_process import PYTHONPATH


@contextmanager
def dask_cluster(folder: Path) -> Iterator[tuple[Path, Callable[[int], list[subprocess.Popen]]]]:
    """A scheduler: its file, and what sees to it that so many workers run; all end with the block."""
    running: list[subprocess.Popen] = []

    def start(name: str, *options: str) -> subprocess.Popen:
        command = [sys.executable, "-m", f"distributed.cli.{name}", "--host", "127.0.0.1", "--no-dashboard", *options]
        with (folder / "log").open("a") as log:
            process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": PYTHONPATH}, stdout=log, stderr=log)
        running.append(process)
        return process

    def workers(number: int) -> list[subprocess.Popen]:
        options = ["--scheduler-file", str(address), "--no-nanny", "--nthreads", "2", "--local-directory", str(folder)]
        there = [process for process in running[1:] if process.poll() is None]
        return there + [start("dask_worker", *options) for _ in range(number - len(there))]

    address = folder / "scheduler.json"
    try:
        start("dask_scheduler", "--port", "0", "--scheduler-file", str(address))
        wait_for(address.exists)
        yield address, workers
    finally:
        for process in reversed(running):
            process.kill()
            process.wait()
