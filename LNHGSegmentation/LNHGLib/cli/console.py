"""What the command line shows and hears: progress for people and programs, and the wish to stop."""

import _thread
import argparse
import errno
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TextIO

from LNHGLib.errors import CANCELLED, Cancelled, shown

AWAY = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ESTALE)
"""Faults of a path that the user can look after: it went away, is of another kind, or is closed to the user."""
LONG_WORD = 60

CANCEL_FILE = "LNHG_CANCEL_FILE"
"""Environment variable: the work stops as soon as the file it names is there."""

CONTROL = re.compile(r"\s*[\x00-\x1f\x7f-\x9f\u2028\u2029]+\s*")

_POLL_S = 0.1
_GRACE_S = 1.0
_BAR = 30


class _LastingStream:
    """Standard output that nobody may read any more: the work goes on, and what cannot be told is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._silenced():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._silenced():
            self._stream.flush()

    @contextmanager
    def _silenced(self) -> Iterator[None]:
        try:
            yield
        except UnicodeEncodeError:
            raise
        except (OSError, ValueError):  # closed, its reader gone, or its disk full: nothing is left to tell at the end
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


@contextmanager
def lasting_output() -> Iterator[None]:
    """Keep the work from ending with its output: closed streams, readers that go, names that are no text.

    The numbers of closed streams are taken, as the next file that is opened would get one, and what libraries print
    with it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    before = sys.stdout, sys.stderr
    streams = []
    for stream in before:
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - for as long as the process lasts
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        streams.append(_LastingStream(stream))
    sys.stdout, sys.stderr = streams
    try:
        yield
    finally:
        for stream in streams:
            stream.flush()
        sys.stdout, sys.stderr = before


class Parser(argparse.ArgumentParser):
    """A command line that refuses empty arguments by name: a variable of a shell that is not set, as a rule."""

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> object:
        own = arg_strings[:1] if action.nargs == argparse.PARSER else arg_strings  # the rest is a command's own
        if any(not text.strip() for text in own):
            name = "/".join(action.option_strings) or action.metavar or action.dest
            self.error(f"{name} is empty, expected {action.help or 'a value'}; give one")
        return super()._get_values(action, arg_strings)


def short_words(message: str) -> str:
    """Return a message of argparse, in which what the user typed is shortened."""
    return re.sub(rf"'[^']{{{LONG_WORD},}}'|\S{{{LONG_WORD},}}", lambda found: shown(found[0], LONG_WORD), message)


def sentence_of(error: OSError) -> str | None:
    """Return what to tell of a path that is not there any more or that no file system takes; None for other faults."""
    path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    if error.errno == errno.ENAMETOOLONG:
        name = max(Path(path).parts, key=len, default="")
        return (
            f"A name of {len(os.fsencode(name))} bytes is longer than the file system takes ({shown(name)}); "
            "give a shorter one."
        )
    if path and error.errno in AWAY:
        return f"{path} cannot be used ({error.strerror}), expected it there and open to you; check it and try again."
    return None


def use_huge_pages() -> None:
    """Let torch, which reads this when it loads, take its memory in huge pages: a third faster on Linux CPUs."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def progress_printer(as_lines: bool) -> Callable[[float, str], None]:
    """Return a progress callback.

    Args:
        as_lines: Print `PROGRESS 0.42 text` lines on stdout, for programs; otherwise a bar on stderr, which is a line
            per stage where that is no terminal.
    """
    last = [""]

    def show(fraction: float, text: str) -> None:
        if as_lines:
            line = f"PROGRESS {fraction:.2f} {text}"
            if line != last[0]:
                last[0] = line
                print(line, flush=True)
        elif sys.stderr.isatty():
            full = round(_BAR * fraction)
            bar = f"\r{'#' * full}{'.' * (_BAR - full)} {fraction:4.0%} {text:<40.40}"
            print(bar, end="\n" if fraction >= 1 else "", file=sys.stderr, flush=True)
        elif text != last[0]:
            last[0] = text
            print(f"{fraction:4.0%} {text}", file=sys.stderr, flush=True)

    return show


def part_of(progress: Callable[[float, str], None], start: float, end: float) -> Callable[[float, str], None]:
    """Return a progress callback for the part of the work from `start` to `end`.

    Args:
        progress: For the whole work.
        start: Fraction of the work before.
        end: Fraction of the work with it.
    """
    return lambda fraction, text: progress(start + (end - start) * fraction, text)


def say(line: str) -> None:
    """Print a line on stderr, in the place of a progress bar that may stand there.

    It stays one line whatever it quotes: line ends and other control characters become spaces.
    """
    wipe = "\r\033[K" if sys.stderr.isatty() else ""
    print(f"{wipe}{CONTROL.sub(' ', line)}", file=sys.stderr, flush=True)


def count(number: int, noun: str) -> str:
    """Return a number with its noun, as "2 files" or "No nodules"."""
    return f"{number or 'No'} {noun}{'' if number == 1 else 's'}"


@dataclass
class Stop:
    """The user's wish to stop, from Ctrl-C, SIGTERM or the cancel file.

    Attributes:
        writing: set while results are written: then the process is never ended hard.
    """

    writing: bool = False
    _wished: threading.Event = field(default_factory=threading.Event)
    _over: threading.Event = field(default_factory=threading.Event)

    def wished(self) -> bool:
        """Whether the user wants to stop."""
        return self._wished.is_set()

    @contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Raise `Cancelled` in the block when the user wants to stop; within a second even from a long computation."""

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            if not self._wished.is_set():
                self._wished.set()
                raise Cancelled(CANCELLED)

        names = (signal.SIGINT, signal.SIGTERM)
        before = {name: signal.signal(name, on_signal) for name in names}
        path = os.environ.get(CANCEL_FILE)
        if path:
            threading.Thread(target=self._watch, args=(Path(path),), daemon=True).start()
        try:
            yield self
        finally:
            self._over.set()
            for name, handler in before.items():
                signal.signal(name, handler)

    def _watch(self, path: Path) -> None:
        while not path.exists():
            if self._over.wait(_POLL_S):
                return
        _thread.interrupt_main()
        if not self._over.wait(_GRACE_S) and not self.writing:
            print(f"lnhg: {CANCELLED}", file=sys.stderr, flush=True)
            os._exit(1)
