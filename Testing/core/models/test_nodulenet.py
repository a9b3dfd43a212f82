"""NoduleNet: its parameters, its boxes, and what its nodule image says to the pipeline."""

import math

import numpy as np
import pytest
import torch
from LNHGLib.errors import InputError
from LNHGLib.models.documents.boxes_3d import anchor_cubes, decode, encode, overlaps, without_overlaps
from LNHGLib.models.documents.nodulenet import SIDES, NoduleNet
from LNHGLib.models.registry import build_generator
from LNHGLib.models.torch_network import TorchNetwork
from LNHGLib.segmentation.components import component_scores, components
from LNHGLib.segmentation.tiled_inference import run_generator
from torch import Tensor, nn

CPU = torch.device("cpu")


def conv(c_in: int, c_out: int, voxels: int = 27) -> int:
    """Parameters of a convolution, or of a dense layer with one voxel: weights and a bias."""
    return voxels * c_in * c_out + c_out


def normed(c_in: int, c_out: int, voxels: int = 27) -> int:
    """With a normalization behind it, two parameters per channel."""
    return conv(c_in, c_out, voxels) + 2 * c_out


def block(c_in: int, c_out: int) -> int:
    """Two convolutions, and a kernel of 1 beside them where the channels change."""
    return normed(c_in, c_out) + normed(c_out, c_out) + (normed(c_in, c_out, 1) if c_in != c_out else 0)


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def test_it_has_the_parameters_of_the_articles_table():
    """The article prints no count: this is its table of layers, added up."""
    with torch.device("meta"):
        network = build_generator({"kind": "nodulenet"})
    encoder = normed(1, 24) + normed(24, 24) + block(24, 32) + block(32, 32) + block(32, 64) + 7 * block(64, 64)
    decoder = 2 * normed(64, 64, 8) + block(128, 64) + 2 * block(64, 64) + 3 * block(128, 128)
    proposals = conv(128, 64, 1) + conv(64, 5, 1) + conv(64, 30, 1)
    classes = conv(64 * 7**3, 512, 1) + conv(512, 256, 1) + conv(256, 2, 1) + conv(256, 12, 1)
    outlines = conv(128, 64) + conv(96, 64) + conv(64, 64) + conv(65, 64) + conv(64, 1, 1)
    assert (encoder, decoder, proposals) == (1_840_760, 3_506_112, 10_531)
    assert (classes, outlines) == (11_374_862, 610_305)
    assert parameters(network.proposer, network.proposal_logits, network.proposal_offsets) == proposals
    assert parameters(network.classifier, network.class_logits, network.class_offsets) == classes
    assert parameters(network.outliner, network.outline_logits) == outlines
    assert parameters(network) == encoder + decoder + proposals + classes + outlines == 17_342_570


def test_a_width_that_is_no_multiple_of_3_is_refused():
    with pytest.raises(InputError, match="`width` is 10, expected a multiple of 3"):
        build_generator({"kind": "nodulenet", "width": 10})


def test_anchors_are_cubes_around_the_middle_of_each_cell():
    cubes = anchor_cubes((1, 2, 1), 4, SIDES, CPU)
    assert cubes.shape == (10, 6)
    assert cubes[0].tolist() == [-0.5, -0.5, -0.5, 4.5, 4.5, 4.5]
    assert cubes[6].tolist() == [-3, 1, -3, 7, 11, 7]
    assert (cubes[:5, 3] - cubes[:5, 0]).tolist() == list(SIDES)
    voxels = (cubes[:, :3] + cubes[:, 3:]) / 2 - 0.5  # by the middle of a voxel, as the article counts: 1.5 + 4 k
    assert voxels[5].tolist() == [1.5, 5.5, 1.5]


def test_offsets_are_shifts_in_sides_and_logarithms():
    anchors = torch.tensor([[0.0, 0, 0, 10, 20, 40]])
    boxes = torch.tensor([[1.0, 2, 4, 21, 22, 24]])
    expected = [0.6, 0.1, -0.15, math.log(2), 0, math.log(0.5)]
    assert encode(boxes, anchors)[0].tolist() == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(decode(encode(boxes, anchors), anchors), boxes)
    assert decode(torch.full((1, 6), 1e4), anchors).isfinite().all()


