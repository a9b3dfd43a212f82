"""A result as files: segmentation, labelmap, signal, table, report and picture, all or none of them."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk  # noqa: N813

from LNHGLib.figures import preview
from LNHGLib.files.atomic import atomic_folder, require_free, require_whole_gzip
from LNHGLib.files.text import write_csv, write_json
from LNHGLib.image.volume import Grid, to_sitk
from LNHGLib.measurement.score_scale import scale_of
from LNHGLib.results.files import COLUMNS, FILES
from LNHGLib.results.nodule_table import nodule_row
from LNHGLib.results.seg_nrrd import COMPRESSION_LEVEL, write_segmentation

if TYPE_CHECKING:
    from LNHGLib.segmentation.pipeline import Result

SCHEMA = 1
NIFTI_HEADER_BYTES = 352


def check_target(out: Path, overwrite: bool) -> None:
    """Refuse a result folder that must not be replaced; call it before the work as well.

    Args:
        out: folder of the result.
        overwrite: whether an earlier result there may be replaced.

    Raises:
        InputError: as `require_free`.
    """
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
    grid, scale = result.volume.grid, scale_of(result.report)

    def write_arrays(folder: Path) -> None:
        write_segmentation(result.labels, grid, result.nodules, folder / "nodules.seg.nrrd", scale)
        _write_nifti(result.labels.astype(np.uint16, copy=False), grid, folder / "labelmap.nii.gz")
        _write_nifti(result.heterogeneity.astype(np.float32, copy=False), grid, folder / "heterogeneity.nii.gz")
        signal = np.zeros(grid.shape, np.float32)  # the nodule image around findings: a map of any corrected outline
        for patch in result.patches:
            signal[patch.box] = patch.signal
        _write_nifti(signal, grid, folder / "signal.nii.gz")

    with atomic_folder(out, overwrite, FILES) as folder:
        with ThreadPoolExecutor(1) as beside:
            arrays = beside.submit(write_arrays, folder)
            shown = preview.write_preview(result, folder / "preview.png")
        arrays.result()
        write_csv(folder / "nodules.csv", (nodule_row(nodule, scale) for nodule in result.nodules), COLUMNS)
        nodules = [asdict(nodule) for nodule in result.nodules]
        write_json(folder / "report.json", {"schema": SCHEMA, **result.report, "preview": shown, "nodules": nodules})


def _write_nifti(array: np.ndarray, grid: Grid, path: Path) -> None:
    sitk.WriteImage(to_sitk(array, grid), str(path), useCompression=True, compressionLevel=COMPRESSION_LEVEL)
    require_whole_gzip(path, NIFTI_HEADER_BYTES + array.nbytes)
