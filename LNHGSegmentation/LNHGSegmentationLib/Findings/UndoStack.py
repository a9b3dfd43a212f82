"""Steps that can be taken back: bounded in number and memory, since Slicer's own undo does not cover segment voxels."""

from dataclasses import dataclass, field

import numpy as np
from LNHGLib.image.boxes import Box, box_shape

from LNHGSegmentationLib.Scene.SegmentVoxels import Crop

MAX_STEPS = 100
MAX_BYTES = 64_000_000


@dataclass(frozen=True, eq=False)
class SegmentState:
    """A segment as it was; its voxels eight to a byte."""

    name: str
    color: tuple[float, float, float]
    tags: dict[str, str]
    box: Box | None
    bits: np.ndarray | None

    @property
    def crop(self) -> Crop | None:
        """Its voxels, None where it had none."""
        if self.box is None:
            return None
        shape = box_shape(self.box)
        return Crop(self.box, np.unpackbits(self.bits, count=int(np.prod(shape))).astype(bool).reshape(shape))


@dataclass(frozen=True, eq=False)
class Step:
    """What one action changed.

    Attributes:
        text: What was done, for the user.
        before: Rows as JSON before it, and the states of the changed segments (None: the segment was not there).
        after: The same after it.
    """

    text: str
    before: tuple[str, dict[str, SegmentState | None]]
    after: tuple[str, dict[str, SegmentState | None]]

    @property
    def size(self) -> int:
        """Its memory in bytes."""
        states = [state for _, states in (self.before, self.after) for state in states.values()]
        voxels = sum(state.bits.nbytes for state in states if state and state.bits is not None)
        return voxels + len(self.before[0]) + len(self.after[0])


@dataclass
class UndoStack:
    """Steps done and steps taken back; the oldest are forgotten first."""

    maxSteps: int = MAX_STEPS
    maxBytes: int = MAX_BYTES
    done: list[Step] = field(default_factory=list)
    undone: list[Step] = field(default_factory=list)

    def push(self, step: Step) -> None:
        """Remember a new step; steps that were taken back cannot be repeated any more."""
        self.undone.clear()
        self.done.append(step)
        while len(self.done) > 1 and (
            len(self.done) > self.maxSteps or sum(each.size for each in self.done) > self.maxBytes
        ):
            del self.done[0]

    def undo(self) -> Step | None:
        """Return the step to take back, None if there is none."""
        return self._move(self.done, self.undone)

    def redo(self) -> Step | None:
        """Return the step to repeat, None if there is none."""
        return self._move(self.undone, self.done)

    @staticmethod
    def _move(source: list[Step], target: list[Step]) -> Step | None:
        if not source:
            return None
        target.append(source.pop())
        return target[-1]
