"""The network of document 001: NASNet-Mobile with global convolutions and excitation (docs/method.md, section 13).

Slices are seen one by one; all kernels are (1, k, k).
"""

import torch
from torch import Tensor, nn

from LNHGLib.models import gan
from LNHGLib.models.documents.nasnet import MOBILE, NASNet
from LNHGLib.models.unet import Probability

SQUEEZE = 8
"""How many times fewer channels weigh the channels of a slice."""
ON_TAPS, ON_LAST = 19, 13
"""Pixels along a global convolution on the taps, and on the last features."""


class NASNetGCN(Probability):
    """An encoder and a decoder with four steps, 22,005,284 trainable parameters.

    The document's decoder has two outputs and a softmax. Their difference is the logit here.

    Args:
        width: channels of the encoder's first cells, a multiple of 4; 44 is the document's.
    """

    halo = (0, 1024, 1024)
    """Squeezing sees the whole slice: pieces are whole slices, wherever they fit the memory."""
    multiple = (1, 16, 16)

    def __init__(self, width: int = MOBILE) -> None:
        super().__init__()
        wide, middle, narrow, least = (base * width // MOBILE for base in (192, 128, 96, 64))
        self.encoder = NASNet(width)
        self.deepest = _Combination(24 * width, wide, last=True)
        self.taps = nn.ModuleList(
            [
                _Combination(channels, features)
                for channels, features in ((8 * width, wide), (4 * width, middle), (width, narrow))
            ]
        )
        steps = ((2 * wide, middle), (2 * middle, narrow), (2 * narrow, least))
        self.steps = nn.ModuleList([nn.Sequential(_Excitation(c_in), _conv(c_in, c_out, 3)) for c_in, c_out in steps])
        self.near, self.last = _conv(least, least, 3), nn.Conv3d(least, 2, 1)
        gan.initialize(self)

    def residual(self, x: Tensor) -> Tensor:
        """Logits: (B, 1, D, H, W) -> same shape."""
        y, taps = self.encoder(x)
        y = self.deepest(y)
        for tap, combination, step in zip(reversed(taps), self.taps, self.steps, strict=True):
            y = step(torch.cat([_enlarged(y, tap.shape[-2:]), combination(tap)], 1))
        stem = [(length - 3) // 2 + 1 for length in x.shape[-2:]]
        y = self.last(_enlarged(self.near(_enlarged(y, stem)), x.shape[-2:]))
        return y[:, 1:] - y[:, :1]


class _Excitation(nn.Module):
    """Weigh the channels of each slice by what the whole slice shows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        few = max(channels // SQUEEZE, 1)
        down, up = (nn.Conv3d(*sizes, 1, bias=False) for sizes in ((channels, few), (few, channels)))
        self.weigh = nn.Sequential(down, nn.ReLU(), up, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape."""
        return x * self.weigh(x.mean((3, 4), keepdim=True))


class _Global(nn.Module):
    """A large kernel as two pairs of long ones: along rows then columns, and the other way."""

    def __init__(self, c_in: int, c_out: int, size: int) -> None:
        super().__init__()
        half = size // 2
        tall, flat = (
            {"kernel_size": shape, "padding": room}
            for shape, room in (((1, size, 1), (0, half, 0)), ((1, 1, size), (0, 0, half)))
        )
        self.ways = nn.ModuleList(
            [
                nn.Sequential(nn.Conv3d(c_in, c_out, **first), nn.Conv3d(c_out, c_out, **second))
                for first, second in ((tall, flat), (flat, tall))
            ]
        )
        self.rest = _rest(c_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return features: (B, c_in, D, H, W) -> (B, c_out, D, H, W)."""
        return self.rest(sum(way(x) for way in self.ways))


class _Combination(nn.Module):
    """Look at a tap near, far and globally, side by side."""

    def __init__(self, c_in: int, c_out: int, last: bool = False) -> None:
        super().__init__()
        ways = [_conv(c_in, c_out, 1), *([_conv(c_in, c_out, 3)] if last else [])]
        for dilation in (2, 3, 4, 5) if last else (3, 6):
            room, spread = (0, dilation, dilation), (1, dilation, dilation)
            depthwise = nn.Conv3d(c_in, c_in, (1, 3, 3), padding=room, dilation=spread, groups=c_in, bias=False)
            ways.append(nn.Sequential(depthwise, nn.Conv3d(c_in, c_out, 1), *_rest(c_out)))
        self.ways = nn.ModuleList([*ways, _Global(c_in, c_out, ON_LAST if last else ON_TAPS)])
        joined = len(self.ways) * c_out
        self.before, self.after = _Excitation(c_in), nn.Sequential(_Excitation(joined), _conv(joined, c_out, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return features: (B, c_in, D, H, W) -> (B, c_out, D, H, W)."""
        x = self.before(x)
        return self.after(torch.cat([way(x) for way in self.ways], 1))


def _rest(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm3d(channels), nn.ReLU())


def _conv(c_in: int, c_out: int, size: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(c_in, c_out, (1, size, size), padding=(0, size // 2, size // 2)), *_rest(c_out))


def _enlarged(x: Tensor, shape: tuple[int, int]) -> Tensor:
    return nn.functional.interpolate(x, (x.shape[2], *shape), mode="trilinear", align_corners=True)
