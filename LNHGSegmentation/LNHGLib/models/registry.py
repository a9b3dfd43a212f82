"""Every generator, by its kind."""

from LNHGLib.models.documents.baselines import MonaiUNet, NNUNet
from LNHGLib.models.documents.inception_unet import InceptionUNet
from LNHGLib.models.documents.nasnet_gcn import NASNetGCN
from LNHGLib.models.documents.nodulenet import NoduleNet
from LNHGLib.models.documents.unet_2d import UNet2D
from LNHGLib.models.gan import Generator, PaperGenerator, StridedGenerator
from LNHGLib.models.unet import GatedUNet, UNet

KINDS: dict[str, type[Generator]] = {
    "paper": PaperGenerator,
    "strided": StridedGenerator,
    "unet": UNet,
    "gated-unet": GatedUNet,
    "unet-2d": UNet2D,
    "inception-unet": InceptionUNet,
    "nasnet-gcn": NASNetGCN,
    "nodulenet": NoduleNet,
    "monai-unet": MonaiUNet,
    "nnunet": NNUNet,
}
"""By the name that a card gives."""


def build_generator(spec: dict) -> Generator:
    """Return the generator that a model card describes.

    Args:
        spec: the card's part on it: `kind` (one of `KINDS`), and those of the kind's `options` that it sets.

    Raises:
        ValueError: unknown kind.
    """
    if spec.get("kind") not in KINDS:
        raise ValueError(
            f"Generator kind {spec.get('kind')!r} is unknown; expected one of {sorted(KINDS)}: mend model.json."
        )
    kind = KINDS[spec["kind"]]
    return kind(**{key: spec[key] for key in kind.options if key in spec})
