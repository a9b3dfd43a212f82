import json

import numpy as np
import pytest
import SimpleITK as sitk
from LNHGLib.image import reader
from LNHGLib.image.volume import Grid
from LNHGLib.measurement.size import axial_axis, measure

CENTER = np.array([12.3, -40.7, 95.1])


def rotation(degrees, axis):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.eye(3)
    rows = [i for i in range(3) if i != axis]
    turn[np.ix_(rows, rows)] = [[c, -s], [s, c]]
    return turn


def grid_around(columns, extent_mm=36.0):
    """A grid centered near CENTER whose index axes z, y, x run along the columns (mm a voxel, LPS)."""
    columns = np.array(columns, float)
    shape = np.ceil(extent_mm / np.linalg.norm(columns, axis=0)).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = columns
    affine[:3, 3] = CENTER - columns @ ((shape - 1) / 2) + 0.17
    return Grid(tuple(shape), affine)


AXIAL = np.array([[0, 0, 0.7], [0, 0.7, 0], [1.5, 0, 0]])
ALIGNED = {
    "axial": AXIAL,
    "thick slices": AXIAL * (2.5 / 1.5, 1, 1),
    "flipped left-right and up-down": AXIAL * (-1, 1, -1),
    "different pixel sides": AXIAL * (1, 0.8, 1.3),
    "sagittal": AXIAL[:, [2, 0, 1]],
    "coronal": AXIAL[:, [1, 2, 0]],
    "coarse z in a sagittal array": (AXIAL * (2, 1, 1))[:, [2, 0, 1]],
}
OBLIQUE = {
    "rotated about x": rotation(20, 0) @ AXIAL,
    "rotated about all": rotation(15, 2) @ rotation(-12, 1) @ rotation(25, 0) @ AXIAL,
    "sheared by gantry tilt": AXIAL + np.array([[0, 0, 0], [0.5, 0, 0], [0, 0, 0]]),
}


def ellipsoid(grid, semi_axes_mm, turn=None):
    offset = grid.index_to_lps(np.moveaxis(np.indices(grid.shape), 0, -1)) - CENTER
    offset = offset if turn is None else offset @ turn
    return ((offset / semi_axes_mm) ** 2).sum(-1) <= 1


@pytest.mark.parametrize("columns", ALIGNED.values(), ids=ALIGNED.keys())
def test_an_ellipsoid_measures_its_analytic_size_in_every_array_order(columns):
    grid = grid_around(columns)
    found = measure(np.zeros(grid.shape), grid, ellipsoid(grid, (10, 6, 14)))
    assert found.volume_mm3 == pytest.approx(4 / 3 * np.pi * 10 * 6 * 14, rel=0.03)
    assert found.long_axis_mm == pytest.approx(20, abs=0.7)
    assert found.short_axis_mm == pytest.approx(12, abs=0.7)
    np.testing.assert_allclose(found.centroid_lps_mm, CENTER, atol=0.2)


@pytest.mark.parametrize("columns", (ALIGNED | OBLIQUE).values(), ids=(ALIGNED | OBLIQUE).keys())
def test_a_ball_measures_its_diameter_on_every_grid(columns):
    grid = grid_around(columns)
    found = measure(np.zeros(grid.shape), grid, ellipsoid(grid, (10, 10, 10)))
    assert found.volume_mm3 == pytest.approx(4188.8, rel=0.02)
    assert found.long_axis_mm == pytest.approx(20, abs=0.8)
    assert found.short_axis_mm == pytest.approx(20, abs=0.8)
    assert found.short_axis_mm <= found.long_axis_mm
    np.testing.assert_allclose(found.centroid_lps_mm, CENTER, atol=0.1)


@pytest.mark.parametrize("degrees", [0, 17, 30, 45, 80])
def test_axes_do_not_depend_on_the_direction_of_the_nodule_in_the_slice(degrees):
    grid = grid_around(AXIAL)
    found = measure(np.zeros(grid.shape), grid, ellipsoid(grid, (9, 4, 7), rotation(degrees, 2)))
    assert found.long_axis_mm == pytest.approx(18, abs=0.6)
    assert found.short_axis_mm == pytest.approx(8, abs=0.6)
    ends = np.array(found.long_axis_ends_lps_mm)
    assert np.linalg.norm(ends[1] - ends[0]) == pytest.approx(found.long_axis_mm)
    direction = np.abs((ends[1] - ends[0]) / found.long_axis_mm @ rotation(degrees, 2)[:, 0])
    assert direction > np.cos(np.radians(8))


