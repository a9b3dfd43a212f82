"""A nodule that the model missed, outlined by its segmenter at a place that the reader shows."""

import json
from collections.abc import Callable

import numpy as np
import slicer
from LNHGLib.image.boxes import box_between, box_start, grow_box, shift_box, whole_box

from LNHGSegmentationLib.Core.CoreTask import CoreTask, TaskOutcome
from LNHGSegmentationLib.Scene import SegmentVoxels
from LNHGSegmentationLib.Scene.Geometry import RAS_TO_LPS, gridOf, ijkToRAS, shapeOf, worldToIndex
from LNHGSegmentationLib.Scene.SegmentVoxels import Crop

ROOM_MM = 60.0  # the core looks at a cube of 80 mm; beyond it lies what the network's field of view needs


class PointPrompt(CoreTask):
    """One search at a place. Its result is the nodule's `Crop` and its row with the key "signal", a crop, more.

    A part of the CT goes out in its own frame.
    """

    def __init__(
        self,
        volumeNode: slicer.vtkMRMLScalarVolumeNode,
        positionRAS: np.ndarray,
        onEnded: Callable[[TaskOutcome], None],
        python: str | None = None,
        launcher: Callable | None = None,
    ) -> None:
        """Prepare a search.

        Args:
            volumeNode: The CT.
            positionRAS: The place in world RAS mm.
            onEnded: Called once at the end, unless the search is stopped.
            python: Python interpreter for the core; by default PythonSlicer.
            launcher: Stands in for ``slicer.util.launchConsoleProcess``.

        Raises:
            ValueError: The place lies outside the CT.
            RuntimeError: PythonSlicer is not found.
        """
        index, self._matrix = worldToIndex(volumeNode, positionRAS), ijkToRAS(volumeNode)
        shape, reach = shapeOf(volumeNode), ROOM_MM / np.array(volumeNode.GetSpacing()[::-1])
        if (index < -0.5).any() or (index > np.array(shape) - 0.5).any():
            raise ValueError("The place lies outside the CT: click into the lung.")
        self._placeLPS = (RAS_TO_LPS @ self._matrix @ [*index[::-1], 1.0])[:3]
        box = box_between(np.maximum(index - reach, 0), np.minimum(index + reach + 1, shape))
        self._corner = box_start(box)
        self._matrix[:3, 3] += self._matrix[:3, :3] @ self._corner[::-1]
        self._voxels = slicer.util.arrayFromVolume(volumeNode)[box].copy()
        super().__init__(onEnded, python=python, launcher=launcher)

    def begin(self, model: str = "", device: str = "auto", runtime: str = "auto") -> None:
        """Start the search; returns at once.

        Args:
            model: Name or folder of the model; empty stands for the default one.
            device: "auto", "cpu" or "cuda:N".
            runtime: "auto", "openvino" or "torch".
        """
        place = ",".join(f"{value:.3f}" for value in self._placeLPS)
        ct, out = str(self.folder / "ct.nrrd"), str(self.folder / "result")
        options = ["--device", device, "--runtime", runtime, *(["--model", model] if model else [])]
        self.start(["segment", ct, out, f"--at={place}", "--json", *options])

    def whyNotStarted(self, error: Exception) -> str:
        """Return what the user is told where the child cannot be started."""
        return f"The CT cannot be handed over: {error}"

    def handOver(self) -> None:
        """Write the part of the CT."""
        from LNHGLib.image.volume import write_image

        write_image(self._voxels, gridOf(self._matrix, self._voxels.shape), self.folder / "ct.nrrd")

    def read(self, status: int, lastLine: str) -> tuple[Crop, dict]:
        """Return the nodule's voxels on the CT and its row.

        Args:
            status: Exit status of the child.
            lastLine: Its last line that was not progress.

        Raises:
            RuntimeError: The child failed, or found no nodule, or its result cannot be read.
        """
        import SimpleITK as sitk  # here, as they would slow down Slicer's start
        from LNHGLib.segmentation.native_grid import AROUND_MM

        super().read(status, lastLine or f"The search was ended from outside (status {status}): try again.")
        out = self.folder / "result"
        try:
            mask = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "labelmap.nii.gz"))) == 1
            signal = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "signal.nii.gz")))
            row = json.loads((out / "report.json").read_text(encoding="utf-8"))["nodules"][0]
            spacing = np.linalg.norm(self._matrix[:3, :3], axis=0)[::-1]
            inner = SegmentVoxels.trimmed(Crop(whole_box(mask.shape), mask))
            around = grow_box(inner.box, [int(AROUND_MM / mm) for mm in spacing], mask.shape)
            row["signal"] = Crop(shift_box(around, self._corner), signal[around])
            return Crop(shift_box(inner.box, self._corner), inner.array), row
        except Exception as error:
            raise RuntimeError(f"The outline cannot be read: {error}") from error
