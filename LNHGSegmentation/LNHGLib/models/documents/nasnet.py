"""NASNet-Mobile on slices, the encoder of document 001's network (Zoph et al. 2018; docs/method.md, section 13).

Features are (B, C, D, H, W); all kernels are (1, k, k), so that a volume passes as its slices. A cell takes the outputs
of the two cells before it.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, avg_pool3d, max_pool3d, pad

from LNHGLib.models.gan import require_multiple

EPSILON = 1e-3
MOBILE = 44
"""Channels of the first cells of NASNet-Mobile; 4,269,140 parameters with one channel of input."""
CELLS = 4
"""Normal cells between two reductions."""

Inputs = tuple[Tensor, Tensor]
"""What a cell sees: the squeezed output of the last cell, and the adjusted one of the cell before."""


class NASNet(nn.Module):
    """The encoder without its classes.

    Args:
        width: channels of the first normal cells, a multiple of 4.

    Raises:
        InputError: `width` is no multiple of 4.
    """

    def __init__(self, width: int = MOBILE) -> None:
        super().__init__()
        require_multiple(width, 4)
        first = 32 * width // MOBILE
        self.stem = nn.Sequential(nn.Conv3d(1, first, (1, 3, 3), (1, 2, 2), bias=False), _norm(first))
        cells: list[nn.Module] = [_Reduction(first, first, width // 4, before=0)]
        channels, previous, before = 4 * (width // 4), first, 2
        for stage, reduced in enumerate((width // 2, 2 * width, 4 * width)):
            cells.append(_Reduction(channels, previous, reduced, before))
            channels, previous, before = 4 * reduced, channels, 2
            own = width * 2**stage
            for _ in range(CELLS):
                cells.append(_Normal(channels, previous, own, before))
                channels, previous, before = 6 * own, channels, 1
        self.cells = nn.ModuleList(cells)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return features and taps of slices: (B, 1, D, H, W) -> (B, 24 * width, D, H / 32, W / 32).

        The taps are what the last three reductions see, halved from tap to tap: (B, width, D, H / 4, W / 4) first.
        """
        x = self.stem(x)
        previous, seen = x, []
        for cell in self.cells:
            y, inputs = cell(x, previous)
            if isinstance(cell, _Reduction):
                seen.append(inputs)
            x, previous = y, x
        return torch.relu(x), tuple(torch.relu(torch.cat(inputs, 1)) for inputs in seen[1:])


class _Separable(nn.Module):
    """ReLU, separable convolution and normalization, twice; the first one may halve the sides."""

    def __init__(self, c_in: int, c_out: int, size: int, stride: int = 1) -> None:
        super().__init__()
        self.size, self.stride = size, stride
        self.convs = nn.ModuleList([_separable(c_in, c_out, size, stride), _separable(c_out, c_out, size, 1)])
        self.norms = nn.ModuleList([_norm(c_out), _norm(c_out)])

    def forward(self, x: Tensor) -> Tensor:
        """Return features: (B, c_in, D, H, W) -> (B, c_out, D, H / stride, W / stride)."""
        for conv, norm, stride in zip(self.convs, self.norms, (self.stride, 1), strict=True):
            x = norm(conv(_around(torch.relu(x), self.size, stride)))
        return x


