import math

import pytest
import torch
from LNHGLib.errors import InputError
from LNHGTrainingLib.training import losses
from torch import nn
from torchvision import models


class LinearCritic(nn.Module):
    """D(x) = w * sum(x): its gradient has norm |w| * sqrt(n) everywhere."""

    def __init__(self, w: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w))

    def forward(self, x):
        return self.w * x.sum((1, 2, 3, 4))


class SquareCritic(nn.Module):
    def forward(self, x):
        return x.square().sum((1, 2, 3, 4))


def images(*values, size=(1, 2, 2)):
    return torch.stack([torch.full((1, *size), float(v)) for v in values])


def test_the_gradient_penalty_of_a_linear_critic_is_known_by_hand():
    penalty = losses.gradient_penalty(LinearCritic(1.5), images(1, 2), images(0, 0), torch.tensor([0.3, 0.9]))
    assert penalty.item() == pytest.approx((1.5 * 2 - 1) ** 2)


def test_the_gradient_penalty_mixes_with_one_alpha_a_sample():
    """D = sum x^2 at x = alpha: gradient 2 alpha on each of 4 voxels, norm 4 alpha."""
    alpha = torch.tensor([0.25, 0.75])
    penalty = losses.gradient_penalty(SquareCritic(), images(1, 1), images(0, 0), alpha)
    assert penalty.item() == pytest.approx(((4 * 0.25 - 1) ** 2 + (4 * 0.75 - 1) ** 2) / 2)


def test_the_gradient_penalty_trains_the_critic_by_its_second_derivative():
    critic = LinearCritic(1.5)
    losses.gradient_penalty(critic, images(1), images(0), torch.tensor([0.5])).backward()
    assert critic.w.grad.item() == pytest.approx(2 * (3 - 1) * 2)


def test_the_critic_loss_is_fake_minus_real_plus_ten_penalties():
    """Register L4: the real branch receives the reference."""
    loss = losses.critic_loss(LinearCritic(0.5), real=images(3), fake=images(1), alpha=torch.tensor([0.5]))
    assert loss.item() == pytest.approx(0.5 * 4 * (1 - 3) + 10 * (0.5 * 2 - 1) ** 2)


def test_the_critic_loss_sends_no_gradient_to_the_generator():
    fake = images(1).requires_grad_(True)
    losses.critic_loss(LinearCritic(0.5), real=images(3), fake=fake, alpha=torch.tensor([0.5])).backward()
    assert fake.grad is None


def test_the_squares_of_a_discriminator_are_known_by_hand():
    """Real cubes at 0.5 and 1, generated ones at 0.25: (0.25 / 2 + 0.0625) / 2, and 0.75^2 for the injector."""
    real, fake = torch.tensor([0.5, 1.0]), torch.tensor([0.25, 0.25])
    assert losses.discriminator_squares(real, fake).item() == pytest.approx(0.09375)
    assert losses.adversarial_squares(fake).item() == pytest.approx(0.5625)


def test_the_rate_halves_every_four_epochs_down_to_the_floor():
    """Register L8."""
    rates = [losses.halved_rate(1e-4, epoch) for epoch in range(60)]
    assert rates[:4] == [1e-4] * 4
    assert rates[4] == 5e-5
    assert rates[40] == pytest.approx(9.8e-8, rel=0.01)
    assert set(rates[40:]) == {rates[40]}


def test_the_rate_reaches_the_optimizer():
    """Register L8: the original wrote it into `defaults`, without effect."""
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    losses.set_rate(optimizer, 0.25)
    weight.grad = torch.ones(1)
    optimizer.step()
    assert weight.item() == -0.25


def dice(logit, mask, known=1.0):
    shape = (1, 1, 1, 2, 2)
    as_tensor = [torch.as_tensor(v, dtype=torch.float32).expand(shape) for v in (logit, mask, known)]
    return losses.dice_loss(*as_tensor).item()


def test_a_perfect_mask_has_no_dice_loss_and_a_missed_one_nearly_all():
    assert dice(50.0, 1.0) == pytest.approx(0, abs=1e-6)
    assert dice(-50.0, 1.0) == pytest.approx(1 - 1 / 5)


def test_dice_never_exceeds_one():
    """Register N1: with the smoothing inside 2 (I + 1) a small perfect mask scored above 1."""
    assert dice(50.0, 1.0) >= 0


def test_dice_skips_samples_without_a_nodule():
    """Register T10, N1: emptiness is not rewarded."""
    logits = torch.stack([images(50)[0], images(-50)[0]])
    mask = torch.stack([images(1)[0], images(0)[0]])
    assert losses.dice_loss(logits, mask, torch.ones_like(mask)).item() == pytest.approx(0, abs=1e-6)
    assert losses.dice_loss(logits[1:], mask[1:], torch.ones_like(mask[1:])).item() == 0


def test_unknown_voxels_do_not_count():
    known = torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 1, 1, 2, 2)
    wrong = torch.tensor([1.0, 1.0, 9.0, -9.0]).view(1, 1, 1, 2, 2)
    right = torch.ones(1, 1, 1, 2, 2)
    assert losses.masked_mse(wrong, right, known).item() == 0
    assert losses.cross_entropy(wrong * 50, right, known).item() == pytest.approx(0, abs=1e-6)


