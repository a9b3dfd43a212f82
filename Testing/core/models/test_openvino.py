"""OpenVINO's networks give what torch's give, stop when asked to, and come back from the cache."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import torch
from LNHGLib.__main__ import main
from LNHGLib.errors import Cancelled
from LNHGLib.models import compile_cache, openvino_graph, openvino_network, openvino_stages
from LNHGLib.models import folder as models
from LNHGLib.models.classifier import build_classifier
from LNHGLib.models.detector import build_detector
from LNHGLib.models.registry import KINDS, build_generator
from LNHGLib.models.torch_network import TorchNetwork
from safetensors.torch import save

GENERATORS = (
    {"kind": "paper", "width": 2},
    {"kind": "paper", "width": 2, "input_skip": False},
    {"kind": "strided", "width": 2},
    {"kind": "strided", "width": 2, "input_skip": False},
    {"kind": "unet", "width": 4},
    {"kind": "unet", "width": 4, "planes": 2},
    {"kind": "gated-unet", "width": 4, "planes": 3},
)
CLASSIFIERS = ({"kind": "residual", "width": 4}, {"kind": "resnet-48"})


def go_on():
    """Never stop."""


def trained_alike(module):
    """Give every normalization statistics and factors of its own, as a training does, negative ones too."""
    generator = torch.Generator().manual_seed(5)
    for layer in module.modules():
        if hasattr(layer, "running_var"):
            for values, low, high in (
                (layer.running_mean, -0.2, 0.2),
                (layer.running_var, 0.5, 2.0),
                (layer.weight.data, -0.5, 1.5),
                (layer.bias.data, -0.2, 0.2),
            ):
                values.copy_(low + (high - low) * torch.rand(values.shape, generator=generator))
    return module.eval().requires_grad_(False)


def both(card, build, part="generator"):
    torch.manual_seed(1)
    module = trained_alike(build(card))
    return TorchNetwork(module), openvino_network.load(part, card, save(module.state_dict()))


@pytest.mark.parametrize("card", GENERATORS, ids=str)
def test_a_generator_gives_the_image_of_torchs(card):
    on_torch, on_openvino = both(card, build_generator)
    block = np.random.default_rng(2).random((2, 1, 16, 24, 32), np.float32)
    expected = on_torch.predict(block, go_on)
    assert expected.std() > 1e-4
    np.testing.assert_allclose(on_openvino.predict(block, go_on), expected, atol=3e-6 * max(1, expected.max()))


@pytest.mark.parametrize("rows", [1, 5, 6, 7, 8])
def test_any_number_of_rows_gives_the_image_of_torchs(rows):
    on_torch, on_openvino = both({"kind": "paper", "width": 2}, build_generator)
    block = np.random.default_rng(2).random((1, 1, 3, rows, 9), np.float32)
    expected = on_torch.predict(block, go_on)
    np.testing.assert_allclose(on_openvino.predict(block, go_on), expected, atol=3e-6 * max(1, expected.max()))


def test_the_papers_own_network_gives_the_slab_of_torchs():
    on_torch, on_openvino = both({"kind": "paper"}, build_generator)
    assert sum(values.numel() for values in on_torch.module.parameters()) == 2_326_273
    slab = np.random.default_rng(2).random((1, 1, 3, 48, 48), np.float32)
    expected = on_torch.predict(slab, go_on)
    assert expected.std() > 0.01
    np.testing.assert_allclose(on_openvino.predict(slab, go_on), expected, atol=2e-5)


@pytest.mark.parametrize("card", GENERATORS, ids=str)
def test_a_generator_is_cut_into_the_pieces_of_torchs(card):
    on_torch, on_openvino = both(card, build_generator)
    for name in ("halo", "multiple", "slab"):
        assert getattr(on_openvino, name) == getattr(on_torch, name), name
    assert on_openvino.widest() == on_torch.widest()


def test_every_kind_of_the_registry_is_built_but_those_of_other_documents():
    others = {kind for kind, one in KINDS.items() if one.__module__.startswith("LNHGLib.models.documents.")}
    assert set(openvino_graph.GENERATORS) == set(KINDS) - others
    assert others == {"unet-2d", "inception-unet", "nasnet-gcn", "nodulenet", "monai-unet", "nnunet"}


@pytest.mark.parametrize("card", CLASSIFIERS, ids=str)
def test_a_classifier_gives_the_logits_of_torchs(card):
    on_torch, on_openvino = both(card, build_classifier, "classifier")
    fields = np.random.default_rng(2).random((3, 1, 32, 32, 32), np.float32)
    expected = on_torch.predict(fields, go_on)
    assert expected.std() > 1e-5
    np.testing.assert_allclose(on_openvino.predict(fields, go_on), expected, atol=1e-6)


@pytest.mark.skipif(not openvino_network.has_bfloat16(), reason="this CPU has no bfloat16")
@pytest.mark.parametrize("part", ["generator", "second_generator", "detector", "classifier"])
def test_in_bfloat16_the_bundled_networks_say_nearly_the_same(part):
    model, field = models.load(), np.random.default_rng(2).random((1, 1, 32, 32, 32), np.float32)
    exact, fast = (model.network(part, where) for where in (models.OPENVINO, models.OPENVINO_BF16))
    if part == "detector":
        (one,), (other,) = (
            network.detect([field[0, 0, :3].repeat(4, 1).repeat(4, 2)], go_on) for network in (exact, fast)
        )
        assert one[0] == pytest.approx(other[0], rel=0.05)
        return
    expected, found = (network.predict(field, go_on) for network in (exact, fast))
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())
    assert np.array_equal(found, expected) == (part == "classifier")  # which is always computed in float32


@pytest.mark.skipif(not openvino_network.has_bfloat16(), reason="this CPU has no bfloat16")
def test_in_bfloat16_levels_hand_over_half_as_many_bytes_and_say_nearly_the_same(monkeypatch):
    monkeypatch.setattr(openvino_network, "AT_ONCE", 0)
    ct, kinds, sweep = np.random.default_rng(2).random((40, 48, 56), np.float32), [], openvino_stages._sweep

    def note(stage, arrays, *rest):
        kinds.append([array.dtype for array in arrays.values()])
        return sweep(stage, arrays, *rest)

    monkeypatch.setattr(openvino_stages, "_sweep", note)
    exact, fast = (
        models.load().network("generator", where).predict_volume(ct, ct >= 0, go_on, lambda _: None)
        for where in (models.OPENVINO, models.OPENVINO_BF16)
    )
    np.testing.assert_allclose(fast, exact, atol=0.05 * exact.max())
    assert kinds[1::3] == [[np.float32] * 2, [np.float16] * 2]


@pytest.fixture
def level_by_level(monkeypatch):
    """Both forms of a strided generator; pieces and chunks are small."""
    monkeypatch.setattr(openvino_stages, "SIDE", 6)
    monkeypatch.setattr(openvino_network, "AT_ONCE", 0)
    return both({"kind": "strided", "width": 2}, build_generator)


@pytest.mark.parametrize("shape", [(40, 48, 56), (37, 50, 43), (8, 8, 8)], ids=str)
def test_a_volume_level_by_level_is_the_volume_at_once(level_by_level, shape):
    on_torch, on_openvino = level_by_level
    ct = np.random.default_rng(2).random(shape, np.float32)
    filled = np.pad(ct, [(0, -size % 8) for size in shape], mode="edge")
    expected = on_torch.predict(filled[None, None], go_on)[(0, 0, *map(slice, shape))]
    seen = []
    found = on_openvino.predict_volume(ct, np.ones(shape, bool), go_on, seen.append)
    np.testing.assert_allclose(found, expected, atol=3e-6 * max(1, expected.max()))
    assert expected.std() > 1e-4
    assert seen == sorted(seen)
    assert 0 <= seen[0] <= seen[-1] <= 1


def test_of_a_volume_only_what_is_wanted_is_right_and_the_rest_may_be_left_out(level_by_level):
    on_torch, on_openvino = level_by_level
    ct = np.random.default_rng(2).random((24, 120, 136), np.float32)
    wanted = np.zeros(ct.shape, bool)
    wanted[3:9, 20:31, 11:30] = wanted[15:17, 90:99, 100:131] = True
    expected = on_torch.predict(ct[None, None], go_on)[0, 0]
    found = on_openvino.predict_volume(ct, wanted, go_on, lambda _: None)
    np.testing.assert_allclose(found[wanted], expected[wanted], atol=3e-6 * max(1, expected.max()))
    assert not found[:, 60:70].any()
    assert not on_openvino.predict_volume(ct, np.zeros_like(wanted), go_on, lambda _: None).any()


def test_chunks_of_slices_meet_without_a_seam(level_by_level, monkeypatch):
    _, on_openvino = level_by_level
    ct, wanted = np.random.default_rng(2).random((176, 24, 16), np.float32), np.ones((176, 24, 16), bool)
    wanted[:50] = False
    expected = on_openvino.predict_volume(ct, wanted, go_on, lambda _: None)
    cells = 24 * 6 * 4  # 8 slices of cells with both neighbors
    monkeypatch.setattr(openvino_stages, "CHUNK_BYTES", cells * 4 * openvino_stages.CELL_VALUES)
    encoded, sweep = [], openvino_stages._sweep

    def count(stage, arrays, wanted, *rest):
        encoded.append(int(wanted.sum()) if len(arrays) == 1 else 0)
        return sweep(stage, arrays, wanted, *rest)

    monkeypatch.setattr(openvino_stages, "_sweep", count)
    found = on_openvino.predict_volume(ct, wanted, go_on, lambda _: None)
    np.testing.assert_allclose(found, expected, atol=2e-3 * expected.max())  # of what reaches farther than 32 voxels
    assert sum(cells > 0 for cells in encoded) >= 3
    assert sum(encoded) <= 1.2 * 44 * 24  # what a chunk knows of its neighbor is not computed again


@pytest.mark.parametrize("asked", [1, 4, 9])
def test_a_cancelled_volume_stops_all_that_runs_and_the_next_one_is_right(level_by_level, asked):
    _, on_openvino = level_by_level
    ct, wanted = np.random.default_rng(2).random((40, 48, 56), np.float32), np.ones((40, 48, 56), bool)
    expected, reports = on_openvino.predict_volume(ct, wanted, go_on, lambda _: None), []

    def cancel(done):
        reports.append(done)
        if len(reports) == asked:
            raise Cancelled("cancelled by the user.")

    with pytest.raises(Cancelled):
        on_openvino.predict_volume(ct, wanted, go_on, cancel)
    np.testing.assert_array_equal(on_openvino.predict_volume(ct, wanted, go_on, lambda _: None), expected)


def test_of_slices_in_planes_those_that_are_wanted_are_right():
    on_torch, on_openvino = both({"kind": "gated-unet", "width": 4, "planes": 3}, build_generator)
    block, wanted = np.random.default_rng(2).random((2, 1, 16, 24, 32), np.float32), np.s_[5:11, 0:24, 15:17]
    expected = on_torch.predict(block, go_on)[:, 0, *wanted]
    np.testing.assert_allclose(on_openvino.predict(block, go_on, wanted)[:, 0, *wanted], expected, atol=3e-6)


def slices_with_blobs(*shapes):
    numbers = np.random.default_rng(4)
    images = [numbers.random((3, *shape), np.float32) * 0.2 for shape in shapes]
    for image in images:
        for _ in range(6):
            y, x, side = numbers.integers(8, 60), numbers.integers(8, 60), numbers.integers(3, 14)
            image[:, y : y + side, x : x + side] = 0.8
    return images


@pytest.mark.parametrize("more", [{}, {"anchors_px": [6, 10, 16, 24, 40], "nms": 0.5, "rpn_nms": 0.5}], ids=str)
def test_the_detector_gives_the_boxes_of_torchs(more):
    card = {"backbone": "light", "width": 4, "min_score": 0.5, **more}
    on_torch, on_openvino = both(card, build_detector, "detector")
    images = slices_with_blobs((90, 120), (97, 80), (130, 101))
    expected, found = on_torch.detect(images, go_on), on_openvino.detect(images, go_on)
    assert sum(map(len, expected)) > 5
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_slices_begun_while_boxes_are_chosen_give_the_same_boxes_and_a_wish_to_stop_ends_them():
    _, on_openvino = both({"backbone": "light", "width": 4, "min_score": 0.5}, build_detector, "detector")
    batches = [slices_with_blobs(shape) for shape in ((90, 120), (97, 80), (130, 101))]
    alone = [on_openvino.detect(images, go_on) for images in batches]
    began = []
    for images, following in pairwise([*batches, ()]):
        began.append(on_openvino.begun is images)
        for one, other in zip(on_openvino.detect(images, go_on, following), alone[len(began) - 1], strict=True):
            np.testing.assert_array_equal(one, other)
    assert began == [False, True, True]

    def stop() -> None:
        if on_openvino.begun is batches[1]:
            raise Cancelled

    with pytest.raises(Cancelled):
        on_openvino.detect(batches[0], stop, batches[1])
    assert not on_openvino.requests
    np.testing.assert_array_equal(on_openvino.detect(batches[1], go_on)[0], alone[1][0])


def test_slices_without_a_proposal_give_no_box():
    _, on_openvino = both({"backbone": "light", "width": 4, "min_score": 0.999}, build_detector, "detector")
    assert [found.shape for found in on_openvino.detect(slices_with_blobs((70, 70)), go_on)] == [(0, 5)]


def test_a_wish_to_stop_ends_a_piece_in_its_middle_and_the_network_works_on(monkeypatch):
    on_torch, on_openvino = both({"kind": "paper", "width": 8}, build_generator)
    monkeypatch.setattr(openvino_network, "POLL_MS", 1)
    asked = []

    def stop():
        asked.append(1)
        if len(asked) == 2:
            raise Cancelled("cancelled by the user.")

    with pytest.raises(Cancelled):
        on_openvino.predict(np.zeros((1, 1, 48, 64, 64), np.float32), stop)
    block = np.random.default_rng(2).random((1, 1, 8, 8, 8), np.float32)
    np.testing.assert_allclose(on_openvino.predict(block, go_on), on_torch.predict(block, go_on), atol=1e-5)


CARD = {"kind": "strided", "width": 2}


@pytest.fixture
def a_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LNHG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def built(monkeypatch):
    """Return the list of graphs that were built."""
    graphs, build = [], openvino_graph.build

    def note(*arguments):
        graphs.append(build(*arguments))
        return graphs[-1]

    monkeypatch.setattr(openvino_graph, "build", note)
    return graphs


def content(seed=1):
    torch.manual_seed(seed)
    return save(trained_alike(build_generator(CARD)).state_dict())


def image(network):
    return network.predict(np.random.default_rng(2).random((1, 1, 8, 16, 16), np.float32), go_on)


def test_a_network_is_compiled_once_for_each_content(a_cache, built):
    first = openvino_network.load("generator", CARD, content())
    again = openvino_network.load("generator", CARD, content())
    assert len(built) == 1
    np.testing.assert_array_equal(image(again), image(first))
    other = openvino_network.load("generator", CARD, content(seed=2))
    assert len(built) == 2
    assert np.abs(image(other) - image(first)).max() > 1e-3


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-9], lambda whole: whole[:40] + b"x" + whole[41:], lambda _: b""]
)
def test_a_damaged_file_of_the_cache_is_compiled_again(a_cache, built, damage):
    first = openvino_network.load("generator", CARD, content())
    (path,) = a_cache.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    np.testing.assert_array_equal(image(openvino_network.load("generator", CARD, content())), image(first))
    assert len(built) == 2
    openvino_network.load("generator", CARD, content())
    assert len(built) == 2


def test_a_cache_that_cannot_be_written_only_costs_time(a_cache, built):
    a_cache.write_text("a file where the folder should be")
    assert image(openvino_network.load("generator", CARD, content())).std() > 0


def test_many_that_keep_the_same_leave_one_whole_file(a_cache):
    compiled = bytes(range(256)) * 4000
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: compile_cache.keep("one", compiled), range(40)))
    assert [path.name for path in a_cache.iterdir()] == ["one.compiled"]
    assert compile_cache.read("one") == compiled


def test_the_command_removes_what_is_kept_and_nothing_else(a_cache, capsys):
    openvino_network.load("generator", CARD, content())
    (a_cache / "other.txt").write_text("mine")
    assert main(["devices", "--clear-cache"]) == 0
    assert [path.name for path in a_cache.iterdir()] == ["other.txt"]
    assert str(a_cache) in capsys.readouterr().out
    assert main(["devices", "--clear-cache"]) == 0
