"""The rows of the table of nodules: what a run found, and what was kept of it for a report."""

from typing import TYPE_CHECKING

import numpy as np

from LNHGLib.measurement import score_scale
from LNHGLib.results.files import MEASURES

if TYPE_CHECKING:
    from LNHGLib.measurement.nodule import Nodule


SCORES = ("score", "segmenter_score", "detector_score", "classifier_score")


def nodule_row(nodule: "Nodule", scale: str = score_scale.MODEL) -> dict[str, object]:
    """Return the row of a finding by `COLUMNS`, numbers rounded to four digits after the point.

    Args:
        nodule: the finding.
        scale: what its score means, see `score_scale`.
    """
    row = {name: getattr(nodule, name) for name in ("number", "provenance", *SCORES, "side", "slice")}
    row["score_scale"] = None if nodule.score is None else scale
    if nodule.measurement is not None:
        row |= {name: getattr(nodule.measurement, name) for name in MEASURES}
    if nodule.center_lps_mm is not None:
        row |= {f"centroid_{axis}_lps_mm": value for axis, value in zip("xyz", nodule.center_lps_mm, strict=True)}
    row |= {f"signal_{name}": value for name, value in (nodule.heterogeneity or {}).items()}
    for end, corner in zip(("min", "max"), nodule.box_lps_mm or (), strict=False):
        row |= {f"box_{axis}_{end}_lps_mm": value for axis, value in zip("xyz", corner, strict=True)}
    return {key: round(float(v), 4) if isinstance(v, float | np.floating) else v for key, v in row.items()}
