import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from LNHGLib.errors import InputError
from LNHGLib.image import reader, volume
from LNHGLib.image.volume import Grid, Source, Volume
from LNHGLib.models.card import GridSpec
from LNHGLib.phantom import chest as phantom
from LNHGLib.phantom.canvas import PLACED_AT_LPS_MM
from LNHGLib.segmentation import preprocessing
from scipy import ndimage

pytestmark = pytest.mark.slow


COARSE_MM = (4.0, 2.5, 2.5)
ORIENTATIONS = [((0, 1, 2), (1, 1, 1)), ((2, 0, 1), (0, 1, 0)), ((1, 2, 0), (1, 0, 0)), ((0, 2, 1), (0, 0, 1))]


@pytest.fixture(scope="module")
def chest():
    return phantom.make_phantom(seed=1, spacing_mm=COARSE_MM)


@pytest.fixture(scope="module")
def lungs(chest):
    return preprocessing.find_lungs(chest.volume)


def reordered(ct, axes, reverse):
    """The same voxels in the world with another order and direction of axes."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    for new, old in enumerate(axes):
        matrix[old, new] = -1 if reverse[new] else 1
        matrix[old, 3] = ct.grid.shape[old] - 1 if reverse[new] else 0
    return replace(
        ct, array=turned(ct.array, axes, reverse), grid=Grid([ct.grid.shape[a] for a in axes], ct.grid.affine @ matrix)
    )


def turned(array, axes, reverse):
    return np.flip(array.transpose(axes), [axis for axis in range(3) if reverse[axis]])


def cropped(ct, *slices):
    affine = ct.grid.affine.copy()
    affine[:3, 3] = ct.grid.index_to_lps([s.start or 0 for s in slices])
    array = ct.array[slices]
    return replace(ct, array=array, grid=Grid(array.shape, affine))


def block(hu, shape=(40, 60, 60)):
    return Volume(np.full(shape, hu, np.int16), Grid.aligned(shape, (3.0, 2.0, 2.0), (0, 0, 0)), Source("block.nii"))


def at(ct, x, y, z):
    """Index of a point given in the phantom's own frame."""
    return tuple(np.round(ct.grid.lps_to_index(np.add((x, y, z), PLACED_AT_LPS_MM))).astype(int))


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def ball(ct, center, radius_mm):
    z, y, x = (np.arange(n) for n in ct.grid.shape)
    offsets = [(line - c) * s for line, c, s in zip((z, y, x), center, ct.grid.spacing_mm, strict=True)]
    z, y, x = np.meshgrid(*offsets, indexing="ij", sparse=True)
    return z**2 + y**2 + x**2 <= radius_mm**2


def test_normalise_maps_the_window_to_zero_and_one_and_clips():
    signal = preprocessing.normalize(np.array([-2000, -1000, -300, 400, 3000], np.int16))

    assert signal.dtype == np.float32
    np.testing.assert_allclose(signal, [0, 0, 0.5, 1, 1])


def test_normalise_takes_another_window():
    np.testing.assert_allclose(preprocessing.normalize(np.array([-1350.0, 150.0]), (-1350.0, 150.0)), [0, 1])


def test_the_lung_region_holds_every_nodule(chest, lungs):
    for nodule in chest.nodules:
        assert lungs[chest.labels == nodule["label"]].all(), nodule


def test_the_lung_region_spares_mediastinum_spine_trachea_and_everything_outside(chest, lungs):
    outside = {
        "heart": (20, -34, 80),
        "vertebra": (0, 66, 100),
        "trachea": (2, 9, 190),
        "liver": (-60, 0, 20),
        "stomach gas": (62, -48, 10),
        "sternum": (0, -99, 145),
        "room air": (-150, -112, 100),
        "table": (0, 121, 100),
        "back muscle": (50, 99, 100),
    }
    assert not [name for name, point in outside.items() if lungs[at(chest.volume, *point)]]


def test_there_is_stomach_gas_to_be_spared(chest):
    z, y, x = at(chest.volume, 62, -48, 10)
    assert chest.volume.array[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2].mean() < -900


@pytest.mark.parametrize(("axes", "reverse"), ORIENTATIONS)
def test_the_lung_region_is_the_same_in_the_world_for_any_axis_order(chest, lungs, axes, reverse):
    found = preprocessing.find_lungs(reordered(chest.volume, axes, reverse))

    np.testing.assert_array_equal(found, turned(lungs, axes, reverse))


