"""Chest slices for the detector: whole ones, their own nodules, hard negatives, and what is ignored."""

import numpy as np
import pytest
import small_data
from LNHGTrainingLib.config import Data, DetectorConfig, build
from LNHGTrainingLib.config import read as read_config
from LNHGTrainingLib.data.background import load_sources
from LNHGTrainingLib.data.crops import LabeledVolume
from LNHGTrainingLib.data.hard_negatives import Locations
from small_data import detector_slices

WHOLE = {"mosaic": 0.0, "whole": 1.0, "tiles": 2, "tile": 24, "chest": 40, "nodule": 0.8, "placed": 0, "min_area": 4}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A scan with a nodule of four readers at (30, 40, 20) and one of two readers at (30, 40, 34)."""
    folder = tmp_path_factory.mktemp("data")
    small_data.write_crops(folder)
    small_data.write_scans(folder, {"patient-0": [4, 2], "patient-1": [3]})
    data = small_data.data_config(folder) | {"scans": "scans/lidc_scans.h5"}
    return load_sources(build(Data, data, "data."), folder / "cache")


def slices_of(sources, count=12, negatives=(), **sampling):
    slices = detector_slices(sources.train, sources.backgrounds, WHOLE | sampling, negatives=negatives)
    batches = [slices.batch(step, 4) for step in range(count)]
    return [pair for images, targets in batches for pair in zip(images, targets, strict=True)]


def test_whole_slices_are_as_large_as_the_chest_and_fewer_than_parts(sources):
    assert sources.backgrounds[0][0].hu.shape == (60, 64, 68)
    slices = detector_slices(sources.train, sources.backgrounds, WHOLE)
    images, _ = slices.batch(0, 8)
    assert [tuple(image.shape) for image in images] == [(3, 68, 68)] * 2
    parts = detector_slices(sources.train, sources.backgrounds, WHOLE | {"whole": 0.0})
    assert [tuple(image.shape) for image in parts.batch(0, 8)[0]] == [(3, 40, 40)] * 8


def test_nodules_of_enough_readers_have_boxes_and_others_are_ignored(sources):
    """Both balls are bright where a slice cuts them; one has a box, the other is neither nodule nor background."""
    boxes = ignored = 0
    for image, target in slices_of(sources, 40):
        assert len(target["boxes"]) <= 1
        inside = np.zeros(image.shape[1:], bool)
        for x0, y0, x1, y1 in target["boxes"].int().tolist():
            boxes += 1
            inside[y0:y1, x0:x1] = True
            assert image[1, y0:y1, x0:x1].mean() > 0.5
            assert not target["ignored"][y0:y1, x0:x1].any()
        aside = target["ignored"].numpy() & (image[1].numpy() > 0.6)
        ignored += aside.sum() > 20
        assert not (aside & inside).any()
    assert boxes > 5
    assert ignored > 5


def test_slices_are_also_cut_where_nothing_is(sources):
    assert any(len(target["boxes"]) == 0 for _, target in slices_of(sources))


def test_slices_at_hard_negatives_are_cut_where_they_are():
    """The chest has one bright slice, at its hard negative, which few slices would hit by chance."""
    hu = np.full((60, 64, 64), -850, np.int16)
    hu[44:47] = 0
    chest = LabeledVolume(hu, np.zeros(hu.shape, bool), np.ones(hu.shape, bool), "chest", {})
    lung = np.argwhere(np.ones((10, 64, 64), bool)).astype(np.int16)  # its lungs lie in other slices
    places = Locations([chest], [(0, (45.2, 30.0, 30.0))])
    found = {}
    for negative in (0.0, 0.7):
        slices = detector_slices([], [(chest, lung)], WHOLE | {"negative": negative}, negatives=[places])
        images = [image for step in range(20) for image in slices.batch(step, 8)[0]]
        found[negative] = np.mean([float(image[1].mean()) > 0.5 for image in images])
    assert found[0.0] == 0
    assert 0.4 < found[0.7] < 0.95


def test_nodules_are_pasted_into_lung_alone(sources):
    """Lung is a column at the middle of the slices, and what is dark around it is none."""
    hu = np.full((60, 96, 96), -850, np.int16)
    chest = LabeledVolume(hu, np.zeros(hu.shape, bool), np.ones(hu.shape, bool), "chest", {})
    lung = np.argwhere(np.ones((60, 4, 4), bool)).astype(np.int16) + np.array([0, 46, 46], np.int16)
    slices = detector_slices(sources.train, [(chest, lung)], WHOLE | {"placed": 3})
    boxes = np.concatenate([target["boxes"] for step in range(30) for target in slices.batch(step, 8)[1]])
    assert len(boxes) > 10
    assert abs((boxes[:, :2] + boxes[:, 2:]) / 2 - 48).max() < 16


def test_tips_too_small_for_a_box_are_ignored(sources):
    for _, target in slices_of(sources, 30, min_area=10_000):
        assert not len(target["boxes"])
    assert any(target["ignored"][30:44, 14:44].any() for _, target in slices_of(sources, 30, min_area=10_000))


def test_recipe_of_whole_slices_trains_on_scans_and_hard_negatives():
    config = build(DetectorConfig, read_config(small_data.RESOURCES / "detector-scans.toml"))
    assert config.data.scans == "scans/lidc_scans.h5"
    assert config.data.hard_negatives
    assert config.sampling.whole > 0
    assert config.sampling.mosaic + config.sampling.whole < 1
