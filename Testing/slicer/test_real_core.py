"""The logic with the real core as its child process, on a tiny chest and a tiny model."""

import slicer_host

slicer_host.start()

import sys

import numpy as np
import pytest
import slicer
from LNHGSegmentationLib.Core.SegmentationLogic import SegmentationLogic
from LNHGSegmentationLib.Scene.Geometry import RAS_TO_LPS, ZYX_TO_IJK
from test_volume_exchange import add_linear_transform
from tiny_model import centers_lps_mm, tiny_chest, write_model

pytestmark = pytest.mark.slow


LIMIT_S = 300.0
TURN = np.array([[0.0, 0.0, 1.0, 7.0], [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, -30.0], [0.0, 0.0, 0.0, 1.0]])


@pytest.fixture
def model(tmp_path) -> str:
    return str(write_model(tmp_path / "tiny").folder)


@pytest.fixture
def chest(scene):
    """The tiny chest as a node that lies turned in its own frame; a parent transform puts it upright in the world."""
    volume = tiny_chest()
    ijk_to_ras = RAS_TO_LPS @ volume.grid.affine @ np.linalg.inv(ZYX_TO_IJK)
    node = slicer.util.addVolumeFromArray(volume.array, np.linalg.inv(TURN) @ ijk_to_ras, "tiny chest")
    add_linear_transform(node, TURN)
    return node


def test_nodules_of_the_real_core_lie_where_they_are_in_the_world(chest, model, run_events):
    outcomes = []
    SegmentationLogic(python=sys.executable).start(chest, lambda *_: None, outcomes.append, model=model)
    run_events(lambda: outcomes, limit_s=LIMIT_S)
    assert outcomes[0].state == "done", outcomes[0].message
    segmentation = outcomes[0].result.segmentation
    bounds = np.array([world_bounds(segmentation, id_) for id_ in segmentation.GetSegmentation().GetSegmentIDs()])
    found = (bounds[:, ::2] + bounds[:, 1::2]) / 2
    for center in centers_lps_mm(tiny_chest()) * [-1, -1, 1]:
        assert np.linalg.norm(found - center, axis=1).min() < 4.0


def test_real_core_is_cancelled_within_two_seconds(chest, model, run_events):
    stages, outcomes = [], []
    logic = SegmentationLogic(python=sys.executable)
    logic.start(chest, lambda *stage: stages.append(stage), outcomes.append, model=model)
    run_events(lambda: stages, limit_s=LIMIT_S)
    logic.cancel()
    assert run_events(lambda: outcomes) < 2.0
    assert outcomes[0].state == "cancelled"


REFUSALS = {  # what a user may choose by mistake, and what the core says of it
    "two slices of a CT": ((2, 64, 64), (-1000, 400), "has 2 slices"),
    "an MR image": ((24, 64, 64), (0, 1800), "as MR images and stored values without rescale do"),
    "a head CT": ((24, 64, 64), None, "no lung found"),
}


def head_ct(shape: tuple[int, int, int]) -> np.ndarray:
    """A ball of brain in a shell of bone, in air."""
    _z, y, x = np.indices(shape)
    radius = np.hypot(y - shape[1] / 2, x - shape[2] / 2)
    head = np.where(radius < 24, 35, np.where(radius < 27, 900, -1000))
    return head + np.random.default_rng(0).integers(-5, 6, shape)


@pytest.mark.parametrize("name", REFUSALS)
def test_wrong_volume_is_refused_in_one_sentence_that_names_it(scene, model, run_events, name):
    shape, values, sentence = REFUSALS[name]
    array = head_ct(shape) if values is None else np.random.default_rng(0).integers(*values, shape)
    node = slicer.util.addVolumeFromArray(array.astype(np.int16), np.diag([-3.0, -3.0, 5.0, 1.0]), name)
    nodes, outcomes = slicer.mrmlScene.GetNumberOfNodes(), []
    SegmentationLogic(python=sys.executable).start(node, lambda *_: None, outcomes.append, model=model)
    run_events(lambda: outcomes, limit_s=LIMIT_S)
    assert outcomes[0].state == "failed"
    assert sentence in outcomes[0].message
    assert name in outcomes[0].message
    assert "\n" not in outcomes[0].message
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes


def test_devices_of_this_computer_are_found_without_torch_in_this_process(scene, run_events):
    devices = SegmentationLogic(python=sys.executable).devices
    loaded = "torch" in sys.modules
    devices.find(lambda: None)
    run_events(lambda: devices.areKnown, limit_s=LIMIT_S)
    assert devices.all()[-1]["id"] == "cpu"
    assert ("torch" in sys.modules) == loaded


def world_bounds(segmentation, segment_id: str) -> np.ndarray:
    local, bounds = np.zeros(6), np.zeros(6)
    segmentation.GetSegmentation().GetSegment(segment_id).GetBounds(local)
    corners = np.array([[x, y, z, 1.0] for x in local[:2] for y in local[2:4] for z in local[4:]]) @ TURN.T
    bounds[::2], bounds[1::2] = corners[:, :3].min(0), corners[:, :3].max(0)
    return bounds
