"""A finding, as the pipeline makes it and as report.json keeps it. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from LNHGLib.measurement import Measurement

LpsBox = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True)
class Nodule:
    """One finding.

    Attributes:
        number: 1 for the highest score; the value of its voxels in the label map.
        score: in 0..1, see `fusion.combine`.
        provenance: "fused", "segmenter" or "detector-box"; the last has no voxels.
        box_lps_mm: least and greatest x, y, z.
        segmenter_score: None for a detector-box.
        detector_score: None where the detector found nothing in the whole scan.
        measurement: None for a detector-box.
        heterogeneity: statistics of the generator's signal inside; None for a detector-box.
    """

    number: int
    score: float
    provenance: str
    box_lps_mm: LpsBox
    segmenter_score: float | None
    detector_score: float | None
    measurement: Measurement | None
    heterogeneity: dict[str, float | None] | None

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
