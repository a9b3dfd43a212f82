"""The two-stream network of document 002 that sorts candidates at three scales (docs/method.md, section 11.2)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

PLANES, SIDE = 6, 20
SCALES = ((6, 20, 20), (10, 30, 30), (26, 40, 40))
"""Sizes of what is seen at the narrow, the middle and the wide scale; each is brought to 6 x 20 x 20."""


class MgiCnn(nn.Module):
    """MGI-CNN with the sum of both streams, 21,440,515 parameters.

    A stream begins with one scale and takes in the next one twice; one goes from narrow to wide, the other back
    (register M5). The planes of a scale are the channels of 2-D convolutions, written as (1, 3, 3).

    Args:
        width: channels of the first convolutions; 64 is the document's.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.inward, self.outward = _Stream(width), _Stream(width)
        self.joined = nn.Sequential(_pool(), _conv(4 * width, 8 * width), _conv(8 * width, 8 * width))
        dense = 16 * width
        self.head = nn.Sequential(
            nn.Flatten(),
            *_dense(8 * width * (SIDE // 4) ** 2, dense),
            *_dense(dense, dense),
            nn.Linear(dense, 1),
            nn.BatchNorm1d(1),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv3d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.001, a=-0.002, b=0.002)
                nn.init.zeros_(module.bias)

    def forward(self, fields: Tensor) -> Tensor:
        """Return logits: (B, 1, 32, 32, 32) -> (B,)."""
        scales = [_scale(fields, size) for size in SCALES]
        features = self.inward(scales) + self.outward(scales[::-1])
        return self.head(self.joined(features)).squeeze(1)


class _Stream(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 3 * width]
        before = [0, *widths[:-1]]
        self.steps = nn.ModuleList(
            [
                nn.Sequential(_conv(known + PLANES, channels), _conv(channels, channels))
                for known, channels in zip(before, widths, strict=True)
            ]
        )
        self.last = nn.Sequential(_pool(), _conv(3 * width, 4 * width), _conv(4 * width, 4 * width))

    def forward(self, scales: Sequence[Tensor]) -> Tensor:
        """Return features (B, 4 * width, 1, 10, 10) of three scales (B, 6, 1, 20, 20)."""
        features = scales[0][:, :0]
        for step, scale in zip(self.steps, scales, strict=True):
            features = step(torch.cat([features, scale], 1))
        return self.last(features)


def _scale(fields: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Cut the middle of fields, empty where it is larger than they are: (B, 1, 32, 32, 32) -> (B, 6, 1, 20, 20)."""
    room = [(length - full) // 2 for length, full in zip(size, fields.shape[2:], strict=True)]
    middle = nn.functional.pad(fields, [side for one in reversed(room) for side in (one, one)])
    same = nn.functional.interpolate(middle, (PLANES, SIDE, SIDE), mode="trilinear", align_corners=True)
    return same.transpose(1, 2)


def _conv(c_in: int, c_out: int) -> nn.Sequential:
    conv = nn.Conv3d(c_in, c_out, (1, 3, 3), padding=(0, 1, 1))
    return nn.Sequential(conv, nn.BatchNorm3d(c_out), nn.LeakyReLU(0.2))


def _pool() -> nn.MaxPool3d:
    return nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))


def _dense(c_in: int, c_out: int) -> list[nn.Module]:
    return [nn.Dropout(0.5), nn.Linear(c_in, c_out), nn.BatchNorm1d(c_out), nn.LeakyReLU(0.2)]
