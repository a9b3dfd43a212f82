"""What C++ libraries print on standard error, kept from the user and at hand for the program."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def captured_stderr() -> Iterator[Callable[[], str]]:
    """Keep what C++ readers print on stderr, which the error already says, or harmless warnings.

    Yields:
        Returns what was printed so far.
    """
    if sys.__stderr__ is None:  # a windowed program on Windows has no stderr to capture
        yield lambda: ""
        return
    saved = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)

        def printed() -> str:
            sink.seek(0)
            return sink.read().decode(errors="replace")

        try:
            yield printed
        finally:
            os.dup2(saved, 2)
            os.close(saved)
