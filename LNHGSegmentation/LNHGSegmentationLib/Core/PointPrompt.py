"""A nodule that the model missed, outlined by its segmenter at a place that the reader shows."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import slicer

from LNHGSegmentationLib.Core.ChildProcess import ChildProcess
from LNHGSegmentationLib.Core.Worker import Worker
from LNHGSegmentationLib.Paths import MODULE_FOLDER
from LNHGSegmentationLib.Scene import SegmentVoxels
from LNHGSegmentationLib.Scene.Geometry import (
    RAS_TO_LPS,
    Box,
    cornerOf,
    gridOf,
    grown,
    ijkToRAS,
    shapeOf,
    shifted,
    worldToIndex,
)
from LNHGSegmentationLib.Scene.SegmentVoxels import Crop

ROOM_MM = 60.0  # the core looks at a cube of 80 mm; beyond it lies what the network's field of view needs


class PointPrompt:
    """One search at a place; use a new object for each. A part of the CT goes out in its own frame."""

    def __init__(self, volumeNode, positionRAS: np.ndarray, onEnded: Callable[[Crop | None, dict, str], None]) -> None:
        """Prepare a search.

        :param volumeNode: the CT.
        :param positionRAS: the place in world RAS mm.
        :param onEnded: called once with the nodule's voxels, its row with the key "signal" (a crop) more, and an empty
            text; or with None, an empty row and one sentence for the user.
        :raises ValueError: if the place lies outside the CT.
        """
        self._onEnded = onEnded
        index, self._matrix = worldToIndex(volumeNode, positionRAS), ijkToRAS(volumeNode)
        self._placeLPS = (RAS_TO_LPS @ self._matrix @ [*index[::-1], 1.0])[:3]
        self._box = _boxAround(index, shapeOf(volumeNode), volumeNode.GetSpacing()[::-1])
        self._matrix[:3, 3] += self._matrix[:3, :3] @ cornerOf(self._box)[::-1]
        self._voxels = slicer.util.arrayFromVolume(volumeNode)[self._box].copy()
        from LNHGLib.files import atomic  # here, as Slicer's start needs nothing of the core

        self._folder = atomic.task_folder()
        self._stopped = False
        self._child: ChildProcess | None = None

    def start(self, python: str, model: str = "", device: str = "auto", launcher: Callable | None = None) -> None:
        """Start the search; returns at once."""
        ct, out = self._folder / "ct.nrrd", self._folder / "result"
        place = ",".join(f"{value:.3f}" for value in self._placeLPS)
        options = ["--model", model] if model else []
        command = [python, "-m", "LNHGLib", "segment", str(ct), str(out), f"--at={place}", "--json"]

        def launch(_result: object, error: Exception | None) -> None:
            if self._stopped:
                shutil.rmtree(self._folder, ignore_errors=True)  # once more: the CT was still being written
                return
            try:
                if error is not None:
                    raise error
                self._child = ChildProcess(lambda *_: None, self._onChildEnded, self._folder / "cancel", launcher)
                self._child.start([*command, "--device", device, *options], cwd=MODULE_FOLDER)
            except Exception as problem:
                self._end(None, {}, f"The CT cannot be handed over: {problem}")

        Worker(lambda: self._write(ct), launch)

    def stop(self) -> None:
        """End at once, silently."""
        self._stopped, self._onEnded = True, lambda *_: None
        if self._child is not None:
            self._child.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _write(self, path: Path) -> None:
        from LNHGLib.image.volume import write_image

        write_image(self._voxels, gridOf(self._matrix, self._voxels.shape), path)

    def _onChildEnded(self, status: int, lastLine: str) -> None:
        if status != 0:
            self._end(None, {}, lastLine or f"The search was ended from outside (status {status}): try again.")
            return
        Worker(self._read, self._onRead)

    def _onRead(self, found: tuple[Crop, dict] | None, error: Exception | None) -> None:
        self._end(*(found or (None, {})), f"The outline cannot be read: {error}" if error else "")

    def _read(self) -> tuple[Crop, dict]:
        import SimpleITK as sitk  # here, as they would slow down Slicer's start
        from LNHGLib.segmentation.native_grid import AROUND_MM

        out = self._folder / "result"
        mask = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "labelmap.nii.gz"))) == 1
        signal = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "signal.nii.gz")))
        row = json.loads((out / "report.json").read_text(encoding="utf-8"))["nodules"][0]
        spacing = np.linalg.norm(self._matrix[:3, :3], axis=0)[::-1]
        inner = SegmentVoxels.trimmed(Crop(tuple(slice(0, size) for size in mask.shape), mask))
        around = grown(inner.box, [int(AROUND_MM / mm) for mm in spacing], mask.shape)
        corner = cornerOf(self._box)
        signal = Crop(shifted(around, corner), signal[around])
        return Crop(shifted(inner.box, corner), inner.array), {**row, "signal": signal}

    def _end(self, crop: Crop | None, row: dict, message: str) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._onEnded(crop, row, message)


def _boxAround(index: np.ndarray, shape: tuple[int, ...], spacing: tuple[float, ...]) -> Box:
    if (index < -0.5).any() or (index > np.array(shape) - 0.5).any():
        raise ValueError("The place lies outside the CT: click into the lung.")
    reach = ROOM_MM / np.array(spacing)
    low, high = np.maximum(index - reach, 0).astype(int), np.minimum(index + reach + 1, shape).astype(int)
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
