"""A blinded reader study of the scene's kept findings, made by one click.

The voxels of each finding and the CT around it are handed over as they are at the moment of the click; the core makes
pictures, viewers and key of them in a child process.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import slicer
from LNHGLib.image.boxes import box_shape, box_within, grow_box
from slicer.i18n import tr as _

from LNHGSegmentationLib.Core.CoreTask import CoreTask, TaskOutcome
from LNHGSegmentationLib.Core.ReportTask import dicomFiles
from LNHGSegmentationLib.Findings.Findings import Findings
from LNHGSegmentationLib.Scene import Geometry, SceneResults
from LNHGSegmentationLib.Scene.SegmentVoxels import Crop

AROUND_MM = 50.0  # CT taken along with a nodule: the corner of the field shown, however the volume lies
AROUND_FRACTION = 0.5  # of the nodule's size, if that is more


@dataclass(frozen=True)
class StudyRequest:
    """What to make.

    Attributes:
        target: The study's folder, which must not exist.
        readers: How many, or their names with commas between them.
        layout: "slice", "strip" or "stack".
        dicom: Whether to write DICOM Secondary Capture as well.
        force: Whether to take a CT that says its pictures may hold the patient's name.
    """

    target: Path
    readers: str = "3"
    layout: str = "slice"
    dicom: bool = False
    force: bool = False

    def check(self) -> None:
        """Refuse wrong options before anything is handed over.

        Raises:
            ValueError: They are wrong, or the folder exists.
        """
        from LNHGLib.reader_study import design, export, images  # here, as it would slow down Slicer's start

        export.require_new(self.target)
        images.RenderStyle(self.layout)
        design.parse_readers(self.readers)


@dataclass(frozen=True, eq=False)
class OriginalVoxels:
    """What the voxels of a CT must be: those that its findings were made on.

    Attributes:
        name: Of the CT.
        array: Its voxels (z, y, x), not copied.
        grids: Where it lies, with and without its transform.
        sha256: Of the CT that was segmented, see `fingerprint`.
    """

    name: str
    array: np.ndarray
    grids: tuple
    sha256: str

    @classmethod
    def of(cls, segmentation: slicer.vtkMRMLSegmentationNode) -> "OriginalVoxels | None":
        """Return those of a result; None where it does not tell, or was made on resampled voxels."""
        volumeNode, sha256 = SceneResults.volumeOf(segmentation), SceneResults.runOf(segmentation).get("voxels_sha256")
        parent, own = volumeNode.GetParentTransformNode(), Geometry.ijkToRAS(volumeNode)
        if not sha256 or not Geometry.isLinear(parent):
            return None
        inWorld, shape = Geometry.linearToWorld(parent) @ own, Geometry.shapeOf(volumeNode)
        if not Geometry.hasPerpendicularAxes(inWorld):
            return None
        grids = tuple(Geometry.gridOf(matrix, shape) for matrix in (own, inWorld))
        return cls(volumeNode.GetName(), slicer.util.arrayFromVolume(volumeNode), grids, sha256)

    def require(self) -> None:
        """Refuse another CT; reads all voxels.

        Raises:
            ValueError: It is another one.
        """
        from LNHGLib.image.fingerprint import voxels_sha256
        from LNHGLib.image.volume import Source, Volume

        if all(voxels_sha256(Volume(self.array, grid, Source(""))) != self.sha256 for grid in self.grids):
            text = _(
                "the voxels of {name} are not those of the CT that its findings were made on; load that CT, or segment "
                "this one again."
            )
            raise ValueError(text.format(name=self.name))


class StudyTask(CoreTask):
    """A reader study that is written; its result is a sentence that says where."""

    STOP_GRACE_S = 2.0  # the core removes what it has begun beside the target

    def __init__(
        self,
        request: StudyRequest,
        onEnded: Callable[[TaskOutcome], None],
        python: str | None = None,
        launcher: Callable | None = None,
    ) -> None:
        """Copy the voxels of the kept findings.

        Args:
            request: What to make.
            onEnded: Called once at the end, unless the task is stopped.
            python: Python interpreter for the core; by default PythonSlicer.
            launcher: Stands in for ``slicer.util.launchConsoleProcess``.

        Raises:
            ValueError: There is no finding to make a study of, or the request is wrong.
            RuntimeError: PythonSlicer is not found.
        """
        request.check()
        self._request, self._cases, self._originals = request, [], []
        for segmentation in SceneResults.results():
            volumeNode = SceneResults.volumeOf(segmentation)
            if SceneResults.latestOf(volumeNode) is not segmentation:
                continue
            findings = Findings(segmentation)
            crops = {row["number"]: findings.crop(row["number"]) for row in findings.reported()}
            crops = {number: crop for number, crop in crops.items() if crop is not None}
            self._originals += [OriginalVoxels.of(segmentation)] if crops else []
            files = [Path(file) for file in dicomFiles(volumeNode)] if crops and not request.force else []
            for number, crop in crops.items():
                self._cases.append((volumeNode.GetName(), number, _subject(segmentation, crop), files))
        if not self._cases:
            raise ValueError(
                _("No finding with an outline is kept in this scene: segment the nodules of one CT or more first.")
            )
        super().__init__(onEnded, python=python, launcher=launcher)

    def begin(self) -> None:
        """Start; returns at once."""
        request, options = self._request, ("--dicom", "--force-burned-in")
        flags = [option for option, on in zip(options, (request.dicom, request.force), strict=True) if on]
        choices = [f"--readers={request.readers}", f"--layout={request.layout}", "--json", *flags]
        self.start(["reader-study", "export", str(self.folder / "cases"), str(request.target), *choices])

    def whyNotStarted(self, error: Exception) -> str:
        """Return what the user is told where the child cannot be started."""
        return _("The study cannot be made: {reason}").format(reason=error)

    def handOver(self) -> None:
        """Write the cases, once each CT is known to be that of its findings."""
        from LNHGLib.reader_study.cases import write_scene_case

        for original in filter(None, self._originals):
            original.require()
        (self.folder / "cases").mkdir()
        for index, case in enumerate(self._cases):
            write_scene_case(self.folder / "cases" / f"case-{index:05d}.npz", *case)

    def read(self, status: int, lastLine: str) -> str:
        """Return what was made.

        Args:
            status: Exit status of the child.
            lastLine: Its last line that was not progress.

        Raises:
            RuntimeError: The study was not made.
        """
        from LNHGLib.files.text import read_csv
        from LNHGLib.reader_study import blinding_key

        if status != 0:
            reason = lastLine or _("the process was ended from outside (status {status}).").format(status=status)
            raise RuntimeError(_("The study cannot be made: {reason}").format(reason=reason))
        target = self._request.target
        cases = json.loads((target / blinding_key.STUDY_FILE).read_text(encoding="utf-8"))["cases"]
        reads = len(read_csv(target / blinding_key.KEY_FOLDER / "reads.csv"))
        text = _("{cases} cases, {reads} reads in {folder}. Keep its folder sealed apart from all readers.")
        return text.format(cases=cases, reads=reads, folder=target)


def _subject(segmentation: slicer.vtkMRMLSegmentationNode, crop: Crop):
    """Return a finding with the CT around it, its voxels copied, as the core's `NoduleVoxels`."""
    from LNHGLib.image.volume import Source, Volume
    from LNHGLib.reader_study.images import NoduleVoxels

    volumeNode, heterogeneity = SceneResults.volumeOf(segmentation), SceneResults.heterogeneityOf(segmentation)
    spacing = volumeNode.GetSpacing()[::-1]
    size_mm = max(size * mm for size, mm in zip(box_shape(crop.box), spacing, strict=True))
    margins = [int(np.ceil(max(AROUND_MM, AROUND_FRACTION * size_mm) / mm)) for mm in spacing]
    box = grow_box(crop.box, margins, Geometry.shapeOf(volumeNode))
    hu = slicer.util.arrayFromVolume(volumeNode)[box].copy()
    mask, signal = np.zeros(hu.shape, bool), np.zeros(hu.shape, np.float32)
    inner = box_within(crop.box, box)
    mask[inner] = crop.array
    if heterogeneity is not None:
        signal[inner] = np.nan_to_num(slicer.util.arrayFromVolume(heterogeneity)[crop.box])
    return NoduleVoxels(Volume(hu, Geometry.gridAt(volumeNode, box), Source("")), mask, signal)
