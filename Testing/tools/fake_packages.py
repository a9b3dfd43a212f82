"""Wheels that hold next to nothing, and a Python of its own to install them into by the real pip, without a network."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

CORE = Path(__file__).parents[2] / "LNHGSegmentation"
NAMES = {
    **dict.fromkeys(("numpy", "scipy", "SimpleITK", "pydicom", "highdicom"), "9.0"),
    **{"torch": "2.9.0", "torchvision": "0.24.0", "matplotlib": "3.10.0", "safetensors": "0.6.0", "anyascii": "0.3.3"},
    **{
        "h5py": "3.14.0",
        "tqdm": "4.67.0",
        "scikit-image": "0.25.0",
        "tensorboard": "2.20.0",
        "light-the-torch": "0.8.1",
        "openvino": "2026.4.1",
    },
}
MODULES = {"scikit-image": "skimage", "light-the-torch": "light_the_torch"}
LIGHT_THE_TORCH = """
import runpy, sys
print("light-the-torch was called with", *sys.argv[1:])
sys.argv = ["pip", *(word for word in sys.argv[1:] if not word.startswith("--pytorch"))]
runpy.run_module("pip", run_name="__main__")
"""


def write_wheel(folder: Path, name: str, version: str, requires: Sequence[str] = ()) -> None:
    """Write a wheel of one package with `__version__` in it."""
    stem, module = f"{name.replace('-', '_')}-{version}", MODULES.get(name, name)
    needs = "".join(f"Requires-Dist: {need}\n" for need in requires)
    files = {
        f"{module}/__init__.py": f"__version__ = {version!r}\n",
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: lnhg\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if name == "light-the-torch":
        files[f"{module}/__main__.py"] = LIGHT_THE_TORCH
    record = "".join(f"{path},,\n" for path in (*files, f"{stem}.dist-info/RECORD"))
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        for path, text in (files | {f"{stem}.dist-info/RECORD": record}).items():
            wheel.writestr(path, text)


class Scratch:
    """A Python with nothing but pip, and a folder of wheels that its pip finds.

    Args:
        template: made by `make_template`.
        folder: where to put the copy.
    """

    def __init__(self, template: Path, folder: Path) -> None:
        self.wheels, self.temporary = folder / "wheels", folder / "temporary"
        shutil.copytree(template, folder / "python", symlinks=True)
        for path in (self.wheels, self.temporary):
            path.mkdir()
        for name, version in NAMES.items():
            write_wheel(self.wheels, name, version)
        self.python = folder / "python" / "bin" / "python"
        self.site = next((folder / "python").glob("lib/python*/site-packages"))
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON", "LNHG"))}
        self.environment = clean | {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            "TMPDIR": str(self.temporary),
        }

    def command(self, *arguments: str) -> list[str]:
        """`python -m LNHGLib.packages` with arguments, to be run in `CORE`."""
        return [str(self.python), "-m", "LNHGLib.packages", *arguments]

    def packages(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        """Run `python -m LNHGLib.packages` with nobody at the terminal."""
        return subprocess.run(
            self.command(*arguments),
            cwd=CORE,
            env=self.environment | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def pip_install(self, *requirements: str) -> None:
        """Install by pip alone, as Slicer or an extension did before."""
        command = [self.python, "-m", "pip", "install", "-q", *requirements]
        subprocess.run(command, env=self.environment, capture_output=True, check=True)

    def versions(self) -> dict[str, str]:
        """The versions of all that is installed, by distribution."""
        names = (path.name.removesuffix(".dist-info").split("-") for path in self.site.glob("*.dist-info"))
        return {name.replace("_", "-"): version for name, version in names}


def make_template(folder: Path) -> Path:
    """Make a virtual environment with pip in it, to be copied."""
    subprocess.run([sys.executable, "-m", "venv", folder], capture_output=True, check=True)
    return folder
