"""Errors that carry a sentence for the user, and how the sentence quotes what it met."""

import reprlib
from collections.abc import Iterable
from difflib import SequenceMatcher


class InputError(ValueError):
    """The input or an argument is wrong: one sentence with what, the value met, what was expected and what to do."""


class Cancelled(RuntimeError):  # noqa: N818
    """The user cancelled the work."""


class WorkError(RuntimeError):
    """The work cannot be done here though the input is right: one sentence with what stands in the way and the cure."""


class DiskError(WorkError):
    """Files cannot be written: the disk is full or fails."""


CANCELLED = "cancelled by the user."

MAX_QUOTED, MAX_LISTED = 40, 4
"""Letters and items that a sentence quotes; files hold keys, columns and names of any length."""

UID_LETTERS = 68
"""Of a whole UID and the number of a volume, which the user gives to `--series`."""


def quoted(value: object, most: int = MAX_QUOTED) -> str:
    """Return a value of a file or an argument as Python writes it; the middle of a long one is left out.

    Args:
        value: what was met.
        most: letters.
    """
    quotes = reprlib.Repr()
    quotes.maxlevel, quotes.maxstring, quotes.maxlong, quotes.maxother = 2, most, most, most
    text = quotes.repr(value)
    return text if len(text) <= most else f"{text[: most - 4]} ..."


def shown(value: object, most: int = MAX_QUOTED) -> str:
    """Return a name or number without quotation marks, as `quoted` shortens it.

    Args:
        value: what was met.
        most: letters.
    """
    return quoted(str(value), most + 2)[1:-1]


def nearest(name: str, known: Iterable[str]) -> str:
    """List the known names that a misspelled one may stand for, the likeliest first.

    Args:
        name: the misspelled one.
        known: the right ones.
    """
    return listed(sorted(known, key=lambda each: -SequenceMatcher(None, name[:MAX_QUOTED], each).ratio()))


def listed(values: Iterable[object]) -> str:
    """Return names as a sentence lists them: the first few, and how many more there are."""
    names = [shown(value) for value in values]
    return ", ".join(names[:MAX_LISTED]) + (f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else "")
