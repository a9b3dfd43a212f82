"""The kept findings of a result as files: table, report page, DICOM SEG and SR, written by the core in a child process.

What is handed over comes from the scene at the moment of the click: the rows, the voxels of each finding, the signal in
them, and the CT for the pictures. Rejected findings and those below the threshold are not handed over at all.
"""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import slicer
from LNHGLib import __version__
from LNHGLib.measurement.score_scale import scale_of
from slicer.i18n import tr as _

from LNHGSegmentationLib.Core.CoreTask import CoreTask, TaskOutcome
from LNHGSegmentationLib.Findings.Findings import Findings
from LNHGSegmentationLib.Scene import Geometry, SceneResults
from LNHGSegmentationLib.Scene.VolumeExchange import VolumeExchange

CSV, DICOM, PAGE = "csv", "dicom", "page"
INSTANCES_ATTRIBUTE = "DICOM.instanceUIDs"


@dataclass(frozen=True)
class ReportRequest:
    """What to write.

    Attributes:
        kind: `CSV`, `DICOM` or `PAGE`.
        target: The file; for DICOM the folder that gets both files.
        case: Name of the case on the page.
        identity: Whether the page names the patient of the DICOM series.
        shading: Colors of the page's maps: ``color_map``, ``scale`` and ``signal_range``.
    """

    kind: str
    target: Path
    case: str = ""
    identity: bool = False
    shading: dict = field(default_factory=dict)


class ReportTask(CoreTask):
    """A report that is written; its result is a sentence that says where."""

    def __init__(
        self,
        segmentation: slicer.vtkMRMLSegmentationNode,
        request: ReportRequest,
        onEnded: Callable[[TaskOutcome], None],
        python: str | None = None,
        launcher: Callable | None = None,
    ) -> None:
        """Copy what the report needs from the scene.

        Args:
            segmentation: The findings.
            request: What to write.
            onEnded: Called once at the end, unless the task is stopped.
            python: Python interpreter for the core; by default PythonSlicer.
            launcher: Stands in for ``slicer.util.launchConsoleProcess``.

        Raises:
            ValueError: This kind cannot be written now.
            RuntimeError: PythonSlicer is not found.
        """
        reason = whyNoReport(request.kind, segmentation)
        if reason:
            raise ValueError(reason)
        volumeNode, findings = SceneResults.volumeOf(segmentation), Findings(segmentation)
        heterogeneity = SceneResults.heterogeneityOf(segmentation)
        signal = None if heterogeneity is None else slicer.util.arrayFromVolume(heterogeneity)
        rows, self._crops = findings.reported(), {}
        for row in rows:
            crop = findings.crop(row["number"])
            if crop is not None:
                inside = np.zeros(crop.array.shape, np.float32) if signal is None else np.nan_to_num(signal[crop.box])
                self._crops[row["number"]] = (crop.box, crop.array, inside)
        self._request, self._name = request, fileName(volumeNode)
        self._grid = Geometry.gridAt(volumeNode, Geometry.wholeOf(volumeNode))
        self._exchange = VolumeExchange(volumeNode) if request.kind == PAGE else None
        files = dicomFiles(volumeNode) if request.kind == DICOM or request.identity else []
        run = SceneResults.runOf(segmentation)
        self._report = {
            "schema": 1,
            "versions": {"lnhg": run.get("version") or __version__},
            "model": {"name": run.get("model", ""), "sha256": run.get("sha256", {})},
            "score_scale": scale_of(run),
            "options": {"threshold": findings.threshold},
            "input": {"path": "", "series_uid": None, "voxels_sha256": run.get("voxels_sha256"), "files": files},
            "preview": request.shading,
            "nodules": rows,
        }
        super().__init__(onEnded, python=python, launcher=launcher)

    def begin(self) -> None:
        """Start; returns at once."""
        request, options = self._request, []
        if request.kind == PAGE:
            options += ["--page", "png" if request.target.suffix.lower() == ".png" else "pdf"]
            options += ["--identity"] if request.identity else []
        if request.case:
            options += ["--case", request.case]
        folders = [str(self.folder / "result"), str(self.folder / "out")]
        self.start(["report", *folders, "--json", "--only", request.kind, *options])

    def whyNotStarted(self, error: Exception) -> str:
        """Return what the user is told where the child cannot be started."""
        return _("The report cannot be written: {reason}").format(reason=error)

    def handOver(self) -> None:
        """Write what the core reads in the place of a result folder."""
        from LNHGLib.report import case as report_case  # here, as it would slow down Slicer's start

        result = self.folder / "result"
        result.mkdir()
        report_case.write_crops(result / report_case.CROPS, self._crops, self._grid)
        if self._exchange is not None:
            self._report["input"]["path"] = str(self.folder / "ct.nrrd")
            self._exchange.write(self.folder / "ct.nrrd")
        (result / "report.json").write_text(json.dumps(self._report), encoding="utf-8")

    def read(self, status: int, lastLine: str) -> str:
        """Move the files to where the user wants them: each appears whole, under its own name, or not at all.

        Args:
            status: Exit status of the child.
            lastLine: Its last line that was not progress.

        Raises:
            RuntimeError: The report was not written.
        """
        super().read(status, lastLine or _("Writing was ended from outside (status {status}).").format(status=status))
        target, moves, parts = self._request.target, {}, {}
        for index, file in enumerate(sorted((self.folder / "out").iterdir())):
            if self._request.kind == DICOM:
                moves[file] = target / f"{self._name}_{file.stem.rpartition('_')[2]}.dcm"
            else:
                moves[file] = target if index == 0 else target.with_stem(f"{target.stem}-{index + 1}")
        try:
            for file, home in moves.items():
                parts[home] = home.with_name(f".{home.name}.part")
                shutil.move(file, parts[home])
            for home, part in parts.items():
                part.replace(home)
        except OSError as error:
            raise RuntimeError(_("The report cannot be written: {error}").format(error=error)) from error
        finally:
            for part in parts.values():
                part.unlink(missing_ok=True)
        note = f" {lastLine.removeprefix('note: ')}" if lastLine else ""
        return _("Written: {files}.").format(files=", ".join(map(str, moves.values()))) + note


