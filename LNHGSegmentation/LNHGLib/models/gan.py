"""Branch 1: the WGAN-GP generator that turns slabs of CT into nodule images, and its critic.

Tensors are (B, 1, D, H, W): batch, one channel, slices, rows, columns; normalized CT in [0, 1].
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from LNHGLib.errors import InputError

PAPER_CHANNELS = 32


class _Block(nn.Module):
    """Convolution, optional skip sum, batch normalization, leaky ReLU (slope 0.01)."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv3d(c_in, c_out, 3, stride=stride, padding=1)
        self.norm = nn.BatchNorm3d(c_out)
        self.act = nn.LeakyReLU(0.01)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        x = self.conv(x)
        if skip is not None:
            x = x + skip
        return self.act(self.norm(x))

    def fold_norm(self) -> None:
        """Fold the normalization into the convolution; not where a skip is added between them."""
        self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()


def _one_channel(conv: nn.Conv3d, x: Tensor) -> Tensor:
    """`conv(x)` for a 3 x 3 x 3 convolution to one channel, in a third of the time on CPUs.

    A convolution to one channel uses a fraction of the vector units: its three slices are computed as channels, then
    moved by a slice and added.
    """
    slices = nn.functional.conv3d(x, conv.weight.permute(2, 1, 0, 3, 4), padding=(0, 1, 1))
    slices = nn.functional.pad(slices, (0, 0, 0, 0, 1, 1))
    depth = x.shape[2]
    return sum(slices[:, i : i + 1, i : i + depth] for i in range(3)) + conv.bias


class Generator(nn.Module):
    """A network that predicts nodule images: `residual` gives the signal, `image` and `logits` say what it means.

    Subclasses have `halo`, the (z, y, x) reach of the receptive field, `multiple`, of which sides must be multiples
    (one number, or along z, y and x), `input_slices`, the slices of one input where they know no other number,
    `values_per_voxel` of the widest layer where a trial run would not tell it, and `options`, the keys of a card that
    build one.
    """

    halo: tuple[int, int, int]
    multiple: int | tuple[int, int, int]
    input_slices: int | None = None
    values_per_voxel: float | None = None
    options: tuple[str, ...] = ("width", "input_skip")

    def residual(self, x: Tensor) -> Tensor:
        """Return the signal before the last activation: (B, 1, D, H, W) -> same shape."""
        raise NotImplementedError

    def image(self, residual: Tensor, x: Tensor) -> Tensor:
        """Return the nodule image of a signal.

        Args:
            residual: from `residual`, (B, 1, D, H, W).
            x: the CT that it was predicted from, same shape.
        """
        return torch.relu(residual)

    def logits(self, residual: Tensor, threshold: float, sharpness: float) -> Tensor:
        """Logits of the mask that a threshold on the image gives, before the activation, where gradients live."""
        return sharpness * (residual - threshold)

    def forward(self, x: Tensor) -> Tensor:
        """Nodule image G(O) >= 0 of a slab O: (B, 1, D, H, W) -> same shape."""
        return self.image(self.residual(x), x)

    def fold_norms(self) -> None:
        """Make an evaluated network quicker without changing what it predicts, where that can be done."""


class PaperGenerator(Generator):
    """The paper's eight-convolution generator with summed skips (Song et al. 2021; register L1, L11).

    No pooling and no stride: the receptive field reaches 8 voxels to each side. The last skip adds the
    input itself, so the network learns the residual; `input_skip=False` removes it (ablation of register L1).

    Args:
        width: channels of the first block; 32 is the paper's (2,326,273 parameters).
        input_skip: add the input before the last ReLU.
    """

    halo = (8, 8, 8)
    multiple = 1
    input_slices = 3

    def __init__(self, width: int = PAPER_CHANNELS, input_skip: bool = True) -> None:
        super().__init__()
        w = width
        self.encoder = nn.ModuleList([_Block(1, w), _Block(w, 2 * w), _Block(2 * w, 4 * w), _Block(4 * w, 8 * w)])
        self.decoder = nn.ModuleList([_Block(8 * w, 4 * w), _Block(4 * w, 2 * w), _Block(2 * w, w)])
        self.last = nn.Conv3d(w, 1, 3, padding=1)
        self.input_skip = input_skip
        initialize(self)

    def residual(self, x: Tensor) -> Tensor:
        """Return the signal before the last ReLU: (B, 1, D, H, W) -> same shape."""
        e1 = self.encoder[0](x)
        e2 = self.encoder[1](e1)
        e3 = self.encoder[2](e2)
        y = self.encoder[3](e3)
        for block, skip in zip(self.decoder, (e3, e2, e1), strict=True):
            y = block(y, skip)
        y = _one_channel(self.last, y)
        return y + x if self.input_skip else y


