"""Geometry, files and checks of CT volumes."""

import gzip
import itertools
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from LNHGLib.errors import InputError
from LNHGLib.image import single_file
from LNHGLib.image.reader import read_volume
from LNHGLib.image.volume import Grid, Source, Volume, canonical, from_sitk, resample, to_sitk, write_image

SUFFIXES = [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"]
AXIS_ORDERS = [
    (order, flips) for order in itertools.permutations(range(3)) for flips in itertools.product((False, True), repeat=3)
]
SHAPE = (10, 12, 14)


def a_chest(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Return HU: air in the front half, soft tissue in the back half, every voxel its own noise."""
    noise = np.random.default_rng(3).integers(-100, 100, shape)
    return (np.where(np.arange(shape[1])[:, None] < shape[1] // 2, -850, 40) + noise).astype(np.int16)


def rotation(x: float, y: float, z: float) -> np.ndarray:
    """Return the rotation by Euler angles in degrees about the LPS axes."""
    transform = sitk.Euler3DTransform()
    transform.SetRotation(*np.radians([x, y, z]))
    return np.reshape(transform.GetMatrix(), (3, 3))


def turned(grid: Grid, angles_deg: tuple[float, float, float]) -> Grid:
    """Return the grid turned about the world's origin."""
    affine = np.eye(4)
    affine[:3, :3] = rotation(*angles_deg)
    return Grid(grid.shape, affine @ grid.affine)


def a_grid(angles_deg: tuple[float, float, float] = (0, 0, 0)) -> Grid:
    """Return an anisotropic grid off the origin, oblique when angles are given."""
    return turned(Grid.aligned(SHAPE, (2.5, 0.7, 0.9), (-40.0, 25.0, -310.0)), angles_deg)


def reordered(volume: Volume, order: tuple[int, ...], flips: tuple[bool, ...]) -> Volume:
    """Store the same scan with its axes permuted and flipped, by moving every voxel with its own position."""
    positions = volume.grid.index_to_lps(np.moveaxis(np.indices(volume.grid.shape), 0, -1))
    step = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    array = volume.array.transpose(order)[step]
    positions = positions.transpose(*order, 3)[step]
    affine = np.eye(4)
    affine[:3, 3] = positions[0, 0, 0]
    for axis, neighbor in enumerate(np.eye(3, dtype=int)):
        affine[:3, axis] = positions[tuple(neighbor)] - positions[0, 0, 0]
    return Volume(np.ascontiguousarray(array), Grid(array.shape, affine), volume.source)


def the_error(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path)
    message = str(caught.value)
    assert message.startswith(str(path)), "the sentence names what is wrong"
    assert "expected" in message
    assert ";" in message, "the sentence ends with what to do"
    assert message.endswith(".")
    assert "\n" not in message
    return message


def a_file(folder: Path, array: np.ndarray, suffix: str = ".nrrd", grid: Grid | None = None) -> Path:
    write_image(array, grid or Grid.aligned(array.shape, (2, 1, 1), (0, 0, 0)), folder / f"ct{suffix}")
    return folder / f"ct{suffix}"


def test_grid_maps_indices_to_the_world_and_back():
    grid = Grid.aligned(SHAPE, (2.5, 0.7, 0.9), (-40, 25, -310))
    np.testing.assert_allclose(grid.index_to_lps((2, 1, 3)), (-40 + 2.7, 25 + 0.7, -310 + 5))
    assert grid.spacing_mm == pytest.approx((2.5, 0.7, 0.9))
    assert grid.voxel_volume_mm3 == pytest.approx(2.5 * 0.7 * 0.9)
    oblique = a_grid((10, -25, 40))
    points = np.random.default_rng(0).uniform(-5, 15, (4, 5, 3))
    np.testing.assert_allclose(oblique.lps_to_index(oblique.index_to_lps(points)), points, atol=1e-9)
    assert oblique.voxel_volume_mm3 == pytest.approx(grid.voxel_volume_mm3)
    assert oblique.spacing_mm == pytest.approx(grid.spacing_mm)


def test_grid_agrees_with_itk_on_every_position():
    image = to_sitk(a_chest(), a_grid((10, -25, 40)))
    for z, y, x in [(0, 0, 0), (9, 0, 3), (1, 11, 13)]:
        there = image.TransformIndexToPhysicalPoint((x, y, z))
        np.testing.assert_allclose(a_grid((10, -25, 40)).index_to_lps((z, y, x)), there, atol=1e-9)
        assert image[x, y, z] == a_chest()[z, y, x]
    array, grid = from_sitk(image)
    np.testing.assert_array_equal(array, a_chest())
    np.testing.assert_allclose(grid.affine, a_grid((10, -25, 40)).affine, atol=1e-9)


def test_grids_match_only_when_their_voxels_lie_together():
    grid = a_grid((5, 0, 0))
    assert grid.matches(Grid(grid.shape, grid.affine + 1e-7))
    assert not grid.matches(a_grid((5, 0, 0.5)))
    assert not grid.matches(Grid((10, 12, 15), grid.affine))
    shifted = grid.affine.copy()
    shifted[0, 3] += 0.02
    assert not grid.matches(Grid(grid.shape, shifted))


def test_a_grid_cannot_be_changed_or_degenerate():
    grid = a_grid()
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 2
    with pytest.raises(ValueError, match="invertible"):
        Grid(SHAPE, np.zeros((4, 4)))
    with pytest.raises(ValueError, match="differs from grid shape"):
        Volume(a_chest()[1:], grid, Source("memory"))


@pytest.mark.parametrize(("order", "flips"), AXIS_ORDERS)
def test_canonical_is_lossless_for_every_axis_order(order, flips):
    reference = Volume(a_chest(), a_grid(), Source("memory"))
    stored = reordered(reference, order, flips)
    volume = canonical(stored)
    np.testing.assert_array_equal(volume.array, reference.array)
    np.testing.assert_allclose(volume.grid.affine, reference.grid.affine, atol=1e-9)
    assert volume.array.flags.c_contiguous


@pytest.mark.parametrize("angles_deg", [(20, -15, 30), (0, 0, 45), (-40, 10, 5)])
@pytest.mark.parametrize(("order", "flips"), AXIS_ORDERS[::7])
def test_canonical_of_an_oblique_scan_does_not_depend_on_its_axis_order(angles_deg, order, flips):
    reference = Volume(a_chest(), a_grid(angles_deg), Source("memory"))
    volume = canonical(reordered(reference, order, flips))
    again = canonical(reference)
    np.testing.assert_array_equal(volume.array, again.array)
    np.testing.assert_allclose(volume.grid.affine, again.grid.affine, atol=1e-9)
    assert (np.diag(volume.grid.affine[:3, :3][::-1]) > 0).all(), "z to the head, y to the back, x to the left"
    index = np.argwhere(volume.array == volume.array.max())[0]
    there = reference.grid.lps_to_index(volume.grid.index_to_lps(index))
    assert reference.array[tuple(np.rint(there).astype(int))] == volume.array.max()


@pytest.mark.parametrize("angles_deg", [(0, 0, 0), (20, -15, 30), (90, 0, 7)])
def test_linear_resampling_keeps_values_at_their_world_points(angles_deg):
    oblique = turned(Grid.aligned((40, 50, 60), (1.6, 0.8, 0.7), (-20, -20, -30)), angles_deg)
    slope = np.array([3.0, -2.0, 5.0])
    field = (oblique.index_to_lps(np.moveaxis(np.indices(oblique.shape), 0, -1)) @ slope + 7).astype(np.float32)
    center = oblique.index_to_lps((19.5, 24.5, 29.5))
    target = Grid.aligned((9, 11, 13), (1.0, 1.5, 0.9), center - np.array([6 * 0.9, 5 * 1.5, 4 * 1.0]))
    moved = resample(field, oblique, target)
    expected = target.index_to_lps(np.moveaxis(np.indices(target.shape), 0, -1)) @ slope + 7
    assert moved.dtype == np.float32
    assert moved.shape == target.shape
    np.testing.assert_allclose(moved, expected, atol=1e-2)


@pytest.mark.parametrize(("order", "flips"), AXIS_ORDERS[::5])
def test_resampling_does_not_depend_on_the_axis_order(order, flips):
    reference = Volume(a_chest(), a_grid((5, 10, -15)), Source("memory"))
    stored = reordered(reference, order, flips)
    start = reference.grid.index_to_lps((2, 3, 4))
    target = Grid.aligned((8, 6, 7), (1, 1, 1), start)
    moved = resample(stored.array, stored.grid, target)
    np.testing.assert_allclose(moved, resample(reference.array, reference.grid, target), atol=1e-2)
    assert moved.std() > 50


def test_nearest_resampling_keeps_labels_and_their_dtype():
    labels = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.uint16)
    grid = a_grid((5, 10, -15))
    np.testing.assert_array_equal(resample(labels, grid, grid, linear=False, fill=0), labels)
    fine = Grid((20, 24, 28), grid.affine @ np.diag([0.5, 0.5, 0.5, 1]))
    moved = resample(labels, grid, fine, linear=False, fill=0)
    assert moved.dtype == np.uint16
    assert set(np.unique(moved)) <= set(np.unique(labels))
    mask = labels > 450
    back = resample(mask, grid, grid, linear=False, fill=0)
    assert back.dtype == bool
    np.testing.assert_array_equal(back, mask)


def test_outside_the_source_is_filled():
    grid = Grid.aligned(SHAPE, (1, 1, 1), (0, 0, 0))
    target = Grid.aligned((4, 4, 30), (1, 1, 1), (0, 0, 0))
    moved = resample(np.full(SHAPE, 30, np.int16), grid, target, fill=-1000)
    assert (moved[..., :14] == 30).all()
    assert (moved[..., 15:] == -1000).all()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("angles_deg", [(0, 0, 0), (20, -15, 30)])
def test_files_keep_voxels_and_the_whole_geometry(tmp_path, suffix, angles_deg):
    path = a_file(tmp_path, a_chest(), suffix, a_grid(angles_deg))
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, a_chest())
    assert volume.array.dtype == np.int16
    np.testing.assert_allclose(volume.grid.affine, a_grid(angles_deg).affine, atol=2e-4)
    assert volume.source.path == str(path)
    assert volume.source.notes == ()


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize(("order", "flips"), AXIS_ORDERS[::3])
def test_files_in_any_axis_order_give_the_same_volume(tmp_path, suffix, order, flips):
    reference = Volume(a_chest(), a_grid(), Source("memory"))
    stored = reordered(reference, order, flips)
    volume = canonical(read_volume(a_file(tmp_path, stored.array, suffix, stored.grid)))
    np.testing.assert_array_equal(volume.array, reference.array)
    np.testing.assert_allclose(volume.grid.affine, reference.grid.affine, atol=2e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, bool])
