"""Where the package's own files lie, in the source tree as well as installed."""

from pathlib import Path

MODULE_FOLDER = Path(__file__).resolve().parents[1]
"""Holds the packages; it is what `PYTHONPATH` needs."""
RESOURCES = MODULE_FOLDER / "Resources"
BUNDLED_MODELS = RESOURCES / "Models"
HTML = RESOURCES / "Html"
