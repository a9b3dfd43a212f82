import csv

import numpy as np
import pytest
import small_data
from crop_files import write_crop_files
from LNHGLib.errors import InputError
from LNHGTrainingLib.config import Data, build
from LNHGTrainingLib.data import augmentation
from LNHGTrainingLib.data import crops as data
from LNHGTrainingLib.data.augmentation import SpatialAugmentation
from LNHGTrainingLib.data.background import load_sources
from LNHGTrainingLib.data.detector_batches import slice_boxes
from LNHGTrainingLib.data.hard_negatives import centers
from small_data import detector_slices, segmenter_patches

FRACTIONS = {"sides": [[16, 16, 16], [24, 24, 24]], "nodule": 0.6, "surround": 0.1, "background": 0.15, "pasted": 0.15}
SLICES = {"mosaic": 0.5, "tiles": 2, "tile": 40, "chest": 64, "nodule": 0.8, "placed": 2, "min_area": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    small_data.write_crops(path)
    return path


@pytest.fixture(scope="module")
def crops(folder):
    return load(folder, [0, 1])


@pytest.fixture(scope="module")
def background():
    hu = np.random.default_rng(1).normal(-860, 15, (60, 80, 80)).astype(np.int16)
    lung = np.argwhere(np.ones((20, 40, 40), bool)) + 20
    return data.LabeledVolume(hu, np.zeros(hu.shape, bool), np.ones(hu.shape, bool), "chest", {}), lung


def load(folder, folds, **options):
    return data.load_crops(folder / "crops/luna16_crops.h5", folder / "crops/luna16_crops.csv", folds, **options)


def straight(center):
    return SpatialAugmentation(center, np.eye(3))


def test_consensus_is_half_of_the_readers():
    bits = np.array([0b0000, 0b0001, 0b0011, 0b0111], np.uint8)
    assert data.consensus(bits, 4).tolist() == [False, False, True, True]
    assert data.consensus(bits, 3).tolist() == [False, False, True, True]


def test_folds_choose_the_crops(folder):
    assert data.patients(load(folder, [1])) == {"patient-1", "patient-3", "patient-5"}


def test_unknown_folds_are_refused(folder):
    with pytest.raises(InputError, match=r"folds \[7\]"):
        load(folder, [7])


def test_a_patient_on_both_sides_is_refused(crops):
    """Register U5."""
    with pytest.raises(InputError, match=r"1 patients \(patient-2"):
        data.assert_disjoint(crops[:3], crops[2:])


def test_real_test_nodules_never_come_back(data_dir):
    table = data_dir / "crops" / "luna16_crops.csv"
    with table.open() as stream:
        held_back = {row["patient_id"] for row in csv.DictReader(stream) if row["scan_test"] == "1"}
    loaded = data.load_crops(data_dir / "crops" / "luna16_crops.h5", table, [-1, 0])
    assert held_back
    assert not data.patients(loaded) & held_back


def test_real_folds_share_no_patient(data_dir):
    files = data_dir / "crops" / "luna16_crops.h5", data_dir / "crops" / "luna16_crops.csv"
    data.assert_disjoint(data.load_crops(*files, [3]), data.load_crops(*files, [0]))


def test_a_straight_cut_is_the_sources_part(crops):
    hu, mask, known = augmentation.sample_patch(crops[0], straight((24.5, 24.5, 24.5)), (50, 50, 50))
    assert np.array_equal(hu, crops[0].hu)
    assert np.array_equal(mask, crops[0].mask)
    assert known.all()


def test_outside_the_source_nothing_is_known(crops):
    _, mask, known = augmentation.sample_patch(crops[0], straight((0.0, 24.5, 24.5)), (20, 20, 20))
    assert not known[:9].any()
    assert known[11:].all()
    assert not mask[:9].any()


@pytest.mark.parametrize("seed", range(5))
def test_a_warped_mask_stays_with_its_nodule(crops, seed):
    sampled = augmentation.sample_augmentation(np.random.default_rng(seed), np.array([25.0, 25, 25]))
    hu, mask, _ = augmentation.sample_patch(crops[4], sampled, (32, 32, 32))
    scale = abs(np.linalg.det(sampled.matrix))
    assert mask.sum() == pytest.approx(crops[4].mask.sum() / scale, rel=0.1)
    assert hu[mask].mean() > -150
    assert hu[~mask].mean() < -700


def test_a_patch_is_turned_and_enlarged_as_far_as_its_recipe_allows():
    rng, allowed = np.random.default_rng(3), augmentation.Geometry(quarter_turns=False, degrees=6.0, zoom=0.0)
    matrices = [augmentation.sample_augmentation(rng, np.zeros(3), allowed).matrix for _ in range(50)]
    turns = [np.degrees(np.arcsin(abs(matrix[1, 2]))) for matrix in matrices]
    assert 4 < max(turns) <= 6
    np.testing.assert_allclose([abs(np.linalg.det(matrix)) for matrix in matrices], 1.0)
    free = [augmentation.sample_augmentation(rng, np.zeros(3)).matrix for _ in range(50)]
    assert max(abs(matrix[1, 2]) for matrix in free) > 0.9  # a quarter
    assert np.ptp([abs(np.linalg.det(matrix)) for matrix in free]) > 0.2


def test_the_same_augmentation_gives_the_same_scanner(crops):
    sampled = augmentation.sample_augmentation(np.random.default_rng(4), np.array([25.0, 25, 25]))
    hu = augmentation.sample_patch(crops[0], sampled, (16, 16, 16))[0]
    assert np.array_equal(augmentation.simulate_scanner(hu, sampled), augmentation.simulate_scanner(hu, sampled))


def test_blur_keeps_the_mean(crops):
    hu = augmentation.sample_patch(crops[0], straight((24.5, 24.5, 24.5)), (50, 50, 50))[0]
    blurred = augmentation.simulate_scanner(hu, SpatialAugmentation((0.0, 0.0, 0.0), np.eye(3), blur=(1.0, 0.5, 0.5)))
    assert blurred.mean() == pytest.approx(hu.mean(), abs=1)
    assert blurred.std() < hu.std()


def test_a_pasted_nodule_keeps_its_inside_and_the_lung_its_outside():
    mask = np.zeros((20, 20, 20), bool)
    mask[6:14, 6:14, 6:14] = True
    pasted = augmentation.paste_nodule(np.full(mask.shape, -850.0), np.full(mask.shape, 40.0), mask)
    assert pasted[8:12, 8:12, 8:12] == pytest.approx(40)
    assert pasted[:2] == pytest.approx(-850)


def test_a_cavity_has_air_within_a_wall_of_tissue():
    z, y, x = np.ogrid[:30, :30, :30]
    depth = 9 - np.sqrt((z - 15) ** 2 + (y - 15) ** 2 + (x - 15) ** 2)
    hu = augmentation.simulate_cavity(np.where(depth > 0, 40.0, -850.0), depth > 0, wall_mm=3.0)
    assert hu[depth > 6] == pytest.approx(-950, abs=5)
    assert hu[(depth > 0) & (depth < 1.5)] == pytest.approx(40, abs=5)
    assert hu[depth < 0] == pytest.approx(-850, abs=1)
    small = np.where(depth > 6, 40.0, -850.0)
    assert np.array_equal(augmentation.simulate_cavity(small, depth > 6, wall_mm=3.5), small)


def test_cavities_are_as_many_as_asked(crops):
    thick = [crop for crop in crops if crop.mask.sum() > 200]
    brightness = {}
    for share in (0.0, 0.5, 1.0):
        shares = {"sides": [[24, 24, 24]], "nodule": 1.0, "cavity": share}
        batch = segmenter_patches(thick, [], shares, 0).batch(0, 16)
        brightness[share] = float(batch.image[batch.mask > 0].mean())
        assert np.array_equal(batch.target, batch.image * batch.mask)
    assert brightness[1.0] < 0.9 * brightness[0.5] < 0.81 * brightness[0.0]


def test_a_batch_depends_on_seed_and_step_alone(crops, background):
    first, second, other = (segmenter_patches(crops, [background], FRACTIONS, seed) for seed in (5, 5, 6))
    assert np.array_equal(first.batch(3, 2).image, second.batch(3, 2).image)
    assert not np.array_equal(first.batch(3, 2).image[..., :16, :16, :16], other.batch(3, 2).image[..., :16, :16, :16])


@pytest.mark.parametrize(("planes", "axes"), [(1, {0}), (2, {0, 1}), (3, {0, 1, 2})])
def test_slabs_are_cut_in_so_many_planes(planes, axes):
    """A wall ten slices thick fills a slab that lies along it, and a part of one across it."""
    met = set()
    for axis in range(3):
        hu = np.full((50, 50, 50), -1000, np.int16)
        np.moveaxis(hu, axis, 0)[20:30] = 0
        wall = data.LabeledVolume(hu, hu == 0, hu < 1, "P", {})
        patches = segmenter_patches([wall], [], {"sides": [[3, 40, 40]], "nodule": 1.0, "planes": planes}, 0)
        filled = [float(mask.mean()) for step in range(8) for mask in patches.batch(step, 4).mask]
        met |= {axis} if max(filled) > 0.9 else set()
    assert met == axes


def test_the_target_is_the_ct_inside_the_mask(crops, background):
    """Register L1."""
    patches = segmenter_patches(crops, [background], FRACTIONS, 0)
    batches = [patches.batch(step, 4) for step in range(6)]
    assert all(np.array_equal(batch.target, batch.image * batch.mask) for batch in batches)
    shares = [bool(sample.any()) for batch in batches for sample in batch.mask]
    assert any(shares)
    assert not all(shares)


@pytest.fixture
def with_negatives(tmp_path):
    """A table as `prepare luna16` writes it: two nodules, and two cubes at candidates that are none."""
    hu = np.random.default_rng(1).normal(-850, 20, (4, 50, 50, 50))
    hu[2:, 20:30, 20:30, 20:30] = -300
    bits = np.zeros(hu.shape, np.uint8)
    bits[:2, 22:28, 22:28, 22:28] = 0b111
    kinds = ["nodule", "nodule", "negative", "negative"]
    rows = [
        {"row": i, "patient_id": f"P{i % 2}", "kind": kind, "usable": int(kind == "nodule"), "fold": i % 2,
         "n_readers_usable": 3 * (kind == "nodule"), "scan_test": 0, "luna_diameter_exact_mm": 6.0}
        for i, kind in enumerate(kinds)
    ]  # fmt: skip
    files = tmp_path / "volumes.h5", tmp_path / "folds.csv"
    write_crop_files(*files, rows, hu, bits)
    return files


def test_negatives_of_the_training_folds_have_no_mask(with_negatives):
    (negative,) = data.load_negatives(*with_negatives, [1])
    assert (negative.patient, negative.mask.any(), negative.hu[25, 25, 25]) == ("P1", False, -300)
    assert len(data.load_crops(*with_negatives, [0, 1])) == 2


def test_negatives_are_drawn_without_a_target_and_around_their_place(with_negatives):
    sampling = {"sides": [[16, 16, 16]], "nodule": 0.0, "surround": 0.0, "background": 0.0, "pasted": 0.0}
    negatives = [centers(data.load_negatives(*with_negatives, [0, 1]))]
    crops = data.load_crops(*with_negatives, [0, 1])
    patches = segmenter_patches(crops, [], sampling | {"negative": 1.0}, 3, negatives=negatives)
    batch = patches.batch(0, 6)
    assert not batch.mask.any()
    assert (batch.image.amax((1, 2, 3, 4)) > 0.4).all()
    slices = detector_slices(crops, [], SLICES | {"nodule": 1.0, "negative": 1.0}, 3, negatives=negatives)
    assert all(not len(target["boxes"]) for target in slices.batch(0, 3)[1])
    assert any(len(target["boxes"]) for target in detector_slices(crops, [], SLICES, 3).batch(0, 3)[1])


def test_a_split_by_nodule_must_be_asked_for(folder):
    config = small_data.data_config(folder) | {"train_folds": [0, 1], "validation_folds": [1]}
    with pytest.raises(InputError, match="split by patient"):
        load_sources(build(Data, config, "data."), folder / "cache")
    assert load_sources(build(Data, config | {"split": "nodule"}, "data."), folder / "cache").validation


def test_images_lie_in_the_window(crops):
    image = segmenter_patches(crops, [], FRACTIONS, 0).batch(0, 4).image
    assert image.min() >= 0
    assert image.max() <= 1


def test_slices_hold_three_channels_and_boxes_around_bright_nodules(crops, background):
    slices = detector_slices(crops, [background], SLICES, 0)
    boxes = 0
    for step in range(6):
        images, targets = slices.batch(step, 3)
        for image, target in zip(images, targets, strict=True):
            assert image.shape[0] == 3
            for x0, y0, x1, y1 in target["boxes"].int().tolist():
                boxes += 1
                assert image[1, y0:y1, x0:x1].max() > 0.5
    assert boxes > 5


def test_some_slices_hold_no_nodule(crops, background):
    """Register F2."""
    slices = detector_slices(crops, [background], SLICES, 0)
    assert any(len(target["boxes"]) == 0 for step in range(8) for target in slices.batch(step, 3)[1])


def test_boxes_hold_their_last_pixel_and_specks_have_none():
    mask = np.zeros((20, 20), bool)
    mask[3:8, 10:12] = True
    mask[15, 15] = True
    assert slice_boxes(mask, 4) == [(10, 3, 12, 8)]
