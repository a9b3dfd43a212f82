"""Where the package's own files lie, in the source tree as well as installed."""

from pathlib import Path

RESOURCES = Path(__file__).resolve().parents[1] / "Resources"
NNUNET_TRAINER = Path(__file__).resolve().parent / "baselines" / "nnunet_trainer"
"""Folder of the trainer that nnU-Net loads by its name."""