def whyNoReport(kind: str, segmentation: slicer.vtkMRMLSegmentationNode | None) -> str:
    """Return why a kind of report cannot be written now, or an empty string.

    Args:
        kind: `CSV`, `DICOM` or `PAGE`.
        segmentation: The findings, None where there are none.
    """
    volumeNode = SceneResults.volumeOf(segmentation)
    if segmentation is None:
        return _("There are no findings yet: segment the nodules first.")
    if volumeNode is None or volumeNode.GetImageData() is None:
        return _("The CT of these findings is not in the scene: load it.")
    if not Findings(segmentation).reported():
        return _("No finding is kept at this sensitivity: there is nothing to report.")
    if kind == DICOM:
        return whyNoDicom(volumeNode)
    parent = volumeNode.GetParentTransformNode()
    straight = Geometry.isLinear(parent)
    if kind == PAGE and not (
        straight and Geometry.hasPerpendicularAxes(Geometry.linearToWorld(parent) @ Geometry.ijkToRAS(volumeNode))
    ):
        return _("The CT lies under a transform that bends or shears it: harden the transform and segment again.")
    return ""


def whyNoDicom(volumeNode: slicer.vtkMRMLScalarVolumeNode) -> str:
    """Return why the CT's DICOM series cannot be referred to, or an empty string."""
    uids = (volumeNode.GetAttribute(INSTANCES_ATTRIBUTE) or "").split()
    if not uids:
        return _("The CT was not loaded from DICOM, so there is no series to refer to: load it with the DICOM module.")
    if volumeNode.GetParentTransformNode() is not None:
        return _("The CT lies under a transform, so it is not where its DICOM series is: take the transform off.")
    if not all(_fileOf(uid) for uid in (uids[0], uids[-1])):
        return _("The CT's files are not in Slicer's DICOM database any more: import the series again.")
    return ""


def dicomFiles(volumeNode: slicer.vtkMRMLScalarVolumeNode) -> list[str]:
    """Return the files that a CT was loaded from.

    Raises:
        ValueError: One is not there any more.
    """
    uids = (volumeNode.GetAttribute(INSTANCES_ATTRIBUTE) or "").split()
    files = [_fileOf(uid) for uid in uids]
    missing = files.count("")
    if missing:
        text = _("{missing} of {all} files of the CT are not in Slicer's DICOM database any more: import it again.")
        raise ValueError(text.format(missing=missing, all=len(files)))
    return files


def fileName(volumeNode: slicer.vtkMRMLScalarVolumeNode) -> str:
    """Return the CT's name as part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", volumeNode.GetName() or "").strip("._") or "CT"


def _fileOf(uid: str) -> str:
    database = getattr(slicer, "dicomDatabase", None)
    file = database.fileForInstance(uid) if database is not None else ""
    return file if file and Path(file).exists() else ""
