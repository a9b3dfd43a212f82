import pytest
import torch
from LNHGLib.models.gan import Critic, PaperGenerator, StridedGenerator
from LNHGLib.models.registry import build_generator
from torch import nn


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_the_papers_generator_has_its_parameters():
    assert parameters(PaperGenerator()) == 2_326_273


def test_the_papers_critic_has_its_parameters_at_3_256_256():
    assert parameters(Critic(slab=(3, 256, 256))) == 25_443_393


def test_the_critics_convolutions_have_277568_parameters():
    assert parameters(Critic().features) == 277_568


@pytest.mark.parametrize("size", [(3, 16, 16), (8, 40, 24), (5, 7, 9)])
def test_the_pooled_critic_takes_any_size(size):
    assert Critic(width=2)(torch.rand(2, 1, *size)).shape == (2,)


def test_a_critic_for_one_slab_refuses_another_size():
    with pytest.raises(RuntimeError, match="shapes"):
        Critic(width=2, slab=(3, 16, 16))(torch.rand(1, 1, 3, 20, 20))


@pytest.mark.parametrize("width", [2, 4, 8])
def test_width_scales_the_generators_parameters(width):
    assert (
        parameters(PaperGenerator(width))
        < parameters(PaperGenerator(2 * width))
        < 5 * parameters(PaperGenerator(width))
    )


@pytest.mark.parametrize("generator", [PaperGenerator(2), StridedGenerator(4)])
def test_the_nodule_image_has_the_slabs_shape_and_is_not_negative(generator):
    with torch.no_grad():
        result = generator(torch.rand(2, 1, 8, 16, 24))
    assert result.shape == (2, 1, 8, 16, 24)
    assert result.min() >= 0


def test_the_papers_generator_keeps_three_slices():
    assert PaperGenerator(2)(torch.rand(1, 1, 3, 32, 32)).shape == (1, 1, 3, 32, 32)


def silenced(generator: nn.Module) -> nn.Module:
    nn.init.zeros_(generator.last.weight)
    return generator.eval()


@pytest.mark.parametrize("kind", [PaperGenerator, StridedGenerator])
def test_the_last_skip_adds_the_input(kind):
    x = torch.rand(1, 1, 8, 16, 16)
    assert torch.equal(silenced(kind(2))(x), x)


@pytest.mark.parametrize("kind", [PaperGenerator, StridedGenerator])
def test_without_the_last_skip_no_input_leaks(kind):
    assert silenced(kind(2, input_skip=False))(torch.rand(1, 1, 8, 16, 16)).abs().max() == 0


def test_the_papers_receptive_field_reaches_exactly_eight_voxels():
    generator = PaperGenerator(2).eval()
    x = torch.rand(1, 1, 3, 33, 33, requires_grad=True)
    generator.residual(x)[0, 0, 1, 16, 16].backward()
    rows = x.grad.abs().sum((0, 1, 2, 4)).nonzero().flatten()
    assert rows.min() == 8
    assert rows.max() == 24


def test_cropping_with_the_halo_changes_nothing():
    generator = PaperGenerator(2).eval()
    x = torch.rand(1, 1, 3, 40, 40)
    with torch.no_grad():
        whole, part = generator(x), generator(x[..., 4:36, 4:36])
    torch.testing.assert_close(part[..., 8:-8, 8:-8], whole[..., 12:28, 12:28], atol=1e-5, rtol=1e-4)


def test_cropping_with_less_than_the_halo_changes_the_result():
    generator = PaperGenerator(4).eval()
    x = torch.rand(1, 1, 3, 40, 40)
    with torch.no_grad():
        whole, part = generator.residual(x), generator.residual(x[..., 4:36, 4:36])
    assert (part[..., 4:-4, 4:-4] - whole[..., 8:32, 8:32]).abs().max() > 1e-4


def test_weights_start_kaiming_normal_with_zero_bias_and_identity_normalisation():
    torch.manual_seed(0)
    generator = PaperGenerator()
    conv = generator.encoder[3].conv
    assert conv.weight.std().item() == pytest.approx((2 / (128 * 27)) ** 0.5, rel=0.02)
    assert conv.bias.abs().max() == 0
    norm = generator.encoder[0].norm
    assert (norm.weight == 1).all()
    assert norm.eps == 1e-5
    assert norm.momentum == 0.1


def test_leaky_slopes_are_the_papers():
    slopes = {
        m.negative_slope for m in (*PaperGenerator(2).modules(), *Critic(2).modules()) if isinstance(m, nn.LeakyReLU)
    }
    assert slopes == {0.01}


def test_the_critic_does_not_normalise():
    assert not any(isinstance(module, nn.BatchNorm3d) for module in Critic(2).modules())


def test_a_card_builds_its_generator():
    generator = build_generator({"kind": "strided", "width": 4, "threshold": 0.1, "weights": "x.safetensors"})
    assert isinstance(generator, StridedGenerator)
    assert generator.stem.conv.out_channels == 4


def test_an_unknown_kind_is_refused_by_name():
    with pytest.raises(ValueError, match="'dense' is unknown"):
        build_generator({"kind": "dense"})


@pytest.mark.parametrize("kind", ["strided", "paper"])
def test_folded_norms_change_nothing_that_is_drawn(kind):
    torch.manual_seed(0)
    network = build_generator({"kind": kind, "width": 2})
    for _ in range(3):
        network(torch.rand(2, 1, 16, 16, 16))
    x = torch.rand(1, 1, 16, 16, 16)
    with torch.inference_mode():
        before = network.eval()(x)
        network.fold_norms()
        torch.testing.assert_close(network(x), before, atol=1e-5, rtol=1e-5)
    norms = sum(isinstance(module, nn.BatchNorm3d) for module in network.modules())
    assert norms == (0 if kind == "strided" else 7)


def test_logits_are_zero_where_the_signal_is_at_the_threshold():
    assert StridedGenerator(width=2).logits(torch.tensor(0.1), 0.1, 20.0).item() == 0
