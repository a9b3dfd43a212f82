"""Calls pip in processes of its own: tells from its lines how far it is, and ends it at any time."""

import importlib.metadata
import math
import os
import queue
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from LNHGLib.cli.console import CANCEL_FILE, CANCELLED
from LNHGLib.errors import Cancelled, WorkError
from LNHGLib.files import atomic
from LNHGLib.setup import package_list, room
from LNHGLib.setup.package_list import SLICERS, Package

KEPT = (*(package.name for package in SLICERS), "pillow", "requests")
"""Slicer loads these into its own process: pip must not change them."""
DOWNLOADED = 0.8
"""Fraction of the progress when all is downloaded."""
POLL_S = 0.1

_UNPACKING = "Installing collected packages: "
_DOWNLOAD = re.compile(r"\s*(?:Downloading|Using cached) (\S+) \(([\d.]+) (bytes|kB|MB|GB)\)")
_RECEIVED = re.compile(r"Progress (\d+) of \d+")
_UNITS = {"bytes": 1e-6, "kB": 1e-3, "MB": 1.0, "GB": 1e3}
_OFFLINE = re.compile(
    r"NewConnectionError|Failed to establish a new connection|name resolution|ProxyError|ConnectTimeout|ReadTimeout"
    r"|Connection refused|Network is unreachable|getaddrinfo failed|SSLError"
)


class Pip:
    """Calls pip and tells from its lines how far it is.

    Args:
        folder: for what pip writes while it works.
        expected_mb: all downloads together, roughly.
        progress: told the fraction done and what is being done.
        wished: whether the user wants to stop.
    """

    def __init__(
        self, folder: Path, expected_mb: int, progress: Callable[[float, str], None], wished: Callable[[], bool]
    ) -> None:
        self._expected_mb, self._progress, self._wished = expected_mb, progress, wished
        self._fraction = self._done_mb = self._size_mb = 0.0  # MB of the downloads before, and of this one
        self._name = ""  # of this one
        kept = ""
        for name in KEPT:
            with suppress(importlib.metadata.PackageNotFoundError):
                kept += f"{name}=={importlib.metadata.version(name)}\n"
        constraints = folder / "constraints.txt"
        constraints.write_text(kept, encoding="utf-8")
        try:
            version = importlib.metadata.version("pip")
        except importlib.metadata.PackageNotFoundError as error:
            raise WorkError(f"This Python has no pip; run {sys.executable} -m ensurepip, and try again.") from error
        bar = "raw" if package_list.release(version) >= (24, 1) else "off"
        self._options = ["--prefer-binary", f"--progress-bar={bar}", "--constraint", str(constraints)]
        self._changes = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder)) | {
            "PYTHONUNBUFFERED": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_INPUT": "1",
            "PIP_RETRIES": "2",
        }

    def install(self, requirements: Sequence[str], module: str = "pip") -> None:
        """Install distributions; those that are there in a version that will do stay.

        Args:
            requirements: as pip takes them, with options of the module.
            module: pip, or one that is called like it.

        Raises:
            WorkError: one sentence.
            Cancelled: the user stopped it.
        """
        said: list[str] = []

        def hear(line: str) -> None:
            said.append(line)
            if not _RECEIVED.match(line):
                print(line, file=sys.stderr, flush=True)
            self._tell(line)

        command = [sys.executable, "-m", module, "install", *self._options, *requirements]
        status = run(command, self._changes, hear, self._wished)
        if status == 0:
            return
        reasons = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")] or said[-1:]
        reason = reasons[0].strip() if reasons else f"pip ended with status {status}"
        if any(_OFFLINE.search(line) for line in said):
            raise WorkError(
                f"The packages could not be downloaded, since this computer does not reach the package index ({reason})"
                "; connect it to the internet, or set HTTPS_PROXY or PIP_INDEX_URL, and try again."
            )
        raise WorkError(f"The packages could not be installed ({reason}); see what pip said above, and try again.")

    def clear_away(self, package: Package, broken: bool) -> None:
        """Remove what a killed pip had set aside and, where it is broken, the package, which pip would stumble over.

        Args:
            package: The package.
            broken: Remove it as well.

        Raises:
            WorkError: It cannot be removed.
            Cancelled: The user stopped it.
        """
        folders = {Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")}
        patterns = [f"~{package.module[1:]}*"]
        if broken:
            run([sys.executable, "-m", "pip", "uninstall", "--yes", package.name], self._changes, str, self._wished)
            patterns += [package.module, f"{re.sub('[-_.]+', '_', package.name)}-*.dist-info"]
        try:
            for path in [path for folder in folders for pattern in patterns for path in folder.glob(pattern)]:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError as error:
            raise WorkError(
                f"{package.name} does not work and cannot be removed ({error.filename}: {error.strerror}); close 3D "
                "Slicer and all else that uses it, and try again."
            ) from error

    def _tell(self, line: str) -> None:
        received_mb = 0.0
        if download := _DOWNLOAD.match(line):
            self._begin(download[1].rpartition("/")[2], float(download[2]) * _UNITS[download[3]])
            text = f"downloading {self._name} ({room.size(self._size_mb)})"
        elif received := _RECEIVED.match(line):
            received_mb = int(received[1]) / 1e6
            text = f"downloading {self._name}, {received_mb:.0f} of {room.size(self._size_mb)}"
        elif line.startswith(_UNPACKING):
            self._begin("", 0.0)
            names = line.removeprefix(_UNPACKING).split(", ")
            text = f"unpacking {', '.join(names[:2])}{f' and {len(names) - 2} more' if len(names) > 2 else ''}"
        else:
            return
        self._fraction = max(
            self._fraction, DOWNLOADED * min(1.0, (self._done_mb + received_mb) / max(self._expected_mb, 1))
        )
        if not self._name.endswith(".metadata"):
            self._progress(self._fraction, text)

    def _begin(self, file: str, size_mb: float) -> None:
        """Take the last download as done, and this file for the present one."""
        self._done_mb, self._size_mb = self._done_mb + self._size_mb, size_mb
        self._name = file if file.endswith(".metadata") else file.partition("-")[0]


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for pip: that of the cancel file, whose owner removes it whatever comes, or one of our own."""
    cancel_file = os.environ.get(CANCEL_FILE)
    folder = Path(cancel_file).parent if cancel_file else atomic.task_folder()
    try:
        yield folder
    finally:
        if not cancel_file:
            shutil.rmtree(folder, ignore_errors=True)


def run(
    command: list[str],
    changes: dict[str, str],
    hear: Callable[[str], object],
    wished: Callable[[], bool],
    limit_s: float = math.inf,
) -> int | None:
    """Run a command and hear its lines.

    Args:
        command: Program and arguments.
        changes: Environment variables that are other than here.
        hear: Called with each line of its output, stderr included.
        wished: Whether the user wants to stop.
        limit_s: Longest time.

    Returns:
        Its exit status; None where it did not end within the limit.

    Raises:
        Cancelled: The user stopped it.
    """
    process = subprocess.Popen(
        command,
        env=os.environ | changes,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in process.stdout:
            lines.put(line.rstrip())
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()  # so that a wish to stop is heard while nothing is said
    ends = time.monotonic() + limit_s
    try:
        while time.monotonic() < ends:
            if wished():
                raise Cancelled(CANCELLED)
            with suppress(queue.Empty):
                line = lines.get(timeout=POLL_S)
                if line is None:
                    return process.wait()
                hear(line)
        return None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
