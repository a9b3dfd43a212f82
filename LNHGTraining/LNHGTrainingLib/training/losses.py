"""Losses of both branches' training. Images are (B, 1, D, H, W); losses are scalars."""

from pathlib import Path

import torch
from LNHGLib.errors import InputError
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SD = (0.229, 0.224, 0.225)
LAST_OF_VGG19 = "34.weight"


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """Return the mean over the batch of (||d D(x) / d x||_2 - 1)^2 at x = alpha * real + (1 - alpha) * fake.

    Computed in float32 whatever the caller's precision: differentiated twice, bf16 would not do.

    Args:
        critic: maps (B, 1, D, H, W) to (B,).
        real: reference images.
        fake: generated images; their graph is not used.
        alpha: (B,) in [0, 1], one value a sample.
    """
    mix = alpha.view(-1, 1, 1, 1, 1)
    x = (mix * real.float() + (1 - mix) * fake.detach().float()).requires_grad_(True)
    with torch.autocast(x.device.type, enabled=False):
        (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return ((gradient.flatten(1).norm(dim=1) - 1) ** 2).mean()


def critic_loss(critic: nn.Module, *, real: Tensor, fake: Tensor, alpha: Tensor, penalty: float = 10.0) -> Tensor:
    """Return what the critic minimizes: -E[D(real)] + E[D(fake)] + penalty * GP (paper eq. 1; register L4, L12).

    Args:
        critic: maps (B, 1, D, H, W) to (B,).
        real: reference images.
        fake: generated images; their graph is not used.
        alpha: (B,) in [0, 1], where between both the gradient is penalized.
        penalty: weight of the gradient penalty.
    """
    fake = fake.detach()
    distance = critic(fake).float().mean() - critic(real).float().mean()
    return distance + penalty * gradient_penalty(critic, real, fake, alpha)


def dice_loss(logits: Tensor, mask: Tensor, known: Tensor, smooth: float = 1.0) -> Tensor:
    """Return 1 - soft Dice, averaged over the samples that hold a nodule (register N1, T10).

    Args:
        logits: of the probability of a nodule.
        mask: the nodule, 0 or 1.
        known: 1 where the reference is known, else 0.
        smooth: voxels added to both parts of the fraction.
    """
    probability = torch.sigmoid(logits) * known
    mask = mask * known
    axes = (1, 2, 3, 4)
    overlap = (2 * (probability * mask).sum(axes) + smooth) / (probability.sum(axes) + mask.sum(axes) + smooth)
    holds = mask.sum(axes) > 0
    return (1 - overlap[holds]).mean() if holds.any() else logits.sum() * 0


def batch_dice_loss(logits: Tensor, mask: Tensor, known: Tensor, smooth: float = 1.0) -> Tensor:
    """Return 1 - soft Dice of the whole batch, as document 002 has it (register M4): what is false costs anywhere.

    Args:
        logits: of the probability of a nodule.
        mask: the nodule, 0 or 1.
        known: 1 where the reference is known, else 0.
        smooth: voxels added to both parts of the fraction.
    """
    probability, mask = torch.sigmoid(logits) * known, mask * known
    return 1 - (2 * (probability * mask).sum() + smooth) / (probability.sum() + mask.sum() + smooth)


def generalized_dice_loss(logits: Tensor, mask: Tensor, known: Tensor) -> Tensor:
    """Return 1 - generalized Dice of nodule and background, as document 001 has it, per sample (register T10).

    Each class weighs 1 / volume^2; one that a sample lacks does not count.

    Args:
        logits: of the probability of a nodule.
        mask: the nodule, 0 or 1.
        known: 1 where the reference is known, else 0.
    """
    probability, axes = torch.sigmoid(logits), (1, 2, 3, 4)
    overlap, total = torch.zeros(len(mask), device=mask.device), torch.zeros(len(mask), device=mask.device)
    for truth, predicted in ((mask * known, probability * known), ((1 - mask) * known, (1 - probability) * known)):
        volume = truth.sum(axes)
        weight = (volume > 0) / volume.clamp(min=1) ** 2
        overlap = overlap + 2 * weight * (truth * predicted).sum(axes)
        total = total + weight * (volume + predicted.sum(axes))
    holds = total > 0
    return (1 - overlap[holds] / total[holds]).mean() if holds.any() else logits.sum() * 0


def cross_entropy(logits: Tensor, mask: Tensor, known: Tensor, nodule_weight: float = 1.0) -> Tensor:
    """Return the mean binary cross-entropy over known voxels.

    Args:
        logits: of the probability of a nodule.
        mask: the nodule, 0 or 1.
        known: 1 where the reference is known, else 0.
        nodule_weight: how many times as much a voxel of a nodule counts as one of the background.
    """
    weight = torch.as_tensor(nodule_weight, dtype=logits.dtype, device=logits.device)
    loss = nn.functional.binary_cross_entropy_with_logits(logits, mask, reduction="none", pos_weight=weight)
    return (loss * known).sum() / known.sum().clamp(min=1)


def masked_mse(image: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Return the mean squared error over known voxels (paper eq. 6 with the mean).

    Args:
        image: generated images.
        target: reference images.
        known: 1 where the reference is known, else 0.
    """
    return ((image - target).square() * known).sum() / known.sum().clamp(min=1)


def discriminator_squares(real: Tensor, fake: Tensor) -> Tensor:
    """Return what CT-GAN's discriminator minimizes: it should say 1 of real cubes and 0 of generated ones.

    Args:
        real: what it says of real cubes, of any shape.
        fake: what it says of generated ones.
    """
    return ((real - 1).square().mean() + fake.square().mean()) / 2


def adversarial_squares(fake: Tensor) -> Tensor:
    """Return the injector's part of it: the discriminator should say 1 of `fake`."""
    return (fake - 1).square().mean()


class Perceptual(nn.Module):
    """MSE between VGG-19 features after the ReLU of the last, 16th, convolution (register L6, L7, L14).

    Each slice passes as three equal channels with ImageNet normalization, out of place; the network is frozen.

    Args:
        weights: "imagenet" (torchvision's cache), "random", or a path of a state dict of torchvision's vgg19; one of
            vgg16 makes that the network, up to its last, 13th, convolution.

    Raises:
        InputError: the weights cannot be had.
    """

    def __init__(self, weights: str = "imagenet") -> None:
        super().__init__()
        self.features = vgg_features(weights)[:-1].eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("sd", torch.tensor(IMAGENET_SD).view(1, 3, 1, 1))

    def train(self, mode: bool = True) -> "Perceptual":
        """Stay in evaluation mode whatever the caller's mode."""
        return super().train(False)

    def describe(self, image: Tensor) -> Tensor:
        """Return the features of every slice: (B, 1, D, H, W) -> (B * D, 512, H / 16, W / 16)."""
        slices = image.transpose(1, 2).flatten(0, 1).expand(-1, 3, -1, -1)
        return self.features((slices - self.mean) / self.sd)

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """Return the perceptual loss.

        Args:
            fake: generated images (B, 1, D, H, W).
            real: reference images of the same shape; no gradient flows into them.
        """
        with torch.no_grad():
            target = self.describe(real)
        return nn.functional.mse_loss(self.describe(fake), target)


def vgg_features(weights: str) -> nn.Sequential:
    """Return the convolutional part of VGG, the last pooling included; `weights` as for `Perceptual`."""
    from torchvision.models import VGG19_Weights, vgg16, vgg19

    if weights == "random":
        return vgg19(weights=None).features
    if weights == "imagenet":
        try:
            return vgg19(weights=VGG19_Weights.IMAGENET1K_V1).features
        except OSError as error:
            raise InputError(
                f"VGG-19 weights are not in torchvision's cache ({error}); expected them there: "
                "name a file, or set perceptual_network to 'off'."
            ) from error
    if not Path(weights).is_file():
        raise InputError(
            f"VGG weights {weights} do not exist; expected a state dict file: mend `perceptual_network` in the "
            "settings."
        )
    state = torch.load(weights, map_location="cpu", weights_only=True)
    state = {name.removeprefix("features."): value for name, value in state.items() if "features." in name}
    features = (vgg19 if LAST_OF_VGG19 in state else vgg16)(weights=None, init_weights=False).features
    features.load_state_dict(state)
    return features


def halved_rate(start: float, epoch: int, every: int = 4, floor: float = 1e-7) -> float:
    """Return the learning rate of an epoch by the corrected schedule (register L8).

    Args:
        start: the rate of epoch 0.
        epoch: number of the epoch.
        every: epochs after which the rate is halved.
        floor: the rate is halved while it is above.
    """
    rate = start
    for _ in range(epoch // every):
        if rate <= floor:
            break
        rate /= 2
    return rate


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Write the learning rate where the optimizer reads it: its parameter groups (register L8).

    Args:
        optimizer: changed in place.
        rate: the learning rate.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate


def precision(name: str, device: torch.device) -> torch.autocast:
    """Return the context in which networks compute.

    Args:
        name: "fp32", "bf16", or "auto": bf16 on GPUs alone.
        device: where they compute.
    """
    enabled = name == "bf16" or (name == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled)