def test_an_oblique_volume_gives_the_same_region(chest, lungs):
    angle = np.deg2rad(15)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = chest.volume.grid.affine.copy()
    middle = chest.volume.grid.index_to_lps(np.array(chest.volume.grid.shape) / 2)
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = middle - affine[:3, :3] @ (np.array(chest.volume.grid.shape) / 2)
    oblique = Grid(chest.volume.grid.shape, affine)
    ct = volume.resample(chest.volume.array, chest.volume.grid, oblique)

    found = preprocessing.find_lungs(Volume(ct, oblique, Source("oblique")))

    back = volume.resample(found.astype(np.uint8), oblique, chest.volume.grid, linear=False, fill=0)
    assert dice(back > 0, lungs) > 0.97


def test_padding_of_minus_2000_counts_as_air(chest, lungs):
    padded = chest.volume.array.copy()
    _, y, x = np.ogrid[[slice(0, n) for n in padded.shape]]
    radius = np.hypot(y - padded.shape[1] / 2, x - padded.shape[2] / 2) * COARSE_MM[1]
    padded[np.broadcast_to(radius > 160, padded.shape)] = -2000

    assert dice(preprocessing.find_lungs(replace(chest.volume, array=padded)), lungs) > 0.995


def test_lungs_cut_by_a_round_field_of_view_are_kept(chest, lungs):
    _, y, x = np.ogrid[[slice(0, n) for n in chest.volume.array.shape]]
    _, cy, cx = at(chest.volume, 0, -4, 0)
    outside = np.broadcast_to(np.hypot(y - cy, x - cx) * COARSE_MM[1] > 124, chest.volume.array.shape)

    found = preprocessing.find_lungs(
        replace(chest.volume, array=np.where(outside, np.int16(-2000), chest.volume.array))
    )

    assert (chest.volume.array[outside & lungs] < -700).sum() > 200  # the circle does cut lung
    assert found[lungs & ~outside].mean() > 0.97
    assert not found[outside].any()


def test_lungs_cut_by_the_sides_of_the_field_of_view_are_kept(chest, lungs):
    cut = (slice(None), slice(None), slice(at(chest.volume, -120, 0, 0)[2], at(chest.volume, 120, 0, 0)[2]))

    found = preprocessing.find_lungs(cropped(chest.volume, *cut))

    assert dice(found, lungs[cut]) > 0.95


@pytest.mark.parametrize("part", [slice(0, 26), slice(26, None), slice(17, 42)], ids=["lower", "upper", "middle"])
def test_a_part_of_the_chest_gives_the_same_region(chest, lungs, part):
    found = preprocessing.find_lungs(cropped(chest.volume, part, slice(None), slice(None)))

    assert dice(found, lungs[part]) > 0.95
    assert found[chest.labels[part] > 0].all()


def test_lungs_that_touch_are_told_apart(chest, lungs):
    bridge = ball(chest.volume, at(chest.volume, 2, -62, 140), 11)
    ct = chest.volume.array.copy()
    ct[bridge] = -850

    found = preprocessing.find_lungs(replace(chest.volume, array=ct))

    assert dice(found, lungs) > 0.97
    assert not found[at(chest.volume, 2, -15, 80)]
    assert not found[at(chest.volume, 0, 50, 140)]


def test_one_filled_lung_does_not_hide_the_other(chest, lungs):
    right = np.arange(lungs.shape[2]) < at(chest.volume, 0, 0, 0)[2]
    ct = np.where(lungs & right, np.int16(30), chest.volume.array)

    found = preprocessing.find_lungs(replace(chest.volume, array=ct))

    assert dice(found & ~right, lungs & ~right) > 0.99
    assert (found & right).sum() < 0.05 * (lungs & right).sum()


def test_a_partly_filled_lung_is_kept(chest, lungs):
    right = np.arange(lungs.shape[2]) < at(chest.volume, 0, 0, 0)[2]
    below = (np.arange(lungs.shape[0]) < at(chest.volume, 0, 0, 135)[0])[:, None, None]
    ct = np.where(lungs & right & below, np.int16(30), chest.volume.array)

    found = preprocessing.find_lungs(replace(chest.volume, array=ct))

    assert (found & right & ~below).sum() > 0.95 * (lungs & right & ~below).sum()


def test_a_mass_of_30_mm_at_the_pleura_is_inside():
    mass = phantom.make_phantom(seed=2, spacing_mm=COARSE_MM, nodules=(("juxta-pleural", 30.0),))

    assert preprocessing.find_lungs(mass.volume)[mass.labels > 0].all()


@pytest.mark.parametrize("hu", [0, -1000, -850], ids=["water", "air", "nothing but lung-like"])
def test_a_block_without_a_chest_has_no_lung(hu):
    with pytest.raises(InputError, match=r"no lung found in block\.nii: 0 ml .* expected at least 60 ml"):
        preprocessing.find_lungs(block(hu))


