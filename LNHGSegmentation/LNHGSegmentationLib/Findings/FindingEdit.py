"""One change of the findings while it is made: it records what it touches, so that it can be taken back."""

from collections.abc import Callable
from datetime import UTC, datetime

from LNHGLib.figures.segment_style import segment_color, segment_id, segment_tags
from LNHGLib.measurement.score_scale import scale_of

from LNHGSegmentationLib.Findings import FindingMeasures
from LNHGSegmentationLib.Findings.UndoStack import SegmentState
from LNHGSegmentationLib.Scene import ModelOutput, SceneResults
from LNHGSegmentationLib.Scene.Segments import Segments
from LNHGSegmentationLib.Scene.SegmentVoxels import Crop


class FindingEdit:
    """Rows and segments under change."""

    def __init__(self, segments: Segments, rows: list[dict], before: dict[str, SegmentState | None]) -> None:
        """Begin a change.

        Args:
            segments: The segments; they are changed at once.
            rows: Changed in place; to be stored when all is done.
            before: States of segments that were changed already.
        """
        self.rows, self.before = rows, dict(before)
        self._segments = segments

    def row(self, number: int) -> dict:
        """Return a finding to be changed."""
        return rowOf(self.rows, number)

    def nextNumber(self) -> int:
        """Return a number that no finding and no finding of the model has."""
        taken = {row["number"] for row in (*self.rows, *ModelOutput.rows(self._segments.node))}
        taken.update(number for row in self.rows for number in row["origin"])
        return max(taken, default=0) + 1

    def note(self, number: int, action: str, **more) -> None:
        """Write into a finding's history what the reader did; edits in a row are one entry."""
        history = self.row(number)["history"]
        if action == "edited" and history[-1]["action"] == "edited":
            history.pop()
        history.append(entry(action, "user", **more))

    def write(self, number: int, crop: Crop | None) -> None:
        """Replace a finding's voxels and measure it."""
        self._change(self.row(number)["segment_id"], lambda segmentID: self._segments.write(segmentID, crop))
        self.measure(number, crop)

    def measure(self, number: int, crop: Crop | None) -> None:
        """Measure a finding whose voxels are these."""
        row = self.row(number)
        row.update(FindingMeasures.measure(self._segments.node, crop))
        row["side"] = row["side"] or FindingMeasures.side(self._segments.node, row)

    def rename(self, number: int, name: str) -> None:
        """Give a finding and its segment another name."""
        row = self.row(number)
        row["name"] = name
        if row["segment_id"]:
            self._change(row["segment_id"], lambda segmentID: self._segments.rename(segmentID, name))

    def insert(self, row: dict, crop: Crop | None, measured: bool = False, empty: bool = False) -> None:
        """Add a finding.

        Args:
            row: The finding; its segment's ID is set here.
            crop: Its voxels.
            measured: Whether the row holds the measurements of these voxels.
            empty: Whether it gets a segment without voxels where it has none.
        """
        row = {**row, "segment_id": segment_id(row["number"]) if crop or empty else None}
        self.rows.append(row)
        if row["segment_id"]:
            self._addSegment(row, crop)
        if crop and not measured:
            self.measure(row["number"], crop)

    def remove(self, number: int) -> None:
        """Remove a finding with its segment."""
        row = self.row(number)
        self.rows.remove(row)
        if row["segment_id"]:
            self._change(row["segment_id"], lambda segmentID: self._segments.put(segmentID, None))

    def giveSegment(self, number: int) -> None:
        """Give a finding an empty segment."""
        row = self.row(number)
        row["segment_id"] = segment_id(number)
        self._addSegment(row, None)

    def adopt(self, row: dict, segmentID: str) -> None:
        """Make a finding of a segment that is there already."""
        self.rows.append({**row, "segment_id": segmentID})

    def follow(self, number: int) -> None:
        """Take over what others made of a finding's segment; one that they removed counts as rejected."""
        row = self.row(number)
        segment = self._segments.node.GetSegmentation().GetSegment(row["segment_id"])
        crop = self._segments.read(row["segment_id"]) if segment else None
        if segment:
            row["name"] = segment.GetName()
        else:
            row.update(kept=False, segment_id=None)
        self.note(number, "edited")
        self.measure(number, crop)

    def _addSegment(self, row: dict, crop: Crop | None) -> None:
        scale = scale_of(SceneResults.runOf(self._segments.node))
        color, tags = segment_color(row["number"]), segment_tags(row["provenance"], row["score"], scale)
        self._change(row["segment_id"], lambda id_: self._segments.add(id_, row["name"], color, tags, crop))

    def _change(self, segmentID: str, change: Callable[[str], None]) -> None:
        if segmentID not in self.before:
            self.before[segmentID] = self._segments.state(segmentID)
        change(segmentID)


def rowOf(rows: list[dict], number: int) -> dict:
    """Return the row of a finding.

    Raises:
        ValueError: There is none of that number.
    """
    for row in rows:
        if row["number"] == number:
            return row
    raise ValueError(f"There is no finding {number}: select one in the table.")


def entry(action: str, by: str, **more) -> dict:
    """Return an entry of a finding's history."""
    return {"action": action, "by": by, "time": datetime.now(UTC).isoformat(timespec="seconds"), **more}
