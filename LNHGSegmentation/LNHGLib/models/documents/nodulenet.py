"""NoduleNet: finds boxes, sorts out false ones, outlines the rest (Tang et al. 2019; docs/method.md, section 5.3).

Written from the article's description; no line comes from its program, whose license is non-commercial.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from LNHGLib.models import gan
from LNHGLib.models.documents.boxes_3d import anchor_cubes, decode, without_overlaps
from LNHGLib.models.gan import Generator

SIDES = (5, 10, 20, 30, 50)
"""Of the anchors, voxels; at 1 mm also millimeters."""
STRIDE = 4
"""Voxels of a cell of the maps that boxes are found and sorted on."""
POOLED = 7
"""Cells along each axis that a box is pooled to."""
MIN_PROBABILITY, MAX_BOX_OVERLAP, MAX_OUTLINE_OVERLAP = 0.5, 0.1, 0.3
MAX_BOXES = 4000
"""So many of the best boxes of a piece are looked at: more come of an untrained network alone."""
DARKEST = 0.05
"""The nodule image of darker voxels is that of such: `component_scores` takes them for such, too."""
WIDTH = 24


@dataclass(frozen=True)
class Maps:
    """What the body makes of a CT of (B, 1, D, H, W).

    Attributes:
        image: the CT in -1 to 1, (B, 1, D, H, W).
        half: features at half the sides.
        quarter: of the encoder at a quarter, on which boxes are sorted.
        decoded: of the decoder at a quarter, on which boxes are found and outlined.
    """

    image: Tensor
    half: Tensor
    quarter: Tensor
    decoded: Tensor


class Residual(nn.Module):
    """Two convolutions and a sum with what came in, through a kernel of 1 where the channels change."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.way = nn.Sequential(_conv(c_in, c_out), nn.ReLU(), _conv(c_out, c_out))
        self.past = nn.Identity() if c_in == c_out else _conv(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return features: (B, c_in, D, H, W) -> (B, c_out, D, H, W)."""
        return torch.relu(self.way(x) + self.past(x))


class NoduleNet(Generator):
    """A network in three steps on one body, 17,342,570 parameters.

    Its signal is the score of the detection whose outline holds a voxel, 0 outside of all; its nodule image the CT
    times the signal. So `threshold` is 0, and the score that the pipeline gives a component is the detection's.

    Args:
        width: channels of the first convolutions, a multiple of 3; 24 is the article's. All others go with it.

    Raises:
        InputError: `width` is no multiple of 3.
    """

    halo = (64, 64, 64)
    """The body reaches farther, but what lies beyond changes a logit by a hundredth of its spread. The box of a nodule
    at a piece's end lies within."""
    multiple = 16
    options = ("width",)

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        gan.require_multiple(width, 3)
        w1, w2, w3, w4 = (channels * width // WIDTH for channels in (24, 32, 64, 128))
        self.first = nn.Sequential(_conv(1, w1, stride=2), nn.ReLU(), _conv(w1, w1), nn.ReLU())
        self.at_half = _blocks(w1, w2, 2)
        self.at_quarter, self.at_eighth, self.at_sixteenth = (
            nn.Sequential(nn.MaxPool3d(2), _blocks(c_in, w3, count)) for c_in, count in ((w2, 2), (w3, 3), (w3, 3))
        )
        self.to_eighth, self.to_quarter = _enlarging(w3), _enlarging(w3)
        self.joined_eighth, self.joined_quarter = _blocks(2 * w3, w3, 3), _blocks(2 * w3, w4, 3)
        self.proposer = nn.Sequential(nn.Conv3d(w4, w3, 1), nn.ReLU())
        self.proposal_logits, self.proposal_offsets = (nn.Conv3d(w3, len(SIDES) * each, 1) for each in (1, 6))
        wide, narrow = (features * width // WIDTH for features in (512, 256))
        layers = nn.Linear(w3 * POOLED**3, wide), nn.ReLU(), nn.Linear(wide, narrow), nn.ReLU()
        self.classifier = nn.Sequential(*layers)
        self.class_logits, self.class_offsets = (nn.Linear(narrow, 2 * each) for each in (1, 6))
        self.outliner = nn.ModuleList(
            nn.Sequential(nn.Conv3d(c_in, w3, 3, padding=1), nn.InstanceNorm3d(w3), nn.ReLU())
            for c_in in (w4, w3 + w2, w3, w3 + 1)
        )
        self.outline_logits = nn.Conv3d(w3, 1, 1)
        self.values_per_voxel = w2 / 8  # at half the sides; outlines are wider, but see boxes alone
        gan.initialize(self)
        for head in (self.proposal_logits, self.proposal_offsets, self.class_logits, self.class_offsets):
            nn.init.normal_(head.weight, std=0.01)

    @torch.no_grad()
    def residual(self, x: Tensor) -> Tensor:
        """Scores of the outlined detections: (B, 1, D, H, W) -> same shape."""
        maps, signal = self.maps(x), torch.zeros_like(x)
        for number, (boxes, scores) in enumerate(self.detections(maps)):
            for place, mask, score in self._outlines(maps, number, boxes, scores):
                there = signal[(number, 0, *place)]
                torch.maximum(there, mask * score, out=there)
        return signal

    def image(self, residual: Tensor, x: Tensor) -> Tensor:
        """Return the nodule image of a signal.

        Args:
            residual: scores, (B, 1, D, H, W).
            x: the CT that they were predicted from, same shape.
        """
        return x.clamp(min=DARKEST) * residual

    def maps(self, x: Tensor) -> Maps:
        """Return the features of a CT: (B, 1, D, H, W), sides multiples of 16."""
        image = 2 * x - 1
        half = self.at_half(self.first(image))
        quarter = self.at_quarter(half)
        eighth = self.at_eighth(quarter)
        y = self.joined_eighth(torch.cat([self.to_eighth(self.at_sixteenth(eighth)), eighth], 1))
        decoded = self.joined_quarter(torch.cat([self.to_quarter(y), quarter], 1))
        return Maps(image, half, quarter, decoded)

    def propose(self, maps: Maps) -> tuple[Tensor, Tensor]:
        """Return logits (B, N) and offsets (B, N, 6) of all anchors, in the order of `anchors`."""
        y = self.proposer(maps.decoded)
        logits = self.proposal_logits(y).permute(0, 2, 3, 4, 1).flatten(1)
        return logits, self.proposal_offsets(y).permute(0, 2, 3, 4, 1).reshape(*logits.shape, 6)

    def anchors(self, maps: Maps) -> Tensor:
        """Return the anchors of a CT, (N, 6)."""
        return anchor_cubes(maps.decoded.shape[2:], STRIDE, SIDES, maps.decoded.device)

    def proposals(self, maps: Maps, logits: Tensor, offsets: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return the boxes (n, 6) that are probably nodules, of each CT, and their probabilities (n,).

        Args:
            maps: of the CTs.
            logits: as from `propose`.
            offsets: likewise.
        """
        anchors, found = self.anchors(maps), []
        for probability, moved in zip(torch.sigmoid(logits.float()), offsets.float(), strict=True):
            likely = probability > MIN_PROBABILITY
            boxes, scores = decode(moved[likely], anchors[likely]), probability[likely]
            kept = without_overlaps(boxes, scores, MAX_BOX_OVERLAP, MAX_BOXES)
            found.append((boxes[kept], scores[kept]))
        return found

    def classify(self, maps: Maps, number: int, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (n, 2) of being none and being a nodule, and offsets (n, 2, 6) of boxes of a CT.

        Args:
            maps: of the CTs.
            number: of the CT.
            boxes: (n, 6).
        """
        if not len(boxes):
            return boxes.new_zeros(0, 2), boxes.new_zeros(0, 2, 6)
        places = [_cells(box, maps.quarter.shape[2:]) for box in boxes.tolist()]
        pooled = [
            nn.functional.adaptive_max_pool3d(maps.quarter[(number, slice(None), *place)], POOLED) for place in places
        ]
        features = self.classifier(torch.stack(pooled).flatten(1))
        return self.class_logits(features), self.class_offsets(features).unflatten(1, (2, 6))

    def detections(self, maps: Maps) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the boxes (n, 6) of each CT and their scores (n,), the mean of both steps' probabilities."""
        for number, (boxes, first) in enumerate(self.proposals(maps, *self.propose(maps))):
            logits, offsets = (part.float() for part in self.classify(maps, number, boxes))
            second, boxes = torch.softmax(logits, 1)[:, 1], decode(offsets[:, 1], boxes)
            kept = without_overlaps(boxes, second, MAX_BOX_OVERLAP, MAX_BOXES)
            yield boxes[kept], (first[kept] + second[kept]) / 2

    def outline(self, maps: Maps, number: int, box: list[float]) -> tuple[tuple[slice, ...], Tensor]:
        """Return the place (z, y, x) of a box in a CT, grown to whole cells, and the logits of its outline there.

        Args:
            maps: of the CTs.
            number: of the CT.
            box: six edges.
        """
        cells = _cells(box, maps.decoded.shape[2:])
        half, whole = (
            tuple(slice(part.start * times, part.stop * times) for part in cells) for times in (STRIDE // 2, STRIDE)
        )
        own = slice(number, number + 1), slice(None)
        y = self.outliner[0](_enlarged(maps.decoded[(*own, *cells)]))
        y = self.outliner[1](torch.cat([y, maps.half[(*own, *half)]], 1))
        y = self.outliner[2](_enlarged(y))
        y = self.outliner[3](torch.cat([y, maps.image[(*own, *whole)]], 1))
        return whole, self.outline_logits(y)[0, 0]

    def _outlines(
        self, maps: Maps, number: int, boxes: Tensor, scores: Tensor
    ) -> Iterator[tuple[tuple[slice, ...], Tensor, Tensor]]:
        """Yield place, outline and score of each detection whose outline is no better one's, best first."""
        owner = torch.zeros(maps.image.shape[2:], dtype=torch.int64, device=boxes.device)
        sizes = [0]
        for index in torch.argsort(scores, descending=True, stable=True):
            place, logits = self.outline(maps, number, boxes[index].tolist())
            mask = logits > 0
            size, shared = int(mask.sum()), torch.bincount(owner[place][mask], minlength=len(sizes)).tolist()[1:]
            overlap = (both / (size + other - both) for both, other in zip(shared, sizes[1:], strict=True) if both)
            if size and max(overlap, default=0) <= MAX_OUTLINE_OVERLAP:
                owner[place][mask & (owner[place] == 0)] = len(sizes)
                sizes.append(size)
                yield place, mask, scores[index]


def _cells(box: list[float], shape: torch.Size) -> tuple[slice, ...]:
    """Return the cells of a map that a box touches, at least one along each axis."""
    place = []
    for low, high, size in zip(box[:3], box[3:], shape, strict=True):
        start = min(max(int(low // STRIDE), 0), size - 1)
        place.append(slice(start, min(max(int(-(-high // STRIDE)), start + 1), size)))
    return tuple(place)


def _blocks(c_in: int, c_out: int, count: int) -> nn.Sequential:
    return nn.Sequential(Residual(c_in, c_out), *(Residual(c_out, c_out) for _ in range(count - 1)))


def _conv(c_in: int, c_out: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(c_in, c_out, size, stride, size // 2), nn.BatchNorm3d(c_out))


def _enlarging(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose3d(channels, channels, 2, stride=2), nn.BatchNorm3d(channels), nn.ReLU())


def _enlarged(x: Tensor) -> Tensor:
    return nn.functional.interpolate(x, scale_factor=2, mode="trilinear", align_corners=False)
