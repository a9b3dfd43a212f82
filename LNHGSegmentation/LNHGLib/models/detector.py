"""Branch 2: a Faster R-CNN on axial slices with GIoU box losses, which removes false positives.

Images are lists of (3, H, W) float tensors in [0, 1]: a slice between its two neighbours, normalized CT, no ImageNet
statistics and no resizing (register F4, F7). Boxes are (x0, y0, x1, y1) in pixels. One foreground class (register F5).
"""

from collections import OrderedDict
from math import log2

import torch
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign, generalized_box_iou_loss
from torchvision.ops.poolers import LevelMapper

DELTA_CLAMP = 4.135166556742356  # ln(1000 / 16)
ANCHORS_PX = (4, 8, 16, 32, 64)
NODULE = 1


def unit_boxes(deltas: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Decode offsets against the unit box with corners (0, 0) and (1, 1).

    Args:
        deltas: (N, 4) offsets.
        weights: the coder's weights, which multiply offsets.

    Returns:
        (N, 4) x0, y0, x1, y1.
    """
    dx, dy, dw, dh = (deltas / deltas.new_tensor(weights)).unbind(1)
    cx, cy = 0.5 + dx, 0.5 + dy
    w, h = dw.clamp(max=DELTA_CLAMP).exp(), dh.clamp(max=DELTA_CLAMP).exp()
    return torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 1)


def giou_loss(deltas: Tensor, targets: Tensor, weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """Sum of 1 - GIoU between decoded boxes (paper eq. 4; register F1, F11).

    GIoU does not change under translation and scaling along the axes, so decoding both sides against the unit box
    gives the value that decoding against the true anchors would.

    Args:
        deltas: (N, 4) predicted offsets.
        targets: (N, 4) offsets of the matched reference boxes.
        weights: the coder's weights, which multiply offsets (RoI stage: 10, 10, 5, 5).
    """
    return generalized_box_iou_loss(
        unit_boxes(deltas, weights), unit_boxes(targets, weights), reduction="sum", eps=1e-7
    )


def on_ignored(boxes: Tensor, target: dict[str, Tensor]) -> Tensor:
    """Return which boxes have their middle where an image is to be ignored in training, bool (N,).

    Args:
        boxes: (N, 4) x0, y0, x1, y1.
        target: of the image; `ignored`, bool (H, W), may be missing.
    """
    ignored = target.get("ignored", torch.zeros(1, 1, dtype=torch.bool, device=boxes.device))
    (rows, columns), (x, y) = ignored.shape, ((boxes[:, :2] + boxes[:, 2:]) / 2).floor().long().unbind(1)
    inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
    return inside & ignored[y.clamp(0, rows - 1), x.clamp(0, columns - 1)]


class GIoURegionProposalNetwork(RegionProposalNetwork):
    """Torchvision's RPN with the GIoU loss; images without nodules train it as well (register F2).

    What an image's target says is to be ignored is neither nodule nor background.
    """

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return labels (1 nodule, 0 background, -1 neither) and the matched boxes of each image's anchors.

        Args:
            anchors: (n, 4) boxes of each image.
            targets: `boxes`, and `ignored` where some of the image is to be.
        """
        labels, matched = super().assign_targets_to_anchors(anchors, targets)
        for label, boxes, target in zip(labels, anchors, targets, strict=True):
            label[(label == 0) & on_ignored(boxes, target)] = -1
        return labels, matched

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the classification loss over sampled anchors and the box loss over the positive ones.

        Args:
            objectness: scores of the anchors.
            pred_bbox_deltas: (N, 4) predicted offsets.
            labels: 1 nodule, 0 background, -1 neither, for the anchors of each image.
            regression_targets: (n, 4) offsets of the matched boxes of each image.
        """
        positive, negative = (torch.where(torch.cat(part))[0] for part in self.fg_bg_sampler(labels))
        sampled = torch.cat([positive, negative])
        expected, targets = torch.cat(labels), torch.cat(regression_targets)
        score = nn.functional.binary_cross_entropy_with_logits(objectness.flatten()[sampled], expected[sampled])
        box = giou_loss(pred_bbox_deltas[positive], targets[positive], self.box_coder.weights)
        return score, box / max(len(positive), 1)


class GIoURoIHeads(RoIHeads):
    """Torchvision's RoI heads, boxes only, with the GIoU loss."""

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Return losses in training, detections in evaluation, as torchvision's `RoIHeads.forward`.

        Args:
            features: feature maps by level.
            proposals: (n, 4) boxes of each image.
            image_shapes: rows and columns of each image.
            targets: `boxes` and `labels` of each image, in training; proposals on what is `ignored` take no part.
        """
        if self.training:
            pairs = zip(proposals, targets, strict=True)
            proposals = [boxes[~on_ignored(boxes, target)] for boxes, target in pairs]
            proposals, _, labels, expected = self.select_training_samples(proposals, targets)
        pooled = self.box_head(self.box_roi_pool(features, proposals, image_shapes))
        logits, deltas = self.box_predictor(pooled)
        if self.training:
            labels, expected = torch.cat(labels), torch.cat(expected)
            positive = torch.where(labels == NODULE)[0]
            chosen = deltas.view(len(labels), NODULE + 1, 4)[positive, NODULE]
            box = giou_loss(chosen, expected[positive], self.box_coder.weights)
            score = nn.functional.cross_entropy(logits, labels, reduction="sum") / max(len(labels), 1)
            return [], {"loss_classifier": score, "loss_box_reg": box / max(len(positive), 1)}
        detections = zip(*self.postprocess_detections(logits, deltas, proposals, image_shapes), strict=True)
        return [dict(zip(("boxes", "scores", "labels"), found, strict=True)) for found in detections], {}


class _SameSize(GeneralizedRCNNTransform):
    """Normalisation and batching without a change of size, in training and evaluation alike (register F4)."""

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        return image, target


class _Residual(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(),
            nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(c_out),
        )
        self.short = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.short(x))


def light_backbone(width: int = 16, out_channels: int = 64) -> BackboneWithFPN:
    """Return a small residual pyramid with strides 2, 4, 8, 16 (and 32 by pooling), for CPUs."""
    channels = [width * factor for factor in (1, 2, 4, 6, 8)]
    stages = OrderedDict(stem=nn.Sequential(nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()))
    for i in range(4):
        stages[f"stage{i}"] = _Residual(channels[i], channels[i + 1], stride=2)
    names = {f"stage{i}": str(i) for i in range(4)}
    return BackboneWithFPN(nn.Sequential(stages), names, channels[1:], out_channels)


class _ConvFive(nn.Module):
    """ResNet's conv5 stage as RoI head: (N, 1024, 14, 14) -> (N, 2048)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer4 = resnet50(weights=None).layer4

    def forward(self, x: Tensor) -> Tensor:
        return self.layer4(x).mean((2, 3))


def build_detector(spec: dict) -> FasterRCNN:
    """Return the detector that a model card describes, with random weights.

    Args:
        spec: the card's `detector` part: `backbone` ("light", "resnet50-fpn" or "resnet50-c4", the paper's), optional
            `width` (light), `anchors_px`, `aspect_ratios`, `min_score`, `nms`, and for training `rpn_positive_iou`,
            `rpn_negative_iou`, `rpn_nms`, `train_proposals`, `roi_samples`.

    Raises:
        ValueError: unknown backbone.
    """
    kind = spec.get("backbone")
    if kind not in ("light", "resnet50-fpn", "resnet50-c4"):
        raise ValueError(f"Backbone {kind!r} is unknown; expected light, resnet50-fpn or resnet50-c4: mend model.json.")
    sizes, ratios = tuple(spec.get("anchors_px", ANCHORS_PX)), tuple(spec.get("aspect_ratios", (0.5, 1.0, 2.0)))
    if kind == "resnet50-c4":
        body = resnet50(weights=None)
        names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
        backbone = nn.Sequential(OrderedDict((name, getattr(body, name)) for name in names))
        backbone.out_channels = 1024
        head, features = _ConvFive(), 2048
        anchors = AnchorGenerator((sizes,), (ratios,))
        pool = _pool_at([16], 14)
    else:
        if kind == "light":
            backbone, features = light_backbone(spec.get("width", 16)), 256
        else:
            names = {f"layer{i + 1}": str(i) for i in range(4)}
            backbone, features = BackboneWithFPN(resnet50(weights=None), names, [256, 512, 1024, 2048], 256), 1024
        head = TwoMLPHead(backbone.out_channels * 49, features)
        anchors = AnchorGenerator(tuple((size,) for size in sizes), (ratios,) * len(sizes))
        pool = _pool_at([2, 4, 8, 16], 7, 64) if kind == "light" else _pool_at([4, 8, 16, 32], 7)
    predictor = FastRCNNPredictor(features, NODULE + 1)  # begins as the paper's: N(0, 0.01) and N(0, 0.001)
    nn.init.normal_(predictor.cls_score.weight, std=0.01)
    nn.init.normal_(predictor.bbox_pred.weight, std=0.001)
    for layer in (predictor.cls_score, predictor.bbox_pred):
        nn.init.zeros_(layer.bias)
    return _assemble(backbone, anchors, pool, head, predictor, spec)


def _pool_at(strides: list[int], size: int, canonical_px: int = 224) -> MultiScaleRoIAlign:
    """Return the pooling over maps of known strides: torchvision guesses them from the first images, small ones wrong.

    Args:
        strides: of the maps.
        size: of what is pooled.
        canonical_px: side of the boxes that the map of stride 16 is for.
    """
    pool = MultiScaleRoIAlign([str(level) for level in range(len(strides))], size, 2, canonical_scale=canonical_px)
    pool.scales = [1 / stride for stride in strides]
    pool.map_levels = LevelMapper(int(log2(strides[0])), int(log2(strides[-1])), canonical_px, pool.canonical_level)
    return pool


def _assemble(
    backbone: nn.Module, anchors: AnchorGenerator, pool: nn.Module, head: nn.Module, predictor: nn.Module, spec: dict
) -> FasterRCNN:
    """Torchvision's Faster R-CNN with both stages replaced by their GIoU versions."""
    network = FasterRCNN(
        backbone, rpn_anchor_generator=anchors, box_roi_pool=pool, box_head=head, box_predictor=predictor
    )
    network.transform = _SameSize(512, 512, [0.5] * 3, [0.25] * 3)
    rpn_head = RPNHead(backbone.out_channels, anchors.num_anchors_per_location()[0])
    network.rpn = GIoURegionProposalNetwork(
        anchors, rpn_head, spec.get("rpn_positive_iou", 0.7), spec.get("rpn_negative_iou", 0.3), 256, 0.5,
        {"training": spec.get("train_proposals", 2000), "testing": 500}, {"training": 600, "testing": 100},
        spec.get("rpn_nms", 0.7),
    )  # fmt: skip
    network.rpn.min_size = 2.0
    network.roi_heads = GIoURoIHeads(
        pool, head, predictor, 0.5, 0.5, spec.get("roi_samples", 128), 0.5, (10.0, 10.0, 5.0, 5.0),
        spec.get("min_score", 0.05), spec.get("nms", 0.3), 20,
    )  # fmt: skip
    return network
