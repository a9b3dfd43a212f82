"""Boxes around nodules as tensors: anchors, offsets from them, overlaps.

A box is a row z0, y0, x0, z1, y1, x1 of edges in voxels: voxel i lies between the edges i and i + 1.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MAX_LOG_FACTOR = math.log(16)
"""A predicted box is at most so much larger than its anchor; an untrained network would overflow."""


def anchor_cubes(cells: Sequence[int], stride: int, sides: Sequence[float], device: torch.device) -> Tensor:
    """Return cubes around the middle of each cell of a feature map: (D * H * W * S, 6), the sides of a cell in a row.

    Args:
        cells: D, H, W of the feature map.
        stride: voxels of a cell along each axis.
        sides: of the cubes around each middle, voxels.
        device: where to make them.
    """
    axes = [(torch.arange(size, device=device) + 0.5) * stride for size in cells]
    middles = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 1, 3)
    halves = torch.tensor(sides, dtype=middles.dtype, device=device).view(1, -1, 1) / 2
    return torch.cat([middles - halves, middles + halves], 2).flatten(0, 1)


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Return how boxes lie to their anchors: shifts in the anchor's sides, then logarithms of the factors, (N, 6).

    Args:
        boxes: (N, 6).
        anchors: (N, 6).
    """
    (middle, side), (own_middle, own_side) = _middle_and_side(anchors), _middle_and_side(boxes)
    return torch.cat([(own_middle - middle) / side, torch.log(own_side / side)], 1)


def decode(offsets: Tensor, anchors: Tensor) -> Tensor:
    """Return the boxes (N, 6) that `encode` turned into offsets.

    Args:
        offsets: (N, 6).
        anchors: (N, 6).
    """
    middle, side = _middle_and_side(anchors)
    middle = middle + offsets[:, :3] * side
    half = side * torch.exp(offsets[:, 3:].clamp(-MAX_LOG_FACTOR, MAX_LOG_FACTOR)) / 2
    return torch.cat([middle - half, middle + half], 1)


def overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the intersection over union of each box with each other one, (N, M).

    Args:
        boxes: (N, 6).
        others: (M, 6).
    """
    low = torch.maximum(boxes[:, None, :3], others[None, :, :3])
    high = torch.minimum(boxes[:, None, 3:], others[None, :, 3:])
    shared = (high - low).clamp(min=0).prod(2)
    volumes = [(some[:, 3:] - some[:, :3]).prod(1) for some in (boxes, others)]
    return shared / (volumes[0][:, None] + volumes[1][None] - shared)


def without_overlaps(boxes: Tensor, scores: Tensor, most: float, count: int) -> Tensor:
    """Return the numbers of the boxes that overlap no better one too much, best first.

    Args:
        boxes: (N, 6).
        scores: (N,).
        most: largest overlap that is none yet.
        count: how many of the best boxes are looked at.
    """
    left, kept = torch.argsort(scores, descending=True, stable=True)[:count], []
    while len(left):
        kept.append(left[0])
        left = left[1:][overlaps(boxes[left[:1]], boxes[left[1:]])[0] <= most]
    return torch.stack(kept) if kept else left


def _middle_and_side(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return (boxes[:, :3] + boxes[:, 3:]) / 2, boxes[:, 3:] - boxes[:, :3]
