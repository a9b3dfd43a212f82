"""Errors that carry a sentence for the user."""


class InputError(ValueError):
    """The input or an argument is wrong: one sentence with what, the value met, what was expected and what to do."""


class Cancelled(RuntimeError):  # noqa: N818
    """The user cancelled the work."""


class WorkError(RuntimeError):
    """The work cannot be done here though the input is right: one sentence with what stands in the way and the cure."""


class DiskError(WorkError):
    """Files cannot be written: the disk is full or fails."""


CANCELLED = "cancelled by the user."
