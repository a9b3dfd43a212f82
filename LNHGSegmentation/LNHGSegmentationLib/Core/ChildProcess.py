"""The core as a child process: progress, cancel, and an end that leaves nothing running."""

import logging
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import qt
import slicer

CANCEL_FILE_VARIABLE = "LNHG_CANCEL_FILE"
GRACE_MS = 1200  # the child stops by itself within a second of the cancel file; then the process tree is killed

_PROGRESS = re.compile(r"PROGRESS\s+([\d.]+)\s*(.*)")
_PREFIX = re.compile(r"^(lnhg[^:]*:\s*)?((error|failed):\s*)?", re.IGNORECASE)


class ChildProcess:
    """One run of a command; use a new object for each run."""

    def __init__(
        self,
        onProgress: Callable[[float, str], None],
        onEnded: Callable[[int, str], None],
        cancelFile: Path | None = None,
        launcher: Callable | None = None,
    ) -> None:
        """Prepare a run.

        Args:
            onProgress: Called with the fraction done, 0 to 1, and the stage.
            onEnded: Called once, when the process and all its children are gone, with the exit status and the last
                line that was not progress (the child's one-sentence error where it failed).
            cancelFile: The child stops when this file appears; without one it is killed.
            launcher: Stands in for ``slicer.util.launchConsoleProcess``.
        """
        self._onProgress, self._onEnded = onProgress, onEnded
        self._launcher = launcher or slicer.util.launchConsoleProcess
        self._process = None
        self._lastLine = ""
        self._ended = False
        self._cancelFile = cancelFile

    def start(self, arguments: list[str], cwd: Path) -> None:
        """Start the command; returns at once.

        Args:
            arguments: The command line.
            cwd: Folder that it starts in.
        """
        logging.info("LNHG: starting %s", arguments)
        self._process = self._launcher(
            arguments,
            useStartupEnvironment=False,
            updateEnvironment={CANCEL_FILE_VARIABLE: str(self._cancelFile or ""), "PYTHONUNBUFFERED": "1"},
            cwd=str(cwd),
            blocking=False,
            logCallback=self._readLine,
            completedCallback=self._complete,
        )

    def cancel(self) -> None:
        """Ask the child to stop; it is killed if it has not stopped after the grace time. Returns at once."""
        self._askToStop()
        qt.QTimer.singleShot(GRACE_MS, self._killIfRunning)

    def kill(self, grace_s: float = 0.0) -> None:
        """Ask the child to stop, kill it and all its children if it does not, and report nothing any more.

        Args:
            grace_s: Seconds that it has to stop by itself; the call waits for it.
        """
        if self._ended:
            return
        self._onProgress, self._onEnded = (lambda *_: None), (lambda *_: None)
        self._askToStop()
        try:
            self._process.wait(timeout=grace_s)
        except subprocess.TimeoutExpired:
            killTree(self._process.pid)
        self._process.wait(timeout=5)
        self._complete(self._process.returncode)

    def _askToStop(self) -> None:
        if self._cancelFile is not None:
            self._cancelFile.touch()

    def _killIfRunning(self) -> None:
        if not self._ended:
            killTree(self._process.pid)

    def _readLine(self, line: str) -> None:
        progress = _PROGRESS.match(line)
        if progress:
            self._onProgress(min(float(progress.group(1)), 1.0), progress.group(2).strip())
        elif line.strip():
            logging.info("LNHG: %s", line)
            self._lastLine = _PREFIX.sub("", line.strip())

    def _complete(self, status: int) -> None:
        if not self._ended:
            self._ended = True
            self._onEnded(status, self._lastLine)


def killTree(pid: int) -> None:
    """Kill a process and everything it started: killing PythonSlicer alone kills only its launcher."""
    if os.name == "nt":
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(pid)], capture_output=True, check=False)
        return
    for each in [pid, *_descendants(pid)]:
        try:
            os.kill(each, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it ended by itself meanwhile


def _descendants(pid: int) -> list[int]:
    """Return all processes below one: from /proc where there is one, as small Linux systems lack ps, else from ps."""
    pairs: list[tuple[int, int]] = []  # process and parent
    if Path("/proc/self/stat").exists():
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                pairs.append((int(path.parent.name), int(path.read_text().rpartition(")")[2].split()[1])))
            except OSError:
                continue  # it ended meanwhile
    else:
        command = ["ps", "-A", "-o", "pid=,ppid="]
        listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        pairs = [(int(child), int(parent)) for child, parent in map(str.split, listing.splitlines())]
    found = [child for child, parent in pairs if parent == pid]
    for each in found:  # grows while it is walked
        found += [child for child, parent in pairs if parent == each]
    return found
