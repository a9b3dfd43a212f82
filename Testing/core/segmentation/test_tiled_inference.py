"""Running the networks in pieces: the same values as in one run, every slice, cancelling, and too little memory."""

import numpy as np
import pytest
import torch
from LNHGLib.errors import Cancelled, WorkError
from LNHGLib.models.registry import build_generator
from LNHGLib.models.torch_network import TorchNetwork
from LNHGLib.segmentation.progress import Monitor
from LNHGLib.segmentation.tiled_inference import run_detector, run_generator
from tiny_model import BlobDetector, gate_generator
from torch import nn


@pytest.fixture(scope="module")
def a_volume():
    return np.random.default_rng(3).random((35, 44, 53), np.float32)


@pytest.fixture(scope="module")
def lungs():
    mask = np.zeros((35, 44, 53), bool)
    mask[6:30, 10:30, 5:20] = mask[8:33, 12:35, 30:48] = True
    return mask


def a_generator(kind):
    torch.manual_seed(1)
    return build_generator({"kind": kind, "width": 2}).eval()


def whole(generator, volume):
    room = [(0, -size % generator.multiple) for size in volume.shape]
    with torch.inference_mode():
        output = generator(torch.from_numpy(np.pad(volume, room, mode="edge"))[None, None])[0, 0].numpy()
    return output[tuple(slice(size) for size in volume.shape)]


@pytest.mark.parametrize("max_voxels", [24**3, 40_000, 10**9])
def test_pieces_with_the_halo_give_the_values_of_the_whole_volume(a_volume, max_voxels):
    generator = a_generator("paper")
    pieces = run_generator(generator, a_volume, max_voxels=max_voxels)
    np.testing.assert_allclose(pieces, whole(generator, a_volume), atol=1e-4)


def test_pieces_of_a_strided_generator_keep_its_phase(a_volume):
    generator = a_generator("strided")
    generator.halo = (48, 48, 48)
    pieces = run_generator(generator, np.tile(a_volume, (4, 1, 1)), max_voxels=110 * 48 * 56)
    np.testing.assert_allclose(pieces, whole(generator, np.tile(a_volume, (4, 1, 1))), atol=1e-4)


def test_a_halo_that_is_too_small_would_be_noticed(a_volume):
    generator = a_generator("paper")
    generator.halo = (3, 3, 3)
    pieces = run_generator(generator, a_volume, max_voxels=20**3)
    assert np.abs(pieces - whole(generator, a_volume)).max() > 1e-3


def test_every_lung_voxel_has_the_value_of_the_whole_run_and_far_from_lungs_nothing_is_run(a_volume, lungs):
    generator = a_generator("paper")
    pieces = run_generator(generator, a_volume, lungs, max_voxels=40_000)
    np.testing.assert_allclose(pieces[lungs], whole(generator, a_volume)[lungs], atol=1e-4)
    assert not pieces[:6].any()
    assert not pieces[:, :10].any()


def test_no_lung_runs_nothing(a_volume):
    assert not run_generator(a_generator("paper"), a_volume, np.zeros(a_volume.shape, bool)).any()


def test_slabs_follow_each_other_and_the_last_is_shifted_back(a_volume):
    generator = a_generator("paper")
    volume = a_volume[:8]
    expected = np.concatenate(
        [whole(generator, volume[:3]), whole(generator, volume[3:6]), whole(generator, volume[5:8])[1:]]
    )
    np.testing.assert_allclose(run_generator(generator, volume, slab=3), expected, atol=1e-4)


def test_slabs_are_the_same_when_cut_to_the_lungs_in_the_slice(a_volume, lungs):
    generator = a_generator("paper")
    full = run_generator(generator, a_volume, slab=3)
    np.testing.assert_allclose(run_generator(generator, a_volume, lungs, slab=3)[lungs], full[lungs], atol=1e-4)


def test_a_volume_thinner_than_a_slab_repeats_its_last_slice(a_volume):
    generator = a_generator("paper")
    expected = whole(generator, a_volume[[0, 1, 1]])[:2]
    np.testing.assert_allclose(run_generator(generator, a_volume[:2], slab=3), expected, atol=1e-4)


def test_progress_of_the_pieces_rises_to_one(a_volume):
    seen = []
    run_generator(gate_generator(), a_volume, max_voxels=24**3, monitor=Monitor(lambda f, _: seen.append(f)))
    assert len(seen) > 3
    assert seen == sorted(seen)
    assert seen[-1] == 1


def test_cancelling_stops_between_two_layers_of_one_piece(a_volume):
    generator = gate_generator()
    asked = []
    ran = []
    generator.last.register_forward_hook(lambda *_: ran.append(1))

    def cancelled():
        asked.append(1)
        return len(asked) == 5

    with pytest.raises(Cancelled):
        run_generator(generator, a_volume, monitor=Monitor(cancelled=cancelled), max_voxels=10**9)
    assert not ran


class _Small(nn.Module):
    """A network that runs out of memory above a number of voxels."""

    halo, multiple = (2, 2, 2), 1

    def __init__(self, most):
        super().__init__()
        self.most = most

    def forward(self, x):
        if x.numel() > self.most:
            raise torch.OutOfMemoryError("no memory")
        return x


