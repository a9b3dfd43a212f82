"""The 2-D U-net of document 002, which marks candidates slice by slice (docs/method.md, section 11.1)."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from LNHGLib.models import gan
from LNHGLib.models.unet import Probability


class UNet2D(Probability):
    """A U-net on axial slices, 1,617,091 parameters.

    Five levels of two 3 x 3 convolutions with ReLU, max-pooling and a normalization between them, and a sixth at the
    bottom. Four levels go up again with concatenated skips; the last one is enlarged without a skip (register M4). A
    kernel is (1, 3, 3), so that a volume passes as its slices.

    Args:
        width: channels of the first level; 32 is the document's.
    """

    halo = (0, 224, 224)
    multiple = (1, 32, 32)

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        down = [width, 2 * width, 3 * width, 4 * width, 4 * width, 4 * width]
        up = [3 * width, 2 * width, width, width]
        skips = down[4:0:-1]
        self.first = nn.BatchNorm3d(1)
        self.down = nn.ModuleList([_double(c_in, c_out) for c_in, c_out in pairwise([1, *down])])
        self.down_norms = nn.ModuleList([nn.BatchNorm3d(channels) for channels in down[:-1]])
        joined = [below + skip for below, skip in zip([down[-1], *up[:-1]], skips, strict=True)]
        self.up = nn.ModuleList([_double(c_in, c_out) for c_in, c_out in zip(joined, up, strict=True)])
        self.up_norms = nn.ModuleList([nn.BatchNorm3d(channels) for channels in joined])
        self.last = nn.Conv3d(up[-1], 1, 1)
        gan.initialize(self)

    def residual(self, x: Tensor) -> Tensor:
        """Logits: (B, 1, D, H, W) -> same shape."""
        y, skips = self.down[0](self.first(x)), []
        for block, norm in zip(self.down[1:], self.down_norms, strict=True):
            y = block(norm(nn.functional.max_pool3d(y, (1, 2, 2))))
            skips.append(y)
        y = skips.pop()
        for block, norm in zip(self.up, self.up_norms, strict=True):
            y = block(norm(torch.cat([_enlarged(y), skips.pop()], 1)))
        return self.last(_enlarged(y))


def _double(c_in: int, c_out: int) -> nn.Sequential:
    def conv(channels: int) -> nn.Conv3d:
        return nn.Conv3d(channels, c_out, (1, 3, 3), padding=(0, 1, 1))

    return nn.Sequential(conv(c_in), nn.ReLU(), conv(c_out), nn.ReLU())


def _enlarged(x: Tensor) -> Tensor:
    return nn.functional.interpolate(x, scale_factor=(1, 2, 2))