class StridedGenerator(Generator):
    """A generator with a strided encoder and summed skips, for CPU budgets; same input, output and losses.

    Three stride-2 stages replace the paper's full-resolution blocks, which widens the receptive field from
    8 voxels to each side to 42 at a fraction of the arithmetic. Beyond 32 voxels its weight is below 1e-3 of the
    window, so that is the halo. Sides must be multiples of `multiple`.

    Args:
        width: channels at full resolution (doubled at each stage).
        input_skip: add the input before the last ReLU, as the paper does.
    """

    halo = (32, 32, 32)
    multiple = 8

    def __init__(self, width: int = 16, input_skip: bool = True) -> None:
        super().__init__()
        w = width
        self.stem = _Block(1, w)
        self.down = nn.ModuleList([_Block(w * 2**i, w * 2 ** (i + 1), stride=2) for i in range(3)])
        self.deep = nn.ModuleList([_Block(w * 2 ** (i + 1), w * 2 ** (i + 1)) for i in range(3)])
        self.reduce = nn.ModuleList([nn.Conv3d(w * 2 ** (i + 1), w * 2**i, 1) for i in range(3)])
        self.up = nn.ModuleList([_Block(w * 2**i, w * 2**i) for i in range(3)])
        self.last = nn.Conv3d(w, 1, 3, padding=1)
        self.input_skip = input_skip
        initialize(self)

    def residual(self, x: Tensor) -> Tensor:
        """Return the signal before the last ReLU: (B, 1, D, H, W) -> same shape."""
        skips = [self.stem(x)]
        for down, deep in zip(self.down, self.deep, strict=True):
            y = down(skips[-1])
            skips.append(deep(y) + y)
        y = skips.pop()
        for i in (2, 1, 0):
            y = self.reduce[i](y).contiguous(memory_format=torch.channels_last_3d)
            y = nn.functional.interpolate(y, scale_factor=2, mode="trilinear", align_corners=False)
            y = y + skips[i]
            y = self.up[i](y) + y
        y = _one_channel(self.last, y)
        return y + x if self.input_skip else y

    def fold_norms(self) -> None:
        """Fold each normalization into the convolution before it: an eighth less time on CPUs."""
        for block in (self.stem, *self.down, *self.deep, *self.up):
            block.fold_norm()


class Critic(nn.Module):
    """The paper's critic: three convolutions, no normalization, one linear layer, no sigmoid.

    Args:
        width: channels of the first convolution; 32 is the paper's.
        slab: (D, H, W) of the input. Given, all features are flattened (the paper's 25,443,393 parameters at
            3 x 256 x 256). None averages them to 3 x 8 x 8 first, so that any size works.
        stride: in-plane and through-plane stride of the convolutions; 1 is the paper's.
    """

    pooled = (3, 8, 8)

    def __init__(self, width: int = 32, slab: tuple[int, int, int] | None = None, stride: int = 1) -> None:
        super().__init__()
        channels = [1, width, 2 * width, 4 * width]
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise(channels):
            layers += [nn.Conv3d(c_in, c_out, 3, stride=stride, padding=1), nn.LeakyReLU(0.01)]
        self.features = nn.Sequential(*layers)
        self.pool = nn.Identity() if slab else nn.AdaptiveAvgPool3d(self.pooled)
        depth, height, columns = slab or self.pooled
        self.head = nn.Linear(channels[-1] * depth * height * columns, 1)
        initialize(self)

    def forward(self, image: Tensor) -> Tensor:
        """Critic values (B,) of nodule images (B, 1, D, H, W)."""
        return self.head(self.pool(self.features(image)).flatten(1)).squeeze(1)


def require_multiple(width: int, number: int) -> int:
    """Return `width`, of which a network builds parts.

    Args:
        width: channels.
        number: of which it must be a multiple.

    Raises:
        InputError: it is none.
    """
    if width % number:
        raise InputError(f"`width` is {width}, expected a multiple of {number}; mend the configuration.")
    return width


def initialize(network: nn.Module) -> None:
    """Kaiming-normal convolutions and linear layers with zero bias; batch normalization at identity."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