def test_results_are_written_in_their_own_type(tmp_path, dtype):
    values = np.random.default_rng(0).integers(0, 2, SHAPE).astype(dtype)
    array, grid = from_sitk(sitk.ReadImage(str(a_file(tmp_path, values, ".nii.gz", a_grid((3, 4, 5))))))
    assert array.dtype == (np.uint8 if dtype is bool else dtype)
    np.testing.assert_array_equal(array, values)
    assert grid.matches(a_grid((3, 4, 5)))


def test_a_twin_without_gz_is_not_read_instead(tmp_path):
    a_file(tmp_path, a_chest()[::-1], ".nii")
    np.testing.assert_array_equal(read_volume(a_file(tmp_path, a_chest(), ".nii.gz")).array, a_chest())


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_wider_types_hold_the_same_hu(tmp_path, dtype):
    volume = read_volume(a_file(tmp_path, a_chest().astype(dtype)))
    np.testing.assert_array_equal(volume.array, a_chest())
    assert volume.array.dtype == (np.int16 if dtype is np.int32 else np.float32)


def test_double_precision_is_not_kept_in_memory(tmp_path):
    image = single_file.read_image(a_file(tmp_path, a_chest().astype(np.float64)))
    assert image.GetPixelID() == sitk.sitkFloat32


