"""Networks that tell candidates that are nodules from those that are none, by a small field of the CT around each.

Fields are (B, 1, 32, 32, 32), normalized CT (see `segmentation.classification`). A network returns logits (B,). Three
kinds: a small residual network of our own, the 3-D ResNet of the second stage of document 004 (docs/method.md, section
9), and the MGI-CNN of document 002 (`documents.mgi_cnn`).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from LNHGLib.errors import InputError, quoted
from LNHGLib.models.documents.mgi_cnn import MgiCnn


class ResidualBlock(nn.Module):
    """Two convolutions with batch normalization beside a shortcut, then ReLU.

    Args:
        c_in: channels of the input.
        c_out: channels of the output.
        stride: of the first convolution and of the shortcut.
    """

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(c_in, c_out, 3, stride=stride, padding=1),
            nn.BatchNorm3d(c_out),
            nn.ReLU(),
            nn.Conv3d(c_out, c_out, 3, padding=1),
            nn.BatchNorm3d(c_out),
        )
        same = stride == 1 and c_in == c_out
        shortcut = (nn.Conv3d(c_in, c_out, 1, stride=stride), nn.BatchNorm3d(c_out))
        self.shortcut = nn.Identity() if same else nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """Return features: (B, c_in, D, H, W) -> (B, c_out, D / stride, ...)."""
        return torch.relu(self.body(x) + self.shortcut(x))


class ResidualClassifier(nn.Module):
    """A small residual network.

    Args:
        width: channels of the stem; each of three stages has twice as many as the one before.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        widths = [width * 2**stage for stage in range(4)]
        self.stem = nn.Sequential(nn.Conv3d(1, width, 5, stride=2, padding=2), nn.BatchNorm3d(width), nn.ReLU())
        self.stages = nn.Sequential(*(ResidualBlock(c_in, c_out, 2) for c_in, c_out in pairwise(widths)))
        self.dropout, self.head = nn.Dropout(0.3), nn.Linear(widths[-1], 1)

    def forward(self, fields: Tensor) -> Tensor:
        """Return logits: (B, 1, 32, 32, 32) -> (B,)."""
        features = self.stages(self.stem(fields)).amax((2, 3, 4))
        return self.head(self.dropout(features)).squeeze(1)


class ResNet48(nn.Module):
    """The 3-D ResNet of document 004, 2,078,306 parameters.

    A convolution to 8 channels, residual stages of 8, 16, 32, 64 and 128 channels with two blocks each, average
    pooling, and two outputs. It was made for cubes of 48 voxels in [-1, 1]; the field lies in their middle, the rest is
    empty.
    """

    side = 48

    def __init__(self) -> None:
        super().__init__()
        widths = [8, 8, 16, 32, 64, 128]
        self.stem = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU())
        blocks = [
            block
            for stage, (c_in, c_out) in enumerate(pairwise(widths))
            for block in (ResidualBlock(c_in, c_out, 2 if stage else 1), ResidualBlock(c_out, c_out, 1))
        ]
        self.stages, self.head = nn.Sequential(*blocks), nn.Linear(widths[-1], 2)

    def forward(self, fields: Tensor) -> Tensor:
        """Return logits: (B, 1, 32, 32, 32) -> (B,)."""
        empty = (self.side - fields.shape[-1]) // 2
        cubes = nn.functional.pad(2 * fields - 1, (empty,) * 6, value=-1.0)
        other, nodule = self.head(self.stages(self.stem(cubes)).mean((2, 3, 4))).unbind(1)
        return nodule - other


KINDS: dict[str, type[nn.Module]] = {"residual": ResidualClassifier, "resnet-48": ResNet48, "mgi-cnn": MgiCnn}
"""By the name that a card gives."""


def build_classifier(spec: dict) -> nn.Module:
    """Return the classifier that a card or a configuration describes.

    Args:
        spec: `kind`, one of `KINDS`, and maybe `width`, which the kind "resnet-48" has not.

    Raises:
        InputError: unknown kind.
    """
    if spec.get("kind") not in KINDS:
        raise InputError(
            f"The classifier's kind is {quoted(spec.get('kind'))}, expected one of {', '.join(KINDS)}; mend model.json."
        )
    options = {"width": spec["width"]} if spec["kind"] != "resnet-48" and spec.get("width") else {}
    return KINDS[spec["kind"]](**options)
