"""Generators and classifiers as OpenVINO graphs, built from a card and its weights; imports no torch.

Each builder does what `forward` of the evaluated network of the same kind does in `gan`, `unet` or `classifier`, with
every batch normalization folded into the convolution before it. Nodes are float32, (B, C, D, H, W) or (B, C, H, W).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import openvino as ov
from openvino import Node
from openvino import opset13 as ops

from LNHGLib.models import openvino_winograd

NORM_EPSILON = np.float32(1e-5)
"""What torch adds to a variance."""
LEAK = 0.01
SLAB = 3
"""Slices that the U-nets see to predict the one in their middle."""


@dataclass(frozen=True)
class Form:
    """What running a generator in pieces needs to know of it, as its torch class says it.

    Attributes:
        halo: reach of the receptive field, zyx.
        multiple: of which the sides of its input must be multiples, zyx.
        widest: feature maps of the widest layer, counted at full resolution.
        slab: slices of one input, where the network knows no other.
        planes: in how many planes it predicts slice by slice from slabs; 0 where it predicts volumes at once.
    """

    halo: tuple[int, int, int]
    multiple: tuple[int, int, int]
    widest: int
    slab: int | None = None
    planes: int = 0

    @classmethod
    def of(cls, card: Mapping[str, Any]) -> "Form":
        """Return the form of the generator that a card's part describes.

        Args:
            card: the part; `supports` is true of it.
        """
        kind, planes = card["kind"], card.get("planes", 1)
        if kind == "paper":
            return cls((8, 8, 8), (1, 1, 1), 8 * card.get("width", 32), slab=SLAB)
        if kind == "strided":
            return cls((32, 32, 32), (8, 8, 8), card.get("width", 16))
        return cls((1 if planes == 1 else 44, 44, 44), (8, 8, 8), SLAB * card.get("width", 64), planes=planes)


class Layers:
    """The layers of a network with their weights, by the names that torch gives them."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take the weights.

        Args:
            weights: tensors by name, float32.
        """
        self.weights = weights

    def conv(self, x: Node, name: str, norm: str = "", stride: int = 1, skip: Node | None = None) -> Node:
        """Convolve, add a skip, normalize; the padding keeps the size.

        Args:
            x: input.
            name: of the convolution.
            norm: of the batch normalization; "" for none.
            stride: along each axis.
            skip: of the result's shape.
        """
        kernel, bias, scale = self.folded(name, norm)
        if skip is not None and norm:
            skip = ops.multiply(skip, scale.reshape(1, -1, *(1,) * (kernel.ndim - 2)))
        y = convolve(x, kernel, bias, stride)
        return y if skip is None else ops.add(y, skip)

    def folded(self, name: str, norm: str = "") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the kernel and bias of a convolution with its normalization, and the normalization's factors.

        Args:
            name: of the convolution.
            norm: of the batch normalization; "" for none.
        """
        kernel = self.weights[f"{name}.weight"]
        bias = self.weights.get(f"{name}.bias", np.zeros(len(kernel), np.float32))
        if not norm:
            return kernel, bias, np.ones(len(kernel), np.float32)
        parts = ("running_mean", "running_var", "weight", "bias")
        mean, variance, factor, summand = (self.weights[f"{norm}.{part}"] for part in parts)
        scale = factor / np.sqrt(variance + NORM_EPSILON)
        return kernel * scale.reshape(-1, *(1,) * (kernel.ndim - 1)), (bias - mean) * scale + summand, scale

    def linear(self, x: Node, name: str) -> Node:
        """Multiply by a matrix and add a bias: (B, C in) -> (B, C out).

        Args:
            x: input.
            name: of the layer.
        """
        return ops.add(ops.matmul(x, self.weights[f"{name}.weight"], False, True), self.weights[f"{name}.bias"][None])


