"""A blinded reader study of the scene's kept findings, made by one click; the core draws and writes in a thread."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import slicer
from slicer.i18n import tr as _

from LNHGSegmentationLib.Core.ReportTask import dicomFiles
from LNHGSegmentationLib.Core.Worker import Worker
from LNHGSegmentationLib.Findings.Findings import Findings
from LNHGSegmentationLib.Scene import Geometry, SceneResults
from LNHGSegmentationLib.Scene.SegmentVoxels import Crop

AROUND_MM = 50.0  # CT taken along with a nodule: the corner of the field shown, however the volume lies
AROUND_FRACTION = 0.5  # of the nodule's size, if that is more
WAIT_AT_STOP_S = 2.0


@dataclass(frozen=True)
class StudyRequest:
    """What to make.

    :ivar target: the study's folder, which must not exist.
    :ivar readers: how many, or their names with commas between them.
    :ivar layout: "slice", "strip" or "stack".
    :ivar dicom: whether to write DICOM Secondary Capture as well.
    :ivar force: whether to take a CT that says its pictures may hold the patient's name.
    """

    target: Path
    readers: str = "3"
    layout: str = "slice"
    dicom: bool = False
    force: bool = False

    def options(self):
        """Return the core's options.

        :raises ValueError: if they are wrong, or the folder exists.
        """
        from LNHGLib.reader_study import design, export, images  # here, as it would slow down Slicer's start

        export.check_target(self.target)
        look = images.Look(self.layout)
        return export.Options(design.readers_of(self.readers), look=look, dicom=self.dicom, forced=self.force)


class StudyTask:
    """Writes one reader study at a time."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._cancelled = threading.Event()

    @property
    def isWriting(self) -> bool:
        """Whether a study is being written."""
        return self._worker is not None

    def whyNot(self) -> str:
        """Return why no study can be made now, or an empty string."""
        if self.isWriting:
            return _("A reader study is being written: wait for its end.")
        if not any(_numbers(segmentation) for segmentation in _results()):
            return _("No finding with an outline is kept in this scene: segment the nodules of one CT or more first.")
        return ""

    def start(self, request: StudyRequest, onEnded: Callable[[str, str], None]) -> None:
        """Start writing; returns as soon as the voxels are copied.

        :param onEnded: called once with "done" or "failed" and one sentence for the user, unless it is stopped.
        :raises ValueError: if no study can be made now, or not this one.
        """
        from LNHGLib.reader_study import export

        reason = self.whyNot()
        if reason:
            raise ValueError(reason)
        options = request.options()
        entries = [entry for segmentation in _results() for entry in _entries(segmentation, request.force)]
        self._cancelled = cancelled = threading.Event()

        def ended(outcome, error: Exception | None) -> None:
            if cancelled.is_set():  # another study may be under way already
                return
            self._worker = None
            if error is not None:
                onEnded("failed", _("The study cannot be made: {reason}").format(reason=error))
                return
            text = _("{cases} cases, {reads} reads in {folder}. Keep its folder sealed apart from all readers.")
            onEnded("done", text.format(cases=outcome.cases, reads=outcome.reads, folder=request.target))

        self._worker = Worker(
            lambda: export.export(entries, request.target, options, cancelled=cancelled.is_set), ended
        )

    def stop(self) -> None:
        """End at once, silently: the scene closes, or the module is reloaded or unloaded."""
        self._cancelled.set()
        if self._worker is not None:
            self._worker.wait(WAIT_AT_STOP_S)
            self._worker = None


def _results() -> list[slicer.vtkMRMLSegmentationNode]:
    """Return the newest result of each CT in the scene."""
    return [node for node in SceneResults.results() if SceneResults.latestOf(SceneResults.volumeOf(node)) is node]


def _numbers(segmentation: slicer.vtkMRMLSegmentationNode) -> list[int]:
    findings = Findings(segmentation)
    return [row["number"] for row in findings.reported() if findings.crop(row["number"]) is not None]


def _entries(segmentation: slicer.vtkMRMLSegmentationNode, force: bool) -> list:
    """Return the kept findings of a result as cases of a study, their voxels copied."""
    from LNHGLib.reader_study.cases import Entry, require_clean

    volumeNode, findings = SceneResults.volumeOf(segmentation), Findings(segmentation)
    files = [] if force else [Path(file) for file in dicomFiles(volumeNode)]

    def loader(subject) -> Callable:
        def load():
            if files:
                require_clean(files[0].parent, files=files)
            return subject

        return load

    return [
        Entry(volumeNode.GetName(), number, loader(_subject(segmentation, findings.crop(number))))
        for number in _numbers(segmentation)
    ]


def _subject(segmentation: slicer.vtkMRMLSegmentationNode, crop: Crop):
    """Return a finding with the CT around it."""
    from LNHGLib.image.volume import Source, Volume
    from LNHGLib.reader_study.images import Subject

    volumeNode, heterogeneity = SceneResults.volumeOf(segmentation), SceneResults.heterogeneityOf(segmentation)
    box = _around(crop.box, volumeNode)
    hu = np.array(slicer.util.arrayFromVolume(volumeNode)[box], np.float32)
    mask, signal = np.zeros(hu.shape, bool), np.zeros(hu.shape, np.float32)
    inner = Geometry.within(crop.box, box)
    mask[inner] = crop.array
    if heterogeneity is not None:
        signal[inner] = np.nan_to_num(slicer.util.arrayFromVolume(heterogeneity)[crop.box])
    return Subject(Volume(hu, Geometry.gridAt(volumeNode, box), Source("")), mask, signal)


def _around(box: Geometry.Box, volumeNode) -> Geometry.Box:
    spacing = volumeNode.GetSpacing()[::-1]
    size_mm = max(size * mm for size, mm in zip(Geometry.sizeOf(box), spacing, strict=True))
    margins = [int(np.ceil(max(AROUND_MM, AROUND_FRACTION * size_mm) / mm)) for mm in spacing]
    return Geometry.grown(box, margins, Geometry.shapeOf(volumeNode))