def test_overlaps_are_intersection_over_union():
    cube = torch.tensor([[0.0, 0, 0, 2, 2, 2]])
    others = torch.tensor([[0.0, 0, 0, 2, 2, 2], [1, 0, 0, 3, 2, 2], [2, 0, 0, 4, 2, 2], [0, 0, 0, 1, 1, 1]])
    assert overlaps(cube, others)[0].tolist() == pytest.approx([1, 1 / 3, 0, 1 / 8])
    scores = torch.tensor([0.5, 0.9, 0.7, 0.2])
    assert without_overlaps(others, scores, 0.1, 10).tolist() == [1, 3]
    assert without_overlaps(others, scores, 0.1, 1).tolist() == [1]
    assert without_overlaps(others[:0], scores[:0], 0.1, 10).tolist() == []


class ByBrightness(NoduleNet):
    """The network with steps that are known: bright cells are found, by cubes of 20, and outlined where bright."""

    def propose(self, maps) -> tuple[Tensor, Tensor]:
        """The probability of a cell is its mean brightness."""
        bright = nn.functional.avg_pool3d((maps.image + 1) / 2, 4).clamp(0.01, 0.99)
        logits = torch.logit(bright).expand(-1, 5, -1, -1, -1).clone()
        logits[:, [0, 1, 3, 4]] = -9
        logits = logits.permute(0, 2, 3, 4, 1).flatten(1)
        return logits, torch.zeros(*logits.shape, 6)

    def classify(self, maps, number: int, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """All boxes are nodules with a probability of 0.6, and stay."""
        logits = torch.tensor([[0.0, math.log(1.5)]]).expand(len(boxes), 2)
        return logits, torch.zeros(len(boxes), 2, 6)

    def outline(self, maps, number: int, box: list[float]) -> tuple[tuple[slice, ...], Tensor]:
        """What is brighter than a half."""
        place, logits = super().outline(maps, number, box)
        assert logits.shape == maps.image[(0, 0, *place)].shape
        return place, maps.image[(number, 0, *place)]


def a_network(kind: type[NoduleNet] = ByBrightness) -> NoduleNet:
    torch.manual_seed(0)
    return kind(width=3).eval().requires_grad_(False)


def a_volume(length: int = 64) -> np.ndarray:
    """Two balls of 0.9 and 0.7 in a lung of 0.1, around the middles of cells."""
    z, y, x = np.mgrid[:64, :64, :length]
    volume = np.full(z.shape, 0.1, np.float32)
    for middle, value in (((21.5, 29.5, 21.5), 0.9), ((41.5, 29.5, length - 18.5), 0.7)):
        ball = (z - middle[0]) ** 2 + (y - middle[1]) ** 2 + (x - middle[2]) ** 2 < 30
        volume[ball] = value
    return volume


def test_the_score_of_a_component_is_that_of_the_detection():
    """The mean of both probabilities; the image is cut at 0, as the recipe says, into what was outlined."""
    volume = a_volume()
    with torch.inference_mode():
        image = a_network()(torch.from_numpy(volume)[None, None])[0, 0].numpy()
    assert np.array_equal(image > 0, volume > 0.5)
    labels = components(image > 0)
    scores = component_scores(labels, image, volume)
    assert sorted(scores[1:].tolist()) == pytest.approx([(0.7 + 0.6) / 2, (0.9 + 0.6) / 2], abs=1e-5)


@pytest.mark.parametrize(("value", "found"), [(0.47, False), (0.53, True)])
def test_boxes_are_taken_from_the_programs_threshold_on_and_each_is_outlined(value, found):
    """Register R2: its description names another threshold, and its program scores without outlines."""
    network, volume = a_network(), np.full((48, 48, 48), 0.1, np.float32)
    volume[20:28, 20:28, 20:28] = value
    nn.init.zeros_(network.outline_logits.weight)
    nn.init.ones_(network.outline_logits.bias)
    network.outline = lambda *given: NoduleNet.outline(network, *given)  # the whole box, however bright it is
    with torch.inference_mode():
        image = network(torch.from_numpy(volume)[None, None])[0, 0].numpy()
    assert (image > 0).any() == found
    assert (image[20:28, 20:28, 20:28] > 0).all() == found


def test_dark_voxels_of_an_outline_stay_in_it_and_score_like_others():
    network, volume = a_network(), torch.tensor([0.0, 0.01, 0.04, 0.5]).view(1, 1, 1, 1, 4)
    image = network.image(torch.full_like(volume, 0.8), volume)
    assert (image > 0).all()
    labels = np.ones((1, 1, 4), int)
    assert component_scores(labels, image[0, 0].numpy(), volume[0, 0].numpy())[1] == pytest.approx(0.8)


def test_pieces_find_and_outline_what_the_whole_volume_does():
    """A nodule at the seam of two pieces comes out whole, once, with its score: the halo holds its box."""
    network, volume = a_network(), a_volume(192)
    volume[25:35, 25:35, 93:103] = 0.8
    with torch.inference_mode():
        whole = network(torch.from_numpy(volume)[None, None])[0, 0].numpy()
    pieces = run_generator(network, volume, max_voxels=64 * 64 * 176)
    assert len(np.unique(components(whole > 0))) == 4
    np.testing.assert_allclose(pieces, whole, atol=1e-6)


def test_what_lies_beyond_the_halo_hardly_counts():
    """The body reaches farther; what it sees there changes logits by less than a fiftieth of their spread."""
    network, reach = a_network(NoduleNet), NoduleNet.halo[2]
    ct = torch.from_numpy(np.random.default_rng(0).random((32, 32, 3 * reach), np.float32))[None, None]
    with torch.no_grad():
        for _ in range(20):  # so that normalizations know the values that come
            network.train().maps(ct)
    network.eval()

    def logits(part: Tensor) -> Tensor:
        return network.propose(network.maps(part))[0].view(8, 8, -1, 5)[:, :, :16]

    with torch.inference_mode():
        whole, piece = logits(ct), logits(ct[..., : 64 + reach])
    assert (whole - piece).square().mean().sqrt() < 0.02 * whole.std()


def test_detections_whose_outlines_are_a_better_ones_are_dropped():
    network, volume = a_network(), torch.from_numpy(a_volume())[None, None]
    boxes = torch.tensor([[10.0, 20, 12, 30, 40, 32], [12, 20, 12, 32, 40, 32], [30, 20, 36, 50, 40, 56]])
    scores = torch.tensor([0.6, 0.8, 0.7])
    with torch.inference_mode():
        found = list(network._outlines(network.maps(volume), 0, boxes, scores))
    assert [float(score) for *_, score in found] == pytest.approx([0.8, 0.7])


def test_pieces_are_as_large_as_the_body_lets_them_be():
    """Outlines have many more values per voxel, of a box each; they must not make pieces small."""
    assert TorchNetwork(NoduleNet(width=24)).widest() == 4


def test_a_ct_without_findings_has_an_empty_image():
    with torch.inference_mode():
        assert not a_network()(torch.full((2, 1, 16, 32, 16), 0.2)).any()


def test_a_box_is_outlined_in_whole_cells_within_the_volume():
    """Register R2: the program divides indices as fractions."""
    network = a_network(NoduleNet)
    with torch.inference_mode():
        maps = network.maps(torch.rand(1, 1, 32, 32, 32))
        place, logits = network.outline(maps, 0, [-3.0, 5.0, 30.0, 9.5, 8.0, 50.0])
        assert place == (slice(0, 12), slice(4, 8), slice(28, 32))
        assert logits.shape == (12, 4, 4)
        place, _ = network.outline(maps, 0, [-9.0, 40.0, 1.0, -2.0, 50.0, 1.5])  # outside: the nearest cells
    assert place == (slice(0, 4), slice(28, 32), slice(0, 4))
