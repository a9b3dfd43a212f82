"""What installing packages costs, said before it begins: sizes, and the room that is free on the disk."""

import os
import shutil
import sysconfig
import tempfile
from pathlib import Path

import slicer
from slicer.i18n import tr as _

TITLE = "Lung Nodules (LNHG)"
SIZES_MB = {
    "torch": (250, 1200),
    "torchvision": (10, 20),
    "matplotlib": (20, 50),
    "safetensors": (1, 2),
    "scikit-image": (15, 40),
}
"""To download, and on the disk with what they need themselves; rounded up from the releases of 2026 for Linux."""
CUDA_MB = (3500, 7500)
"""The same for torch with CUDA, which the PyTorch extension takes where there is an NVIDIA driver."""
SPARE_MB = 500


def ask(distributions: list[str], faults: dict[str, str] | None = None) -> None:
    """Say what will be installed, how large it is and how much room there is; returns if the user agrees.

    :param distributions: what will be installed.
    :param faults: why packages that are there do not load, by import name.
    :raises RuntimeError: one sentence, if there is no room, the folder cannot be written, or the user declines.
    """
    download, disk = sizes(distributions)
    folder = packageFolder()
    free, temporary = freeMb(folder), freeMb(Path(tempfile.gettempdir()))
    if not os.access(folder, os.W_OK):
        raise RuntimeError(
            _(
                "Packages cannot be installed: {folder} cannot be written; start Slicer once as an administrator, or "
                "install Slicer in a folder of your own."
            ).format(folder=folder)
        )
    for where, needed, there in ((folder, disk, free), (Path(tempfile.gettempdir()), download, temporary)):
        if there < needed + SPARE_MB:
            raise RuntimeError(
                _("The disk has no room for the packages: {there} are free in {where}, {needed} are needed.").format(
                    there=size(there), where=where, needed=size(needed + SPARE_MB)
                )
            )
    costs = _("Download: about {download}. On the disk: about {disk}; {free} are free in {folder}.").format(
        download=size(download), disk=size(disk), free=size(free), folder=folder
    )
    text = question(distributions, faults or {}, costs)
    if not slicer.util.confirmOkCancelDisplay(text, TITLE):
        raise RuntimeError(_("Nothing was installed: nodules cannot be segmented without these packages."))


def question(distributions: list[str], faults: dict[str, str], costs: str) -> str:
    """Return what the user is asked."""
    begin = _("Finding nodules needs Python packages that are not there yet:")
    if faults:
        broken = "\n".join(f"   {name}: {reason}" for name, reason in faults.items())
        begin = _("These packages do not load:\n{broken}\n\nThey will be installed anew:").format(broken=broken)
    return "\n".join(
        [
            begin,
            *(f"   {name}" for name in distributions),
            "",
            costs,
            "",
            _("This is done once, takes some minutes and changes Slicer's Python. No image leaves this computer."),
            _("Install now?"),
        ]
    )


def sizes(distributions: list[str]) -> tuple[int, int]:
    """Return the MB to download and on the disk."""
    table = SIZES_MB | ({"torch": CUDA_MB} if hasNvidiaDriver() else {})
    known = [table.get(name, (0, 0)) for name in distributions]
    return sum(download for download, _disk in known), sum(disk for _download, disk in known)


def hasNvidiaDriver() -> bool:
    """Whether torch with CUDA will be taken."""
    return shutil.which("nvidia-smi") is not None


def packageFolder() -> Path:
    """Return the folder into which pip installs."""
    return Path(sysconfig.get_paths()["purelib"])


def freeMb(folder: Path) -> int:
    """Return the free room on a folder's disk."""
    return int(shutil.disk_usage(folder).free / 1e6)


def size(megabytes: float) -> str:
    """Return a size for people."""
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"