def test_a_single_slice_of_air_has_no_lung():
    with pytest.raises(InputError, match="no lung found"):
        preprocessing.find_lungs(block(-1000, shape=(1, 30, 30)))


def test_a_head_has_no_lung_although_it_holds_air():
    head = block(-1000, shape=(60, 100, 100))
    ct = head.array.copy()
    ct[ball(head, (30, 50, 50), 80)] = 40
    for center, radius, hu in (
        ((20, 25, 42), 14, -1000),
        ((20, 25, 58), 14, -1000),
        ((15, 60, 25), 11, -700),
        ((15, 60, 75), 11, -700),
    ):
        ct[ball(head, center, radius)] = hu

    with pytest.raises(InputError, match="no lung found"):
        preprocessing.find_lungs(replace(head, array=ct))


@pytest.mark.parametrize("case", ["lidc-idri-0001", "lidc-idri-0003", "lidc-idri-0063"])
def test_every_voxel_of_real_nodules_is_inside(data_dir, case):
    folder = data_dir / "ct" / case
    ct = reader.read_volume(folder / "dicom" if (folder / "dicom").is_dir() else folder / "ct.nii.gz")
    found = preprocessing.find_lungs(ct)
    nodules = json.loads((folder / "meta.json").read_text())["nodules"]
    masks = [label_map(folder / f"mask_reader{i}.nii.gz", ct.grid) for i in range(1, 5)]

    for nodule in nodules:
        agreed = sum((mask == nodule["label"]).astype(np.uint8) for mask in masks) * 2 >= nodule["readers"]
        assert found[agreed].all(), nodule["label"]
    assert found.mean() < 0.35


def label_map(path, grid):
    array, own = volume.from_sitk(sitk.ReadImage(str(path)))
    return volume.resample(array, own, grid, linear=False, fill=0)


@pytest.mark.parametrize(
    ("name", "liters", "cut_at"),
    [
        ("cptac-c3n-00247", (4.5, 6.0), ()),
        ("lungfcp-0001", (1.2, 1.8), (0,)),
        ("chest-9328-0117", (2.0, 2.7), (0, -1)),
    ],
)
def test_whole_and_partial_real_chests_give_two_lungs(data_dir, name, liters, cut_at):
    ct = reader.read_volume(data_dir / "background" / f"{name}.nii.gz")

    found = preprocessing.find_lungs(ct)

    assert liters[0] < found.sum() * ct.grid.voxel_volume_mm3 / 1e6 < liters[1]
    labels, _ = ndimage.label(found)
    sizes = np.sort(np.bincount(labels.ravel(), minlength=3)[1:])[::-1]
    assert sizes[:2].sum() > 0.98 * found.sum()
    assert sizes[1] > 0.3 * sizes[0]
    assert all(found[end].any() for end in cut_at)


def test_the_spacing_grid_holds_the_lungs_and_the_margin(chest, lungs):
    grid = preprocessing.working_grid(chest.volume, lungs, GridSpec("spacing", (1.0, 1.5, 2.0)), 8.0)

    assert grid.spacing_mm == (1.0, 1.5, 2.0)
    index = grid.lps_to_index(chest.volume.grid.index_to_lps(np.argwhere(lungs)))
    margin = np.array([8.0, 8.0, 8.0]) / grid.spacing_mm
    assert (index.min(axis=0) >= margin - 1e-6).all()
    assert (index.max(axis=0) <= np.array(grid.shape) - 1 - margin + 1e-6).all()
    assert (index.min(axis=0) <= margin + 1 + 1e-6).all()


@pytest.mark.parametrize(("axes", "reverse"), ORIENTATIONS)
def test_the_spacing_grid_does_not_depend_on_the_axis_order(chest, lungs, axes, reverse):
    spec = GridSpec("spacing", (1.0, 1.0, 1.0))
    first = preprocessing.working_grid(chest.volume, lungs, spec)

    again = preprocessing.working_grid(reordered(chest.volume, axes, reverse), turned(lungs, axes, reverse), spec)

    assert again.shape == first.shape
    np.testing.assert_array_equal(again.affine, first.affine)


def test_the_field_of_view_grid_keeps_slices_and_field(chest, lungs):
    ct = block(0, shape=(7, 512, 512))

    grid = preprocessing.working_grid(ct, np.ones(ct.grid.shape, bool), GridSpec("fov", size=256))

    assert grid.shape == (7, 256, 256)
    extents_mm = [np.multiply(each.shape, each.spacing_mm) for each in (grid, ct.grid)]
    np.testing.assert_allclose(*extents_mm)
    np.testing.assert_allclose(grid.index_to_lps([2, 0, 0]), ct.grid.index_to_lps([2, 0.5, 0.5]))


