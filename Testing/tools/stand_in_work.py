"""A stand-in for the work of a batch: quick, without torch, and able to fail in every way a case can."""

import csv
import errno
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from LNHGLib.batch.case import Case
from LNHGLib.errors import InputError

IMAGES = ("labelmap.nii.gz", "heterogeneity.nii.gz", "signal.nii.gz")
FILES = ("nodules.seg.nrrd", *IMAGES, "nodules.csv", "report.json", "preview.png")
"""As `results.FILES`, which takes seconds to import."""


@dataclass(frozen=True)
class StandIn:
    """A job and its spec; a scan is a text file whose first word says what becomes of it, see `_act`.

    Attributes:
        log: file that gets a line of JSON for each step: process, case, step, begin and end.
        seconds: what each step takes.
    """

    log: Path
    seconds: float = 0.05

    def prepare(self, index: int, jobs: int) -> "StandIn":
        self._note("-", "prepare", time.time())
        if (self.log.parent / "unfit").exists():
            raise InputError("The device is not there; choose another.")
        return self

    def read(self, case: Case, scratch: Path) -> str:
        began = time.time()
        text = case.path.read_text()
        if text == "unreadable":
            raise InputError(f"{case.path} is unreadable; copy it again.")
        time.sleep(self.seconds)
        self._note(case.id, "read", began)
        return text

    def compute(self, case: Case, scan: str, progress: Callable[[float, str], None]) -> str:
        began = time.time()
        progress(0.5, "half")
        self._note(case.id, "begin", began)
        self._act(scan, self.log.parent / f"{case.id}.once")
        time.sleep(self.seconds)
        self._note(case.id, "compute", began)
        return scan.upper()

    def write(self, case: Case, result: str, folder: Path, seconds: dict[str, float]) -> dict[str, Any]:
        began = time.time()
        folder.mkdir()
        for name in FILES:
            time.sleep(self.seconds / len(FILES))
            (folder / name).write_text(f"{case.id} {result}")
        with (folder / "nodules.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["number", "score"])
            writer.writerow([1, 0.5])
        if result == "DISK":
            raise OSError(errno.ENOSPC, "No space left on device")
        self._note(case.id, "write", began)
        return {"nodules": 1, "best_score": 0.5, "longest_mm": 4.0, "warnings": [], "thumbnail": ""}

    def _act(self, scan: str, mark: Path) -> None:
        if scan == "wrong":
            raise InputError("There is no lung; give a chest CT.")
        if scan == "fault":
            raise RuntimeError("a fault\nin the program")
        if scan == "kill" or (scan == "kill once" and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if scan == "long":
            time.sleep(60)

    def _note(self, case: str, step: str, began: float) -> None:
        line = json.dumps({"process": os.getpid(), "case": case, "step": step, "begin": began, "end": time.time()})
        with self.log.open("a") as file:
            file.write(line + "\n")


def noted(log: Path) -> list[dict]:
    """Read the log."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def computed(log: Path) -> Counter:
    """Return how often each case was begun."""
    return Counter(note["case"] for note in noted(log) if note["step"] == "begin")


def main(arguments: list[str]) -> int:
    """Run `lnhg batch` with a stand-in whose log is the first argument; for a process of its own."""
    from LNHGLib import __main__ as cli
    from LNHGLib.batch import run

    log, *rest = arguments
    run.SegmentationSpec = lambda *_: StandIn(Path(log))
    return cli.main(["batch", *rest])


if __name__ == "__main__":
    import sys

    sys.exit(main(sys.argv[1:]))
