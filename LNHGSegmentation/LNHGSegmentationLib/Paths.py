"""Where the module's own files lie, in the source tree as well as installed."""

from pathlib import Path

MODULE_FOLDER = Path(__file__).parents[1]
"""Holds LNHGLib and LNHGSegmentationLib; the core's processes start in it."""
RESOURCES = MODULE_FOLDER / "Resources"
