"""The Python packages that LNHG needs and which of them are there. Needs nothing beyond Python itself."""

import importlib
import importlib.metadata
import importlib.util
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from LNHGLib.errors import InputError, quoted


@dataclass(frozen=True)
class Package:
    """A distribution, its least version, and the name by which it is imported.

    Attributes:
        download_mb: with what it needs itself; rounded up from the releases of 2026 for Linux.
        disk_mb: the same, installed.
    """

    name: str
    least: str
    module: str
    download_mb: int
    disk_mb: int

    @property
    def requirement(self) -> str:
        """As pip takes it: a lower bound only, so that what is there stays."""
        return f"{self.name}>={self.least}"


TORCH = Package("torch", "2.6", "torch", 250, 1200), Package("torchvision", "0.21", "torchvision", 10, 20)
OPENVINO = Package("openvino", "2025.0", "openvino", 60, 190)
SLICERS = (
    Package("numpy", "2.0", "numpy", 20, 75),
    Package("scipy", "1.14", "scipy", 40, 130),
    Package("SimpleITK", "2.5", "SimpleITK", 55, 190),
    Package("pydicom", "3.0", "pydicom", 3, 15),
    Package("highdicom", "0.27", "highdicom", 10, 40),
)
"""Slicer brings these, and its own stay; elsewhere they are installed as well."""
WITHOUT_NETWORKS = (
    Package("matplotlib", "3.9", "matplotlib", 18, 50),
    Package("safetensors", "0.5", "safetensors", 1, 2),
    Package("anyascii", "0.3.2", "anyascii", 1, 1),
)
SEGMENTATION = (*TORCH, *WITHOUT_NETWORKS)
CPU = "cpu"
"""The group that runs the networks on a CPU by OpenVINO: no torch, and megabytes instead of gigabytes."""
GROUPS = {
    "segmentation": SEGMENTATION,
    CPU: (OPENVINO, *WITHOUT_NETWORKS),
    "training": (
        *SEGMENTATION,
        Package("h5py", "3.12", "h5py", 6, 20),
        Package("tqdm", "4.66", "tqdm", 1, 1),
        Package("scikit-image", "0.24", "skimage", 20, 60),
    ),
    "tensorboard": (Package("tensorboard", "2.18", "tensorboard", 20, 80),),
}
"""In the order of loading: torchvision fails where torch does not fit."""
RUN_NETWORKS = (CPU, "segmentation")
"""The groups of which one is enough to segment."""


@dataclass(frozen=True)
class Check:
    """What happened when the packages were loaded in a process of their own.

    Attributes:
        versions: of those that work, by import name.
        faults: why the others do not, by import name.
    """

    versions: dict[str, str]
    faults: dict[str, str]


def needed(groups: Iterable[str]) -> list[Package]:
    """The packages of the groups, each once.

    Raises:
        InputError: there is no such group.
    """
    for group in groups:
        if group not in GROUPS:
            raise InputError(
                f"{quoted(group)} is no group of packages, expected {' or '.join(GROUPS)}; name one of these."
            )
    return list(dict.fromkeys(package for group in groups for package in GROUPS[group]))


def complete() -> list[str]:
    """Return those of `RUN_NETWORKS` of which nothing is missing here; nothing is loaded."""
    return [group for group in RUN_NETWORKS if not missing(GROUPS[group])]


def missing(packages: Iterable[Package]) -> list[Package]:
    """Those that are not there in a version that will do, or whose installation was broken off; nothing is loaded."""
    absent = []
    for package in packages:
        if package in SLICERS:  # in whatever version
            there = importlib.util.find_spec(package.module) is not None
        else:
            try:
                version = importlib.metadata.version(package.name)
                there = not is_unfinished(package) and release(version) >= release(package.least)
            except importlib.metadata.PackageNotFoundError:
                there = False
        if not there:
            absent.append(package)
    return absent


def is_unfinished(package: Package) -> bool:
    """Whether pip was ended while it installed the package: the file that it writes last is not there."""
    try:
        found = importlib.metadata.distribution(package.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return found.read_text("METADATA") is not None and found.read_text("INSTALLER") is None


def release(version: str | None) -> tuple[int, ...]:
    """The numbers of a version; none where pip left a file without one."""
    return tuple(int(number) for number in re.findall(r"\d+", re.match(r"[\d.]*", version or "")[0]))


def load(names: Sequence[str]) -> bool:
    """Load packages one after the other and print lines of JSON; returns whether all of them work.

    A line has `trying` (the name that is being loaded, None at the end), `versions` and `faults`, by name.
    """
    versions: dict[str, str] = {}
    faults: dict[str, str] = {}
    for name in names:
        _tell(name, versions, faults)
        try:
            versions[name] = str(getattr(importlib.import_module(name), "__version__", "?"))
        except Exception as error:
            faults[name] = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no reason given'}"
    _tell(None, versions, faults)
    return not faults


def _tell(trying: str | None, versions: dict[str, str], faults: dict[str, str]) -> None:
    print(json.dumps({"trying": trying, "versions": versions, "faults": faults}), flush=True)


def read_check(status: int, last_line: str, first: str = "torch") -> Check:
    """Return what a check said.

    Args:
        status: with which it ended.
        last_line: its last line.
        first: the package that gets the fault where the line does not say which has it.
    """
    try:
        told = json.loads(last_line)
        faults = dict(told["faults"])
        if told["trying"] is not None:
            faults[told["trying"]] = f"loading it ended the process (status {status})"
        return Check(dict(told["versions"]), faults)
    except (ValueError, KeyError, TypeError):
        return Check({}, {first: last_line or f"Python ended with status {status}"})


def summary(found: Check) -> str:
    """How the packages stand, in one line."""
    if found.faults:
        return "; ".join(reasons(found.faults))
    return f"All packages load: {', '.join(f'{name} {version}' for name, version in found.versions.items())}."


def reasons(faults: dict[str, str]) -> Iterator[str]:
    """Names with what is wrong."""
    return (f"{name}: {reason}" for name, reason in faults.items())
