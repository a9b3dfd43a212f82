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
from slicer.i18n import tr as _

from LNHGSegmentationLib.Core.ChildProcess import ChildProcess
from LNHGSegmentationLib.Core.SegmentationLogic import pythonSlicer
from LNHGSegmentationLib.Core.Worker import Worker
from LNHGSegmentationLib.Findings.Findings import Findings
from LNHGSegmentationLib.Paths import MODULE_FOLDER
from LNHGSegmentationLib.Scene import Geometry, SceneResults
from LNHGSegmentationLib.Scene.VolumeExchange import VolumeExchange

CSV, DICOM, PAGE = KINDS = "csv", "dicom", "page"
INSTANCES_ATTRIBUTE = "DICOM.instanceUIDs"
WAIT_AT_STOP_S = 2.0


@dataclass(frozen=True)
class ReportRequest:
    """What to write.

    :ivar kind: one of ``KINDS``.
    :ivar target: the file; for DICOM the folder that gets both files.
    :ivar case: name of the case on the page.
    :ivar identity: whether the page names the patient of the DICOM series.
    :ivar shading: colors of the page's maps: ``color_map``, ``scale`` and ``signal_range``.
    """

    kind: str
    target: Path
    case: str = ""
    identity: bool = False
    shading: dict = field(default_factory=dict)

    def arguments(self, result: Path, out: Path) -> list[str]:
        """Return the core's arguments."""
        form = ["--page", "png" if self.target.suffix.lower() == ".png" else "pdf"]
        return [
            *("report", str(result), str(out), "--json", "--only", self.kind),
            *(form if self.kind == PAGE else []),
            *(["--case", self.case] if self.case else []),
            *(["--identity"] if self.identity and self.kind == PAGE else []),
        ]