def test_the_dice_of_a_batch_counts_what_is_false_in_samples_without_a_nodule():
    """Document 002: p = 1/2 on 2 x 4 voxels, 4 of them nodule, so 1 - (2 * 2 + 1) / (4 + 4 + 1) (register M4)."""
    mask = images(1, 0)
    assert losses.batch_dice_loss(images(0, 0), mask, torch.ones_like(mask)).item() == pytest.approx(4 / 9)
    found, known = images(50, 50), images(1, 0)
    assert losses.batch_dice_loss(found, mask, torch.ones_like(mask)).item() == pytest.approx(1 - 9 / 13)
    assert losses.batch_dice_loss(found, mask, known).item() == pytest.approx(0, abs=1e-6)


def test_the_generalized_dice_weighs_classes_by_their_squared_volume():
    """Document 001: one voxel of four is nodule, p = 1/2 everywhere.

    Nodule: weight 1, overlap 2 * 1/2, total 1 + 2. Background: weight 1/9, overlap 2 * 3/2, total 3 + 2.
    """
    mask = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 1, 2, 2)
    loss = losses.generalized_dice_loss(torch.zeros_like(mask), mask, torch.ones_like(mask))
    assert loss.item() == pytest.approx(1 - (1 + 3 / 9) / (3 + 5 / 9))
    right = 100 * (mask - 0.5)
    assert losses.generalized_dice_loss(right, mask, torch.ones_like(mask)).item() == pytest.approx(0, abs=1e-6)


def test_the_generalized_dice_is_bounded_where_there_is_no_nodule():
    """Register T10: the original weighed an absent nodule by 1 / epsilon."""
    mask = images(0)
    known = torch.ones_like(mask)
    assert losses.generalized_dice_loss(images(0), mask, known).item() == pytest.approx(1 - 2 * 2 / (4 + 2))
    assert losses.generalized_dice_loss(images(0), mask, 0 * known).item() == 0


def test_a_voxel_of_a_nodule_weighs_seven_times_as_much():
    """Document 001: with p = 1/2, a quarter nodule costs ln 2 * (3 + 7) / 4."""
    mask = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 1, 2, 2)
    loss = losses.cross_entropy(torch.zeros_like(mask), mask, torch.ones_like(mask), 7.0)
    assert loss.item() == pytest.approx(math.log(2) * 10 / 4)


@pytest.fixture(scope="module")
def perceptual():
    torch.manual_seed(0)
    return losses.Perceptual("random")


def test_perceptual_features_are_those_after_the_sixteenth_convolution(perceptual):
    """Register L7: the original took them after the fifth pooling."""
    layers = list(perceptual.features)
    assert sum(isinstance(layer, nn.Conv2d) for layer in layers) == 16
    assert isinstance(layers[-1], nn.ReLU)
    assert perceptual.describe(torch.rand(1, 1, 3, 32, 32)).shape == (3, 512, 2, 2)


def test_the_perceptual_loss_leaves_its_input_as_it_is(perceptual):
    """Register L6: the original divided the images by 16 in place."""
    fake, real = torch.rand(1, 1, 2, 32, 32, requires_grad=True), torch.rand(1, 1, 2, 32, 32)
    before = fake.detach().clone(), real.clone()
    perceptual(fake, real).backward()
    assert torch.equal(fake.detach(), before[0])
    assert torch.equal(real, before[1])
    assert fake.grad.abs().sum() > 0


def test_the_perceptual_network_is_frozen(perceptual):
    """Register L14."""
    assert not any(p.requires_grad for p in perceptual.parameters())
    assert not perceptual.train().features.training


def test_equal_images_have_no_perceptual_loss(perceptual):
    image = torch.rand(1, 1, 1, 32, 32)
    assert perceptual(image, image).item() == 0


def test_slices_are_normalised_as_imagenet_photographs(perceptual):
    seen = []
    handle = perceptual.features.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    perceptual.describe(torch.full((1, 1, 1, 32, 32), 0.5))
    handle.remove()
    expected = [(0.5 - m) / s for m, s in zip(losses.IMAGENET_MEAN, losses.IMAGENET_SD, strict=True)]
    assert seen[0][0, :, 0, 0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("build", "convolutions"), [(models.vgg16, 13), (models.vgg19, 16)])
def test_the_perceptual_network_is_the_one_whose_weights_the_file_holds(build, convolutions, tmp_path):
    network = build(weights=None)
    torch.save(network.state_dict(), tmp_path / "vgg.pt")
    features = losses.Perceptual(str(tmp_path / "vgg.pt")).features
    found = [layer for layer in features if isinstance(layer, nn.Conv2d)]
    assert len(found) == convolutions
    assert torch.equal(found[-1].weight, network.features[-3].weight)
    assert isinstance(features[-1], nn.ReLU)


def test_missing_perceptual_weights_are_named():
    with pytest.raises(InputError, match=r"nowhere\.pt do not exist"):
        losses.Perceptual("nowhere.pt")
