"""What each command writes."""

PLOTS = ("dice_vs_diameter.png", "bland_altman.png", "examples.png", "froc.png")
EVALUATION = ("nodules.csv", "findings.csv", "summary.json", "summary.md", *PLOTS)
COMPARISON = ("pairs.csv", "comparison.json", "comparison.md")
MAPS = ("maps.csv", "maps.json", "maps.md")
PROBABILITY = ("findings.csv", "probability.json", "probability.md", "reliability.png", "froc.png")
WAND = ("wand.csv", "wand.json", "wand.md")
DETECTORS = ("detectors.json", "detectors.md")
DETECTION = ("findings.csv", "detection.json", "detection.md", "froc.png")
"""All that each command writes; a folder that holds anything else is never replaced by it."""
