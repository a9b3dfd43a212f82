"""Convolutions of 3 x 3 x 3 with half the products, out of operations of OpenVINO alone; imports no torch.

Winograd's F(4, 3) along the rows (Lavin and Gray, CVPR 2016): sums of six rows replace the products that four rows of
the result have in common. OpenVINO has no such convolution. An image is kept as four, of every fourth row each, for
the whole of a network: then sums of neighboring rows are sums of whole images, and nothing is rearranged in between.
"""

from collections.abc import Sequence

import numpy as np
from openvino import Node
from openvino import opset13 as ops

PHASES = 4
ROW_AXIS = 3
INPUT = np.float32([
    [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
])  # fmt: skip
KERNEL = np.array([
    [1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1],
])  # fmt: skip
OUTPUT = np.float32([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
LAST = np.iinfo(np.int32).max
"""Of a slice that ends with its axis."""


class RowPhases:
    """An image taken apart into every fourth row from the first, second, third and fourth on.

    Attributes:
        phases: of the image, (B, C, D, H / 4, W) each; where 4 does not divide H, the last rows are zero.
    """

    def __init__(self, x: Node) -> None:
        """Take an image apart.

        Args:
            x: (B, C, D, H, W).
        """
        shape = ops.shape_of(x)
        self._height = ops.gather(shape, np.array([ROW_AXIS]), np.int64(0))
        none, one = (np.array(values, np.int64) for values in ([0, 0, 0], [1, 1, 1]))
        missing = ops.floor_mod(ops.negative(self._height), np.int64([PHASES]))
        beyond = ops.concat([none, missing, none[:1]], 0)
        inside = ops.broadcast(np.float32(1), ops.concat([one, self._height, one[:1]], 0))
        padded, inside = (
            ops.pad(part, np.zeros(5, np.int64), beyond, "constant", np.float32(0)) for part in (x, inside)
        )
        self._shape = ops.shape_of(padded)
        self.phases, self._inside = (
            [ops.slice(part, [first], [LAST], [PHASES], [ROW_AXIS]) for first in range(PHASES)]
            for part in (padded, inside)
        )

    def within(self, phases: Sequence[Node]) -> list[Node]:
        """Return phases with zeros where the image has no rows, as convolutions expect beyond its border.

        Args:
            phases: made of those of the image.
        """
        return [phases[0], *(ops.multiply(y, rows) for y, rows in zip(phases[1:], self._inside[1:], strict=True))]

    def join(self, phases: Sequence[Node]) -> Node:
        """Return an image of the shape of the first one.

        Args:
            phases: its own, of one channel where the first one had one.
        """
        rows = ops.concat([ops.unsqueeze(y, np.array(ROW_AXIS + 1)) for y in phases], ROW_AXIS + 1)
        return ops.slice(ops.reshape(rows, self._shape, False), [0], self._height, [1], [ROW_AXIS])


def convolve(phases: Sequence[Node], kernel: np.ndarray, bias: np.ndarray) -> list[Node]:
    """Convolve an image and add a bias; the padding keeps the size.

    Args:
        phases: of the image, zero beyond its rows.
        kernel: (C out, C in, 3, 3, 3).
        bias: (C out,).
    """
    before, behind = _moved(phases[-1], 0, 1, [0], [-1]), _moved(phases[0], 1, 0, [1], [LAST])
    rows = [before, *phases, behind]
    kernels = np.einsum("fr,oidrc->foidc", KERNEL, kernel.astype(float)).astype(np.float32)[:, :, :, :, None]
    padding, ones = [1, 0, 1], [1, 1, 1]
    products = [
        ops.convolution(_sum(factors, rows), np.ascontiguousarray(part), ones, padding, padding, ones)
        for factors, part in zip(INPUT, kernels, strict=True)
    ]
    bias = bias.reshape(1, -1, 1, 1, 1)
    return [ops.add(_sum(factors, products), bias) for factors in OUTPUT]


def _sum(factors: np.ndarray, nodes: Sequence[Node]) -> Node:
    terms = [(factor, node) for factor, node in zip(factors, nodes, strict=True) if factor]
    total = None
    for factor, node in terms:
        term = node if factor == 1 else ops.multiply(node, factor)
        total = term if total is None else ops.add(total, term)
    return total


def _moved(x: Node, behind: int, before: int, start: list[int], stop: list[int]) -> Node:
    """Rows moved by one, a row of zeros for the one that is not there."""
    ends = [np.eye(5, dtype=np.int64)[ROW_AXIS] * count for count in (before, behind)]
    return ops.slice(ops.pad(x, *ends, "constant", np.float32(0)), start, stop, [1], [ROW_AXIS])
