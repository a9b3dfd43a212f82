import inspect

import numpy as np
import pytest
from LNHGLib.phantom import anatomy, canvas
from LNHGLib.phantom import chest as phantom
from LNHGLib.segmentation import preprocessing
from scipy import ndimage

COARSE_MM = (4.0, 2.5, 2.5)


@pytest.fixture(scope="module")
def chest():
    return phantom.make_phantom(seed=3)


@pytest.fixture(scope="module")
def coarse():
    return phantom.make_phantom(seed=3, spacing_mm=COARSE_MM)


def core_hu(chest, label):
    inside = ndimage.binary_erosion(chest.labels == label, iterations=1)
    return chest.volume.array[inside]


def test_the_same_seed_gives_the_same_voxels(coarse):
    again = phantom.make_phantom(seed=3, spacing_mm=COARSE_MM)

    np.testing.assert_array_equal(again.volume.array, coarse.volume.array)
    np.testing.assert_array_equal(again.labels, coarse.labels)
    assert again.nodules == coarse.nodules


def test_another_seed_moves_the_nodules(coarse):
    other = phantom.make_phantom(seed=4, spacing_mm=COARSE_MM)

    assert all(a["center_lps_mm"] != b["center_lps_mm"] for a, b in zip(coarse.nodules, other.nodules, strict=True))


def test_every_kind_of_nodule_is_there_with_sizes_from_5_to_20_mm(chest):
    assert {nodule["kind"] for nodule in chest.nodules} == set(phantom.KINDS_HU)
    diameters = [nodule["diameter_mm"] for nodule in chest.nodules]
    assert (min(diameters), max(diameters)) == (5.0, 20.0)
    assert [nodule["label"] for nodule in chest.nodules] == list(range(1, chest.labels.max() + 1))


def test_nodules_lie_where_the_truth_says_in_the_world(chest):
    for nodule in chest.nodules:
        centroid = chest.volume.grid.index_to_lps(np.argwhere(chest.labels == nodule["label"]).mean(axis=0))
        assert np.linalg.norm(centroid - nodule["center_lps_mm"]) < 1.5, nodule


def test_nodules_have_the_stated_diameter(chest):
    for nodule in chest.nodules:
        volume_mm3 = (chest.labels == nodule["label"]).sum() * chest.volume.grid.voxel_volume_mm3
        assert (6 / np.pi * volume_mm3) ** (1 / 3) == pytest.approx(nodule["diameter_mm"], rel=0.05), nodule


def test_solid_nodules_are_soft_tissue_and_ground_glass_is_not(chest):
    for nodule in chest.nodules:
        if nodule["diameter_mm"] < 8:
            continue  # too small for voxels free of partial volume
        hu = core_hu(chest, nodule["label"])
        if nodule["kind"] == "part-solid":
            assert np.percentile(hu, 10) < -450
            assert np.percentile(hu, 98) > -50
        else:
            assert np.median(hu) == pytest.approx(nodule["hu"], abs=45), nodule


def test_edges_are_soft_by_partial_volume(chest):
    biggest = max(chest.nodules, key=lambda nodule: nodule["diameter_mm"])
    inside = chest.labels == biggest["label"]
    edge = ndimage.binary_dilation(inside) & ~ndimage.binary_erosion(inside)

    between = (chest.volume.array[edge] > -750) & (chest.volume.array[edge] < -80)

    assert between.mean() > 0.3


def test_a_juxta_pleural_nodule_touches_the_chest_wall(chest):
    label = next(n["label"] for n in chest.nodules if n["kind"] == "juxta-pleural")
    around = ndimage.binary_dilation(chest.labels == label) & (chest.labels == 0)

    assert 0.05 < (chest.volume.array[around] > -200).mean() < 0.4


def test_a_juxta_vascular_nodule_touches_a_vessel(chest):
    label = next(n["label"] for n in chest.nodules if n["kind"] == "juxta-vascular")
    nodule = chest.labels == label
    near = ndimage.binary_dilation(nodule, iterations=6) & ~ndimage.binary_dilation(nodule, iterations=2)

    assert (chest.volume.array[near] > -300).sum() * chest.volume.grid.voxel_volume_mm3 > 10


def test_geometry_is_not_that_of_the_indices(chest):
    grid = chest.volume.grid

    assert grid.spacing_mm == (2.0, 1.0, 1.0)
    assert np.abs(grid.affine[:3, 3]).min() > 50
    assert chest.labels.shape == chest.volume.array.shape == grid.shape
    assert chest.volume.array.dtype == np.int16


def test_the_chest_holds_air_lung_fat_muscle_and_bone(chest):
    hu = chest.volume.array
    voxels = hu.size

    for low, high, share in (
        (-1024, -950, 0.2),
        (-930, -780, 0.15),
        (-130, -60, 0.05),
        (10, 90, 0.1),
        (400, 900, 0.003),
    ):
        assert ((hu >= low) & (hu <= high)).sum() > share * voxels, (low, high)
    assert hu.min() >= -1024


def test_noise_is_correlated_within_the_slice_and_not_across_slices(chest):
    hu = chest.volume.array[:, 10:60, 10:60].astype(float)  # a corner outside the body would be clipped air
    body = chest.volume.array[40:60, 100:130, 160:190].astype(float)
    residual = body - ndimage.uniform_filter(body, (1, 9, 9))

    across = np.corrcoef(residual[:-1].ravel(), residual[1:].ravel())[0, 1]
    within = np.corrcoef(residual[:, :, :-1].ravel(), residual[:, :, 1:].ravel())[0, 1]

    assert within > across + 0.2
    assert hu.std() > 5


def test_find_lungs_finds_two_lungs_that_hold_every_nodule(chest):
    lungs = preprocessing.find_lungs(chest.volume)

    assert lungs[chest.labels > 0].all()
    assert 3.0 < lungs.sum() * chest.volume.grid.voxel_volume_mm3 / 1e6 < 4.5
    labels, _ = ndimage.label(lungs)
    sizes = np.sort(np.bincount(labels.ravel())[1:])[::-1]
    assert sizes[1] > 0.5 * sizes[0]


def test_a_healthy_chest_has_no_nodule():
    healthy = phantom.make_phantom(spacing_mm=(5.0, 4.0, 4.0), nodules=())

    assert healthy.nodules == []
    assert not healthy.labels.any()


def test_nodules_that_do_not_fit_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match="No room for a solid nodule of 150 mm"):
        phantom.make_phantom(spacing_mm=(5.0, 4.0, 4.0), nodules=(("solid", 150.0),))


def test_the_phantom_is_small_code_without_embedded_data():
    sources = [inspect.getsource(module) for module in (phantom, canvas, anatomy)]

    assert sum(map(len, sources)) < 30_000
