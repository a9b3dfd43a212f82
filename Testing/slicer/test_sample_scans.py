"""Sample scans: registered once, drawn without a network, at their place in the world."""

import slicer_host

slicer_host.start()

import hashlib
import logging
import shutil
import sys
import types
from pathlib import Path

import LNHGLib.phantom
import numpy as np
import pytest
import sample_data_standin
import slicer
from LNHGLib.errors import DiskError
from LNHGLib.phantom.chest import make_phantom
from LNHGSegmentationLib.Scene.Geometry import ijkToRAS
from LNHGSegmentationLib.Setup import SampleScans
from PIL import Image

import LNHGSegmentation


@pytest.fixture(scope="module")
def phantom():
    return make_phantom()


@pytest.fixture(autouse=True)
def quick(monkeypatch, phantom):
    """Draw the chest once for all tests."""
    monkeypatch.setattr("LNHGLib.phantom.chest.make_phantom", lambda: phantom)


@pytest.fixture
def sources(scene, monkeypatch):
    """The module's list in Sample Data after Slicer has started."""
    monkeypatch.setitem(sys.modules, "SampleData", sample_data_standin)
    monkeypatch.setattr(slicer.modules, "sampleDataSources", {}, raising=False)
    monkeypatch.setattr(slicer.app, "connected", [])
    LNHGSegmentation.LNHGSegmentation(types.SimpleNamespace())
    for signal, slot in slicer.app.connected:
        assert signal == "startupCompleted()"
        slot()
    return slicer.modules.sampleDataSources[SampleScans.CATEGORY]


def test_drawn_chest_and_slicers_own_ct_are_offered_once(sources):
    assert [source.sampleName for source in sources] == ["LNHGPhantom", "CTChest"]
    SampleScans.register()  # the module is reloaded
    offered = slicer.modules.sampleDataSources[SampleScans.CATEGORY]
    assert [source.sampleName for source in offered] == ["LNHGPhantom", "CTChest"]


def test_slicers_own_ct_is_the_very_source_that_slicer_has(sources):
    assert sources[1] is slicer.modules.sampleDataSources[sample_data_standin.BUILT_IN][0]


def test_picture_of_the_drawn_chest_has_the_size_that_slicer_wants(sources):
    width, height = Image.open(sources[0].thumbnailFileName).size
    assert 240 <= width <= 320
    assert 240 <= height <= 320


def test_published_checksum_is_that_of_the_voxels(phantom):
    voxels = np.ascontiguousarray(phantom.volume.array, "<i2").tobytes()
    assert hashlib.sha256(voxels).hexdigest() == SampleScans.PHANTOM_SHA256


@pytest.fixture
def cache(scene, tmp_path):
    """Slicer's cache, still without its folder."""
    manager = scene.GetCacheManager()
    before = manager.GetRemoteCacheDirectory()
    manager.SetRemoteCacheDirectory(str(tmp_path / "cache folder"))
    shutil.rmtree(tmp_path / "cache folder")
    yield tmp_path / "cache folder"
    manager.SetRemoteCacheDirectory(before)


def test_script_gets_the_same_chest_as_a_click(sources, cache):
    clicked = sources[0].click()
    node = sample_data_standin.SampleDataLogic().downloadSample("LNHGPhantom")
    assert node.GetName() == "LNHGPhantom"
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), slicer.util.arrayFromVolume(clicked))
    np.testing.assert_allclose(ijkToRAS(node), ijkToRAS(clicked), atol=1e-3)


def test_chest_is_drawn_for_scripts_at_the_first_call_alone(sources, cache, monkeypatch):
    drawn = []
    make = LNHGLib.phantom.chest.make_phantom
    monkeypatch.setattr("LNHGLib.phantom.chest.make_phantom", lambda: drawn.append(1) or make())
    SampleScans.register()
    sample_data_standin.SampleDataLogic()
    assert drawn == []
    for _ in range(2):
        assert sample_data_standin.SampleDataLogic().downloadSample("LNHGPhantom") is not None
    assert drawn == [1]
    assert [path.name for path in cache.iterdir()] == [SampleScans.FILE_NAME], "nothing half-written stays"


def test_cache_that_cannot_be_written_is_told_in_one_sentence(sources, cache):
    cache.touch()
    with pytest.raises(DiskError, match="The synthetic chest CT cannot be written in"):
        sample_data_standin.SampleDataLogic().downloadSample("LNHGPhantom")


def test_click_draws_the_chest_at_its_place_in_the_lung_window(sources, phantom, caplog):
    node = sources[0].click()
    assert node.GetName() == "LNHGPhantom"
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), phantom.volume.array)
    center = np.array(phantom.nodules[-1]["center_lps_mm"])
    toIJK = slicer.util.vtkMatrixFromArray(np.eye(4))
    node.GetRASToIJKMatrix(toIJK)
    ijk = toIJK.MultiplyPoint([*(center * [-1, -1, 1]), 1])[:3]
    np.testing.assert_allclose(ijk[::-1], phantom.volume.grid.lps_to_index(center), atol=1e-3)
    assert (node.GetDisplayNode().GetWindow(), node.GetDisplayNode().GetLevel()) == (1500, -600)
    assert "differs" not in caplog.text


def test_other_voxels_than_the_published_ones_are_told(scene, monkeypatch, caplog):
    monkeypatch.setattr(SampleScans, "PHANTOM_SHA256", "0" * 64)
    with caplog.at_level(logging.WARNING):
        assert SampleScans.loadPhantom() is not None
    assert "differs from the published one" in caplog.text


def test_part_of_the_chest_holds_the_whole_nodule_at_its_place(scene, phantom):
    node, center = SampleScans.partOfPhantom(24.0)
    part = slicer.util.arrayFromVolume(node)
    assert part.shape[0] < phantom.volume.grid.shape[0] / 3
    toIJK = slicer.util.vtkMatrixFromArray(np.eye(4))
    node.GetRASToIJKMatrix(toIJK)
    i, j, k = np.round(toIJK.MultiplyPoint([*(center * [-1, -1, 1]), 1])[:3]).astype(int)
    z, y, x = np.round(phantom.volume.grid.lps_to_index(center)).astype(int)
    assert part[k, j, i] == phantom.volume.array[z, y, x]
    label = int(phantom.labels[z, y, x])
    assert np.flatnonzero((phantom.labels == label).any((1, 2))).min() > z - k


def test_everything_that_is_offered_is_shipped():
    shipped = (Path(LNHGSegmentation.__file__).parent / "CMakeLists.txt").read_text()
    assert SampleScans.THUMBNAIL.name in shipped
