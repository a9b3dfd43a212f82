"""What the networks can run on here: the processor and each GPU with its memory. Only functions import torch."""

import ctypes
import importlib.util
import os
import platform
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from LNHGLib.errors import InputError, quoted

if TYPE_CHECKING:
    import torch

GIB = 2**30
CPU_NAMES = Path("/proc/cpuinfo")
DRIVERS = ("libcuda.so.1", "nvcuda.dll", "libamdhip64.so", "amdhip64.dll")
"""Libraries without which torch finds no GPU that it calls cuda: of NVIDIA's driver and of AMD's."""


@dataclass(frozen=True)
class Device:
    """A device.

    Attributes:
        id: as `--device` takes it.
        name: the maker's.
        cores: of the processor that this program may use; None for a GPU.
        memory_gib: of the GPU; None for the processor, which uses the computer's.
        free_gib: of the GPU's memory, not in use at this moment.
    """

    id: str
    name: str
    cores: int | None = None
    memory_gib: float | None = None
    free_gib: float | None = None


def find() -> list[Device]:
    """Return the devices, the one that "auto" takes first."""
    return [*_gpus(), Device("cpu", _processor(), cores=usable_cores())]


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_gpu() -> bool:
    """Tell whether torch finds a GPU here; where no driver is installed, torch is not even imported."""
    if importlib.util.find_spec("torch") is None:
        return False
    if "torch" not in sys.modules:
        for library in DRIVERS:
            with suppress(OSError):
                ctypes.CDLL(library)
                break
        else:
            return False
    import torch

    return torch.cuda.is_available()


def choose_device(name: str) -> "torch.device":
    """Return the torch device for "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        InputError: the name is none of these, or this machine has no such device.
    """
    import torch

    count = torch.cuda.device_count() if has_gpu() else 0
    if name == "auto":
        return torch.device("cuda:0" if count else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, index = name.partition(":")
    if kind != "cuda" or (name != "cuda" and not index.isdecimal()):
        raise InputError(f"Device {quoted(name)} is unknown, expected auto, cpu, cuda or cuda:N; choose one of these.")
    if int(index or 0) >= count:
        have = f"{count} CUDA device{'s' if count > 1 else ''}" if count else "no CUDA device"
        raise InputError(f"Device {quoted(name)} is not there, this machine has {have}; use auto or cpu.")
    return torch.device("cuda", int(index or 0))


def describe(device: Device) -> str:
    """Return a line for people."""
    if device.memory_gib is None:
        return f"{device.id}  {device.name}, {device.cores} core{'' if device.cores == 1 else 's'}"
    return f"{device.id}  {device.name}, {device.memory_gib:.0f} GiB, {device.free_gib:.0f} GiB free"


def _gpus() -> list[Device]:
    if not has_gpu():
        return []
    import torch

    found = []
    for index in range(torch.cuda.device_count()):
        free, whole = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        found.append(Device(f"cuda:{index}", name, None, round(whole / GIB, 1), round(free / GIB, 1)))
    return found


def _processor() -> str:
    try:
        lines = CPU_NAMES.read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
