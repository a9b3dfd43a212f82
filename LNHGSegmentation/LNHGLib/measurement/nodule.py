"""A finding, as the pipeline makes it and as report.json keeps it. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from LNHGLib.image.boxes import LpsBox
from LNHGLib.measurement.size import Measurement


@dataclass(frozen=True)
class Nodule:
    """One finding.

    Attributes:
        number: 1 for the highest score; the value of its voxels in the label map.
        score: in 0..1, on the scale of the result, see `score_scale`.
        provenance: "fused", "segmenter" or "detector-box"; the last has no voxels.
        box_lps_mm: least and greatest x, y, z.
        segmenter_score: None for a detector-box.
        detector_score: None where the detector found nothing in the whole scan.
        measurement: None for a detector-box.
        heterogeneity: statistics of the generator's signal inside; None for a detector-box.
        side: "left" or "right" lung; None where nobody looked for the lungs.
        slice: number, from 1 in the CT's stored order, of the axial slice with the long axis.
        classifier_score: None where no classifier looked at it.
    """

    number: int
    score: float
    provenance: str
    box_lps_mm: LpsBox
    segmenter_score: float | None
    detector_score: float | None
    measurement: Measurement | None
    heterogeneity: dict[str, float | None] | None
    side: str | None = None
    slice: int | None = None
    classifier_score: float | None = None

    @property
    def center_lps_mm(self) -> tuple[float, float, float] | None:
        """Centroid of the voxels, the box's center where there are none, None where there is no box either."""
        if self.measurement is not None:
            return self.measurement.centroid_lps_mm
        if self.box_lps_mm is None:
            return None
        return tuple((low + high) / 2 for low, high in zip(*self.box_lps_mm, strict=True))

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Nodule":
        """Make a nodule of its row in report.json; keys that a nodule does not have are left aside."""
        known = {field.name: row[field.name] for field in fields(cls) if field.name in row}
        known["box_lps_mm"] = _tuples(row["box_lps_mm"])
        if row["measurement"] is not None:
            known["measurement"] = Measurement(**{name: _tuples(value) for name, value in row["measurement"].items()})
        return cls(**known)


def _tuples(value: Any) -> Any:
    """Return JSON's lists as tuples, however deep."""
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
