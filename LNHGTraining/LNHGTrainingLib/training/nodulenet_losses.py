"""Losses of NoduleNet's three steps: boxes found, boxes sorted, nodules outlined (docs/method.md, section 5.3).

Boxes are rows z0, y0, x0, z1, y1, x1 of edges in voxels, see `LNHGLib.models.documents.boxes_3d`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from LNHGLib.models.documents.boxes_3d import encode, overlaps
from scipy import ndimage
from torch import Tensor, nn

BORDER = 8
"""Voxels that a nodule's box is larger than the nodule, along each axis."""
MIN_VOXELS = 8
"""A smaller part of a nodule, cut off by the patch, is not known to be one."""
POSITIVE, PROPOSAL_NEGATIVE, CLASS_NEGATIVE = 0.5, 0.02, 0.1
"""Overlap with a nodule from which an anchor or a box is one, and below which they are none."""
SAMPLED_NEGATIVES, NEGATIVES_FOR_POSITIVE = 800, 3
SAMPLED_BOXES = 64


@dataclass(frozen=True)
class Nodules:
    """The nodules of a patch.

    Attributes:
        boxes: (n, 6), each with its border.
        numbers: int64 (z, y, x), 0 outside, nodule k + 1 of `boxes`.
        known: bool (z, y, x), False where the reference does not say.
    """

    boxes: Tensor
    numbers: Tensor
    known: Tensor

    @classmethod
    def of(cls, mask: Tensor, known: Tensor) -> "Nodules":
        """Return the components of a patch's mask; those of a few voxels are taken for unknown.

        Args:
            mask: 0 or 1, (z, y, x).
            known: 1 where the reference is known, (z, y, x).
        """
        labels, count = ndimage.label(mask.cpu().numpy() > 0, np.ones((3, 3, 3)))
        counts = np.bincount(labels.ravel(), minlength=count + 1)
        large = [number for number in range(1, count + 1) if counts[number] >= MIN_VOXELS]
        boxes, numbers, extents = [], np.zeros(labels.shape, np.int64), ndimage.find_objects(labels)
        for order, number in enumerate(large, 1):
            numbers[labels == number] = order
            low, high = ([getattr(part, end) for part in extents[number - 1]] for end in ("start", "stop"))
            boxes.append([edge - BORDER / 2 for edge in low] + [edge + BORDER / 2 for edge in high])
        certain = (known.cpu().numpy() > 0) & ((labels == 0) | (numbers > 0))
        return cls(
            torch.tensor(boxes, dtype=torch.float32, device=mask.device).view(-1, 6),
            torch.from_numpy(numbers).to(mask.device),
            torch.from_numpy(certain).to(mask.device),
        )

    def known_at(self, boxes: Tensor) -> Tensor:
        """Return whether the reference is known at the middle of each box, (N,) bool; outside of the patch it is not.

        Args:
            boxes: (N, 6).
        """
        middle = ((boxes[:, :3] + boxes[:, 3:]) / 2).floor().long()
        sides = torch.tensor(self.known.shape, device=boxes.device)
        inside = ((middle >= 0) & (middle < sides)).all(1)
        z, y, x = middle.clamp(min=0).minimum(sides - 1).unbind(1)
        return self.known[z, y, x] & inside

    def match(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the largest overlap (N,) of each box with a nodule's, and that nodule's index (N,); 0 without nodules.

        Args:
            boxes: (N, 6).
        """
        if not len(self.boxes):
            return boxes.new_zeros(len(boxes)), torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        overlap, nodule = overlaps(boxes, self.boxes).max(1)
        return overlap, nodule


def balanced(losses: Tensor, positive: Tensor) -> Tensor:
    """Return half the mean of the positives plus half the mean of the others; a kind that is missing adds nothing.

    Args:
        losses: (N,).
        positive: bool (N,).
    """
    parts = [losses[chosen].mean() / 2 for chosen in (positive, ~positive) if chosen.any()]
    return sum(parts, losses.sum() * 0)


def box_loss(offsets: Tensor, targets: Tensor) -> Tensor:
    """Return the smooth L1 of offsets, the sum of the means of the six of them; 0 without boxes.

    Args:
        offsets: predicted, (N, 6).
        targets: to reach, (N, 6).
    """
    if not len(offsets):
        return offsets.sum() * 0
    return nn.functional.smooth_l1_loss(offsets, targets, reduction="none").mean(0).sum()


def tversky_loss(logits: Tensor, mask: Tensor, known: Tensor, alpha: float = 0.5, beta: float = 0.5) -> Tensor:
    """Return 1 - soft Tversky of an outline: with both weights a half it is soft Dice.

    Args:
        logits: of the probability of the nodule, (z, y, x).
        mask: the nodule, 0 or 1.
        known: 1 where the reference is known, else 0.
        alpha: weight of what is false.
        beta: weight of what is missing.
    """
    probability, mask = torch.sigmoid(logits) * known, mask * known
    both = (probability * mask).sum()
    false, missing = (probability * (1 - mask)).sum(), ((1 - probability) * mask).sum()
    return 1 - both / (both + alpha * false + beta * missing).clamp(min=1e-6)


def sample_anchors(logits: Tensor, anchors: Tensor, nodules: Nodules) -> tuple[Tensor, Tensor]:
    """Return the anchors of a patch that the loss sees: one or no positive, then the hardest of sampled negatives.

    An anchor is positive that overlaps a nodule by half, or most of all; one of them is taken at random.

    Args:
        logits: (N,).
        anchors: (N, 6).
        nodules: of the patch.

    Returns:
        Indices of positives and of negatives.
    """
    overlap, _ = nodules.match(anchors)
    positive = overlap >= POSITIVE
    if len(nodules.boxes):
        positive[overlaps(anchors, nodules.boxes).argmax(0)] = True
    positives = _some(positive, 1)
    sampled = _some((overlap < PROPOSAL_NEGATIVE) & ~positive & nodules.known_at(anchors), SAMPLED_NEGATIVES)
    hardest = logits[sampled].argsort(descending=True)[: NEGATIVES_FOR_POSITIVE * max(len(positives), 1)]
    return positives, sampled[hardest]


def proposal_losses(logits: Tensor, offsets: Tensor, anchors: Tensor, patches: list[Nodules]) -> tuple[Tensor, Tensor]:
    """Return the losses of the first step, of probabilities and of boxes.

    Args:
        logits: (B, N).
        offsets: (B, N, 6).
        anchors: (N, 6).
        patches: the nodules of each.
    """
    chosen, positive, moved, targets = [], [], [], []
    for own_logits, own_offsets, nodules in zip(logits, offsets, patches, strict=True):
        positives, negatives = sample_anchors(own_logits.detach(), anchors, nodules)
        chosen.append(own_logits[torch.cat([positives, negatives])])
        positive.append(torch.arange(len(chosen[-1]), device=logits.device) < len(positives))
        if len(positives):
            nodule = nodules.match(anchors[positives])[1]
            moved.append(own_offsets[positives])
            targets.append(encode(nodules.boxes[nodule], anchors[positives]))
    joined, positive = torch.cat(chosen), torch.cat(positive)
    losses = nn.functional.binary_cross_entropy_with_logits(joined, positive.float(), reduction="none")
    empty = offsets[0, :0]
    return balanced(losses, positive), box_loss(torch.cat([empty, *moved]), torch.cat([empty, *targets]))


def sample_boxes(boxes: Tensor, nodules: Nodules) -> tuple[Tensor, Tensor]:
    """Return the boxes of a patch that the second step learns from, (n, 6), and whether each is a nodule, bool (n,).

    The nodules' own boxes are among them. At most half of the boxes are positive.

    Args:
        boxes: proposed, (N, 6).
        nodules: of the patch.
    """
    boxes = torch.cat([boxes, nodules.boxes])
    overlap, _ = nodules.match(boxes)
    positives = _some(overlap >= POSITIVE, SAMPLED_BOXES // 2)
    negatives = _some((overlap < CLASS_NEGATIVE) & nodules.known_at(boxes), SAMPLED_BOXES - len(positives))
    chosen = torch.cat([positives, negatives])
    return boxes[chosen], torch.arange(len(chosen), device=boxes.device) < len(positives)


def class_losses(logits: Tensor, offsets: Tensor, positive: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the losses of the second step: cross-entropy weighed by the classes' rarity, and boxes of the positives.

    Args:
        logits: (N, 2).
        offsets: (N, 2, 6).
        positive: bool (N,).
        targets: offsets to reach by the positives, (P, 6).
    """
    losses = nn.functional.cross_entropy(logits, positive.long(), reduction="none")
    return balanced(losses, positive), box_loss(offsets[positive, 1], targets)


def _some(chosen: Tensor, count: int) -> Tensor:
    """Return indices of at most so many that are chosen, at random."""
    indices = chosen.nonzero()[:, 0]
    return indices[torch.randperm(len(indices), device="cpu")[:count].to(indices.device)]
