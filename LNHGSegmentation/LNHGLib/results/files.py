"""What a result folder holds; for those who read results and need none of what writes them."""

from LNHGLib.measurement.signal import STATISTICS

IMAGES = ("labelmap.nii.gz", "heterogeneity.nii.gz", "signal.nii.gz")
FILES = ("nodules.seg.nrrd", *IMAGES, "nodules.csv", "report.json", "preview.png")
MEASURES = ("volume_mm3", "long_axis_mm", "short_axis_mm", "mean_hu", "sd_hu", "attenuation")
COLUMNS = (
    *("number", "score", "score_scale", "provenance", "segmenter_score", "detector_score", "classifier_score"),
    *("side", "slice"),
    *(f"centroid_{axis}_lps_mm" for axis in "xyz"),
    *MEASURES,
    *(f"signal_{name}" for name in STATISTICS),
    *(f"box_{axis}_{end}_lps_mm" for end in ("min", "max") for axis in "xyz"),
)
"""Columns of nodules.csv. A detector-box finding has no measurement: its centroid is its box's center."""
