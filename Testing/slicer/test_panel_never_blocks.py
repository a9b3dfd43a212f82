"""From the click to the visible result of a CT of usual size, the event loop turns at least every 100 ms."""

import slicer_host

slicer_host.start()

import shlex
import time
from pathlib import Path

import fakes
import numpy as np
import pytest
import qt
import slicer
import views

SHAPE = (140, 512, 512)
NODULES = 25
LIMIT_MS = 100
TRIES = 3  # other programs on the computer may take their turn while Python's lock is held
COPY_RESULT = """#!/bin/sh
# Called like PythonSlicer: -m LNHGLib segment CT OUT ...
[ "$3" = devices ] && exit 1
cp -r {result} "$5" && echo "PROGRESS 1.0 done"
"""


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> Path:
    """A result folder of a CT of usual size."""
    import json

    import SimpleITK as sitk
    from fake_core import RUN

    folder = tmp_path_factory.mktemp("large") / "result"
    folder.mkdir()
    labels, random = np.zeros(SHAPE, np.uint16), np.random.default_rng(0)
    for number in range(1, NODULES + 1):
        z, y, x = (int(random.integers(20, size - 20)) for size in SHAPE)
        labels[z - 3 : z + 4, y - 8 : y + 9, x - 8 : x + 9] = number
    for name, array in {"labelmap": labels, "heterogeneity": 0.5 * (labels > 0).astype(np.float32)}.items():
        sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / f"{name}.nii.gz"))
    rows = [{"number": n, "score": 0.99 - 0.01 * n, "provenance": "fused"} for n in range(1, NODULES + 1)]
    (folder / "report.json").write_text(json.dumps({"nodules": rows, **RUN}))
    return folder


@pytest.fixture
def large_ct(scene):
    ct = np.full(SHAPE, -850, np.int16)
    return slicer.util.addVolumeFromArray(ct, np.diag([-1.0, -1.0, 1.0, 1.0]), "large")


class Heartbeat:
    """A timer that notes how long it had to wait for its turn, and what the panel says then."""

    def __init__(self, panel) -> None:
        self.waits_ms: list[tuple[float, str]] = []
        self._panel = panel
        self._last = self._now()
        self._timer = qt.QTimer()
        self._timer.setInterval(5)
        self._timer.timeout.connect(self._beat)
        self._timer.start()

    def stop(self) -> None:
        self._timer.stop()

    def _beat(self) -> None:
        now = self._now()
        self.waits_ms.append((1000 * (now - self._last), self._panel.ui.statusLabel.text))
        self._last = now

    @staticmethod
    def _now() -> float:
        """Seconds, less those in which this thread was ready but the system ran other programs."""
        statistics = Path("/proc/thread-self/schedstat")
        queued = int(statistics.read_text().split()[1]) / 1e9 if statistics.exists() else 0.0
        return time.perf_counter() - queued


def test_user_interface_never_blocks_from_click_to_visible_result(panel, large_ct, result, run_events):
    panel.core.python.write_text(COPY_RESULT.format(result=shlex.quote(str(result))))
    view = views.SliceView("Heartbeat", "Axial", (300, 300))
    panel.uiWidget.show()
    worst_ms = []
    for _ in range(TRIES):
        fakes.run_events(lambda: panel.ui.applyButton.enabled)
        run_events_for(run_events, 0.2)
        heartbeat = Heartbeat(panel)
        panel.ui.applyButton.click()
        run_events(lambda: not panel.logic.isRunning)
        run_events_for(run_events, 0.5)
        heartbeat.stop()
        worst_ms.append(max(heartbeat.waits_ms))
        if worst_ms[-1][0] < LIMIT_MS:
            break
    assert panel.ui.statusLabel.text == f"{NODULES} nodules with a score of at least 0.50."
    assert view.logic.GetSliceCompositeNode().GetForegroundVolumeID() is not None
    assert min(worst_ms)[0] < LIMIT_MS, f"longest waits in ms and what the panel said after: {worst_ms}"


def run_events_for(run_events, seconds: float) -> None:
    end = time.monotonic() + seconds
    run_events(lambda: time.monotonic() > end)
