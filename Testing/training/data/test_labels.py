"""Labels lie where the sources say; each test names the fault of other programs that it would find."""

import numpy as np
import pytest
import scan_trees
from LNHGLib.errors import InputError
from LNHGLib.image.volume import Grid, Source, Volume, canonical, write_image
from LNHGTrainingLib.prepare import ct_mask_pairs
from LNHGTrainingLib.prepare.cubes import MIDDLE, Scan, ScanNodule, ball_box, nodule_sample
from LNHGTrainingLib.prepare.lidc_xml import Roi
from LNHGTrainingLib.prepare.luna16 import slice_at
from LNHGTrainingLib.prepare.sources import PrepareOptions

FLIPPED, OBLIQUE = np.diag([-1.0, -1.0, 1.0]), np.array([[0.8, 0.6, 0.0], [-0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])


def grid_along(axes: np.ndarray, shape=(24, 64, 64), spacing_mm=(2.5, 0.7, 0.9)) -> Grid:
    """A grid whose x, y and z run along the columns of `axes`, with its middle at (30, -40, -300) LPS mm."""
    affine = np.eye(4)
    affine[:3, :3] = axes[:, ::-1] * spacing_mm
    affine[:3, 3] = np.array([30.0, -40.0, -300.0]) - affine[:3, :3] @ (np.array(shape) / 2)
    return Grid(shape, affine)


@pytest.mark.parametrize("diameter_mm", [6.0, 12.0])
def test_a_listed_diameter_makes_a_ball_of_half_of_it(diameter_mm):
    """Register M1, N6: twice the diameter as radius makes 64 times the volume, the diameter 8 times."""
    _, mask = ball_box(Grid.aligned((50, 90, 90), (1.0, 0.5, 0.5), (0.0, 0.0, 0.0)), np.full(3, 22.0), diameter_mm)
    assert mask.sum() * 0.25 == pytest.approx(np.pi / 6 * diameter_mm**3, rel=0.1)
    assert not mask[:, 0, 0].any()  # a ball, no square


@pytest.mark.parametrize("axes", [np.eye(3), FLIPPED, OBLIQUE], ids=["straight", "flipped", "oblique"])
def test_a_cube_lies_around_its_nodule_at_1_mm_however_the_scan_lies(axes):
    """Register T15, M9: absolute values of positions are right for the straight scan at most."""
    grid, point = grid_along(axes), np.array([36.0, -47.0, -296.0])
    box, mask = ball_box(grid, point, 12.0)
    hu = np.full(grid.shape, -850, np.int16)
    hu[box][mask] = 40
    volume = Volume(hu, grid, Source("scan"))
    cube = nodule_sample(Scan(volume, "P", "1.2", []), ScanNodule("000", box, mask.astype(np.uint8), 1, 1, "sphere"))
    np.testing.assert_allclose([cube.row[f"centre_{axis}"] for axis in "xyz"], point, atol=1.0)
    inside = np.argwhere(cube.hu > -400)
    np.testing.assert_allclose(inside.mean(0), MIDDLE, atol=0.7)
    np.testing.assert_allclose(np.ptp(inside, axis=0) + 1, 12, atol=2)


def test_an_outline_lies_on_the_slice_nearest_to_its_position():
    """Register T8: the original counts slices from 1, in either direction, and cuts positions down."""
    grid = canonical(Volume(np.zeros((24, 64, 64), np.int16), grid_along(np.diag([1.0, 1.0, -1.0])), Source("s"))).grid
    z_mm = float(grid.index_to_lps(np.array([7, 0, 0]))[2])
    assert [slice_at(grid, "a.xml", roi_at(z_mm + shift)) for shift in (-0.4, 0.0, 0.4, 2.5)] == [7, 7, 7, 8]
    for wrong in (z_mm + 1.2, z_mm + 100):
        with pytest.raises(InputError, match="where the scan has no slice"):
            slice_at(grid, "a.xml", roi_at(wrong))


def roi_at(z_mm: float) -> Roi:
    return Roi("1.2.3", z_mm, True, np.zeros((4, 2), int))


def test_images_and_masks_are_joined_by_name(tmp_path):
    """Register T9, N5: in the order of both folders, each CT but one would get the mask of another."""
    marked = {"b": 8, "case10": 12, "case9": 16}
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name in ("a", *marked):
        write_image(scan_trees.chest([]), scan_trees.GRID, tmp_path / "images" / f"{name}.nii.gz")
    for name, z in marked.items():
        mask = scan_trees.nodule_mask((z, 30, 32), 5)
        write_image(mask.astype(np.uint8), scan_trees.GRID, tmp_path / "masks" / f"{name}.mha")
    found = ct_mask_pairs.find(tmp_path, PrepareOptions())
    middles = {one.name: [(c.row["z_first"] + c.row["z_last"]) / 2 for c in one.read().cubes] for one in found.subjects}
    assert middles == {name: [z] for name, z in marked.items()}
    assert list(found.left_out) == ["a"]