def test_a_fourth_axis_of_length_one_is_no_obstacle(tmp_path):
    image = sitk.JoinSeries(to_sitk(a_chest(), a_grid((20, -15, 30))))
    sitk.WriteImage(image, tmp_path / "ct.nrrd")
    volume = read_volume(tmp_path / "ct.nrrd")
    np.testing.assert_array_equal(volume.array, a_chest())
    assert volume.grid.matches(a_grid((20, -15, 30)))


@pytest.mark.parametrize("padding", [-1200, -2000, -3024, -32768])
def test_padding_is_raised_to_air_and_said(tmp_path, padding):
    hu = a_chest()
    hu[:, :1] = padding
    volume = read_volume(a_file(tmp_path, hu))
    assert volume.array.min() == -1024
    np.testing.assert_array_equal(volume.array[:, 1:], hu[:, 1:])
    (note,) = volume.source.notes
    assert note == f"8.3% of the voxels were below -1024 HU (lowest {padding}, padding) and set to it."


def test_metal_is_accepted(tmp_path):
    hu = a_chest()
    hu[5, 9, 5] = 31743
    assert read_volume(a_file(tmp_path, hu)).array.max() == 31743


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (((a_chest() + 1000) / 5).clip(0, 255).astype(np.uint8), "as a picture or a mask does"),
        (((a_chest() + 1000) / 1200).clip(0, 1).astype(np.float32), "as a picture or a mask does"),
        ((a_chest() + 1024).astype(np.uint16), "as MR images and stored values without rescale do"),
        (np.where(a_chest() < -900, -2000, a_chest() + 1024), "0.0% of the voxels in the range of air"),
        (a_chest() - 1024, "in the range of soft tissue"),
        (np.full(SHAPE, -1000, np.int16), "the same everywhere"),
        (np.where(a_chest() < -940, np.nan, a_chest()).astype(np.float32), "not numbers"),
        (a_chest().astype(np.float32) * 1000, "more than a CT number can be (32767)"),
    ],
    ids=["picture", "0 to 1", "no rescale", "padded, no rescale", "rescaled twice", "constant", "NaN", "scaled"],
)  # fmt: skip
def test_values_that_are_no_hu_are_refused(tmp_path, array, words):
    array = array.astype(np.int16) if array.dtype == np.int64 else array
    message = the_error(a_file(tmp_path, array))
    assert words in message
    assert "HU (air about -1000, soft tissue about 40)" in message


