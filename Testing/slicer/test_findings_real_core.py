"""A nodule added at a place by the real core in its child process, on a tiny chest that lies turned in its frame."""

import slicer_host

slicer_host.start()

import sys

import numpy as np
import pytest
import slicer
from LNHGLib.image.volume import Volume
from LNHGSegmentationLib.Core.PointPrompt import PointPrompt
from LNHGSegmentationLib.Scene.Geometry import RAS_TO_LPS, ZYX_TO_IJK, gridAt
from test_real_core import TURN
from test_volume_exchange import add_linear_transform
from tiny_model import centers_lps_mm, tiny_chest, write_model

pytestmark = pytest.mark.slow


@pytest.fixture
def chest(scene):
    """The tiny chest as a node that lies turned in its own frame; a parent transform puts it upright in the world."""
    volume: Volume = tiny_chest()
    ijk_to_ras = RAS_TO_LPS @ volume.grid.affine @ np.linalg.inv(ZYX_TO_IJK)
    node = slicer.util.addVolumeFromArray(volume.array, np.linalg.inv(TURN) @ ijk_to_ras, "tiny chest")
    add_linear_transform(node, TURN)
    return node


def test_place_in_the_world_gives_the_nodule_there_or_says_that_there_is_none(chest, tmp_path, run_events):
    model = str(write_model(tmp_path / "tiny").folder)
    center = centers_lps_mm(tiny_chest())[1] * [-1, -1, 1]
    ended = []
    places = center + 2, center + np.array([0, 0, 30])
    searches = [PointPrompt(chest, place, ended.append, sys.executable) for place in places]
    for search in searches:
        search.begin(model)
    run_events(lambda: len(ended) == 2, limit_s=120)
    found, nothing = sorted(ended, key=lambda outcome: outcome.state != "done")
    assert found.state == "done", found.message
    crop, row = found.result
    middle = gridAt(chest, crop.box).index_to_lps(np.argwhere(crop.array)).mean(0) * [-1, -1, 1]
    assert np.linalg.norm(middle - center) < 3.0
    assert row["provenance"] == "segmenter"
    assert np.isfinite(row["signal"].array).all()
    assert all(
        w.start <= part.start and part.stop <= w.stop for w, part in zip(row["signal"].box, crop.box, strict=True)
    )
    assert nothing.state == "failed"
    assert "no nodule within 5 mm" in nothing.message
