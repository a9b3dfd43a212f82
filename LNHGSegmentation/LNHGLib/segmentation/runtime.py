"""The door to the networks: by what they run, torch on a CPU or a GPU or OpenVINO on the CPU, and too little memory.

torch is imported only where it runs something.
"""

import importlib.util
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from LNHGLib.errors import InputError, quoted
from LNHGLib.models.folder import BY_OPENVINO, OPENVINO, OPENVINO_BF16, RUNTIMES, TORCH, Model
from LNHGLib.segmentation.devices import choose_device, has_gpu

if TYPE_CHECKING:
    from torch import nn

Network = "TorchNetwork | OpenVinoNetwork | OpenVinoDetector"
"""What runs: `models.torch_network.TorchNetwork`, which explains the door, or its two like of OpenVINO."""
Where = "torch.device | str"
"""What networks run on: a device of torch, or one of `BY_OPENVINO`."""
SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED", "bad_alloc", "bad allocation")
"""How CUDA, cuDNN, cuBLAS, torch's CPU allocator and OpenVINO put it in errors of no kind of their own."""


def as_network(network: "Network | nn.Module") -> Network:
    """Return a network as one that takes and gives NumPy arrays; a module of torch is put behind the door."""
    if hasattr(network, "release"):
        return network
    from LNHGLib.models.torch_network import TorchNetwork

    return TorchNetwork(network)


def installed() -> list[str]:
    """Return the runtimes that are installed here, best first for a CPU; none is loaded."""
    return [name for name in (OPENVINO, TORCH) if importlib.util.find_spec(name) is not None]


def runtimes_of(model: Model) -> list[str]:
    """Return the runtimes of this computer that compute all of a model's networks, the CPU's of "auto" first."""
    return [name for name in installed() if name == TORCH or model.runs_on_openvino()]


def choose_runtime(device: "str | Where", model: Model, runtime: str = "auto", exact: bool = False) -> "Where":
    """Return what a model's networks run on, in bfloat16 where CPU, OpenVINO and the model's card allow it.

    Args:
        device: as `choose_device` takes it; what was chosen before is returned as it is.
        model: what is to run.
        runtime: "torch", "openvino", or "auto": OpenVINO where the CPU computes, OpenVINO is installed and knows the
            model's networks, else torch.
        exact: always compute in float32.

    Raises:
        InputError: there is no such device or runtime here, or OpenVINO does not know a network of the model.
    """
    if device in BY_OPENVINO or not isinstance(device, str):
        return device
    if runtime not in RUNTIMES:
        raise InputError(
            f"Runtime {quoted(runtime)} is unknown, expected one of {', '.join(RUNTIMES)}; choose one of these."
        )
    on_cpu = device == "cpu" or (device == "auto" and (runtime == OPENVINO or not has_gpu()))
    if runtime == TORCH or (runtime == "auto" and not (on_cpu and model.runs_on_openvino())):
        if TORCH not in installed():
            wanted = f"model {quoted(model.name)}" if on_cpu else f"device {quoted(device)}"
            wanted = "--runtime torch" if runtime == TORCH else wanted
            raise InputError(
                f"PyTorch is not installed, and {wanted} needs it; in Slicer install it under Set-up, else with: "
                "python -m LNHGLib.packages install."
            )
        return choose_device(device)
    if not on_cpu:
        raise InputError(
            f"OpenVINO computes on the CPU here, device {quoted(device)} was given; use --device cpu, or torch."
        )
    if OPENVINO not in installed():
        raise InputError("OpenVINO is not installed; install it with: pip install openvino, or use --runtime torch.")
    if not model.runs_on_openvino():
        raise InputError(
            f"Model {quoted(model.name)} has a network that is not built for OpenVINO; use --runtime torch for this "
            "model."
        )
    from LNHGLib.models import openvino_network

    return OPENVINO_BF16 if model.spec.bfloat16 and not exact and openvino_network.has_bfloat16() else OPENVINO


def device_name(where: "Where") -> str:
    """Return the maker's name of a GPU, or what the system calls its processor."""
    if not str(where).startswith("cuda"):
        return platform.processor() or platform.machine()
    import torch

    return torch.cuda.get_device_name(where)


def set_threads(where: "Where", threads: int) -> None:
    """Let networks compute with at most so many threads in this process.

    Args:
        where: from `choose_runtime`.
        threads: their number.
    """
    if where in BY_OPENVINO:
        from LNHGLib.models import openvino_network

        openvino_network.set_threads(threads)
    else:
        import torch

        torch.set_num_threads(min(threads, torch.get_num_threads()))


def is_short(error: BaseException) -> bool:
    """Tell whether an error says that the memory of a GPU or of the computer did not suffice."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


@contextmanager
def suppress_out_of_memory() -> Iterator[None]:
    """Leave the block quietly when the memory does not suffice; the caller sees from its work what is left to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_short(error):
            raise
