"""Networks that OpenVINO runs on the CPU, compiled once and kept in the user's cache folder; imports no torch.

In float32 results are those of torch up to rounding, whatever else a CPU offers; in bfloat16, which some CPUs have,
generators and the detector take two thirds of the time.
"""

import ctypes
import hashlib
import io
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import openvino as ov

from LNHGLib.image.boxes import Box
from LNHGLib.models import compile_cache, openvino_detector, openvino_graph, openvino_stages
from LNHGLib.models.openvino_graph import SLAB, Form
from LNHGLib.models.openvino_stages import Stage

GRAPHS = 4
"""Raised whenever a builder of graphs changes: what was compiled before is not used any more."""
FLOAT32, BFLOAT16 = {"INFERENCE_PRECISION_HINT": "f32"}, {"INFERENCE_PRECISION_HINT": "bf16"}
SLABS_AT_ONCE = 16
AT_ONCE = 1_000_000
"""Voxels of a volume that is not worth going through level by level."""
POLL_MS = 50


class OpenVinoNetwork:
    """A generator or a classifier; the same door as `TorchNetwork`.

    Attributes:
        halo, multiple, slab, live_maps: as of `TorchNetwork`; fewer maps live, so that pieces may be larger.
    """

    on_cpu, live_maps = True, 5

    def __init__(self, card: Mapping[str, Any], compiled: ov.CompiledModel) -> None:
        """Take a compiled network.

        Args:
            card: the card's part on it.
            compiled: from `openvino_graph.build`.
        """
        self.compiled = compiled
        self.form = Form.of(card) if card["kind"] in openvino_graph.GENERATORS else None
        if self.form:
            self.halo, self.multiple, self.slab = self.form.halo, self.form.multiple, self.form.slab

    def predict(self, block: np.ndarray, check: Callable[[], None], wanted: Box | None = None) -> np.ndarray:
        """As `TorchNetwork.predict`; in planes only slices with something wanted are predicted.

        Args:
            block: float32 (B, 1, D, H, W).
            check: called often; what it raises stops the work.
            wanted: the part of each whose values count.
        """
        if self.form is None or not self.form.planes:
            return infer(self.compiled, [block], check)[0]
        image = np.zeros_like(block)
        for axis in range(2, 2 + self.form.planes):  # each slice across it from the slab around it
            part = slice(0, block.shape[axis]) if wanted is None else wanted[axis - 2]
            rows = np.arange(part.start - SLAB // 2, part.stop + SLAB // 2).clip(0, block.shape[axis] - 1)
            turned = np.moveaxis(block.take(rows, axis)[:, 0], axis - 1, 1)
            slabs = np.lib.stride_tricks.sliding_window_view(turned, SLAB, axis=1)
            slabs = np.moveaxis(slabs, -1, 2).reshape(-1, 1, SLAB, *turned.shape[2:])
            parts = [slabs[start : start + SLABS_AT_ONCE] for start in range(0, len(slabs), SLABS_AT_ONCE)]
            slices = np.concatenate([infer(self.compiled, [some], check)[0] for some in parts])
            np.moveaxis(image[:, 0], axis - 1, 1)[:, part] += slices.reshape(len(block), -1, *turned.shape[2:])
        return image / np.float32(self.form.planes)

    def widest(self) -> float:
        """Return the values per voxel of a generator's widest layer."""
        return self.form.widest

    def release(self) -> None:
        """Give memory back that is kept for the next piece."""
        release(self.compiled)


class StridedNetwork(OpenVinoNetwork):
    """A strided generator, which can also look over a whole volume level by level."""

    def __init__(
        self,
        card: Mapping[str, Any],
        compiled: ov.CompiledModel,
        weights: Callable[[], Mapping[str, np.ndarray]],
        precision: Mapping[str, str],
    ) -> None:
        """Take the compiled network and what its stages are built of.

        Args:
            card: the card's part on it.
            compiled: from `openvino_graph.build`.
            weights: gives its tensors by name, where the stages are wanted.
            precision: what they are compiled with.
        """
        super().__init__(card, compiled)
        self.precision, self.between = precision, np.float16 if precision is BFLOAT16 else np.float32
        self.stages = cache(lambda: openvino_graph.build_stages(card, weights(), self.between))

    def predict_volume(
        self, ct_norm: np.ndarray, wanted: np.ndarray, check: Callable[[], None], report: Callable[[float], None]
    ) -> np.ndarray:
        """Return the nodule image of a volume, float32 (z, y, x), 0 in pieces without anything wanted.

        Args:
            ct_norm: normalized CT, float32 (z, y, x).
            wanted: bool (z, y, x).
            check: called often; what it raises stops the work.
            report: called with the fraction done.
        """
        if ct_norm.size <= AT_ONCE:
            report(0.0)
            beyond = [(0, -size % multiple) for size, multiple in zip(ct_norm.shape, self.multiple, strict=True)]
            image = self.predict(np.pad(ct_norm, beyond, mode="edge")[None, None], check)[0, 0]
            return image[tuple(map(slice, ct_norm.shape))]
        stages = [_OfOneShape(graph, self.precision) for graph in self.stages()]
        runs = [Stage(lambda arrays, one=one: one.start(arrays, check), one.release) for one in stages]
        return openvino_stages.predict_volume(runs, ct_norm, wanted, report, self.between)


class _OfOneShape:
    """A graph compiled for the shapes that it was last asked for, which takes a twentieth of a second.

    With shapes left open, OpenVINO rearranges what goes in and out of it.
    """

    def __init__(self, graph: ov.Model, precision: Mapping[str, str]) -> None:
        self.graph, self.precision, self.shapes = graph, precision, None
        self.requests: list[ov.InferRequest] = []

    def start(self, arrays: Sequence[np.ndarray], check: Callable[[], None]) -> Callable[[], np.ndarray]:
        """Begin with arrays; what is returned waits for the result, which is valid until the start after the next."""
        shapes = [array.shape for array in arrays]
        if shapes != self.shapes:
            self.graph.reshape(dict(zip(self.graph.inputs, map(list, shapes), strict=True)))
            self.shapes, self.compiled = shapes, core().compile_model(self.graph, "CPU", self.precision)
            self.requests = []
        if len(self.requests) < 2:
            self.requests.append(self.compiled.create_infer_request())
        else:
            self.requests.reverse()
        request = self.requests[-1]
        begin(request, arrays)
        return lambda: wait(request, check)[0].data

    def release(self) -> None:
        """Stop what runs, and give memory back that is kept for the next piece."""
        for request in self.requests:
            stop(request)
        self.requests = []
        release(self.compiled)


class OpenVinoDetector:
    """The detector; the same door as `TorchNetwork`."""

    on_cpu = True

    def __init__(self, card: Mapping[str, Any], graphs: Sequence[ov.CompiledModel]) -> None:
        """Take the compiled graphs.

        Args:
            card: the card's `detector` part.
            graphs: from `openvino_detector.build`.
        """
        self.card, self.graphs, self.requests = card, graphs, []
        self.begun: Sequence[np.ndarray] = ()

    def detect(
        self, images: Sequence[np.ndarray], check: Callable[[], None], following: Sequence[np.ndarray] = ()
    ) -> list[np.ndarray]:
        """As `TorchNetwork.detect`; the first graph begins with what follows while boxes are chosen on these images.

        Args:
            images: float32 (3, H, W) each.
            check: called often; what it raises stops the work.
            following: the next call's images, where there will be one.
        """

        def propose(_images: Sequence[np.ndarray]) -> list[np.ndarray]:
            if self.begun is not images:
                self._begin(images)
            maps = [tensor.data for tensor in wait(self.requests[-1], check)]
            if following:
                self._begin(following)
            return maps

        runs = ((lambda arrays, one=one: infer(one, arrays, check)) for one in self.graphs[1:])
        try:
            return openvino_detector.Detector(self.card, propose, *runs).detect(images)
        except BaseException:
            self.release()
            raise

    def _begin(self, images: Sequence[np.ndarray]) -> None:
        """Begin the first graph on images in the one of two requests that was used before the last one."""
        while len(self.requests) < 2:
            self.requests.append(self.graphs[0].create_infer_request())
        self.requests.reverse()
        self.begun = images
        begin(self.requests[-1], [openvino_detector.block_of(images)])

    def release(self) -> None:
        """Stop what runs, and give memory back that is kept for the next piece."""
        for request in self.requests:
            stop(request)
        self.requests, self.begun = [], ()
        for graph in self.graphs:
            release(graph)


def infer(compiled: ov.CompiledModel, arrays: Sequence[np.ndarray], check: Callable[[], None]) -> list[np.ndarray]:
    """Run a graph; stop it in the middle where `check` raises.

    Args:
        compiled: the graph.
        arrays: its inputs.
        check: called often.
    """
    check()
    request = compiled.create_infer_request()
    begin(request, arrays)
    return [tensor.data.copy() for tensor in wait(request, check)]


def begin(request: ov.InferRequest, arrays: Sequence[np.ndarray]) -> None:
    """Let a request begin to compute.

    Args:
        request: which does not run.
        arrays: its inputs, which it keeps.
    """
    request.start_async([np.ascontiguousarray(array) for array in arrays], share_inputs=True)


def wait(request: ov.InferRequest, check: Callable[[], None]) -> tuple[ov.Tensor, ...]:
    """Return a request's outputs once it has computed them; its next run overwrites them.

    Args:
        request: which began.
        check: called often; what it raises stops the request.
    """
    try:
        while not request.wait_for(POLL_MS):
            check()
    except BaseException:
        stop(request)
        raise
    request.wait()
    return request.output_tensors


def stop(request: ov.InferRequest) -> None:
    """Stop a request, whether it runs or not."""
    request.cancel()
    with suppress(RuntimeError):  # says that it was cancelled
        request.wait()


def release(compiled: ov.CompiledModel) -> None:
    """Give the memory of a graph's layers back to the system; glibc keeps what is freed until it is asked."""
    compiled.release_memory()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


@cache
def core() -> ov.Core:
    """OpenVINO, set to as many threads as this process may use."""
    made = ov.Core()
    made.set_property("CPU", {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"})
    made.set_property("CPU", {"ENABLE_CPU_PINNING": False, "INFERENCE_NUM_THREADS": default_threads()})
    return made


def default_threads() -> int:
    """Return how many threads compute: $OMP_NUM_THREADS where it is set, as torch has it, else one for each core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(wanted), cores) if wanted.isdecimal() and int(wanted) else cores


def set_threads(threads: int) -> None:
    """Let the networks that are loaded from now on compute with at most so many threads."""
    core().set_property("CPU", {"INFERENCE_NUM_THREADS": min(threads, default_threads())})


def has_bfloat16() -> bool:
    """Tell whether this CPU computes in bfloat16."""
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def supports(part: str, card: Mapping[str, Any]) -> bool:
    """Tell whether a network can be built here.

    Args:
        part: "generator", "second_generator", "detector" or "classifier".
        card: the card's part on it.
    """
    return (openvino_detector if part == "detector" else openvino_graph).supports(card)


def load(
    part: str, card: Mapping[str, Any], content: bytes, bfloat16: bool = False
) -> OpenVinoNetwork | OpenVinoDetector:
    """Return a network, from the cache where it was compiled before.

    Args:
        part: as `supports` takes it.
        card: the card's part on it.
        content: of its safetensors file, checked.
        bfloat16: compute in it; a classifier, which takes no time, always computes in float32.
    """
    precision = BFLOAT16 if bfloat16 and part != "classifier" else FLOAT32
    about = precision | {
        "card": dict(card),
        "threads": core().get_property("CPU", "INFERENCE_NUM_THREADS"),
        "graphs": GRAPHS,
    }
    about |= {"openvino": ov.__version__, "cpu": core().get_property("CPU", "FULL_DEVICE_NAME")}
    key = hashlib.sha256(content + json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()
    if part == "detector":
        graphs = cache(lambda: openvino_detector.build(card, _weights(content)))
        kinds = (precision, precision, FLOAT32)  # boxes need more than eight bits
        return OpenVinoDetector(
            card, [_compile(f"{key}-{i}", lambda i=i: graphs()[i], kind) for i, kind in enumerate(kinds)]
        )
    compiled = _compile(key, lambda: openvino_graph.build(card, _weights(content)), precision)
    if card["kind"] != "strided":
        return OpenVinoNetwork(card, compiled)
    return StridedNetwork(card, compiled, lambda: _weights(content), precision)


def _weights(content: bytes) -> dict[str, np.ndarray]:
    """Tensors by name: float32, whole numbers as they are."""
    from safetensors.numpy import load as load_tensors

    stored = load_tensors(content)
    return {name: value.astype(np.float32) if value.dtype.kind == "f" else value for name, value in stored.items()}


def _compile(key: str, build: Callable[[], ov.Model], precision: Mapping[str, str]) -> ov.CompiledModel:
    """Return a graph compiled, from the cache or into it."""
    kept = compile_cache.read(key)
    if kept is not None:
        try:
            return core().import_model(io.BytesIO(kept), "CPU", precision)
        except RuntimeError:
            pass  # of another build of OpenVINO
    compiled = core().compile_model(build(), "CPU", precision)
    blob = compiled.export_model()
    compile_cache.keep(key, blob if isinstance(blob, bytes) else blob.getvalue())
    return compiled
