"""CT-GAN of document 002: two networks that put a nodule into a cube of a chest (docs/method.md, section 11.3).

The injector sees a cube of 32 mm whose middle of 20 mm is hidden, and fills it in. Cubes are (B, 1, 32, 32, 32) at 1
mm, equalized to -1 to 1.
"""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

SIDE = 32
HIDDEN = slice(6, 26)
"""Of a cube, along each axis."""
LOW_HU, HIGH_HU = -1000, 2000
SLOPE, FORGETTING, DROPOUT = 0.2, 0.2, 0.5


class Equalizer(nn.Module):
    """Histogram equalization of HU to -1 to 1, which can be undone.

    The document's values end at -0.5 and 0.5, half of what its network can say (register M11).
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("fractions", torch.linspace(0, 1, HIGH_HU - LOW_HU + 1, dtype=torch.float64))

    def fit(self, counts: np.ndarray) -> None:
        """Learn how often each HU occurs.

        Args:
            counts: voxels of each HU from `LOW_HU` to `HIGH_HU`; one more is added, so that no two HU become one.
        """
        summed = np.cumsum(counts + 1.0)
        self.fractions.copy_(torch.from_numpy((summed - summed[0]) / (summed[-1] - summed[0])))

    def equalize(self, hu: np.ndarray) -> np.ndarray:
        """Return float32 from -1 to 1, of the shape of `hu`."""
        return np.interp(hu, self._levels, 2 * self.fractions.numpy() - 1).astype(np.float32)

    def undo(self, values: np.ndarray) -> np.ndarray:
        """Return HU, float32, of what was equalized."""
        return np.interp(values, 2 * self.fractions.numpy() - 1, self._levels).astype(np.float32)

    @property
    def _levels(self) -> np.ndarray:
        return np.arange(LOW_HU, HIGH_HU + 1)


def hide(cubes: Tensor) -> Tensor:
    """Return cubes with their middle at 0."""
    hidden = cubes.clone()
    hidden[..., HIDDEN, HIDDEN, HIDDEN] = 0
    return hidden


class Injector(nn.Module):
    """A U-Net of five levels that fills in the hidden middle: 162,590,401 parameters, 26,021,761 at a width of 40.

    Args:
        width: channels of the first level.
    """

    def __init__(self, width: int = 100) -> None:
        super().__init__()
        ways = [width * factor for factor in (1, 2, 4, 8, 8)]
        self.down = nn.ModuleList(
            _halving(c_in, c_out, c_in != 1) for c_in, c_out in zip([1, *ways[:-1]], ways, strict=True)
        )
        into = [ways[4], *(2 * skip for skip in (ways[3], ways[2], ways[1]))]
        self.up = nn.ModuleList(
            nn.Sequential(
                nn.Upsample(scale_factor=2), *_same(c_in, c_out), nn.ReLU(), nn.Dropout(DROPOUT),
                nn.BatchNorm3d(c_out, momentum=FORGETTING),
            )
            for c_in, c_out in zip(into, ways[3::-1], strict=True)
        )  # fmt: skip
        self.last = nn.Sequential(nn.Upsample(scale_factor=2), *_same(2 * ways[0], 1), nn.Tanh())

    def forward(self, hidden: Tensor) -> Tensor:
        """Return whole cubes for those with their middle hidden."""
        levels = [hidden]
        for level in self.down:
            levels.append(level(levels[-1]))
        y = levels.pop()
        for level, skip in zip(self.up, levels[:0:-1], strict=True):
            y = torch.cat([level(y), skip], 1)
        return self.last(y)


class Discriminator(nn.Module):
    """Tells real cubes from generated ones, patch by patch: 26,948,301 parameters, 4,328,121 at a width of 40.

    Args:
        width: channels of the first level.
    """

    def __init__(self, width: int = 100) -> None:
        super().__init__()
        ways = [2, *(width * factor for factor in (1, 2, 4, 8))]
        levels = [_halving(c_in, c_out, c_in != 2) for c_in, c_out in pairwise(ways)]
        self.layers = nn.Sequential(*levels, *_same(ways[-1], 1))

    def forward(self, cubes: Tensor, hidden: Tensor) -> Tensor:
        """Return one value for each patch, (B, 1, 2, 2, 2); 1 means real.

        Args:
            cubes: real or generated.
            hidden: what the injector saw of them.
        """
        return self.layers(torch.cat([cubes, hidden], 1))


def _halving(c_in: int, c_out: int, norm: bool) -> nn.Sequential:
    norms = [nn.BatchNorm3d(c_out, momentum=FORGETTING)] if norm else []
    return nn.Sequential(nn.Conv3d(c_in, c_out, 4, 2, 1), nn.LeakyReLU(SLOPE), *norms)


def _same(c_in: int, c_out: int) -> tuple[nn.Module, nn.Module]:
    """Return a convolution of 4 voxels that keeps the sides: one voxel is padded before, two behind."""
    return nn.ConstantPad3d((1, 2) * 3, 0.0), nn.Conv3d(c_in, c_out, 4)
