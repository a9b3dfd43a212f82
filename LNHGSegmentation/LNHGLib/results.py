"""A result as files: segmentation, labelmap, signal, table, report and picture, all or none of them."""

import csv
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk  # noqa: N813

from LNHGLib import preview
from LNHGLib.errors import InputError
from LNHGLib.result_files import COLUMNS, FILES, MEASURES
from LNHGLib.segmentation_file import COMPRESSION_LEVEL, write_segmentation
from LNHGLib.volume import Grid, to_sitk

if TYPE_CHECKING:
    from LNHGLib.pipeline import Nodule, Result

SCHEMA = 1


def check_target(out: Path, overwrite: bool) -> None:
    """Refuse a result folder that must not be replaced; call it before the work as well.

    Args:
        out: the folder to be written.
        overwrite: whether an earlier result there may be replaced.

    Raises:
        InputError: `out` exists and `overwrite` is off, or it is not a folder of earlier results.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"The result folder {out} is a file, expected a new folder: give another name.")
    if not overwrite:
        raise InputError(f"The result folder {out} already exists: give another name, or --overwrite to replace it.")
    foreign = sorted(entry.name for entry in out.iterdir() if entry.name not in FILES)
    if foreign:
        raise InputError(
            f"The result folder {out} holds {foreign[0]!r}, which is no result of LNHG, and is not replaced: "
            "give another folder."
        )


def write_result(result: "Result", out: Path, overwrite: bool = False) -> None:
    """Write all files of a result, or none: an earlier result stays until the new one is complete.

    Args:
        result: what the pipeline found, on the input's grid.
        out: folder to make; its missing parents are made too.
        overwrite: replace an earlier result there.

    Raises:
        InputError: as `check_target`.
    """
    out = Path(out).resolve()
    check_target(out, overwrite)
    home = next(folder for folder in out.parents if folder.is_dir())
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=home))
    try:
        complete = scratch / "new"
        complete.mkdir()
        _write_files(result, complete)
        out.parent.mkdir(parents=True, exist_ok=True)
        _swap(complete, out, scratch / "old")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _swap(new: Path, out: Path, old: Path) -> None:
    """Rename `new` to `out`; what was there goes to `old`, and back if the rename fails."""
    if not out.exists():
        new.rename(out)
        return
    out.rename(old)
    try:
        new.rename(out)
    except BaseException:
        old.rename(out)
        raise


def _write_files(result: "Result", folder: Path) -> None:
    grid = result.volume.grid
    write_segmentation(result.labels, grid, result.nodules, folder / "nodules.seg.nrrd")
    _write_nifti(result.labels.astype(np.uint16, copy=False), grid, folder / "labelmap.nii.gz")
    _write_nifti(result.heterogeneity.astype(np.float32, copy=False), grid, folder / "heterogeneity.nii.gz")
    _write_table(result.nodules, folder / "nodules.csv")
    shown = preview.write_preview(result, folder / "preview.png")
    _write_report(result, shown, folder / "report.json")


def _write_nifti(array: np.ndarray, grid: Grid, path: Path) -> None:
    sitk.WriteImage(to_sitk(array, grid), str(path), useCompression=True, compressionLevel=COMPRESSION_LEVEL)


def _write_table(nodules: Sequence["Nodule"], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(_row(nodule) for nodule in nodules)


def _row(nodule: "Nodule") -> dict[str, object]:
    names = ("number", "score", "provenance", "segmenter_score", "detector_score")
    row = {name: getattr(nodule, name) for name in names}
    center = np.mean(nodule.box_lps_mm, axis=0)
    if nodule.measurement is not None:
        center = nodule.measurement.centroid_lps_mm
        row |= {name: getattr(nodule.measurement, name) for name in MEASURES}
    row |= {f"centroid_{axis}_lps_mm": value for axis, value in zip("xyz", center, strict=True)}
    row |= {f"signal_{name}": value for name, value in (nodule.heterogeneity or {}).items()}
    for end, corner in zip(("min", "max"), nodule.box_lps_mm, strict=True):
        row |= {f"box_{axis}_{end}_lps_mm": value for axis, value in zip("xyz", corner, strict=True)}
    return {key: round(float(v), 4) if isinstance(v, float | np.floating) else v for key, v in row.items()}


def _write_report(result: "Result", shown: dict, path: Path) -> None:
    report = {"schema": SCHEMA, **result.report, "preview": shown, "nodules": [asdict(n) for n in result.nodules]}
    path.write_text(json.dumps(report, indent=1, allow_nan=False, default=_plain) + "\n", encoding="utf-8")


def _plain(value: object) -> object:
    """Turn numpy numbers and paths into what JSON knows."""
    return value.item() if isinstance(value, np.generic) else str(value)
