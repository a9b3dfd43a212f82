"""Networks that LNHG's generator is compared with: same data, same loop, same tables.

A method is a `Generator` here or in `LNHGLib.models.unet`, its kind in `config.GeneratorNetwork`, and a configuration
beside segmenter.toml.
"""

from LNHGLib.models import registry
from LNHGLib.models.registry import build_generator
from LNHGLib.models.unet import Probability
from torch import Tensor

__all__ = ["MonaiUNet", "build_generator"]


class MonaiUNet(Probability):
    """MONAI's residual 3-D U-Net as it comes, on the generator's own patches.

    Args:
        width: channels of the first level, doubled at each of four.

    Raises:
        ImportError: MONAI is not installed (extra `baselines`).
    """

    halo = (32, 32, 32)
    multiple = 8

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        from monai.networks.nets import UNet as Residual

        channels = [width * 2**level for level in range(4)]
        self.network = Residual(3, 1, 1, channels, strides=(2, 2, 2), num_res_units=2)

    def residual(self, x: Tensor) -> Tensor:
        """Logits: (B, 1, D, H, W) -> same shape."""
        return self.network(x)


registry.KINDS["monai-unet"] = MonaiUNet