def test_a_time_series_is_refused(tmp_path):
    image = sitk.JoinSeries([to_sitk(a_chest(), a_grid())] * 3)
    sitk.WriteImage(image, tmp_path / "ct.nii.gz")
    assert "is 4-D (size 14 x 12 x 10 x 3)" in the_error(tmp_path / "ct.nii.gz")


def test_a_color_volume_is_refused(tmp_path):
    channels = [to_sitk((a_chest() // 5).clip(0, 255).astype(np.uint8), a_grid())] * 3
    sitk.WriteImage(sitk.Compose(channels), tmp_path / "ct.nrrd")
    assert "has 3 values a voxel (color or vector image)" in the_error(tmp_path / "ct.nrrd")


def test_a_single_picture_is_refused(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(a_chest()[0]), tmp_path / "ct.nrrd")
    assert "is a single 14 x 12 picture" in the_error(tmp_path / "ct.nrrd")


def test_too_few_slices_are_refused(tmp_path):
    message = the_error(a_file(tmp_path, a_chest()[:9]))
    assert "has 9 slices (size 14 x 12 x 9), expected at least 10" in message


@pytest.mark.parametrize("spacing_mm", [(25.0, 1, 1), (2, 0.01, 0.01)])
def test_impossible_spacing_is_refused(tmp_path, spacing_mm):
    path = a_file(tmp_path, a_chest(), grid=Grid.aligned(SHAPE, spacing_mm, (0, 0, 0)))
    assert "expected 0.1 to 10 mm along each axis" in the_error(path)


def test_sheared_axes_are_refused(tmp_path):
    path = a_file(tmp_path, a_chest(), ".nii")
    data = bytearray(path.read_bytes())
    data[252:256] = np.array([0, 1], "<i2").tobytes()  # sform only
    data[288:292] = np.array([0.8], "<f4").tobytes()  # x depends on z, as under a tilted gantry
    path.write_bytes(data)
    assert "axes that are not perpendicular" in the_error(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("keep", [0.99, 0.4, 0.01])
def test_truncated_files_are_refused_and_nothing_else_is_printed(tmp_path, suffix, keep, capfd):
    path = a_file(tmp_path, a_chest((20, 24, 28)), suffix)
    data = next(tmp_path.glob("ct.*raw"), path)
    data.write_bytes(data.read_bytes()[: int(data.stat().st_size * keep)])
    assert f"expected a complete {suffix} file" in the_error(path)
    assert capfd.readouterr().err == ""


def test_a_gzip_file_in_several_members_is_whole(tmp_path):
    path = a_file(tmp_path, a_chest(), ".nii")
    data = path.read_bytes()
    path.unlink()
    (tmp_path / "ct.nii.gz").write_bytes(gzip.compress(data[:2000]) + gzip.compress(data[2000:]))
    np.testing.assert_array_equal(read_volume(tmp_path / "ct.nii.gz").array, a_chest())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_of_another_kind_under_a_known_suffix_are_refused(tmp_path, suffix):
    (tmp_path / f"ct{suffix}").write_text("this is a letter, not an image\n" * 40)
    assert "not what its suffix says" in the_error(tmp_path / f"ct{suffix}")


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "ct.nii.gz").touch()
    assert "is empty (0 bytes)" in the_error(tmp_path / "ct.nii.gz")


def test_a_path_that_is_not_there_is_refused(tmp_path):
    assert "does not exist" in the_error(tmp_path / "nowhere.nrrd")


def test_an_unknown_kind_of_file_is_refused(tmp_path):
    (tmp_path / "ct.txt").write_text("hello")
    assert "of an unknown kind, expected DICOM or one of .nii, .nii.gz, .nrrd" in the_error(tmp_path / "ct.txt")


@pytest.mark.parametrize("case", ["lidc-idri-0001", "lidc-idri-0003"])
def test_real_scans_are_read_as_they_are(data_dir, case):
    volume = read_volume(data_dir / "ct" / case / "ct.nii.gz")
    image = sitk.ReadImage(str(data_dir / "ct" / case / "ct.nii.gz"))
    np.testing.assert_array_equal(volume.array[::20], np.maximum(sitk.GetArrayViewFromImage(image)[::20], -1024))
    np.testing.assert_allclose(volume.grid.index_to_lps((3, 2, 1)), image.TransformIndexToPhysicalPoint((1, 2, 3)))


@pytest.mark.parametrize(
    "name", ["cptac-c3n-00247", "lungfcp-0001", "chest-9328-0117", "lungdx-a0001-s2"]
)  # fmt: skip
def test_background_scans_are_accepted_as_ct(data_dir, name):
    volume = read_volume(data_dir / "background" / f"{name}.nii.gz")
    assert -1024 <= volume.array.min() < -900
    assert volume.array.max() > 500
