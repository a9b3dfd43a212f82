"""Too little memory: told from other failures, so that smaller pieces, or the CPU, can do the work instead."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
"""How CUDA, cuDNN, cuBLAS and torch's CPU allocator put it in errors that are no `torch.OutOfMemoryError`."""


def is_short(error: BaseException) -> bool:
    """Tell whether an error says that the memory of a GPU or of the computer did not suffice."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


@contextmanager
def suppress_out_of_memory() -> Iterator[None]:
    """Leave the block quietly when the memory does not suffice; the caller sees from its work what is left to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_short(error):
            raise
