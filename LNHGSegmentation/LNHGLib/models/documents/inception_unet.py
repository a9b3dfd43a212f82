"""The 3-D U-Net with inception steps of document 004, its first stage (docs/method.md, section 12)."""

import torch
from torch import Tensor, nn

from LNHGLib.models import gan
from LNHGLib.models.unet import Probability


class Inception(nn.Module):
    """Four ways side by side: kernels of 1, 3 and 5 voxels, and a pooling, each a quarter of the channels.

    Args:
        c_in: channels of the input.
        c_out: channels of the output, a multiple of 4.
        stride: 2 halves the sides, 1 keeps them.
    """

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        part = c_out // 4
        pool = nn.MaxPool3d(2) if stride == 2 else nn.MaxPool3d(3, 1, 1)
        self.ways = nn.ModuleList(
            [
                nn.Conv3d(c_in, part, 1, stride=stride),
                *(
                    nn.Sequential(_conv(c_in, 2 * part, 1), nn.Conv3d(2 * part, part, size, stride, size // 2))
                    for size in (3, 5)
                ),
                nn.Sequential(pool, nn.Conv3d(c_in, part, 1)),
            ]
        )
        self.norm = nn.BatchNorm3d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return features: (B, c_in, D, H, W) -> (B, c_out, D / stride, ...)."""
        return torch.relu(self.norm(torch.cat([way(x) for way in self.ways], 1)))


class InceptionUNet(Probability):
    """A small 3-D U-Net, 125,201 parameters, made for cubes of 48 voxels in [-1, 1].

    Args:
        width: channels of the first level, a multiple of 4; 16 is the document's.

    Raises:
        InputError: `width` is no multiple of 4.
    """

    halo = (33, 33, 33)
    multiple = 4

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        w = gan.require_multiple(width, 4)
        self.top = nn.Sequential(_conv(1, w), _conv(w, w))
        self.middle = nn.Sequential(Inception(w, w, 2), _conv(w, 2 * w), _conv(2 * w, 2 * w))
        self.bottom = nn.Sequential(Inception(2 * w, 2 * w, 2), _conv(2 * w, w), Inception(w, w, 1))
        self.to_middle, self.to_top = _enlarging(w), _enlarging(w)
        self.joined = nn.Sequential(_conv(3 * w, w), Inception(w, w, 1))
        self.last = nn.Conv3d(2 * w, 1, 1)
        gan.initialize(self)

    def residual(self, x: Tensor) -> Tensor:
        """Logits: (B, 1, D, H, W) -> same shape."""
        top = self.top(2 * x - 1)
        middle = self.middle(top)
        y = self.joined(torch.cat([self.to_middle(self.bottom(middle)), middle], 1))
        return self.last(torch.cat([self.to_top(y), top], 1))


def _conv(c_in: int, c_out: int, size: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(c_in, c_out, size, padding=size // 2), nn.BatchNorm3d(c_out), nn.ReLU())


def _enlarging(channels: int) -> nn.Sequential:
    enlarge = nn.ConvTranspose3d(channels, channels, 2, stride=2)
    return nn.Sequential(enlarge, nn.BatchNorm3d(channels), nn.ReLU())
