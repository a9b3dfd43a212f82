"""What installing packages costs, said before it begins: sizes, and the room that is free on the disk."""

import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

from LNHGLib.errors import WorkError
from LNHGLib.setup.package_list import Package

CUDA_MB = (3500, 7500)
"""To download and on the disk for torch with CUDA."""
SPARE_MB = 500


class Room:
    """The room that packages need.

    Args:
        packages: what will be installed.
        build: the PyTorch that will be taken, see `install.install`.
    """

    def __init__(self, packages: Sequence[Package], build: str | None = None) -> None:
        self.packages = packages
        cuda = shutil.which("nvidia-smi") is not None
        if build is not None:
            cuda = build.startswith("cu") or (build == "pypi" and sys.platform == "linux")
        sizes = [
            CUDA_MB if package.name == "torch" and cuda else (package.download_mb, package.disk_mb)
            for package in packages
        ]
        self.download_mb, self.disk_mb = (sum(each) for each in zip(*sizes, strict=True))

    def require(self) -> None:
        """Refuse what cannot end well.

        Raises:
            WorkError: one sentence: the folder cannot be written, or there is no room.
        """
        folder, temporary = package_folder(), Path(tempfile.gettempdir())
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise WorkError(
                f"Packages cannot be installed: {folder} cannot be written; start Slicer once as an administrator, or "
                "install Slicer in a folder of your own."
            ) from error
        for where, needed_mb in ((folder, self.disk_mb), (temporary, self.download_mb)):
            if free_mb(where) < needed_mb + SPARE_MB:
                raise WorkError(
                    f"The disk has no room for the packages: {size(free_mb(where))} are free in {where}, "
                    f"{size(needed_mb + SPARE_MB)} are needed; make room and try again."
                )

    def question(self, faults: dict[str, str]) -> str:
        """What the user is told before anything is changed.

        Args:
            faults: why packages that are there do not load, by import name.
        """
        broken = [f"   {name}: {reason}" for name, reason in faults.items()]
        folder = package_folder()
        return "\n".join(
            [
                *(["These packages do not load:", *broken, ""] if broken else []),
                "LNHG needs to install:",
                *(f"   {package.name}" for package in self.packages),
                "",
                f"Download: about {size(self.download_mb)}. On the disk: about {size(self.disk_mb)}; "
                f"{size(free_mb(folder))} are free in {folder}.",
                "",
                "This is done once, takes some minutes and changes only this folder. No image leaves this computer.",
            ]
        )


def package_folder() -> Path:
    """The folder into which pip installs."""
    return Path(sysconfig.get_paths()["purelib"])


def free_mb(folder: Path) -> int:
    """The free room on a folder's disk."""
    return int(shutil.disk_usage(folder).free / 1e6)


def size(megabytes: float) -> str:
    """A size for people."""
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{max(megabytes, 1):.0f} MB"
