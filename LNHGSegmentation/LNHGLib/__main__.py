"""The command line `lnhg`: its parser; the commands are in `cli`. Exit status 0 done, 1 failed, 2 wrong input."""

import argparse
import atexit
import gc
import os
import traceback
from collections.abc import Sequence
from typing import NoReturn

from LNHGLib import __version__
from LNHGLib.cli import batch, benchmark, demo, devices, models, reader_study, report, segment
from LNHGLib.cli.console import Parser, Stop, lasting_output, say, sentence_of, short_words, use_huge_pages
from LNHGLib.errors import Cancelled, InputError, WorkError

COMMANDS = (segment, demo, batch, report, reader_study, devices, models, benchmark)
DONE, FAILED, WRONG = 0, 1, 2
DEBUG = "LNHG_DEBUG"
"""Environment variable: set, an unexpected failure shows its traceback."""


@lasting_output()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    use_huge_pages()
    gc.set_threshold(100_000)  # packages make many objects when they load, and none of them is garbage
    try:
        options = parse(arguments)
        with Stop().listening() as stop:
            options.run(options, stop)
    except InputError as error:
        return _fail(str(error), WRONG)
    except (Cancelled, WorkError) as error:
        return _fail(str(error), FAILED)
    except Exception as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        if isinstance(error, OSError) and (refused := sentence_of(error)):
            return _fail(refused, WRONG)
        reason = " ".join(str(error).split()) or "no reason given"
        sentence = f"failed: {type(error).__name__}: {reason}; set {DEBUG}=1 to see where."
        if isinstance(error, MemoryError):
            sentence = f"the computer's memory does not suffice ({reason}); close other programs and try again."
        if isinstance(error, ImportError):
            sentence = (
                f"a Python package does not load ({reason}); in Slicer press Repair under Set-up, else install again."
            )
        return _fail(sentence, FAILED)
    return DONE


def command() -> NoReturn:
    """Run the command line and end the process with its status, at once: to give memory back takes half a second."""
    status = main()
    atexit._run_exitfuncs()
    os._exit(status)


def _fail(sentence: str, status: int) -> int:
    say(f"lnhg: {sentence}")
    return status


class _Parser(Parser):
    def error(self, message: str) -> NoReturn:
        message = short_words(message)
        raise InputError(f"{message}; see: {self.prog} --help")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the arguments; `run` of what is returned does the command.

    Raises:
        InputError: They are wrong.
    """
    parser = _Parser(prog="lnhg", description="Find, segment and measure lung nodules on chest CT.")
    parser.add_argument("--version", action="version", version=f"lnhg {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for command in COMMANDS:
        command.add_parser(commands)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    command()
