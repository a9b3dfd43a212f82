"""A CT node, and a real child process that plays the core: `python -m LNHGLib segment CT OUT --json`."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import slicer

CORE_SCRIPT = Path(__file__).parent / "fake_core.py"
SHAPE = (24, 40, 48)
IJK_TO_RAS = np.array([[-0.8, 0.1, 0.0, 30.0], [0.1, 0.8, 0.0, -20.0], [0.0, 0.0, 2.5, 5.0], [0.0, 0.0, 0.0, 1.0]])
NODULES = (((8, 12, 14), 4), ((15, 26, 33), 5))  # center (z, y, x) and radius in voxels


def make_ct_array() -> np.ndarray:
    """Return lung tissue with noise and the nodules, (z, y, x) int16 HU."""
    noise = np.random.default_rng(0).normal(0, 20, SHAPE)
    ct = np.where(make_labels() > 0, 30, -820) + noise
    return ct.astype(np.int16)


def make_labels() -> np.ndarray:
    """Return the nodules' numbers as the fake core writes them for `make_ct_array`."""
    index = np.stack(np.indices(SHAPE), -1)
    labels = np.zeros(SHAPE, np.uint16)
    for number, (center, radius) in enumerate(NODULES, start=1):
        labels[np.linalg.norm(index - center, axis=-1) < radius] = number
    return labels


def make_ct_node(name: str = "CT"):
    """Add the CT to the scene."""
    return slicer.util.addVolumeFromArray(make_ct_array(), IJK_TO_RAS, name)


class FakeCore:
    """An executable that takes PythonSlicer's place."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._mode_file, self._devices_file, self.log = folder / "mode", folder / "devices", folder / "log"
        self.python = folder / "PythonSlicer"
        self.python.write_text(f'#!/bin/sh\n"{sys.executable}" "{CORE_SCRIPT}" "{folder}" "$@"\n')
        self.python.chmod(0o755)
        self.mode = "segment"
        self.runtimes, self.models = ["openvino", "torch"], {"paper": ["torch"]}
        self.devices = [{"id": "cpu", "name": "Made-up CPU", "cores": 8, "memory_gib": None, "free_gib": None}]

    @property
    def mode(self) -> str:
        return self._mode_file.read_text()

    @mode.setter
    def mode(self, mode: str) -> None:
        self._mode_file.write_text(mode)

    @property
    def devices(self) -> list[dict]:
        return json.loads(self._devices_file.read_text())["devices"]

    @devices.setter
    def devices(self, devices: list[dict]) -> None:
        answer = {"devices": devices, "runtimes": self.runtimes, "models": self.models}
        self._devices_file.write_text(json.dumps(answer))

    @property
    def pids(self) -> list[int]:
        """Process numbers of the fake core and of its own children."""
        return [int(line.split()[1]) for line in self.log.read_text().splitlines() if line.startswith("pid")]

    @property
    def arguments(self) -> list[str]:
        """Arguments of the last start."""
        return next(line for line in reversed(self.log.read_text().splitlines()) if line.startswith("args"))[5:].split()


def run_events(condition, limit_s: float = 60.0) -> float:
    """Let the Qt event loop run until the condition holds; fails past the limit. Returns the seconds it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < limit_s, "the condition was not met in time"
        slicer.app.processEvents()
        time.sleep(0.005)
    return time.monotonic() - start


def make_result_nodes(ct, folder: Path):
    """Let the fake core work in this process and load its result."""
    import fake_core
    from LNHGSegmentationLib.Scene import ResultNodes
    from LNHGSegmentationLib.Scene.VolumeExchange import VolumeExchange

    exchange = VolumeExchange(ct)
    exchange.write(folder / "ct.nrrd")
    fake_core.segment(folder / "ct.nrrd", folder / "result", empty=False, incomplete=False)
    return ResultNodes.load(folder / "result", ct, exchange)
