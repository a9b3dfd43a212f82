"""Options that several commands of `lnhg-train` share, and refusals of values that no command can work with."""

import argparse
from pathlib import Path

from LNHGLib.errors import InputError


def add_crops(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands that run generators on crops.

    Args:
        parser: Of the command.
    """
    parser.add_argument("--crops", type=Path, required=True, metavar="FILE.h5", help="crops around nodules")
    parser.add_argument("--table", type=Path, required=True, metavar="FILE.csv", help="table of the crops")
    parser.add_argument("--min-readers", type=int, default=3, metavar="N", help="fewest readers (default 3)")
    add_device(parser)
    add_overwrite(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add `--device`.

    Args:
        parser: Of the command.
    """
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add `--overwrite`.

    Args:
        parser: Of the command.
    """
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def fold_numbers(text: str) -> tuple[int, ...]:
    """Return the numbers of an option such as `--folds 0,1`."""
    return tuple(int(part) for part in text.split(","))


def named_path(text: str) -> tuple[str, Path]:
    """Return the name and the path of an argument NAME=CHECKPOINT or NAME=MODEL."""
    name, sign, path = text.partition("=")
    if not (name and sign and path):
        raise argparse.ArgumentTypeError(f"the method is {text!r}, expected NAME=CHECKPOINT or NAME=MODEL")
    return name, Path(path)


def require_path(path: Path, what: str, folder: bool = False) -> None:
    """Refuse a file or a folder that is not there.

    Args:
        path: What the user gave.
        what: What is expected there, as the sentence goes on.
        folder: Whether it must be a folder and no file.

    Raises:
        InputError: There is no such file or folder.
    """
    if not (path.is_dir() if folder else path.is_file()):
        raise InputError(f"{path} does not exist, expected {what}; check the path.")


def require_at_least(options: argparse.Namespace, minimum: int, *names: str) -> None:
    """Refuse numbers that are too small; options that were not given are left alone.

    Args:
        options: Of the command.
        minimum: The smallest number allowed.
        names: Of the options, as attributes of `options`.

    Raises:
        InputError: A number is smaller.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None and value < minimum:
            raise InputError(f"--{name.replace('_', '-')} is {value}, expected {minimum} or more; give so many.")
