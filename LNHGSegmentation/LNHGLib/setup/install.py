"""Installs the packages that are missing, and anew those that do not load. Needs nothing beyond Python itself and pip.

Where torch and torchvision are asked for, they come as the PyTorch extension of 3D Slicer brings them: light-the-torch
chooses the build that fits the computer's driver. What Slicer itself brings stays as it is.
"""

import importlib
import os
import sys
from collections.abc import Callable, Sequence

from LNHGLib.errors import WorkError
from LNHGLib.paths import MODULE_FOLDER
from LNHGLib.setup import package_list
from LNHGLib.setup import room as package_room
from LNHGLib.setup.package_list import SLICERS, TORCH, Check, Package
from LNHGLib.setup.pip import Pip, run, scratch

LIGHT_THE_TORCH = "light-the-torch>=0.8.1"  # the first that knows Python 3.12 and CUDA 12.8
UNPACKED = 0.95
"""Fraction of the progress when all is unpacked."""
CHECK_LIMIT_S = 180


def install(
    packages: Sequence[Package],
    build: str | None,
    progress: Callable[[float, str], None],
    wished: Callable[[], bool],
    agree: Callable[[str], bool],
) -> str:
    """Install what is missing, and anew what does not load; returns how the packages stand.

    Args:
        packages: What must load in the end.
        build: PyTorch to take: None for what fits the driver, "pypi" for the package index's own, or cpu, cu128, ...
        progress: Told the fraction done and what is being done.
        wished: Whether the user wants to stop.
        agree: Asked with the packages, their size and the free room before anything is changed.

    Raises:
        WorkError: One sentence: there is no room, no pip, no network, the user declines, or packages do not load.
        Cancelled: The user stopped it; what is half installed then counts as missing.
    """
    progress(0.0, "looking at the packages")
    absent = package_list.missing([*SLICERS, *packages])
    there = [package for package in packages if package not in absent]
    before = check(there, wished) if there else Check({}, {})
    wrong = [*absent, *(package for package in there if package.module in before.faults)]
    if not wrong:
        progress(1.0, "done")
        return package_list.summary(before)
    room = package_room.Room(wrong, build)
    room.require()
    if not agree(room.question(before.faults)):
        raise WorkError("Nothing was installed, as you did not agree; start again and agree, or add --yes.")
    with scratch() as folder:
        pip = Pip(folder, room.download_mb, progress, wished)
        for package in wrong:
            pip.clear_away(package, broken=package not in absent or package_list.is_unfinished(package))
        if set(wrong) & set(TORCH):
            torch = [package.requirement for package in TORCH]
            if build == "pypi":
                pip.install(torch)
            else:
                pip.install([LIGHT_THE_TORCH])
                pip.install([*torch, *([f"--pytorch-computation-backend={build}"] if build else [])], "light_the_torch")
        others = dict.fromkeys(package.requirement for package in (*wrong, *packages) if package not in TORCH)
        pip.install(list(others))  # all of them: what is there stays, and what it lacks comes
    importlib.invalidate_caches()
    progress(UNPACKED, "checking that the packages load")
    found = check(packages, wished)
    left = package_list.missing(packages)
    if found.faults or left:
        what = "; ".join([*package_list.reasons(found.faults), *(f"{package.name} is not there" for package in left)])
        raise WorkError(
            f"The packages were installed but do not work ({what}); close 3D Slicer if it runs, and try again."
        )
    progress(1.0, "done")
    return package_list.summary(found)


def check(packages: Sequence[Package], wished: Callable[[], bool]) -> Check:
    """Load the packages in a process of their own.

    Args:
        packages: What to load, in this order.
        wished: Whether the user wants to stop.

    Raises:
        Cancelled: The user stopped it.
    """
    names = [package.module for package in packages]
    command = [sys.executable, "-c", f"from LNHGLib.setup import package_list; package_list.load({names})"]
    said = [""]
    search = os.pathsep.join(filter(None, [str(MODULE_FOLDER), os.environ.get("PYTHONPATH")]))
    status = run(command, {"PYTHONPATH": search}, said.append, wished, CHECK_LIMIT_S)
    if status is None:
        return Check({}, {names[0]: f"the packages did not load within {CHECK_LIMIT_S} s"})
    told = [line for line in said if line.startswith("{")]  # packages may have something to say as well
    return package_list.read_check(status, (told or said)[-1], names[0])