class _Adjust(nn.Module):
    """Bring what the cell before gave to the cell's channels, and to half the sides where a reduction lies between.

    Args:
        c_in: channels of what it gave.
        c_out: channels of the cell.
        before: how many times as long its sides are; 0 for the first cell, which takes the stem as it is.
    """

    def __init__(self, c_in: int, c_out: int, before: int) -> None:
        super().__init__()
        self.step = 2 if before == 2 else 1
        changes = before == 2 or (before == 1 and c_in != c_out)
        parts = self.step if changes else 0
        self.channels = c_out if changes else c_in
        self.convs = nn.ModuleList([nn.Conv3d(c_in, c_out // parts, 1, bias=False) for _ in range(parts)])
        self.norm = _norm(c_out) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return features: (B, c_in, D, H, W) -> (B, c_out, D, H, W) or half of H and W."""
        if not self.convs:
            return x
        x = torch.relu(x)
        shifted = pad(x, (0, 1, 0, 1))[..., 1:, 1:]  # shows the other pixels where sides are halved
        seen = zip(self.convs, (x, shifted), strict=False)
        return self.norm(torch.cat([conv(part[..., :: self.step, :: self.step]) for conv, part in seen], 1))


class _Cell(nn.Module):
    def __init__(self, c_in: int, c_previous: int, channels: int, before: int) -> None:
        super().__init__()
        self.adjust = _Adjust(c_previous, channels, before)
        self.squeeze = nn.Sequential(nn.ReLU(), nn.Conv3d(c_in, channels, 1, bias=False), _norm(channels))


class _Normal(_Cell):
    """Five sums of two ways each, beside the output of the cell before."""

    def __init__(self, c_in: int, c_previous: int, channels: int, before: int) -> None:
        super().__init__(c_in, c_previous, channels, before)
        self.of_current = nn.ModuleList([_Separable(channels, channels, size) for size in (5, 3)])
        self.of_previous = nn.ModuleList([_Separable(channels, channels, size) for size in (3, 5, 3)])

    def forward(self, x: Tensor, previous: Tensor) -> tuple[Tensor, Inputs]:
        """Return features of what the last two cells gave, and that as the cell sees it."""
        p, h = self.adjust(previous), self.squeeze(x)
        sums = [
            self.of_current[0](h) + self.of_previous[0](p),
            self.of_previous[1](p) + self.of_previous[2](p),
            _mean(h) + p,
            2 * _mean(p),
            self.of_current[1](h) + h,
        ]
        return torch.cat([p, *sums], 1), (h, p)


class _Reduction(_Cell):
    """Five sums of two ways each, of which four go on, at half the sides."""

    def __init__(self, c_in: int, c_previous: int, channels: int, before: int) -> None:
        super().__init__(c_in, c_previous, channels, before)
        self.of_current = _Separable(channels, channels, 5, 2)
        self.of_previous = nn.ModuleList([_Separable(self.adjust.channels, channels, size, 2) for size in (7, 7, 5)])
        self.again = _Separable(channels, channels, 3)

    def forward(self, x: Tensor, previous: Tensor) -> tuple[Tensor, Inputs]:
        """Return features of what the last two cells gave, and that as the cell sees it."""
        p, h = self.adjust(previous), self.squeeze(x)
        room = _around(h, 3, 2)
        largest, mean = max_pool3d(room, (1, 3, 3), (1, 2, 2)), avg_pool3d(room, (1, 3, 3), (1, 2, 2))
        first = self.of_current(h) + self.of_previous[0](p)
        second = largest + self.of_previous[1](p)
        sums = [second, mean + self.of_previous[2](p), _mean(first) + second, self.again(first) + largest]
        return torch.cat(sums, 1), (h, p)


def _separable(c_in: int, c_out: int, size: int, stride: int) -> nn.Sequential:
    depthwise = nn.Conv3d(c_in, c_in, (1, size, size), (1, stride, stride), groups=c_in, bias=False)
    return nn.Sequential(depthwise, nn.Conv3d(c_in, c_out, 1, bias=False))


def _around(x: Tensor, size: int, stride: int) -> Tensor:
    """Pad slices with zeros for a kernel, so that sides are kept, or halved and rounded up."""
    half = size // 2
    before = [half - (1 - length % 2) * (stride == 2) for length in x.shape[-2:]]
    return pad(x, (before[1], half, before[0], half))


def _mean(x: Tensor) -> Tensor:
    return avg_pool2d(x.flatten(1, 2), 3, 1, 1, count_include_pad=False).view(x.shape)


def _norm(channels: int) -> nn.BatchNorm3d:
    return nn.BatchNorm3d(channels, eps=EPSILON)
