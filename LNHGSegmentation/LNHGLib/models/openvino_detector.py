"""The detector as OpenVINO graphs, with torchvision's ways of choosing boxes in NumPy; imports no torch.

Three graphs: the pyramid of feature maps with what the region proposal network says of each place, the head that judges
proposals, and the suppression of boxes that overlap with better ones. What lies between and behind them does what
`detector.build_detector`'s network does in evaluation. Boxes are (x0, y0, x1, y1) in pixels, float32.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops
from scipy.special import expit

from LNHGLib.models.openvino_graph import Layers, upsample

LEVELS = 5
POOLED_LEVELS = 4
"""The last level has anchors, but proposals are not judged by it."""
POOLED_PX = 7
SAMPLES = 2
CANONICAL_PX, CANONICAL_LEVEL = 64.0, 4
ANCHORS_PX = (4, 8, 16, 32, 64)
ASPECT_RATIOS = (0.5, 1.0, 2.0)
PADDED_TO = 32
DELTA_CLAMP = np.float32(np.log(1000 / 16))
PROPOSALS_BEFORE_NMS, PROPOSALS, DETECTIONS = 500, 100, 20
MIN_PROPOSAL_PX, MIN_DETECTION_PX = 2.0, 1e-2
BOX_WEIGHTS = np.float32([10, 10, 5, 5])

Infer = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


def supports(card: Mapping[str, Any]) -> bool:
    """Tell whether the detector of a card can be built here: the light backbone, all anchors' sides different levels.

    Args:
        card: the card's `detector` part.
    """
    return card.get("backbone") == "light" and len(card.get("anchors_px", ANCHORS_PX)) == LEVELS


def build(card: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> tuple[ov.Model, ov.Model, ov.Model]:
    """Build the graphs.

    The first takes images (B, 3, H, W), normalized, sides multiples of 32, and gives the four maps (B, C, h, w), the
    logits of all anchors (B, N) and their offsets (B, N, 4). The second takes the maps, then boxes (n, 4) and their
    images' numbers (n,) for each map, and gives logits (n, 2) and offsets (n, 8) for all boxes, map by map. The third
    takes boxes (B, n, 4) with scores (B, 1, n), how many are kept at most (1,), and the largest intersection over union
    with a better one (1,), and gives rows of image, 0 and number of each kept box, best first; none of score 0 is kept.

    Args:
        card: the card's `detector` part.
        weights: tensors by name, float32.
    """
    layers = Layers(weights)
    image = ops.parameter([-1, 3, -1, -1], np.float32)
    maps = _pyramid(layers, image)
    logits, offsets, channels_last = [], [], np.array([0, 2, 3, 1])
    for features in maps:  # anchors row by row
        y = ops.relu(layers.conv(features, "rpn.head.conv.0.0"))
        scores = ops.transpose(layers.conv(y, "rpn.head.cls_logits"), channels_last)
        moves = ops.transpose(layers.conv(y, "rpn.head.bbox_pred"), channels_last)
        logits.append(ops.reshape(scores, np.array([0, -1]), True))
        offsets.append(ops.reshape(moves, np.array([0, -1, 4]), True))
    outputs = [*maps[:POOLED_LEVELS], ops.concat(logits, 1), ops.concat(offsets, 1)]
    first = ov.Model(outputs, [image], "proposals")
    given = [ops.parameter(shape, kind) for shape, kind in
             (([-1, -1, 4], np.float32), ([-1, 1, -1], np.float32), ([1], np.int64), ([1], np.float32))]  # fmt: skip
    kept = ops.non_max_suppression(*given, np.float32(0), sort_result_descending=False, output_type="i32")
    suppression = ov.Model([kept.output(0)], given, "suppression")
    return first, _head(layers, weights["backbone.fpn.layer_blocks.0.0.weight"].shape[0]), suppression


def _pyramid(layers: Layers, image: ov.Node) -> list[ov.Node]:
    body, stages = "backbone.body", []
    y = ops.relu(layers.conv(image, f"{body}.stem.0", f"{body}.stem.1"))
    for i in range(POOLED_LEVELS):
        name = f"{body}.stage{i}"
        inner = ops.relu(layers.conv(y, f"{name}.body.0", f"{name}.body.1", 2))
        inner = layers.conv(inner, f"{name}.body.3", f"{name}.body.4")
        y = ops.relu(ops.add(inner, layers.conv(y, f"{name}.short.0", f"{name}.short.1", 2)))
        stages.append(y)
    maps, above = [], None
    for i in reversed(range(POOLED_LEVELS)):
        inner = layers.conv(stages[i], f"backbone.fpn.inner_blocks.{i}.0")
        above = inner if above is None else ops.add(inner, upsample(above, (2, 3)))
        maps.insert(0, layers.conv(above, f"backbone.fpn.layer_blocks.{i}.0"))
    every_second = ops.max_pool(maps[-1], [2, 2], [1, 1], [0, 0], [0, 0], [1, 1]).output(0)
    return [*maps, every_second]


def _head(layers: Layers, channels: int) -> ov.Model:
    maps = [ops.parameter([-1, channels, -1, -1], np.float32) for _ in range(POOLED_LEVELS)]
    boxes = [ops.parameter([-1, 4], np.float32) for _ in range(POOLED_LEVELS)]
    images = [ops.parameter([-1], np.int32) for _ in range(POOLED_LEVELS)]
    pooled = [
        ops.roi_align(*inputs, POOLED_PX, POOLED_PX, SAMPLES, 0.5 ** (level + 1), "avg", "asymmetric")
        for level, inputs in enumerate(zip(maps, boxes, images, strict=True))
    ]
    y = ops.reshape(ops.concat(pooled, 0), np.array([0, -1]), True)
    for name in ("fc6", "fc7"):
        y = ops.relu(layers.linear(y, f"roi_heads.box_head.{name}"))
    outputs = [layers.linear(y, f"roi_heads.box_predictor.{name}") for name in ("cls_score", "bbox_pred")]
    return ov.Model(outputs, [*maps, *boxes, *images], "head")


class Detector:
    """Detects boxes on images with the three graphs."""

    def __init__(self, card: Mapping[str, Any], propose: Infer, judge: Infer, suppress: Infer) -> None:
        """Join the graphs.

        Args:
            card: the card's `detector` part.
            propose: runs the first graph on images, as `block_of` joins them.
            judge: runs the second.
            suppress: runs the third.
        """
        self.card, self.propose, self.judge, self.suppress = card, propose, judge, suppress

    def detect(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the boxes of each image with their scores, (n, 5), best first.

        Args:
            images: (3, H, W) each, normalized CT, float32.
        """
        shapes, (rows, columns) = [image.shape[1:] for image in images], _padded_sides(images)
        *maps, logits, offsets = self.propose(images)
        heights = np.sqrt(np.float32(self.card.get("aspect_ratios", ASPECT_RATIOS)))
        anchors = []  # (N, 4) of each level, row by row and at each place ratio by ratio
        for level, side in enumerate(self.card.get("anchors_px", ANCHORS_PX)):
            stride = 2 ** (level + 1)
            half = np.stack([1 / heights, heights], 1) * np.float32(side) / 2
            cells = np.rint(np.concatenate([-half, half], 1))
            y, x = np.meshgrid(np.arange(0, rows, stride), np.arange(0, columns, stride), indexing="ij")
            corners = np.stack([x, y, x, y], -1).reshape(-1, 1, 4).astype(np.float32)
            anchors.append((corners + cells).reshape(-1, 4))
        return self._detections(maps, self._proposals(logits, offsets, anchors, shapes), shapes)

    def _proposals(
        self, logits: np.ndarray, offsets: np.ndarray, anchors: Sequence[np.ndarray], shapes: Sequence[tuple[int, int]]
    ) -> list[np.ndarray]:
        """The best boxes of each image, (n, 4), from all its anchors (B, N), (B, N, 4) by level."""
        kept, start = [np.zeros((0, 5), np.float32) for _ in shapes], 0
        for level in anchors:
            part, most = slice(start, start + len(level)), min(PROPOSALS_BEFORE_NMS, len(level))
            best = np.argpartition(-logits[:, part], most - 1)[:, :most]
            moved = decode(np.take_along_axis(offsets[:, part], best[..., None], 1), level[best])
            boxes = np.stack([_clip(of_image, shape) for of_image, shape in zip(moved, shapes, strict=True)])
            scores = expit(np.take_along_axis(logits[:, part], best, 1))
            scores[_sides(boxes).min(-1) < MIN_PROPOSAL_PX] = 0
            chosen = self._not_suppressed(boxes, scores, PROPOSALS, self.card.get("rpn_nms", 0.7))
            for image, numbers in enumerate(chosen):
                own = np.column_stack([boxes[image, numbers], scores[image, numbers]])
                kept[image] = np.concatenate([kept[image], own])
            start += len(level)
        return [joined[np.argsort(-joined[:, 4], kind="stable")][:PROPOSALS, :4] for joined in kept]

    def _detections(
        self, maps: Sequence[np.ndarray], proposals: Sequence[np.ndarray], shapes: Sequence[tuple[int, int]]
    ) -> list[np.ndarray]:
        boxes = np.concatenate(proposals)
        numbers = np.repeat(np.arange(len(proposals), dtype=np.int32), [len(some) for some in proposals])
        with np.errstate(divide="ignore"):
            doublings = np.log2(np.sqrt(_sides(boxes).prod(1)) / np.float32(CANONICAL_PX))
        wanted = np.floor(CANONICAL_LEVEL + doublings + np.float32(1e-6))
        levels = wanted.clip(1, POOLED_LEVELS).astype(int) - 1  # the map of strides 2 to 16 that judges each box
        order = [np.flatnonzero(levels == level) for level in range(POOLED_LEVELS)]
        asked = [some if len(some) else np.zeros(1, int) for some in order] if len(boxes) else []
        if not asked:
            return [np.zeros((0, 5), np.float32) for _ in proposals]
        logits, offsets = self.judge([*maps, *(boxes[some] for some in asked), *(numbers[some] for some in asked)])
        places = np.concatenate(asked)
        scores, found = np.empty(len(boxes), np.float32), np.empty((len(boxes), 4), np.float32)
        scores[places] = expit(logits[:, 1] - logits[:, 0])
        found[places] = decode(offsets[:, 4:] / BOX_WEIGHTS, boxes[places])
        best = []
        for number, shape in enumerate(shapes):
            of_image, own_scores = _clip(found[numbers == number], shape), scores[numbers == number]
            kept = (own_scores > self.card.get("min_score", 0.05)) & (_sides(of_image).min(1) >= MIN_DETECTION_PX)
            of_image, own_scores = of_image[kept], own_scores[kept]
            (chosen,) = self._not_suppressed(of_image[None], own_scores[None], DETECTIONS, self.card.get("nms", 0.3))
            best.append(np.column_stack([of_image[chosen], own_scores[chosen]]))
        return best

    def _not_suppressed(self, boxes: np.ndarray, scores: np.ndarray, most: int, max_iou: float) -> list[np.ndarray]:
        """The numbers of the boxes of each image, (B, n, 4), that overlap with no better kept one, best first."""
        (kept,) = self.suppress([boxes, scores[:, None], np.int64([most]), np.float32([max_iou])])
        return [kept[kept[:, 0] == image, 2] for image in range(len(boxes))]


