import inspect

import numpy as np
import phantom_table
import pytest
from LNHGLib.phantom import anatomy, canvas, trees
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
    body = chest.volume.array[34:48, 70:100, 165:195].astype(float)  # the heart
    residual = body - ndimage.uniform_filter(body, (1, 9, 9))

    across = np.corrcoef(residual[:-1].ravel(), residual[1:].ravel())[0, 1]
    within = np.corrcoef(residual[:, :, :-1].ravel(), residual[:, :, 1:].ravel())[0, 1]

    assert within > across + 0.2
    assert hu.std() > 5


def test_find_lungs_finds_two_lungs_that_hold_every_nodule(chest):
    lungs = preprocessing.find_lungs(chest.volume)

    assert lungs[chest.labels > 0].all()
    assert 4.5 < lungs.sum() * chest.volume.grid.voxel_volume_mm3 / 1e6 < 7.5
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
    sources = [inspect.getsource(module) for module in (phantom, canvas, anatomy, trees)]

    assert sum(map(len, sources)) < 36_000


# Beside real scans --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo():
    """The chest that the demo and Slicer's Sample Data show."""
    return phantom.make_phantom()


@pytest.fixture(scope="module")
def measured():
    return phantom_table.measure_volume(phantom.make_phantom(nodules=()).volume)


@pytest.mark.slow
def test_vessels_densities_and_noise_lie_within_the_range_of_seven_real_scans(measured):
    ranges = phantom_table.read_ranges()

    assert list(measured) == list(ranges)
    outside = {name: (value, ranges[name]) for name, value in measured.items() if not within(value, ranges[name])}
    assert not outside


def within(value, ends):
    return ends[0] <= value <= ends[1]


def test_the_page_shows_the_values_as_measured(measured):
    page = phantom_table.PAGE.read_text()

    assert phantom_table.with_table(page, measured, phantom_table.read_ranges()) == page
    assert (
        phantom_table.with_table(page, measured | {"branch points per liter": 3.0}, phantom_table.read_ranges()) != page
    )


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_the_ranges_are_those_of_the_seven_scans(data_dir):
    found = phantom_table.measure_scans(data_dir / "scans" / "lidc_scans.h5")

    for name, ends in phantom_table.read_ranges().items():
        assert found[name] == pytest.approx(ends, rel=1e-3), name


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_the_bundled_generator_sees_as_many_candidates_as_on_real_scans(demo):
    import torch
    from LNHGLib.image.volume import canonical
    from LNHGLib.models import folder
    from LNHGLib.segmentation import components, pipeline
    from LNHGLib.segmentation.progress import Monitor

    model, monitor = folder.load("lnhg-1mm"), Monitor(None, None)
    scan = pipeline.prepare_scan(canonical(demo.volume), model.spec, monitor)
    _, image = pipeline.predict_nodule_image(scan, model, torch.device("cpu"), monitor)
    labels = components.components(image > 0.05, model.spec.fusion.connectivity)
    voxels = np.bincount(labels.ravel())[1:]
    in_lungs = np.bincount(labels.ravel(), scan.lungs.ravel())[1:]

    candidates = ((voxels >= 14) & (in_lungs >= voxels / 3)).sum()

    assert 8 <= candidates <= 91  # on 15 real scans


def test_arteries_taper_without_a_gap_from_the_hilum_to_the_pleura(chest):
    drawn = canvas.Canvas(3, COARSE_MM)
    shapes = anatomy.Chest(drawn)
    for tree in anatomy.draw_lungs(drawn, shapes):
        points, directions, radii = tree.center_lines()
        steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
        ends = np.flatnonzero(~np.isin(np.arange(len(tree.points)), tree.parents))

        assert (tree.radii[1:] <= tree.radii[tree.parents[1:]] + 1e-9).all(), "no child is thicker than its parent"
        assert np.median(steps) < trees.SAMPLE_MM
        np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, atol=1e-3)
        assert tree.radii[1:][tree.parents[1:] == 0].min() > 3 * np.median(tree.radii[ends])
        assert radii.min() > 0.3
        assert np.percentile(shapes.depth(drawn, tree.points[ends]), 10) < 10, "some end close to the pleura"


def test_children_share_the_flow_of_their_parent_by_murrays_law():
    reached = np.random.default_rng(0).uniform((30, -30, -30), (90, 30, 30), (200, 3))
    tree = trees.Tree(np.random.default_rng(0), np.zeros(3), np.array([1.0, 0, 0]), [reached], 0.5)
    for parent in np.unique(tree.parents[2:]):
        children = np.flatnonzero(tree.parents == parent)
        children = children[children > 0]
        flow = (tree.radii[children] ** trees.MURRAY_EXPONENT).sum()
        if tree.radii[parent] < trees.MAX_RADIUS_MM:
            assert tree.radii[parent] ** trees.MURRAY_EXPONENT == pytest.approx(flow)


def test_airways_are_dark_with_a_brighter_wall_beside_their_arteries():
    drawn = canvas.Canvas(0, (1.0, 1.0, 1.0))
    drawn.hu[:] = -860
    line = np.column_stack([np.linspace(40, 100, 90), np.zeros(90), np.full(90, 120.0)])
    straight = (line, np.tile([1.0, 0, 0], (90, 1)), np.full(90, 2.5))
    points, lumen = trees.beside(straight, np.array([0.0, 0.0, -1.0]), anatomy.AIRWAY_SCALE, anatomy.AIRWAY_WALL_MM)

    np.testing.assert_allclose(points[:, 2], 120 - 2.5 - lumen - anatomy.AIRWAY_WALL_MM)
    wall = trees.tube_fraction(drawn, points, lumen + anatomy.AIRWAY_WALL_MM) - trees.tube_fraction(
        drawn, points, lumen
    )
    middle = tuple(np.round(points[45][::-1] - drawn.corner_mm).astype(int))
    assert wall[middle] < 0.2 < wall[middle[0] - 2 : middle[0] + 3, middle[1], middle[2]].max()


def test_a_vessel_thinner_than_a_voxel_is_fainter_by_its_area():
    drawn = canvas.Canvas(0, (1.0, 1.0, 1.0))
    line = np.column_stack([np.linspace(40, 100, 120), np.zeros(120), np.full(120, 120.0)])
    thin, thinner = (trees.tube_fraction(drawn, line, np.full(120, radius)).sum() for radius in (0.5, 0.25))

    assert thinner / thin == pytest.approx(0.25, rel=0.05)


def test_a_nodule_that_is_said_to_lie_free_touches_nothing(chest):
    free = [nodule for nodule in chest.nodules if nodule["kind"] not in phantom.NEIGHBOR_FRACTION]
    for nodule in free:
        own = chest.labels == nodule["label"]
        around = ndimage.binary_dilation(own, iterations=3) & ~ndimage.binary_dilation(own, iterations=2)
        assert (chest.volume.array[around] > -500).mean() < 0.05, nodule


def test_great_vessels_end_as_thin_as_the_trees_that_go_on():
    roots = [*anatomy.HILA.values(), *(root for roots in anatomy.VEINS.values() for root in roots)]
    for root in roots:
        nearest = min(anatomy.GREAT_VESSELS, key=lambda vessel: np.linalg.norm(np.subtract(vessel[1], root)))
        assert np.linalg.norm(np.subtract(nearest[1], root)) < 3
        assert nearest[3] == trees.MAX_RADIUS_MM
