"""The LNHG core: lung nodules found, segmented and measured on chest CT, without Slicer."""

__version__ = "0.1.0"
