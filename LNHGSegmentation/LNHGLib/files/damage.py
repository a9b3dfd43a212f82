"""What libraries raise for a file that is cut or was changed, as one sentence for the user."""

import errno
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from LNHGLib.errors import InputError

FAULTS = (
    *(ValueError, TypeError, AttributeError, LookupError, ArithmeticError, EOFError, RecursionError),
    *(NotImplementedError, struct.error, zlib.error, zipfile.BadZipFile),
    *(tokenize.TokenError, SyntaxError),  # of an array's header, which NumPy reads as Python
)
MAX_REASON = 60
"""Letters of a library's own words."""


@contextmanager
def explain_damage(path: Path, cure: str) -> Iterator[None]:
    """Turn what the content of a file makes libraries and our own reading raise into a sentence.

    Only for reading: in a computation the same errors are faults of the program.

    Args:
        path: the file or the folder that is read.
        cure: what the user can do.

    Raises:
        InputError: it is damaged, or the block's own.
    """
    try:
        yield
    except InputError:
        raise
    except (*FAULTS, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # a place beyond the file
            raise
        words = f"{type(error).__name__}: {error}".replace(". ", ", ").replace(";", ",")
        reason = " ".join(words.split())[:MAX_REASON].rstrip(" .:")
        raise InputError(f"{path} is damaged or was changed ({reason}), expected it as written; {cure}.") from error
