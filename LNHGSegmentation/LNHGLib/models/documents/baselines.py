"""Networks of other packages that LNHG is compared with: MONAI's U-Net and what nnU-Net planned and trained.

They come with the extra `baselines`; a model with one of them needs it wherever it runs.
"""

import sys
from contextlib import redirect_stdout
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from LNHGLib.errors import InputError, quoted
from LNHGLib.models.unet import Probability

NODULE = 1
"""Label of nnU-Net's data; 0 is all else."""
CONFIGURATION = "3d_fullres"
PLANNED = frozenset(
    {
        "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
        "torch.nn.modules.conv.Conv3d",
        "torch.nn.modules.instancenorm.InstanceNorm3d",
        "torch.nn.LeakyReLU",
    }
)
"""What a plan may name. nnU-Net imports and calls whatever its plan names, and a card is a file from anywhere."""


def require(module: str, name: str) -> None:
    """Refuse to begin without another program's package.

    Args:
        module: the package.
        name: of the program.

    Raises:
        InputError: says which extra to install.
    """
    if find_spec(module) is None:
        raise InputError(
            f"The package {module} is not installed, expected for {name}; "
            'install the extra "baselines", as in pip install "slicer-lnhg[baselines]".'
        )


class MonaiUNet(Probability):
    """MONAI's residual 3-D U-Net as it comes; its norms are over the piece of the CT that it is given.

    Args:
        width: channels of the first level, doubled at each of four.

    Raises:
        InputError: MONAI is not installed.
    """

    halo = (32, 32, 32)
    multiple = 8

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        require("monai", "MONAI's U-Net")
        from monai.networks.nets import UNet as Residual

        channels = [width * 2**level for level in range(4)]
        self.network = Residual(3, 1, 1, channels, strides=(2, 2, 2), num_res_units=2)

    def residual(self, x: Tensor) -> Tensor:
        """Logits: (B, 1, D, H, W) -> same shape."""
        return self.network(x)


class NNUNet(Probability):
    """A network of nnU-Net (version 2) behind nnU-Net's own windows, normalization and, where planned, mirroring.

    Args:
        plan: `plans` and `dataset` as nnU-Net wrote them, and the `mirrored_axes`, none without mirroring.

    Raises:
        InputError: nnU-Net is not installed, or the plan names something else than nnU-Net's U-Nets.
    """

    options = ("plan",)
    multiple = 1
    values_per_voxel = 4.0  # what is kept of the whole: two classes, the weights of windows; layers see a window

    def __init__(self, plan: dict[str, Any]) -> None:
        super().__init__()
        require("nnunetv2", "nnU-Net")
        with redirect_stdout(sys.stderr):  # it has something to say about every environment and device
            from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
            from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
            from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

            plans = PlansManager(plan["plans"])
            configuration = plans.get_configuration(CONFIGURATION)
            name, built_with = configuration.network_arch_class_name, configuration.network_arch_init_kwargs
            imported = configuration.network_arch_init_kwargs_req_import
            for named in (name, *(built_with[key] for key in imported)):
                if named is not None and named not in PLANNED:
                    raise InputError(
                        f"The plan names {quoted(named, 80)}, expected a U-Net as nnU-Net plans it; take another model."
                    )
            heads = plans.get_label_manager(plan["dataset"]).num_segmentation_heads
            self.network = get_network_from_plans(name, built_with, imported, 1, heads, deep_supervision=False)
            mirrored = plan["mirrored_axes"]
            self._predictor = nnUNetPredictor(
                use_mirroring=bool(mirrored), device=torch.device("cpu"), allow_tqdm=False
            )
        parts = (self.network, plans, configuration, None, plan["dataset"], "nnUNetTrainer", mirrored or None)
        self._predictor.manual_initialization(*parts)
        self.halo = tuple(side // 2 for side in configuration.patch_size)
        self._seen = plans.foreground_intensity_properties_per_channel["0"]

    def residual(self, x: Tensor) -> Tensor:
        """Log odds of a nodule: (B, 1, D, H, W) -> same shape; 0 and 1 of the CT are the HU where nnU-Net clips."""
        low, high = (self._seen[f"percentile_{end}"] for end in ("00_5", "99_5"))
        scaled = (low + (high - low) * x - self._seen["mean"]) / self._seen["std"]
        self._predictor.device, self._predictor.perform_everything_on_device = x.device, x.is_cuda
        logits = torch.stack([self._predictor.predict_sliding_window_return_logits(each) for each in scaled]).float()
        return logits[:, NODULE : NODULE + 1] - logits[:, :1]
