"""Networks, most of other documents: their parameters, and that pieces of a volume give what the whole one gives."""

import numpy as np
import pytest
import torch
from LNHGLib.errors import InputError
from LNHGLib.models.classifier import build_classifier
from LNHGLib.models.detector import build_detector
from LNHGLib.models.documents.mgi_cnn import SCALES, _scale
from LNHGLib.models.documents.nasnet import NASNet
from LNHGLib.models.registry import build_generator
from LNHGLib.segmentation.tiled_inference import run_generator, run_generator_on_fields
from torch import nn


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def running(network: nn.Module) -> int:
    """Return how many means and variances the normalizations keep."""
    return sum(values.numel() for name, values in network.named_buffers() if "running" in name)


C4 = {"backbone": "resnet50-c4", "anchors_px": [32, 64, 128]}
PYRAMID = {"backbone": "resnet50-fpn", "anchors_px": [4, 8, 16, 32, 64]}


@pytest.mark.parametrize(
    ("build", "spec", "count"),
    [
        (build_generator, {"kind": "strided", "width": 16}, 1_029_521),
        (build_generator, {"kind": "gated-unet", "width": 16}, 1_460_993),
        (build_generator, {"kind": "unet-2d"}, 1_617_091),
        (build_generator, {"kind": "inception-unet"}, 125_201),
        (build_generator, {"kind": "monai-unet"}, 1_185_818),
        (build_detector, C4, 33_012_855),
        (build_detector, PYRAMID, 41_352_281),
        (build_detector, {"backbone": "light"}, 1_566_569),
        (build_classifier, {"kind": "residual", "width": 16}, 885_857),
        (build_classifier, {"kind": "resnet-48"}, 2_078_306),
        (build_classifier, {"kind": "mgi-cnn"}, 21_440_515),
    ],
    ids=lambda value: next(iter(value.values())) if isinstance(value, dict) else None,
)
def test_a_network_has_its_parameters(build, spec, count):
    """Those of the bundled model, of the paper's detector and its mended one, and of the documents."""
    if spec.get("kind") == "monai-unet":
        pytest.importorskip("monai", reason="MONAI is not installed (extra baselines)")
    assert parameters(build(spec)) == count


def test_the_nasnet_has_the_documents_parameters():
    with torch.device("meta"):
        network = build_generator({"kind": "nasnet-gcn"})
    assert parameters(network) == 22_005_284
    assert parameters(network) + running(network) == 22_049_958
    assert parameters(network.encoder) + running(network.encoder) == 4_269_140


def test_the_nasnet_halves_slices_as_the_document_says():
    with torch.device("meta"):
        features, taps = NASNet()(torch.zeros(1, 1, 1, 400, 400))
    assert features.shape == (1, 1056, 1, 13, 13)
    assert [tap.shape[1:] for tap in taps] == [(44, 1, 100, 100), (176, 1, 50, 50), (352, 1, 25, 25)]


@pytest.mark.parametrize("kind", ["inception-unet", "nasnet-gcn"])
def test_a_width_that_has_no_quarter_is_refused(kind):
    with pytest.raises(InputError, match="`width` is 11, expected a multiple of 4"):
        build_generator({"kind": kind, "width": 11})


def a_generator(kind: str, width: int) -> nn.Module:
    torch.manual_seed(0)
    generator = build_generator({"kind": kind, "width": width})
    with torch.no_grad():
        for _ in range(2):  # so that normalizations know the values that come
            generator.residual(torch.rand(1, 1, 4, 64, 64))
    return generator.eval()


@pytest.mark.parametrize(("kind", "width"), [("unet-2d", 1), ("inception-unet", 4), ("nasnet-gcn", 4)])
def test_a_generator_gives_probabilities_of_any_size(kind, width):
    generator = a_generator(kind, width)
    sides = np.broadcast_to(generator.multiple, 3)
    with torch.inference_mode():
        image = generator(torch.rand(2, 1, *map(int, 2 * sides)))
    assert image.shape == (2, 1, *(2 * sides))
    assert image.min() >= 0
    assert image.max() <= 1


def test_pieces_of_the_inception_unet_give_the_values_of_the_whole_volume():
    """Register N9."""
    generator = a_generator("inception-unet", 4)
    volume = np.random.default_rng(0).random((12, 16, 150), np.float32)
    room = np.pad(volume, ((0, 0), (0, 0), (0, 2)), mode="edge")
    with torch.inference_mode():
        whole = generator(torch.from_numpy(room)[None, None])[0, 0, ..., :150].numpy()
    pieces = run_generator(generator, volume, max_voxels=12 * 16 * 100)
    np.testing.assert_allclose(pieces, whole, atol=1e-5)


@pytest.mark.parametrize(("kind", "width"), [("unet-2d", 1), ("nasnet-gcn", 4)])
def test_slices_are_seen_one_by_one_in_pieces_and_in_fields(kind, width):
    generator = a_generator(kind, width)
    volume = np.random.default_rng(0).random((3, 64, 64), np.float32)
    with torch.inference_mode():
        single = [generator(torch.from_numpy(one)[None, None, None])[0, 0, 0].numpy() for one in volume]
    pieces = run_generator(generator, volume, max_voxels=64 * 64)
    np.testing.assert_allclose(pieces, single, atol=1e-5)
    np.testing.assert_allclose(run_generator_on_fields(generator, volume[None])[0], single, atol=1e-5)


def test_the_mgi_cnn_sees_the_middle_at_three_scales():
    fields = torch.arange(32.0).view(1, 1, 1, 1, 32).expand(1, 1, 32, 32, 32)
    narrow, middle, wide = (_scale(fields, size)[0, 0, 0, 10] for size in SCALES)
    assert narrow.tolist() == list(range(6, 26))
    assert (middle[0].item(), middle[-1].item()) == (1, 30)
    assert (wide[0].item(), wide[-1].item()) == (0, 0)  # beyond the field there is nothing
    assert wide.max() > 28


def test_the_streams_of_the_mgi_cnn_go_in_and_out():
    """Register M5: one from narrow to wide, the other back."""
    network = build_classifier({"kind": "mgi-cnn", "width": 2}).eval()
    assert not torch.equal(network.inward.steps[0][0][0].weight, network.outward.steps[0][0][0].weight)
    seen = {}
    for name in ("inward", "outward"):
        getattr(network, name).register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0]}))
    assert network(torch.rand(3, 1, 32, 32, 32)).shape == (3,)
    assert all(torch.equal(a, b) for a, b in zip(seen["inward"], reversed(seen["outward"]), strict=True))
