"""What a batch leaves for its user, for tests that compare runs."""

import csv
import re
import time
from collections.abc import Callable
from pathlib import Path

TIMINGS = ("read_s", "compute_s", "write_s", "peak_memory_mb")
LIMIT_S = 60.0


def make_scans(folder: Path, **scans: str) -> None:
    """Make scans for `stand_in_work`: a text file each."""
    folder.mkdir()
    for name, text in scans.items():
        (folder / f"{name}.nii").write_text(text)


def rows(out: Path, table: str = "cases.csv") -> list[dict[str, str]]:
    """Read a table."""
    with (out / table).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def states(out: Path) -> dict[str, str]:
    """Return how each case ended."""
    return {row["case"]: row["status"] for row in rows(out)}


def content(out: Path) -> dict[str, object]:
    """Return everything that a run leaves for its user, without timings."""
    files: dict[str, object] = {
        path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.glob("cases/*/*"))
    }
    files["cases.csv"] = [{key: value for key, value in row.items() if key not in TIMINGS} for row in rows(out)]
    files["cohort.csv"] = (out / "cohort.csv").read_bytes()
    timed = r'<td class="(seconds|peak_memory_mb) number" data-value="[^"]*">[^<]*</td>'
    files["overview.html"] = re.sub(timed, "", (out / "overview.html").read_text(encoding="utf-8"))
    return files


def wait_for(condition: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
    """Wait until something happens, and fail when it does not in time."""
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)
