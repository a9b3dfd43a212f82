"""The module's panel as it looks after a run, drawn with the Qt stand-in."""

import shlex
import sys
import tempfile
from pathlib import Path

import fakes
import numpy as np
import qt
from LNHGSegmentationLib.Core.SegmentationLogic import SegmentationLogic
from LNHGSegmentationLib.Panel.Widget import Widget
from LNHGSegmentationLib.Setup.PackageInstall import PackageInstall

from LNHGSegmentation import LNHGSegmentationLogic

SETTLING_ROUNDS = 20  # what a run filled in changes the least sizes, which Qt works out one event after the other
COPY_RESULT = """#!/bin/sh
# Called like PythonSlicer: -m LNHGLib segment CT OUT ..., or -m LNHGLib devices --json
[ "$3" = devices ] && exec {python} "$@"
cp -r {result} "$5" && echo "PROGRESS 1.0 done"
"""


class NothingToInstall(PackageInstall):
    """Takes PackageInstall's place: everything is there."""

    def missing(self) -> list[str]:
        """Return that nothing is missing."""
        return []

    def ensure(self, onProgress, onEnded) -> bool:
        """Return that a run can start at once."""
        return True


def picture_after_run(result: Path, size: tuple[int, int], number: int) -> np.ndarray:
    """Click "Segment nodules" in the scene's panel, with a core that finds `result`.

    Args:
        result: what `lnhg segment` wrote for the scene's first volume.
        size: width and height in pixels.
        number: of the finding whose row is chosen.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "PythonSlicer"
        paths = {"python": sys.executable, "result": str(result.resolve())}
        python.write_text(COPY_RESULT.format(**{name: shlex.quote(path) for name, path in paths.items()}))
        python.chmod(0o755)
        logic = SegmentationLogic(python=str(python))
        panel = Widget(logic, NothingToInstall(), LNHGSegmentationLogic().getParameterNode)
        panel.sections[0]._runTime.learn = lambda *_args: None  # to copy takes less time than a run
        panel.uiWidget.resize(*size)
        panel.uiWidget.show()
        panel.ui.applyButton.click()
        fakes.run_events(lambda: not logic.isRunning and logic.devices.areKnown, limit_s=300.0)
        panel.sections[1].table.select(number)
        for _ in range(SETTLING_ROUNDS):
            panel.uiWidget.resize(*size)
            qt.QApplication.processEvents()
        picture = _grab(panel.uiWidget)
        panel.uiWidget.hide()
        panel.cleanup()
    return picture


def _grab(widget: qt.QWidget) -> np.ndarray:
    image = widget.grab().toImage().convertToFormat(qt.QImage.Format.Format_RGB888)
    rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    return rows[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).copy()