class ReportTask:
    """Writes one report at a time."""

    def __init__(self, launcher: Callable | None = None, python: str | None = None) -> None:
        """Make a logic.

        :param launcher: stands in for ``slicer.util.launchConsoleProcess``.
        :param python: Python interpreter for the child process; by default PythonSlicer.
        """
        self._launcher, self._python = launcher, python
        self._writing: _Writing | None = None

    @property
    def isWriting(self) -> bool:
        """Whether a report is being written."""
        return self._writing is not None

    def whyNot(self, kind: str, segmentation: slicer.vtkMRMLSegmentationNode | None) -> str:
        """Return why a kind of report cannot be written now, or an empty string."""
        volumeNode = SceneResults.volumeOf(segmentation)
        if self.isWriting:
            return _("A report is being written: wait for its end.")
        if segmentation is None:
            return _("There are no findings yet: segment the nodules first.")
        if volumeNode is None or volumeNode.GetImageData() is None:
            return _("The CT of these findings is not in the scene: load it.")
        if not Findings(segmentation).reported():
            return _("No finding is kept at this sensitivity: there is nothing to report.")
        if kind == DICOM:
            return whyNoDicom(volumeNode)
        return "" if kind == CSV else _whyNoPictures(volumeNode)

    def start(self, segmentation, request: ReportRequest, onEnded: Callable[[str, str], None]) -> None:
        """Start writing; returns at once.

        :param onEnded: called once with "done" or "failed" and one sentence for the user, unless it is stopped.
        :raises ValueError: if this kind cannot be written now.
        :raises RuntimeError: if PythonSlicer is not found.
        """
        reason = self.whyNot(request.kind, segmentation)
        if reason:
            raise ValueError(reason)

        def ended(state: str, text: str) -> None:
            self._writing = None
            onEnded(state, text)

        writing = _Writing(segmentation, request, ended)
        self._writing = writing
        try:
            writing.start(self._python or pythonSlicer(), self._launcher)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End at once, silently: the scene closes, or the module is reloaded or unloaded."""
        if self._writing is not None:
            self._writing.stop()
            self._writing = None


class _Writing:
    """One report on its way; use a new object for each."""

    def __init__(self, segmentation, request: ReportRequest, onEnded: Callable[[str, str], None]) -> None:
        self._request, self._onEnded = request, onEnded
        self._volumeNode = SceneResults.volumeOf(segmentation)
        findings = Findings(segmentation)
        self._rows = findings.reported()
        self._crops = _crops(findings, self._rows)
        self._grid = Geometry.gridAt(self._volumeNode, Geometry.wholeOf(self._volumeNode))
        self._exchange = VolumeExchange(self._volumeNode) if request.kind == PAGE else None
        self._run = SceneResults.runOf(segmentation)
        self._threshold = findings.threshold
        self._files = dicomFiles(self._volumeNode) if request.kind == DICOM or request.identity else []
        self._child: ChildProcess | None = None
        self._worker: Worker | None = None
        self._stopped = False
        from LNHGLib.files import atomic  # here, as Slicer's start needs nothing of the core

        self._folder = atomic.task_folder()

    def start(self, python: str, launcher: Callable | None) -> None:
        result, out = self._folder / "result", self._folder / "out"
        command = [python, "-m", "LNHGLib", *self._request.arguments(result, out)]

        def launch(_result: object, error: Exception | None) -> None:
            try:
                if error is not None:
                    raise error
                if self._stopped:
                    shutil.rmtree(self._folder, ignore_errors=True)  # once more: the CT was still being written
                    return
                self._child = ChildProcess(lambda *_: None, self._onChildEnded, self._folder / "cancel", launcher)
                self._child.start(command, cwd=MODULE_FOLDER)
            except Exception as problem:
                self._end("failed", _("The report cannot be written: {reason}").format(reason=problem))

        self._worker = Worker(lambda: self._handOver(result), launch)

    def stop(self) -> None:
        self._stopped = True
        self._onEnded = lambda *_: None
        if self._child is not None:
            self._child.kill()
        if self._worker is not None:
            self._worker.wait(WAIT_AT_STOP_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _handOver(self, result: Path) -> None:
        """Write what the core reads; runs in a thread and touches no scene."""
        from LNHGLib.report import case as report_case  # here, as it would slow down Slicer's start

        result.mkdir()
        report_case.write_crops(result / report_case.CROPS, self._crops, self._grid)
        source = {"path": "", "series_uid": None, "files": self._files}
        if self._exchange is not None:
            source["path"] = str(self._folder / "ct.nrrd")
            self._exchange.write(self._folder / "ct.nrrd")
        report = {
            "schema": 1,
            "versions": {"lnhg": self._run.get("version") or _coreVersion()},
            "model": {"name": self._run.get("model", ""), "sha256": self._run.get("sha256", {})},
            "options": {"threshold": self._threshold},
            "input": source,
            "preview": self._request.shading,
            "nodules": self._rows,
        }
        (result / "report.json").write_text(json.dumps(report), encoding="utf-8")

    def _onChildEnded(self, status: int, lastLine: str) -> None:
        if status != 0:
            self._end(
                "failed", lastLine or _("Writing was ended from outside (status {status}).").format(status=status)
            )
            return
        try:
            written = self._bringHome(self._folder / "out")
        except OSError as error:
            self._end("failed", _("The report cannot be written: {error}").format(error=error))
        else:
            note = f" {lastLine.removeprefix('note: ')}" if lastLine else ""
            self._end("done", _("Written: {files}.").format(files=", ".join(map(str, written))) + note)

    def _bringHome(self, out: Path) -> list[Path]:
        """Move the files to where the user wants them: each appears whole, under its own name, or not at all."""
        moves = {file: self._home(file, index) for index, file in enumerate(sorted(out.iterdir()))}
        waiting = {}
        try:
            for file, target in moves.items():
                waiting[target] = target.with_name(f".{target.name}.part")
                shutil.move(file, waiting[target])
            for target, part in waiting.items():
                part.replace(target)
        finally:
            for part in waiting.values():
                part.unlink(missing_ok=True)
        return list(moves.values())

    def _home(self, file: Path, index: int) -> Path:
        target = self._request.target
        if self._request.kind == DICOM:
            return target / f"{fileName(self._volumeNode)}_{file.stem.rpartition('_')[2]}.dcm"
        return target if index == 0 else target.with_stem(f"{target.stem}-{index + 1}")

    def _end(self, state: str, text: str) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._onEnded(state, text)


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

    :raises ValueError: if one is not there any more.
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


def _whyNoPictures(volumeNode) -> str:
    parent = volumeNode.GetParentTransformNode()
    straight = Geometry.isLinear(parent)
    if not (straight and Geometry.hasPerpendicularAxes(Geometry.linearToWorld(parent) @ Geometry.ijkToRAS(volumeNode))):
        return _("The CT lies under a transform that bends or shears it: harden the transform and segment again.")
    return ""


def _crops(findings: Findings, rows: list[dict]) -> dict[int, tuple]:
    """Return box, mask and signal of each finding that has voxels, by number."""
    heterogeneity = SceneResults.heterogeneityOf(findings.segmentation)
    signal = None if heterogeneity is None else slicer.util.arrayFromVolume(heterogeneity)
    crops = {}
    for row in rows:
        crop = findings.crop(row["number"])
        if crop is not None:
            inside = np.zeros(crop.array.shape, np.float32) if signal is None else np.nan_to_num(signal[crop.box])
            crops[row["number"]] = (crop.box, crop.array, inside)
    return crops


def _coreVersion() -> str:
    from LNHGLib import __version__

    return __version__
