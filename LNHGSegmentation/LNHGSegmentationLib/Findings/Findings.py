"""The findings of one CT and all that a reader does to them, each an undoable step.

The truth lies in the scene: the rows as JSON in an attribute of the segmentation node, the voxels in its segments, what
the model found at first in a hidden segmentation. So it is saved and loaded with the scene. A row is a nodule of
`report.json` (`LNHGLib.results.writer`) with these keys more:

- ``name``: as shown; the segment bears it too.
- ``kept``: False for what the reader rejected.
- ``segment_id``: None for a finding without voxels.
- ``history``: entries ``{"action", "by", "time"}``; the first says who made it: action "found" (the model by itself),
  "added" (the model at a place the reader showed) or "drawn" (the reader); then "edited", "merged", "split",
  "restored", "confirmed" (taken in though it scored too low).
- ``origin``: numbers of the model's own findings that its voxels go back to; empty for a drawn one.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import slicer
from LNHGLib.figures.segment_style import segment_id, segment_name
from LNHGLib.measurement.reader_edits import changes

from LNHGSegmentationLib.Findings import Splitting
from LNHGSegmentationLib.Findings.FindingEdit import FindingEdit, entry, rowOf
from LNHGSegmentationLib.Findings.UndoStack import SegmentState, Step, UndoStack
from LNHGSegmentationLib.Scene import Geometry, ModelOutput, SceneResults, SegmentVoxels
from LNHGSegmentationLib.Scene.Segments import Segments
from LNHGSegmentationLib.Scene.SegmentVoxels import Crop

SCORES = ("segmenter_score", "detector_score", "classifier_score")
MEASURED = (*SCORES, "box_lps_mm", "measurement", "heterogeneity", "side", "slice")
UNKNOWN = dict.fromkeys(MEASURED)


class Findings:
    """The findings of a segmentation node; cheap to make. Its undo steps live as long as the object."""

    def __init__(self, segmentation: slicer.vtkMRMLSegmentationNode) -> None:
        self.segmentation = segmentation
        self.segments = Segments(segmentation)
        self.steps = UndoStack()

    @property
    def volumeNode(self) -> slicer.vtkMRMLScalarVolumeNode | None:
        """The CT, None if it is no more in the scene."""
        return SceneResults.volumeOf(self.segmentation)

    @property
    def threshold(self) -> float:
        """The least score of the findings that are shown."""
        return float(SceneResults.valueOf(self.segmentation, SceneResults.THRESHOLD_ATTRIBUTE, (int, float)) or 0.0)

    @threshold.setter
    def threshold(self, score: float) -> None:
        self.segmentation.SetAttribute(SceneResults.THRESHOLD_ATTRIBUTE, f"{score:.4f}")

    def rows(self) -> list[dict]:
        """Return all findings, rejected ones included."""
        return [self._complete(nodule) for nodule in SceneResults.rowsOf(self.segmentation) or []]

    def persist(self) -> None:
        """Write down what is only derived so far, as which segment is a finding's, before others change it."""
        text = json.dumps(self.rows())
        if text != self.segmentation.GetAttribute(SceneResults.NODULES_ATTRIBUTE):
            self.segmentation.SetAttribute(SceneResults.NODULES_ATTRIBUTE, text)

    def row(self, number: int) -> dict:
        """Return one finding.

        Raises:
            ValueError: There is none of that number.
        """
        return rowOf(self.rows(), number)

    def shown(self, threshold: float | None = None) -> list[dict]:
        """Return the findings at or above a score, by default the present threshold; the reader's own work always."""
        least = self.threshold if threshold is None else threshold
        return [row for row in self.rows() if isByReader(row) or row["score"] >= least]

    def reported(self) -> list[dict]:
        """Return the findings that count: shown and kept."""
        return [row for row in self.shown() if row["kept"]]

    def crop(self, number: int) -> Crop | None:
        """Return the voxels of a finding, None if it has none."""
        return self.segments.read(self.row(number)["segment_id"])

    def keep(self, number: int) -> None:
        """Take a rejected finding back in."""
        with self._step(f"keep {self.row(number)['name']}") as edit:
            edit.row(number)["kept"] = True

    def reject(self, number: int) -> None:
        """Leave a finding out; it stays in the list."""
        with self._step(f"reject {self.row(number)['name']}") as edit:
            edit.row(number)["kept"] = False

    def rename(self, number: int, name: str) -> None:
        """Give a finding another name.

        Raises:
            ValueError: The name is empty.
        """
        if not name.strip():
            raise ValueError("The name is empty: give the finding a name.")
        with self._step(f"rename {self.row(number)['name']}") as edit:
            edit.rename(number, name.strip())

    def merge(self, numbers: Sequence[int]) -> int:
        """Join findings into the one of the highest score.

        Returns:
            Its number.

        Raises:
            ValueError: They are less than two or one has no voxels.
        """
        rows = sorted((self.row(number) for number in set(numbers)), key=lambda row: -(row["score"] or 0.0))
        crops = [self.crop(row["number"]) for row in rows]
        if len(rows) < 2 or None in crops:
            raise ValueError("Merging needs two or more findings with an outline: select them in the table.")
        best = rows[0]["number"]
        with self._step("merge " + " and ".join(row["name"] for row in rows)) as edit:
            for row in rows[1:]:
                edit.remove(row["number"])
            origin = sorted({number for row in rows for number in row["origin"]})
            edit.row(best).update(kept=True, origin=origin)
            edit.note(best, "merged", numbers=[row["number"] for row in rows])
            edit.write(best, SegmentVoxels.union(crops))
        return best

    def split(self, number: int) -> list[int]:
        """Part a finding: into its separate pieces, or one piece in two at its waist.

        Returns:
            The numbers of the parts; the largest keeps its own.

        Raises:
            ValueError: It cannot be parted.
        """
        row, crop = self.row(number), self.crop(number)
        if crop is None:
            raise ValueError(f"{row['name']} has no outline: there is nothing to split.")
        parts = Splitting.parts(crop, Geometry.gridAt(self.volumeNode, crop.box).spacing_mm)
        if len(parts) < 2:
            raise ValueError(f"{row['name']} is one piece without a waist: edit it in the Segment Editor to part it.")
        with self._step(f"split {row['name']}") as edit:
            edit.note(number, "split")
            numbers = [number]
            for part in parts[1:]:
                numbers.append(edit.nextNumber())
                history = [*edit.row(number)["history"]]
                name = segment_name(numbers[-1])
                edit.insert({**edit.row(number), "number": numbers[-1], "name": name, "history": history}, part)
            edit.write(number, parts[0])
        return numbers

    def add(self, crop: Crop | None, known: Mapping | None = None) -> int:
        """Add a finding.

        Args:
            crop: Its voxels; None for one that the reader is going to draw.
            known: What the model says of it; None if the reader drew it.

        Returns:
            Its number.
        """
        with self._step("add a nodule") as edit:
            number = edit.nextNumber()
            row = _newRow(number, known)
            edit.insert(row, crop, empty=True)
        if row["origin"]:
            ModelOutput.add(self.segmentation, self.row(number), crop)
        return number

    def confirm(self, number: int) -> None:
        """Take in a finding that was rejected or lies below the threshold: the reader says that it is one."""
        with self._step(f"confirm {self.row(number)['name']}") as edit:
            edit.row(number)["kept"] = True
            edit.note(number, "confirmed")

    def at(self, index: np.ndarray) -> int | None:
        """Return the number of the finding whose voxels hold an index (z, y, x) of the CT, None if there is none."""
        for row in self.rows():
            crop = self.segments.read(row["segment_id"])
            inside = crop and all(part.start <= i < part.stop for i, part in zip(index, crop.box, strict=True))
            if inside and crop.array[tuple(i - part.start for i, part in zip(index, crop.box, strict=True))]:
                return row["number"]
        return None

    def drawing(self, number: int) -> str:
        """Return the segment of a finding to draw on, made where it has none as with a box of the detector."""
        row = self.row(number)
        if row["segment_id"] is None:
            with self._step(f"outline {row['name']}") as edit:
                edit.giveSegment(number)
        return self.row(number)["segment_id"]

    def restore(self, number: int) -> list[int]:
        """Bring back what the model found: of a merged finding all that went into it, of a split one the whole.

        Returns:
            The numbers that were restored.

        Raises:
            ValueError: The model had no part in it.
        """
        rows = self.rows()
        name = rowOf(rows, number)["name"]
        origin, gone = set(rowOf(rows, number)["origin"]), [number]
        for _ in rows:  # all findings that share voxels of the model with it, directly or through others
            for other in rows:
                if other["number"] not in gone and origin & set(other["origin"]):
                    gone.append(other["number"])
                    origin |= set(other["origin"])
        originals = [row for row in ModelOutput.rows(self.segmentation) if row["number"] in origin]
        if not originals:
            raise ValueError(f"{name} was drawn by hand: there is no model output to restore.")
        histories = {row["number"]: row["history"] for row in rows}
        with self._step(f"restore {name}") as edit:
            for each in gone:
                edit.remove(each)
            for row in map(self._complete, originals):
                crop = ModelOutput.crop(self.segmentation, row["number"])
                edit.insert({**row, "history": [*histories.get(row["number"], row["history"])]}, crop, measured=True)
                edit.note(row["number"], "restored")
        return [row["number"] for row in originals]

    def applyExternalEdits(self, before: Mapping[str, SegmentState | None]) -> list[int]:
        """Follow what others did to segments, as the Segment Editor does: only these findings are measured anew.

        Args:
            before: The changed segments as they were; None for a new one, which becomes a finding.

        Returns:
            The numbers of the changed findings.
        """
        byID = {row["segment_id"]: row["number"] for row in self.rows() if row["segment_id"]}
        there = self.segments.ids()
        before = {each: state for each, state in before.items() if each in byID or each in there}
        with self._step("edit in the Segment Editor", before) as edit:
            for each in before:
                if each not in byID:
                    byID[each] = edit.nextNumber()
                    edit.adopt(_newRow(byID[each], None), each)
                edit.follow(byID[each])
        return [byID[each] for each in before]

    def undo(self) -> str:
        """Take back the last step; returns what it was, empty if there is none."""
        step = self.steps.undo()
        return self._apply(step.before, step.text) if step else ""

    def redo(self) -> str:
        """Repeat the step taken back last; returns what it was, empty if there is none."""
        step = self.steps.redo()
        return self._apply(step.after, step.text) if step else ""

    @contextmanager
    def _step(self, text: str, before: Mapping[str, SegmentState | None] | None = None) -> Iterator[FindingEdit]:
        """Do all of a change or nothing of it, and remember it."""
        if self.volumeNode is None:
            raise ValueError("The CT of these findings is not in the scene any more: load it and segment it again.")
        old = self.segmentation.GetAttribute(SceneResults.NODULES_ATTRIBUTE) or "[]"
        edit = FindingEdit(self.segments, self.rows(), before or {})
        try:
            yield edit
        except BaseException:
            self._apply((old, edit.before), text)
            raise
        new = json.dumps(sorted(edit.rows, key=lambda row: row["number"]))
        self.segmentation.SetAttribute(SceneResults.NODULES_ATTRIBUTE, new)
        after = {each: self.segments.state(each) for each in edit.before}
        self.steps.push(Step(text, (old, edit.before), (new, after)))

    def _apply(self, state: tuple[str, Mapping[str, SegmentState | None]], text: str) -> str:
        for each, segment in state[1].items():
            self.segments.put(each, segment)
        self.segmentation.SetAttribute(SceneResults.NODULES_ATTRIBUTE, state[0])
        return text

    def _complete(self, nodule: dict) -> dict:
        """Return a row of the core, or of an older scene, with the keys that only the scene knows."""
        number, own = nodule["number"], segment_id(nodule["number"])
        known = self.segmentation.GetSegmentation().GetSegment(own) is not None
        found = {"action": "found", "by": "model", "time": None}
        more = {"kept": True, "segment_id": own if known else None, "history": [found], "origin": [number]}
        return {**UNKNOWN, "name": segment_name(number), **more, **nodule}


def isByReader(row: dict) -> bool:
    """Return whether a reader added, drew or changed a finding and it was not restored since."""
    return isAdded(row) or isEdited(row) or any(each["action"] == "confirmed" for each in row["history"])


def isAdded(row: dict) -> bool:
    """Return whether the finding is there because a reader added or drew it."""
    return row["history"][0]["action"] in ("added", "drawn")


def isEdited(row: dict) -> bool:
    """Return whether a finding's voxels are not the model's any more."""
    return bool(changes(row["history"]))


def _newRow(number: int, known: Mapping | None) -> dict:
    origin = [] if known is None else [number]
    history = [entry("drawn" if known is None else "added", "user")]
    own = {"number": number, "name": segment_name(number), "kept": True, "origin": origin, "history": history}
    return {**UNKNOWN, "score": None, "provenance": "manual", **(known or {}), **own}
