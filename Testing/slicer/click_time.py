"""Measure the seconds from the click to all findings with outlines in the table: the stand-in panel, the real core.

    python Testing/slicer/click_time.py CT [--runs N] [--runtime auto|openvino|torch]

CT is a file or folder that `lnhg segment` takes. The panel's own expectation stands beside the seconds. The first run
of a computer also compiles the networks, so that the second one counts.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import slicer_host

if __name__ == "__main__" and slicer_host.failure():
    sys.exit(f"The panel needs Slicer's libraries: {slicer_host.failure()}")
slicer_host.start()

import fakes
import panel_host
import slicer
from LNHGLib.files.text import markdown_table
from LNHGLib.image.reader import read_volume
from LNHGSegmentationLib.Core.SegmentationLogic import SegmentationLogic
from LNHGSegmentationLib.Panel.Widget import Widget
from LNHGSegmentationLib.Scene import SceneResults
from LNHGSegmentationLib.Scene.Geometry import addVolume

LIMIT_S = 3600.0


def main(arguments: list[str] | None = None) -> None:
    """Measure and print a table: a row per run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ct", metavar="CT", type=Path)
    parser.add_argument("--runs", metavar="N", type=int, default=2)
    parser.add_argument("--runtime", default="auto", choices=("auto", "openvino", "torch"))
    options = parser.parse_args(arguments)
    volume = read_volume(options.ct)
    rows = [clicked(volume, options.runtime) for _ in range(options.runs)]
    header = ["seconds", "expected", "computed by", "findings in the table", "with outline", "load of the computer"]
    print(markdown_table(header, rows), end="")


def clicked(volume, runtime: str) -> list[object]:
    """Click once in a new panel; return a row of the table.

    Args:
        volume: The CT.
        runtime: What computes.
    """
    slicer.mrmlScene.Clear()
    logic = SegmentationLogic(python=sys.executable)
    panel = Widget(logic, panel_host.InstallNothing(), panel_host.LNHGSegmentationLogic().getParameterNode)
    try:
        addVolume(volume.array, volume.grid.affine, "CT")
        panel._parameter.runtime = runtime
        fakes.run_events(lambda: logic.devices.areKnown, LIMIT_S)
        expected, load = panel.sections[0]._expected(), os.getloadavg()[0]
        began = time.perf_counter()
        panel.ui.applyButton.click()
        fakes.run_events(lambda: not logic.isRunning, LIMIT_S)
        seconds, segmentation = time.perf_counter() - began, panel._parameter.segmentation
        if segmentation is None:
            sys.exit(panel.ui.statusLabel.text)
        by, found = SceneResults.runOf(segmentation)["runtime"], SceneResults.rowsOf(segmentation)
        outlined = segmentation.GetSegmentation().GetNumberOfSegments()
        return [f"{seconds:.1f}", f"{expected:.0f}", by, len(found), outlined, f"{load:.1f}"]
    finally:
        panel.cleanup()


if __name__ == "__main__":
    main()
