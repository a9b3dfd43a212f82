"""A nodule as a segment of Slicer: its ID, name, color and tags, in the scene as in the file. Imports nothing heavy."""

import colorsys

from LNHGLib.measurement import score_scale

TERMINOLOGY = (
    "Segmentation category and type - DICOM master list"
    "~SCT^49755003^Morphologically Altered Structure~SCT^786838002^Lung nodule~^^"
    "~Anatomic codes - DICOM master list~SCT^39607008^Lung~^^"
)
PROVENANCE_TAG, SCORE_TAG, SCALE_TAG, TERMINOLOGY_TAG = (
    "LNHG.Provenance",
    "LNHG.Score",
    "LNHG.ScoreScale",
    "TerminologyEntry",
)
TAGS = (PROVENANCE_TAG, SCORE_TAG, SCALE_TAG, TERMINOLOGY_TAG)
GOLDEN_ANGLE = 0.381966  # of the color circle: neighbors in number are far apart in hue
FIRST_HUE = 0.83  # magenta, which no color map of the signal contains


def segment_id(number: int) -> str:
    """Return the ID of a nodule's segment."""
    return f"Nodule_{number}"


def segment_name(number: int) -> str:
    """Return the name of a nodule that nobody gave another one."""
    return f"Nodule {number}"


def segment_color(number: int) -> tuple[float, float, float]:
    """Return a bright RGB color (0..1) for a nodule's number, unlike those of its neighbors."""
    return colorsys.hsv_to_rgb((FIRST_HUE + (number - 1) * GOLDEN_ANGLE) % 1.0, 0.85, 1.0)


def segment_tags(provenance: str, score: float | None, scale: str = score_scale.MODEL) -> dict[str, str]:
    """Return the tags that tell what a segment is and what made it.

    Args:
        provenance: "fused", "segmenter", "detector-box" or "manual".
        score: in 0..1; None for a nodule that a reader drew.
        scale: what the score means, see `score_scale`.
    """
    return {
        PROVENANCE_TAG: provenance,
        SCORE_TAG: "" if score is None else f"{score:.4f}",
        SCALE_TAG: "" if score is None else scale,
        TERMINOLOGY_TAG: TERMINOLOGY,
    }
