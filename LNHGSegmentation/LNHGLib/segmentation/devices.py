"""What the networks can run on here: the processor and each GPU with its memory. Only `find` imports torch."""

import argparse
import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

GIB = 2**30
CPU_NAMES = Path("/proc/cpuinfo")


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
    return [*_gpus(), Device("cpu", _processor(), cores=_cores())]


def describe(device: Device) -> str:
    """Return a line for people."""
    if device.memory_gib is None:
        return f"{device.id}  {device.name}, {device.cores} core{'' if device.cores == 1 else 's'}"
    return f"{device.id}  {device.name}, {device.memory_gib:.0f} GiB, {device.free_gib:.0f} GiB free"


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """Add the command `devices`."""
    parser = commands.add_parser("devices", help="list what the networks can run on; auto takes the first")
    parser.add_argument("--json", action="store_true", help="as one line of JSON")
    parser.set_defaults(run=_list)


def _list(options: argparse.Namespace, _stop: object) -> None:
    found = find()
    if options.json:
        print(json.dumps({"devices": [asdict(device) for device in found]}))
    else:
        print("\n".join(map(describe, found)))


def _gpus() -> list[Device]:
    import torch

    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, whole = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        found.append(Device(f"cuda:{index}", name, None, round(whole / GIB, 1), round(free / GIB, 1)))
    return found


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = CPU_NAMES.read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
