"""The exponential moving average of a network's weights, which is validated and exported."""

import torch
from torch import nn


def update_ema(ema: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Move the averaged weights and statistics towards the trained ones; faster in the first steps.

    Args:
        ema: the network with the exponential moving average, changed in place.
        network: the trained one.
        decay: fraction of the average that stays.
        step: number of the step.
    """
    decay = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for slow, fast in zip(ema.state_dict().values(), network.state_dict().values(), strict=True):
            if slow.dtype.is_floating_point:
                slow.lerp_(fast, 1 - decay)
            else:
                slow.copy_(fast)
