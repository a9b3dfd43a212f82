"""A result as files: segmentation, labelmap, signal, table, report and picture, all or none of them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk  # noqa: N813

from LNHGLib.figures import preview
from LNHGLib.files.atomic import atomic_folder, require_free, require_whole_gzip
from LNHGLib.image.volume import Grid, to_sitk
from LNHGLib.results import nodule_table
from LNHGLib.results.files import FILES
from LNHGLib.results.seg_nrrd import COMPRESSION_LEVEL, write_segmentation

if TYPE_CHECKING:
    from LNHGLib.segmentation.pipeline import Result

SCHEMA = 1
NIFTI_HEADER_BYTES = 352


def check_target(out: Path, overwrite: bool) -> None:
    """Refuse a result folder that must not be replaced, as `require_free`; call it before the work as well."""
    require_free(out, overwrite, FILES)


def write_result(result: "Result", out: Path, overwrite: bool = False) -> None:
    """Write all files of a result, or none: an earlier result stays until the new one is complete.

    Args:
        result: what the pipeline found, on the input's grid.
        out: folder to make; its missing parents are made too.
        overwrite: replace an earlier result there.

    Raises:
        InputError: as `require_free`.
        DiskError: the disk is full or fails.
    """
    with atomic_folder(out, overwrite, FILES) as folder:
        _write_files(result, folder)


def _write_files(result: "Result", folder: Path) -> None:
    grid = result.volume.grid
    write_segmentation(result.labels, grid, result.nodules, folder / "nodules.seg.nrrd")
    _write_nifti(result.labels.astype(np.uint16, copy=False), grid, folder / "labelmap.nii.gz")
    _write_nifti(result.heterogeneity.astype(np.float32, copy=False), grid, folder / "heterogeneity.nii.gz")
    _write_signal(result, folder / "signal.nii.gz")
    nodule_table.write_table(result.nodules, folder / "nodules.csv")
    shown = preview.write_preview(result, folder / "preview.png")
    _write_report(result, shown, folder / "report.json")


def _write_signal(result: "Result", path: Path) -> None:
    """Write the generator's nodule image around every finding, on the input's grid: a map of any corrected outline.

    float32; known in the boxes that `native_grid.patch_around` gives for the findings' `box_lps_mm`, 0 elsewhere.
    """
    signal = np.zeros(result.volume.grid.shape, np.float32)
    for patch in result.patches:
        signal[patch.box] = patch.signal
    _write_nifti(signal, result.volume.grid, path)


def _write_nifti(array: np.ndarray, grid: Grid, path: Path) -> None:
    sitk.WriteImage(to_sitk(array, grid), str(path), useCompression=True, compressionLevel=COMPRESSION_LEVEL)
    require_whole_gzip(path, NIFTI_HEADER_BYTES + array.nbytes)


def _write_report(result: "Result", shown: dict, path: Path) -> None:
    report = {"schema": SCHEMA, **result.report, "preview": shown, "nodules": [asdict(n) for n in result.nodules]}
    path.write_text(json.dumps(report, indent=1, allow_nan=False, default=_plain) + "\n", encoding="utf-8")


def _plain(value: object) -> object:
    """Turn numpy numbers and paths into what JSON knows."""
    return value.item() if isinstance(value, np.generic) else str(value)
