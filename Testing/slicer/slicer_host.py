"""Whether slicer-core, Qt and off-screen rendering work here; VTK crashes without OpenGL, so another process tries."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")

PACKAGE_LIST = Path(__file__).parents[2] / "requirements" / "debian.txt"
TRIAL = """
import slicer, vtk
import vtkmodules.vtkRenderingOpenGL2
from PySide6 import QtWidgets, QtUiTools
window = vtk.vtkRenderWindow()
window.SetOffScreenRendering(1)
window.AddRenderer(vtk.vtkRenderer())
window.Render()
QtWidgets.QApplication([])
"""


@functools.cache
def failure() -> str:
    """Return why the Slicer tests cannot run here, or an empty string."""
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    trial = subprocess.run([sys.executable, "-c", TRIAL], env=environment, capture_output=True, text=True, check=False)
    if trial.returncode == 0:
        return ""
    reason = (trial.stderr.strip().splitlines() or [f"exit status {trial.returncode}"])[-1]
    return f"slicer-core, PySide6 or OpenGL does not work here ({reason}); Debian packages: {' '.join(packages())}"


def packages() -> list[str]:
    """Return the Debian packages that drawing without a display needs."""
    lines = PACKAGE_LIST.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def start():
    """Start the stand-ins, or skip the calling test module with the reason. Returns the application logic."""
    if failure():
        pytest.skip(failure(), allow_module_level=True)
    sys.path.insert(0, str(Path(__file__).parents[2] / "LNHGSegmentation"))
    import slicer_standin

    return slicer_standin.start()