def block_of(images: Sequence[np.ndarray]) -> np.ndarray:
    """Return images as the first graph takes them, at the upper left corner of (B, 3, H, W).

    Args:
        images: (3, H, W) each, normalized CT, float32.
    """
    block = np.zeros((len(images), 3, *_padded_sides(images)), np.float32)
    for padded, image in zip(block, images, strict=True):
        padded[:, : image.shape[1], : image.shape[2]] = (image - np.float32(0.5)) / np.float32(0.25)
    return block


def decode(offsets: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Move and stretch boxes by offsets, divided by their weights.

    Args:
        offsets: (..., 4) dx, dy, dw, dh.
        boxes: (..., 4).
    """
    sides = _sides(boxes)
    centers = boxes[..., :2] + np.float32(0.5) * sides + offsets[..., :2] * sides
    half = np.float32(0.5) * np.exp(np.minimum(offsets[..., 2:], DELTA_CLAMP)) * sides
    return np.concatenate([centers - half, centers + half], axis=-1)


def _padded_sides(images: Sequence[np.ndarray]) -> tuple[int, int]:
    """Return the height and the width that all images fit into."""
    return tuple(-(-max(image.shape[axis] for image in images) // PADDED_TO) * PADDED_TO for axis in (1, 2))


def _sides(boxes: np.ndarray) -> np.ndarray:
    return boxes[..., 2:] - boxes[..., :2]


def _clip(boxes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    rows, columns = shape
    return np.clip(boxes, 0, np.float32([columns, rows, columns, rows]))