def test_the_field_of_view_grid_has_square_pixels_for_a_slice_that_is_not_square():
    ct = block(0, shape=(4, 60, 100))

    grid = preprocessing.working_grid(ct, np.ones(ct.grid.shape, bool), GridSpec("fov", size=50))

    assert grid.spacing_mm == pytest.approx((3.0, 4.0, 4.0))
    np.testing.assert_allclose(grid.index_to_lps([0, 24.5, 24.5]), ct.grid.index_to_lps([0, 29.5, 49.5]))


def test_halving_the_field_of_view_is_the_mean_of_four_pixels():
    """Register L10."""
    ct = block(0, shape=(5, 24, 24))
    ct = replace(ct, array=np.random.default_rng(0).integers(-1000, 1000, ct.array.shape).astype(np.int16))
    grid = preprocessing.working_grid(ct, np.ones(ct.grid.shape, bool), GridSpec("fov", size=12))

    found = preprocessing.onto_grid(ct, grid, slab=2)

    assert found.dtype == np.float32
    np.testing.assert_allclose(found, ct.array.reshape(5, 12, 2, 12, 2).mean(axis=(2, 4)), atol=0.05)


def test_a_thin_slice_scan_is_averaged_along_z_also_when_its_axes_are_turned():
    """Register L10."""
    ct = block(0, shape=(24, 12, 12))
    ct = replace(ct, array=np.random.default_rng(0).integers(-1000, 1000, ct.array.shape).astype(np.int16))
    grid = Grid.aligned((12, 12, 12), (6.0, 2.0, 2.0), (0.0, 0.0, 1.5))
    expected = ct.array.reshape(12, 2, 12, 12).mean(axis=1)

    np.testing.assert_allclose(preprocessing.onto_grid(ct, grid), expected, atol=0.05)
    np.testing.assert_allclose(preprocessing.onto_grid(reordered(ct, (2, 0, 1), (1, 0, 1)), grid), expected, atol=0.05)


def test_onto_a_finer_grid_interpolates_linearly_and_fills_outside():
    ct = block(0, shape=(4, 4, 10))
    ct = replace(ct, array=ct.array + (100 * np.arange(10, dtype=np.int16)))
    grid = Grid.aligned((2, 2, 4), (3.0, 2.0, 1.0), (4.5, 0.0, 0.0))
    beyond = Grid.aligned((1, 1, 1), (3.0, 2.0, 2.0), (100.0, 0.0, 0.0))

    np.testing.assert_allclose(preprocessing.onto_grid(ct, grid)[0, 0], [225, 275, 325, 375], atol=0.01)
    assert preprocessing.onto_grid(ct, beyond, fill=-777.0).item() == -777.0


sizes = st.tuples(*[st.integers(1, 40)] * 3)


@settings(max_examples=60, deadline=None)
@given(
    shape=sizes,
    core=st.tuples(*[st.integers(4, 50)] * 3),
    halo=st.tuples(*[st.integers(0, 9)] * 3),
    multiple=st.integers(1, 8),
)
def test_tiles_cover_every_voxel_once_and_see_the_halo(shape, core, halo, multiple):
    covered = np.zeros(shape, np.uint8)
    for tile in preprocessing.tiles(shape, core, halo, multiple):
        covered[tile.target] += 1
        for axis, (outer, inner, target) in enumerate(zip(tile.outer, tile.inner, tile.target, strict=True)):
            assert (outer.start + inner.start, outer.start + inner.stop) == (target.start, target.stop)
            assert outer.start <= max(target.start - halo[axis], 0)
            assert outer.stop >= min(target.stop + halo[axis], shape[axis])
            assert outer.start % multiple == 0
            assert outer.stop % multiple == 0 or outer.stop == shape[axis]
            assert target.stop - target.start <= core[axis]
    assert (covered == 1).all()


def test_tiles_come_in_reading_order():
    starts = [tuple(s.start for s in tile.target) for tile in preprocessing.tiles((9, 9, 9), (4, 9, 5), (1, 1, 1))]

    assert all(a < b for a, b in pairwise(starts))


def test_filtering_by_tiles_equals_filtering_the_whole():
    signal = np.random.default_rng(0).random((23, 31, 29))
    whole = ndimage.maximum_filter(signal, (5, 7, 3))
    tiled = np.empty_like(whole)

    for tile in preprocessing.tiles(signal.shape, (8, 8, 8), (2, 3, 1), 4):
        tiled[tile.target] = ndimage.maximum_filter(signal[tile.outer], (5, 7, 3))[tile.inner]

    np.testing.assert_array_equal(tiled, whole)