def convolve(x: Node, kernel: np.ndarray, bias: np.ndarray, stride: int = 1, padding: list[int] | None = None) -> Node:
    """Convolve and add a bias.

    Args:
        x: input.
        kernel: (C out, C in, ...), sides odd.
        bias: (C out,).
        stride: along each axis.
        padding: zeros at both ends of each axis; None keeps the size.
    """
    axes = kernel.ndim - 2
    padding = padding or [side // 2 for side in kernel.shape[2:]]
    y = ops.convolution(x, np.ascontiguousarray(kernel), [stride] * axes, padding, padding, [1] * axes)
    return ops.add(y, bias.reshape(1, -1, *(1,) * axes))


def upsample(x: Node, axes: tuple[int, ...], mode: str = "nearest") -> Node:
    """Double the sides along axes.

    Args:
        x: input.
        axes: numbers of the axes.
        mode: "nearest", or "linear_onnx" for torch's trilinear without aligned corners.
    """
    coordinates = "asymmetric" if mode == "nearest" else "half_pixel"
    factors = np.full(len(axes), 2, np.float32)
    return ops.interpolate(
        x,
        factors,
        mode,
        "scales",
        axes=np.array(axes),
        coordinate_transformation_mode=coordinates,
        nearest_mode="floor",
    )


def _paper(layers: Layers, x: Node, card: Mapping[str, Any]) -> Node:
    rows = openvino_winograd.RowPhases(x)

    def block(phases: list[Node], name: str, skips: list[Node] | None = None) -> list[Node]:
        kernel, bias, scale = layers.folded(f"{name}.conv", f"{name}.norm")
        phases = openvino_winograd.convolve(phases, kernel, bias)
        if skips:
            scale = scale.reshape(1, -1, 1, 1, 1)
            phases = [ops.add(y, ops.multiply(skip, scale)) for y, skip in zip(phases, skips, strict=True)]
        return rows.within([_leaky(y) for y in phases])

    encoded = [rows.phases]
    for i in range(4):
        encoded.append(block(encoded[-1], f"encoder.{i}"))
    y = encoded.pop()
    for i in range(3):
        y = block(y, f"decoder.{i}", encoded.pop())
    y = rows.join(openvino_winograd.convolve(y, *layers.folded("last")[:2]))
    return ops.relu(ops.add(y, x) if card.get("input_skip", True) else y)


def _strided(layers: Layers, x: Node, card: Mapping[str, Any]) -> Node:
    encoded = _encode(layers, x)
    return _draw(layers, x, _decode(layers, encoded, _context(layers, encoded)), card)


def _encode(layers: Layers, x: Node) -> Node:
    return _down(layers, _block(layers, x, "stem"), 0)


def _context(layers: Layers, encoded: Node) -> Node:
    middle = _down(layers, encoded, 1)
    return layers.conv(_up(layers, layers.conv(_down(layers, middle, 2), "reduce.2"), middle, 2), "reduce.1")


def _decode(layers: Layers, encoded: Node, context: Node) -> Node:
    return layers.conv(_up(layers, context, encoded, 1), "reduce.0")


def _draw(layers: Layers, x: Node, decoded: Node, card: Mapping[str, Any]) -> Node:
    y = _one_channel(layers, _up(layers, decoded, _block(layers, x, "stem"), 0), "last")
    return ops.relu(ops.add(y, x) if card.get("input_skip", True) else y)


def _down(layers: Layers, x: Node, level: int) -> Node:
    y = _block(layers, x, f"down.{level}", 2)
    return ops.add(_block(layers, y, f"deep.{level}"), y)


def _up(layers: Layers, x: Node, skip: Node, level: int) -> Node:
    y = ops.add(upsample(x, (2, 3, 4), "linear_onnx"), skip)
    return ops.add(_block(layers, y, f"up.{level}"), y)


def _block(layers: Layers, x: Node, name: str, stride: int = 1) -> Node:
    return _leaky(layers.conv(x, f"{name}.conv", f"{name}.norm", stride))


def _leaky(x: Node) -> Node:
    return ops.prelu(x, np.float32([LEAK]))


def _one_channel(layers: Layers, x: Node, name: str) -> Node:
    """Convolve to one channel by 3 x 3 x 3: the kernel's three columns as channels, which are moved and added.

    One channel takes as long as sixteen on the vector units of a CPU.
    """
    kernel, bias, _ = layers.folded(name)
    columns = np.ascontiguousarray(np.moveaxis(kernel, 4, 1)[0, ..., None])
    y = convolve(x, columns, np.zeros(len(columns), np.float32), padding=[1, 1, 0])
    y = ops.pad(y, [0, 0, 0, 0, 1], [0, 0, 0, 0, 1], "constant", np.float32(0))
    moved = (
        ops.slice(y, [i, i], [i + 1, end], [1, 1], [1, 4]) for i, end in enumerate((-2, -1, openvino_winograd.LAST))
    )
    return ops.add(reduce(ops.add, moved), bias.reshape(1, 1, 1, 1, 1))


def _unet(layers: Layers, x: Node, card: Mapping[str, Any]) -> Node:
    """The middle slice, (B, 1, 1, H, W), of slabs (B, 1, 3, H, W)."""
    skips, y = [], x
    for i in range(4):
        if i:
            y = ops.max_pool(y, [1, 2, 2], [1, 1, 1], [0, 0, 0], [0, 0, 0], [1, 2, 2]).output(0)
        for number in (0, 3):
            y = ops.relu(layers.conv(y, f"down.{i}.{number}", f"down.{i}.{number + 1}"))
        skips.append(y)
    y = skips.pop()
    for i in range(3):
        y = ops.relu(_conv_of_skip_and_upsampled(layers, skips.pop(), y, f"up.{i}.0", f"up.{i}.1"))
        kernel, bias, _ = layers.folded(f"up.{i}.3", f"up.{i}.4")
        middle_alone = [0, 1, 1] if i == 2 else None  # the last layer with depth needs no other slice
        y = ops.relu(convolve(y, kernel, bias, padding=middle_alone))
    probability = ops.sigmoid(layers.conv(y, "last"))
    return ops.multiply(probability, ops.slice(x, [1], [2], [1], [2])) if card["kind"] == "gated-unet" else probability


def _conv_of_skip_and_upsampled(layers: Layers, skip: Node, y: Node, name: str, norm: str) -> Node:
    """Convolve the skip beside `y` with its rows and columns doubled, where each value of `y` is read once.

    A kernel of three on rows that come in pairs meets two different rows: a transposed convolution with the stride 2
    does the same with four ninths of the products.
    """
    kernel, bias, _ = layers.folded(name, norm)
    channels = kernel.shape[1] - skip.output(0).get_partial_shape()[1].get_length()
    own, doubled = np.split(kernel, [kernel.shape[1] - channels], axis=1)
    for axis in (3, 4):
        first, middle, last = np.split(doubled, 3, axis)
        doubled = np.concatenate([last, middle + last, first + middle, first], axis)
    doubled = np.ascontiguousarray(doubled[:, :, ::-1].swapaxes(0, 1))
    ones = [1, 1, 1]
    spread = ops.convolution_backprop_data(y, doubled, [1, 2, 2], None, ones, ones, ones)
    return ops.add(convolve(skip, own, bias), spread)


def _residual_block(layers: Layers, x: Node, name: str, stride: int) -> Node:
    y = ops.relu(layers.conv(x, f"{name}.body.0", f"{name}.body.1", stride))
    if f"{name}.shortcut.0.weight" in layers.weights:
        x = layers.conv(x, f"{name}.shortcut.0", f"{name}.shortcut.1", stride)
    return ops.relu(ops.add(layers.conv(y, f"{name}.body.3", f"{name}.body.4"), x))


def _residual_classifier(layers: Layers, x: Node, card: Mapping[str, Any]) -> Node:
    y = ops.relu(layers.conv(x, "stem.0", "stem.1", 2))
    for stage in range(3):
        y = _residual_block(layers, y, f"stages.{stage}", 2)
    return ops.squeeze(layers.linear(ops.reduce_max(y, np.array([2, 3, 4])), "head"), np.array([1]))


def _resnet_48(layers: Layers, x: Node, card: Mapping[str, Any]) -> Node:
    cubes = ops.subtract(ops.multiply(x, np.float32(2)), np.float32(1))
    room = [0, 0, 8, 8, 8]
    y = ops.pad(cubes, room, room, "constant", np.float32(-1))
    y = ops.relu(layers.conv(y, "stem.0", "stem.1"))
    for stage in range(5):
        y = _residual_block(layers, y, f"stages.{2 * stage}", 2 if stage else 1)
        y = _residual_block(layers, y, f"stages.{2 * stage + 1}", 1)
    logits = layers.linear(ops.reduce_mean(y, np.array([2, 3, 4])), "head")
    return ops.squeeze(ops.matmul(logits, np.float32([[-1], [1]]), False, False), np.array([1]))


GENERATORS: dict[str, Callable[[Layers, Node, Mapping[str, Any]], Node]] = {
    "paper": _paper,
    "strided": _strided,
    "unet": _unet,
    "gated-unet": _unet,
}
CLASSIFIERS: dict[str, Callable[[Layers, Node, Mapping[str, Any]], Node]] = {
    "residual": _residual_classifier,
    "resnet-48": _resnet_48,
}


def supports(card: Mapping[str, Any]) -> bool:
    """Tell whether a card's part on a generator or classifier can be built here.

    Args:
        card: the part. A U-net that predicts all slices of a slab is not built: the graph gives the middle one.
    """
    kind = card["kind"]
    return kind in CLASSIFIERS or (kind in GENERATORS and not (GENERATORS[kind] is _unet and card.get("slab")))


def build(card: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> ov.Model:
    """Build the graph of a generator or classifier: one input, one output.

    Args:
        card: the card's part on it; `supports` is true of it.
        weights: tensors by name, float32.
    """
    kind = card["kind"]
    sides = [32, 32, 32] if kind in CLASSIFIERS else [SLAB if GENERATORS[kind] is _unet else -1, -1, -1]
    x = ops.parameter([-1, 1, *sides], np.float32)
    return ov.Model([(GENERATORS | CLASSIFIERS)[kind](Layers(weights), x, card)], [x], kind)


def build_stages(
    card: Mapping[str, Any], weights: Mapping[str, np.ndarray], between: type[np.floating] = np.float32
) -> list[ov.Model]:
    """Build the four graphs that `openvino_stages` runs one after another instead of a strided generator's.

    Arrays are (1, D, H, W, C), as convolutions have them in memory.

    Args:
        card: the card's part on it.
        weights: tensors by name, float32.
        between: type of what one graph hands to another.
    """
    layers, width = Layers(weights), card.get("width", 16)
    kinds = (1, np.float32), (2 * width, between), (2 * width, between), (width, between)
    inputs = [ops.parameter([1, -1, -1, -1, channels], kind) for channels, kind in kinds]
    ct, encoded, context, decoded = (ops.transpose(ops.convert(node, np.float32), [0, 4, 1, 2, 3]) for node in inputs)
    outputs = {
        "encode": (_encode(layers, ct), inputs[:1]),
        "context": (_context(layers, encoded), inputs[1:2]),
        "decode": (_decode(layers, encoded, context), inputs[1:3]),
        "draw": (_draw(layers, ct, decoded, card), inputs[::3]),
    }
    graphs = []
    for name, (y, given) in outputs.items():
        y = ops.convert(ops.transpose(y, [0, 2, 3, 4, 1]), np.float32 if name == "draw" else between)
        graphs.append(ov.Model([y], given, name).clone())  # no longer shares nodes, so that each has its own shapes
    return graphs
