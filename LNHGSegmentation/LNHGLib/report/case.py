"""What a report is made of: the kept findings of one CT with their voxels, read from a result folder."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from LNHGLib.errors import InputError
from LNHGLib.figures.segment_style import segment_name
from LNHGLib.files.damage import explain_damage
from LNHGLib.files.text import read_json
from LNHGLib.image import single_file
from LNHGLib.image.volume import Grid, Volume, from_sitk
from LNHGLib.measurement.nodule import Nodule
from LNHGLib.measurement.reader_edits import changes
from LNHGLib.measurement.score_scale import scale_of
from LNHGLib.report.dicom_source import OriginalSeries, onto_slices
from LNHGLib.results.original_ct import OriginalCT

CROPS = "crops.npz"
"""What 3D Slicer hands over in the place of the two maps: a nodule is small, a CT is large."""

Crop = tuple[tuple[slice, slice, slice], np.ndarray, np.ndarray]

PROVENANCE = {
    "fused": "both branches",
    "segmenter": "segmenter only",
    "detector-box": "detector only",
    "manual": "drawn by hand",
}


@dataclass(frozen=True)
class ReportNodule(Nodule):
    """A finding with what a reader did to it.

    Attributes:
        name: as shown; empty for "Nodule" and the number.
        kept: false for what the reader rejected.
        history: what was done, oldest first: mappings with `action`, `by` and `time`. The first action is "found",
            "added" (the model where the reader pointed) or "drawn"; "restored" takes back what came before it.
        tracking_uid: what follows the finding through DICOM objects; None where none was given yet.
    """

    name: str = ""
    kept: bool = True
    history: tuple[Mapping[str, Any], ...] = ()
    tracking_uid: str | None = None

    @property
    def label(self) -> str:
        """The name to show."""
        return self.name or segment_name(self.number)

    @property
    def actions(self) -> list[str]:
        """What was done to the voxels as they are now."""
        first = self.history[0]["action"] if self.history else "found"
        return [first, *changes(self.history)]

    @property
    def algorithm_type(self) -> str:
        """Segment Algorithm Type (0062,0008): AUTOMATIC, SEMIAUTOMATIC or MANUAL."""
        if self.actions[0] == "drawn":
            return "MANUAL"
        return "AUTOMATIC" if self.actions == ["found"] else "SEMIAUTOMATIC"

    @property
    def origin(self) -> str:
        """Say who or what made the finding."""
        first = {"drawn": "drawn by hand", "added": "model, place shown by the reader"}
        first = first.get(self.actions[0], PROVENANCE.get(self.provenance, self.provenance))
        return ", ".join([first, *(f"{action} by the reader" for action in self.actions[1:])])


@dataclass(frozen=True, eq=False)
class ReportCase:
    """One CT's findings for a report.

    Attributes:
        nodules: the kept findings, best first; those drawn by hand, which have no score, last.
        labels: (z, y, x) unsigned integer on `grid`, value = number; 0 also where a finding was rejected.
        heterogeneity: (z, y, x) float32 on `grid`.
        grid: the result's grid.
        report: report.json without its findings.
        volume: the CT on the same grid; None where it is not at hand.
        rejected: how many findings were left out by the reader.
    """

    nodules: list[ReportNodule]
    labels: np.ndarray
    heterogeneity: np.ndarray
    grid: Grid
    report: dict[str, Any]
    volume: Volume | None = None
    rejected: int = 0

    @property
    def score_scale(self) -> str:
        """What the scores mean: `score_scale.PROBABILITY` or `score_scale.MODEL`."""
        return scale_of(self.report)

    @property
    def original(self) -> OriginalCT:
        """What the result tells of the CT that it was made of."""
        measured = {nodule.number: nodule.measurement.mean_hu for nodule in self.nodules if nodule.measurement}
        return OriginalCT.of(self.report.get("input") or {}, self.grid, self.labels, measured)

    def on(self, series: OriginalSeries) -> "ReportCase":
        """Return the same case on the original slices, its CT left out.

        Raises:
            InputError: the result does not lie on them.
        """
        arrays = (onto_slices(array, self.grid, series) for array in (self.labels, self.heterogeneity))
        labels, heterogeneity = map(np.ascontiguousarray, arrays)
        return replace(self, labels=labels, heterogeneity=heterogeneity, grid=series.grid, volume=None)

    def with_volume(self, volume: Volume) -> "ReportCase":
        """Return the case with its CT.

        Raises:
            InputError: it is another CT.
        """
        self.original.require(volume)
        return replace(self, volume=volume)


def read_case(folder: Path) -> ReportCase:
    """Read a result folder of `lnhg segment`, without the CT.

    Raises:
        InputError: the folder is no such result, or a kept finding is not in its label map.
    """
    file = folder / "report.json"
    if not file.exists():
        raise InputError(f"{folder} holds no report.json, expected a result folder of lnhg segment; give that folder.")
    with explain_damage(file, "segment the CT again"):
        report = read_json(file)
        rows = [ReportNodule.from_row(row) for row in list(report.pop("nodules"))]
        kept = sorted(
            (row for row in rows if row.kept), key=lambda row: -1.0 if row.score is None else row.score, reverse=True
        )
    if (folder / CROPS).exists():
        with explain_damage(folder / CROPS, "make the report again"):
            labels, heterogeneity, grid = _read_crops(folder / CROPS)
    else:
        labels, grid = _read_image(folder, "labelmap")
        heterogeneity, other = _read_image(folder, "heterogeneity")
        if not other.matches(grid):
            raise InputError(
                f"{folder} has a label map and a heterogeneity map of different grids; segment the CT again."
            )
    numbers = np.array([nodule.number for nodule in kept], int)
    for nodule in kept:
        if nodule.measurement is not None and not (labels == nodule.number).any():
            raise InputError(
                f"{folder} has no voxels of nodule {nodule.number} in its label map; segment the CT again."
            )
    labels = np.where(np.isin(labels, numbers), labels, 0).astype(np.uint16)
    return ReportCase(kept, labels, heterogeneity.astype(np.float32), grid, report, rejected=len(rows) - len(kept))


def write_crops(path: Path, crops: Mapping[int, Crop], grid: Grid) -> None:
    """Write findings by their voxels alone, in the place of a label map and a heterogeneity map.

    Args:
        path: file to write, named `CROPS` in its folder.
        crops: by number: box (slices z, y, x), bool mask and float32 signal of the box's shape.
        grid: of the whole CT.
    """
    arrays = {"shape": np.array(grid.shape), "affine": grid.affine}
    for number, (box, mask, signal) in crops.items():
        spans = np.array([[part.start, part.stop] for part in box])
        arrays |= {f"box {number}": spans, f"mask {number}": mask, f"signal {number}": signal.astype(np.float32)}
    np.savez(path, **arrays)


def _read_crops(path: Path) -> tuple[np.ndarray, np.ndarray, Grid]:
    """Return label map, heterogeneity map and grid from what `write_crops` wrote."""
    with np.load(path, allow_pickle=False) as file:
        grid = Grid(tuple(file["shape"]), file["affine"])
        labels, heterogeneity = np.zeros(grid.shape, np.uint16), np.zeros(grid.shape, np.float32)
        for name in (name for name in file.files if name.startswith("mask ")):
            number, mask = int(name[5:]), file[name]
            box = tuple(slice(*span) for span in file[f"box {number}"])
            there = labels[box][mask]
            if there.any():
                raise InputError(
                    f"Nodule {number} shares {np.count_nonzero(there)} voxels with nodule {there.max()}, expected each "
                    "voxel to be of one nodule; part them in the Segment Editor or merge them."
                )
            labels[box][mask] = number
            heterogeneity[box][mask] = file[f"signal {number}"][mask]
    return labels, heterogeneity, grid


def _read_image(folder: Path, name: str) -> tuple[np.ndarray, Grid]:
    path = folder / f"{name}.nii.gz"
    if not path.exists():
        raise InputError(
            f"{folder} holds no {name}.nii.gz, expected a result folder of lnhg segment; give that folder."
        )
    return from_sitk(single_file.read_image(path))
