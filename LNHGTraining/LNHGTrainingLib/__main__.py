"""`lnhg-train`: prepare, train, export, calibrate, evaluate without Slicer (the same as `python -m LNHGTrainingLib`).

Exit status 0 done, 1 it failed, 2 the input or the arguments are wrong, 143 stopped by SIGTERM (a training within
seconds, with a checkpoint to `--resume` from; any other command leaves nothing half done); then one sentence on stderr.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from LNHGLib.cli.console import Parser, lasting_output, say, sentence_of, short_words, use_huge_pages
from LNHGLib.errors import Cancelled, InputError
from LNHGLib.setup import package_list

from LNHGTrainingLib.cli import baselines, evaluate, prepare, studies, train
from LNHGTrainingLib.training import sigterm

DEBUG = "LNHG_DEBUG"
"""Environment variable: set, an unexpected failure shows its traceback, as in `lnhg`."""

INSTALL = "python -m LNHGLib.packages install training"
INSTALLED = [package.module for package in package_list.needed(["training"])]


class _Parser(Parser):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        message = short_words(message)
        raise InputError(f"{message[0].upper()}{message[1:]}; see {self.prog} --help.")


@lasting_output()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run `lnhg-train` and return its exit status."""
    use_huge_pages()
    parser = _Parser(prog="lnhg-train", description="Train, evaluate and export LNHG models.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    prepare.add_commands(commands)
    train.add_training(commands)
    baselines.add_commands(commands)
    evaluate.add_commands(commands)
    train.add_release(commands)
    studies.add_commands(commands)
    try:
        options = parser.parse_args(arguments)
        with sigterm.breaking_off():
            options.run(options)
    except InputError as error:
        return _fail(error, 2)
    except sigterm.Stopped as stop:
        return _fail(stop, sigterm.STATUS)
    except sigterm.BrokenOff:
        return _fail("Stopped by SIGTERM before it was done; give the same command again.", sigterm.STATUS)
    except (Cancelled, KeyboardInterrupt):
        return _fail("Cancelled.", 1)
    except Exception as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        if isinstance(error, OSError) and (refused := sentence_of(error)):
            return _fail(refused, 2)
        if isinstance(error, ModuleNotFoundError) and error.name in INSTALLED:
            return _fail(f"{error.name} is not installed: run {INSTALL}, in 3D Slicer by PythonSlicer.", 1)
        return _fail(f"failed: {type(error).__name__}: {error}; set {DEBUG}=1 to see where.", 1)
    return 0


def _fail(message: object, status: int) -> int:
    sys.stdout.flush()
    say(f"lnhg-train: {message}")
    return status


if __name__ == "__main__":
    sys.exit(main())