def test_a_disc_measures_its_diameter_within_a_pixel_wherever_it_lies():
    rng = np.random.default_rng(0)
    y, x = 0.7 * np.mgrid[:24, :24]
    grid = Grid.aligned((1, 24, 24), (1, 0.7, 0.7), (0, 0, 0))
    for _ in range(30):
        mask = np.hypot(*(np.array([y, x]) - rng.uniform(8, 9, (2, 1, 1))))[None] <= 5
        found = measure(np.zeros(grid.shape), grid, mask)
        assert found.long_axis_mm == pytest.approx(10.3, abs=0.4)
        assert found.short_axis_mm == pytest.approx(10.0, abs=0.7)


def test_the_long_axis_is_taken_on_the_slice_where_it_is_longest():
    mask = np.zeros((5, 30, 30), bool)
    mask[1, 10:13, 5:15] = mask[3, 10:25, 10:12] = True
    grid = Grid.aligned(mask.shape, (2, 1, 1), (0, 0, 0))
    found = measure(np.zeros(mask.shape), grid, mask)
    assert found.long_axis_ends_lps_mm[0][2] == 3 * 2
    assert found.long_axis_mm == pytest.approx(15, abs=0.2)


def test_the_short_axis_is_a_chord_and_not_the_width_of_the_whole_shadow():
    mask = np.zeros((1, 40, 40), bool)
    mask[0, 8:14, 4:20] = mask[0, 14:20, 20:36] = True
    mask[0, 12:16, 18:22] = True
    grid = Grid.aligned(mask.shape, (1, 1, 1), (0, 0, 0))
    assert measure(np.zeros(mask.shape), grid, mask).short_axis_mm < 8


def test_a_single_voxel_measures_its_own_sides():
    mask = np.zeros((5, 5, 5), bool)
    mask[2, 3, 1] = True
    grid = Grid.aligned(mask.shape, (2.5, 0.6, 0.8), (10, 20, 30))
    with np.errstate(all="raise"):
        found = measure(np.full(mask.shape, 55), grid, mask)
    assert found.long_axis_mm == pytest.approx(0.8)
    assert found.short_axis_mm == pytest.approx(0.6, abs=0.15)
    assert found.volume_mm3 == pytest.approx(1.2)
    assert (found.mean_hu, found.sd_hu, found.attenuation) == (55, 0, "solid")
    np.testing.assert_allclose(found.centroid_lps_mm, (10.8, 21.8, 35))
    np.testing.assert_allclose(found.box_lps_mm, [(10.4, 21.5, 33.75), (11.2, 22.1, 36.25)])


def test_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="empty"):
        measure(np.zeros((2, 2, 2)), Grid.aligned((2, 2, 2), (1, 1, 1), (0, 0, 0)), np.zeros((2, 2, 2), bool))


def test_mean_and_sd_come_from_the_mask_alone():
    hu = np.full((3, 3, 3), -900)
    hu[1, 1, 1:] = 20, 40
    grid = Grid.aligned(hu.shape, (1, 1, 1), (0, 0, 0))
    found = measure(hu, grid, hu > 0)
    assert (found.mean_hu, found.sd_hu) == (30, 10)


def test_axial_axis_is_the_array_axis_nearest_to_head_and_foot():
    assert axial_axis(grid_around(AXIAL)) == 0
    assert axial_axis(grid_around(ALIGNED["sagittal"])) == 1
    assert axial_axis(grid_around(ALIGNED["coronal"])) == 2
    assert axial_axis(grid_around(OBLIQUE["rotated about all"])) == 0


