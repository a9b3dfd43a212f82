"""Slab networks on the paper's U-net: the comparison itself, and LNHG's generator on its body."""

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from LNHGLib.errors import InputError, quoted
from LNHGLib.models import gan
from LNHGLib.models.gan import Generator

SLABS = 16
"""Slabs that the U-net sees at once: one at a time is several times slower on CPUs, all at once take much memory."""


def require_planes(planes: int) -> int:
    """`planes`, in how many of axial, coronal and sagittal slabs are cut or predicted.

    Raises:
        InputError: it is none of 1, 2 and 3.
    """
    if planes not in (1, 2, 3):
        raise InputError(f"`planes` is {quoted(planes)}, expected 1, 2 or 3; mend the configuration.")
    return planes


class Probability(Generator):
    """Draws the probability of a nodule, not its intensity: its `threshold` is 0.5, its target the mask itself."""

    options = ("width",)

    def image(self, residual: Tensor, x: Tensor) -> Tensor:
        """Return the probabilities of a signal.

        Args:
            residual: logits, (B, 1, D, H, W).
            x: the CT; it is not needed.
        """
        return torch.sigmoid(residual)

    def logits(self, residual: Tensor, threshold: float, sharpness: float) -> Tensor:
        """Return the signal itself: a probability needs no threshold to learn from."""
        return residual


class UNet(Probability):
    """The paper's U-net comparison, mended: upsampling in plane alone, so that slabs of three slices work.

    Four double blocks of 3 x 3 x 3 convolutions, max-pooling (1, 2, 2) between them, concatenated skips (method facts
    5.2). A slice of a deeper volume is predicted from the slab of three around it, as the network was trained.

    Args:
        width: channels of the first block; 64 is the paper's (23,345,153 parameters).
        planes: volumes are predicted as the mean of slabs in so many of axial, coronal and sagittal.

    Raises:
        InputError: `planes` is none of 1, 2 and 3.
    """

    options = ("width", "planes")
    slab = 3
    multiple = 8

    def __init__(self, width: int = 64, planes: int = 1) -> None:
        super().__init__()
        self.planes = require_planes(planes)
        self.halo = (1, 44, 44) if planes == 1 else (44, 44, 44)
        widths = [width * 2**level for level in range(4)]
        self.down = nn.ModuleList([_double(c_in, c_out) for c_in, c_out in zip([1, *widths], widths, strict=False)])
        self.up = nn.ModuleList([_double(3 * c, c) for c in reversed(widths[:-1])])
        self.last = nn.Conv3d(width, 1, 1)
        gan.initialize(self)

    def residual(self, x: Tensor) -> Tensor:
        """Logits: (B, 1, D, H, W) -> same shape."""
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = nn.functional.max_pool3d(x, (1, 2, 2))
        y = skips.pop()
        for block in self.up:
            y = nn.functional.interpolate(y, scale_factor=(1, 2, 2))
            y = block(torch.cat([skips.pop(), y], 1))
        return self.last(y)

    def fold_norms(self) -> None:
        """Fold the normalizations into the convolutions before them."""
        for block in [*self.down, *self.up]:
            for number in (0, 3):
                block[number] = fuse_conv_bn_eval(block[number], block[number + 1])
                block[number + 1] = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Image (B, 1, D, H, W): of one slab, or of a deeper volume, slice by slice in each of the planes."""
        if x.shape[2] == self.slab:
            return super().forward(x)
        image = 0
        for axis in range(2, 2 + self.planes):
            padded = nn.functional.pad(x.movedim(axis, 2), (0, 0, 0, 0, 1, 1), mode="replicate")
            slabs = padded.unfold(2, self.slab, 1).permute(2, 0, 1, 5, 3, 4)
            middle = [super(UNet, self).forward(some.flatten(0, 1))[:, :, 1] for some in slabs.split(SLABS)]
            slices = torch.cat(middle).unflatten(0, slabs.shape[:2]).permute(1, 2, 0, 3, 4)
            image = image + slices.movedim(2, axis)
        return image / self.planes


class GatedUNet(UNet):
    """The U-net's body as LNHG's generator: its nodule image is the CT times the probability of a nodule."""

    def image(self, residual: Tensor, x: Tensor) -> Tensor:
        """Return the nodule image of a signal.

        Args:
            residual: logits, (B, 1, D, H, W).
            x: the CT that they were predicted from, same shape.
        """
        return x * super().image(residual, x)


def _double(c_in: int, c_out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for first in (c_in, c_out):
        layers += [nn.Conv3d(first, c_out, 3, padding=1), nn.BatchNorm3d(c_out), nn.ReLU()]
    return nn.Sequential(*layers)