class _OnGpu(_Small):
    """The same on a GPU: `to` takes it to the CPU, where there is memory enough."""

    where = "cuda"

    def to(self, device):
        self.where, self.most = device, 10**9
        return self


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(TorchNetwork, "on_cpu", property(lambda self: getattr(self.module, "where", "cpu") == "cpu"))
    monkeypatch.setattr(TorchNetwork, "free_gpu_bytes", lambda self: 10**9)


def test_pieces_get_smaller_when_the_memory_does_not_suffice_and_it_is_told_once():
    volume = np.random.default_rng(0).random((60, 60, 60), np.float32)
    told, monitor = [], Monitor()
    monitor.progress = lambda _fraction, text: told.append(text)
    with monitor.stage("generator", "Looking", 0.0, 1.0):
        result = run_generator(_Small(40_000), volume, max_voxels=10**9, monitor=monitor)
    np.testing.assert_array_equal(result, volume)
    assert [sentence for sentence in monitor.warnings if "smaller pieces" in sentence] == monitor.warnings
    assert len(monitor.warnings) == 1
    assert "computer's memory" in monitor.warnings[0]
    assert told[0] == "Looking"
    assert told[-1] == "Looking (small pieces)"


def test_the_cpu_takes_over_when_the_gpu_is_too_small_for_the_smallest_piece(a_volume, gpu):
    network, monitor = _OnGpu(10), Monitor()
    result = run_generator(network, a_volume, max_voxels=10**9, monitor=monitor)
    np.testing.assert_array_equal(result, a_volume)
    assert network.where == "cpu"
    assert [("GPU" in sentence, "CPU took over" in sentence) for sentence in monitor.warnings] == [
        (True, False),
        (True, True),
    ]


def test_the_cpu_takes_over_when_not_even_the_trial_run_fits_the_gpu(a_volume, gpu):
    network, monitor = _OnGpu(10), Monitor()
    np.testing.assert_array_equal(run_generator(network, a_volume, monitor=monitor), a_volume)
    assert "CPU took over" in monitor.warnings[0]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 9 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_every_way_to_say_that_memory_is_short_makes_pieces_smaller(error):
    volume = np.random.default_rng(0).random((40, 40, 40), np.float32)

    class Short(_Small):
        def forward(self, x):
            if x.numel() > self.most:
                raise error
            return x

    np.testing.assert_array_equal(run_generator(Short(40_000), volume, max_voxels=10**9), volume)


def test_another_failure_of_the_network_is_not_taken_for_a_lack_of_memory(a_volume):
    class Broken(_Small):
        def forward(self, _x):
            raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        run_generator(Broken(0), a_volume, max_voxels=10**9)


def test_memory_too_small_for_the_smallest_piece_is_said(a_volume):
    with pytest.raises(WorkError, match="smallest piece of work; close other programs"):
        run_generator(_Small(10), a_volume, max_voxels=10**9)


@pytest.fixture
def slices():
    ct = np.full((12, 60, 70), 0.1, np.float32)
    ct[4:7, 30:34, 40:46] = 0.9
    return ct


def test_boxes_come_in_the_grids_own_indices_in_spite_of_the_crop(slices):
    lungs = np.zeros(slices.shape, bool)
    lungs[:, 25:45, 30:60] = True
    found = run_detector(BlobDetector(), slices, lungs)
    np.testing.assert_allclose(found, [[z, 30, 40, 34, 46, 0.9] for z in (4, 5, 6)], rtol=1e-6)


def test_boxes_outside_the_lungs_are_dropped(slices):
    lungs = np.zeros(slices.shape, bool)
    lungs[:, 25:45, 5:39] = True
    assert len(run_detector(BlobDetector(), slices, lungs)) == 0


def test_boxes_below_the_least_score_are_dropped(slices):
    assert len(run_detector(BlobDetector(), slices, min_score=0.95)) == 0


class _Recorder(nn.Module):
    def __init__(self, most=10**9):
        super().__init__()
        self.images, self.most = [], most

    def forward(self, images):
        if len(images) > self.most:
            raise torch.OutOfMemoryError("no memory")
        self.images += images
        return [{"boxes": torch.zeros(0, 4), "scores": torch.zeros(0)} for _ in images]


def test_the_channels_are_the_neighbors_one_step_away_and_the_ends_repeat():
    ct = np.broadcast_to(np.arange(10, dtype=np.float32)[:, None, None], (10, 8, 8))
    recorder = _Recorder()
    run_detector(recorder, ct, step=2)
    channels = [[float(channel[0, 0]) for channel in image] for image in recorder.images]
    assert channels == [[0, 0, 2], [0, 2, 4], [2, 4, 6], [4, 6, 8], [6, 8, 9]]


def test_slices_are_taken_in_smaller_batches_when_the_memory_does_not_suffice():
    recorder = _Recorder(most=1)
    run_detector(recorder, np.zeros((9, 8, 8), np.float32))
    assert len(recorder.images) == 9