def blurred_nodule(core_hu, rim_hu, core_mm, rim_mm, spacing_mm=(1.5, 0.7, 0.7)):
    """A ball in lung with partial volume at its border and noise, as (hu, grid, mask)."""
    fine = np.array(spacing_mm) / 2
    shape = np.ceil(2.4 * rim_mm / np.array(spacing_mm)).astype(int)
    position = (np.indices(shape * 2).T - (shape * 2 - 1) / 2) * fine
    radius = np.linalg.norm(position, axis=-1).T
    hu = np.where(radius < core_mm / 2, core_hu, np.where(radius < rim_mm / 2, rim_hu, -850.0))
    hu = hu.reshape(shape[0], 2, shape[1], 2, shape[2], 2).mean((1, 3, 5))
    mask = (radius < rim_mm / 2).reshape(shape[0], 2, shape[1], 2, shape[2], 2).mean((1, 3, 5)) >= 0.5
    return hu + np.random.default_rng(3).normal(0, 40, hu.shape), Grid.aligned(shape, spacing_mm, (0, 0, 0)), mask


@pytest.mark.parametrize("diameter_mm", [4, 8, 20])
@pytest.mark.parametrize(("hu", "expected"), [(30, "solid"), (-620, "ground-glass"), (500, "calcified")])
def test_attenuation_of_a_uniform_nodule_survives_partial_volume_and_noise(hu, expected, diameter_mm):
    image, grid, mask = blurred_nodule(hu, hu, 0, diameter_mm)
    assert measure(image, grid, mask).attenuation == expected


def test_a_solid_core_in_ground_glass_is_part_solid():
    image, grid, mask = blurred_nodule(20, -600, 10, 18)
    assert measure(image, grid, mask).attenuation == "part-solid"


def test_a_vessel_through_ground_glass_does_not_make_it_part_solid():
    image, grid, mask = blurred_nodule(-600, -600, 0, 20)
    middle = np.array(image.shape) // 2
    image[middle[0], middle[1] : middle[1] + 2, :] = 40
    assert measure(image, grid, mask).attenuation == "ground-glass"


def test_a_central_calcification_is_told_from_a_solid_nodule():
    image, grid, mask = blurred_nodule(600, 30, 7, 12)
    assert measure(image, grid, mask).attenuation == "calcified"


def test_real_consensus_masks_measure_as_their_published_sizes(data_dir):
    folder = data_dir / "ct" / "lidc-idri-0003"
    ct = reader.read_volume(folder / "ct.nii.gz")
    readers = [sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"mask_reader{i}.nii.gz"))) for i in (1, 2, 3, 4)]
    for nodule in json.loads((folder / "meta.json").read_text())["nodules"]:
        votes = sum((reader == nodule["label"]).astype(np.uint8) for reader in readers)
        found = measure(ct.array, ct.grid, votes >= nodule["readers"] / 2)
        assert found.volume_mm3 == pytest.approx(nodule["volume_mm3"], rel=1e-3)
        assert found.long_axis_mm == pytest.approx(nodule["max_axial_diameter_mm"], abs=0.25)
        assert found.mean_hu == pytest.approx(nodule["mean_hu"], abs=0.5)
        np.testing.assert_allclose(found.centroid_lps_mm, nodule["centroid_lps_mm"], atol=0.1)
        texture = np.mean([reader["texture"] for reader in nodule["annotations"]])
        assert found.attenuation == ("ground-glass" if texture <= 2 else "solid")


@pytest.mark.parametrize("columns", [*ALIGNED.values(), *OBLIQUE.values()], ids=[*ALIGNED, *OBLIQUE])
def test_the_ends_of_both_axes_are_as_far_apart_as_they_measure_and_cross_at_right_angles(columns):
    grid = grid_around(columns)
    found = measure(np.zeros(grid.shape), grid, ellipsoid(grid, (10, 6, 14)))
    long, short = (
        np.diff(np.array(ends), axis=0)[0] for ends in (found.long_axis_ends_lps_mm, found.short_axis_ends_lps_mm)
    )
    assert np.linalg.norm(long) == pytest.approx(found.long_axis_mm, abs=1e-6)
    assert np.linalg.norm(short) == pytest.approx(found.short_axis_mm, abs=0.15)
    assert abs(long @ short) / found.long_axis_mm / found.short_axis_mm < 0.02
    np.testing.assert_allclose(np.mean(found.short_axis_ends_lps_mm, axis=0), CENTER, atol=2.6)
