"""Sides told from anatomy, in every orientation of the CT: touching lungs, one lung, turned and mirrored patients."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from LNHGLib.image.reader import read_volume
from LNHGLib.image.volume import Grid, Source, Volume, canonical, from_sitk
from LNHGLib.measurement.sides import Sides, side_of_plane
from LNHGLib.phantom.chest import make_phantom
from LNHGLib.segmentation.preprocessing import find_chest

UPRIGHT = Grid.aligned((50, 65, 90), (5, 4, 4), (-140, -130, 100))
ORDERS = list(itertools.product(itertools.permutations(range(3)), itertools.product((False, True), repeat=3)))[::7]
SIDES = ("left", "right")


def lungs(touching: bool = False) -> np.ndarray:
    """Two ellipses around x = -30 and x = 110, the patient's middle being at 40."""
    points = UPRIGHT.index_to_lps(np.moveaxis(np.indices(UPRIGHT.shape), 0, -1))
    x, y, _ = np.moveaxis(points, -1, 0)
    mask = np.zeros(UPRIGHT.shape, bool)
    for middle in (-30, 110):
        mask |= ((x - middle) / 50) ** 2 + (y / 70) ** 2 <= 1
    return mask | ((np.abs(x - 40) < 60) & (np.abs(y) < 5)) if touching else mask


def reordered(mask: np.ndarray, order, flips) -> tuple[np.ndarray, Grid]:
    """The same mask with its axes in another order and direction."""
    steps, start = np.eye(4), np.zeros(3)
    for axis, flip in enumerate(flips):
        if flip:
            steps[axis, axis], start[axis] = -1, mask.shape[axis] - 1
    steps[:3, 3] = start
    shuffle = np.eye(4)
    shuffle[:3, :3] = np.eye(3)[list(order)].T
    array = mask[tuple(slice(None, None, -1 if flip else 1) for flip in flips)].transpose(order)
    return array, Grid(array.shape, UPRIGHT.affine @ steps @ shuffle)


@pytest.mark.parametrize(("order", "flips"), ORDERS)
@pytest.mark.parametrize("touching", [False, True])
def test_side_is_the_patients_whatever_the_order_of_the_voxels(order, flips, touching):
    sides = Sides.of(*reordered(lungs(touching), order, flips))
    assert sides.side((10, 0, 200)) == "right"  # left of the scanner's middle, right of the patient's
    assert sides.side((75, 0, 200)) == "left"
    assert sides.side((150, 40, 120)) == "left"
    assert sides.midline_mm == pytest.approx(40, abs=6)


def test_one_lung_without_a_spine_has_no_side():
    one = np.zeros(UPRIGHT.shape, bool)
    one[5:45, 10:50, 20:70] = True
    assert Sides.of(one, UPRIGHT) is None


def test_two_lobes_of_one_lung_are_not_taken_for_two_lungs():
    lobes = np.zeros(UPRIGHT.shape, bool)
    lobes[5:22, 10:50, 60:85] = lobes[28:45, 10:50, 55:80] = True
    assert Sides.of(lobes, UPRIGHT) is None


def test_a_point_too_near_to_the_plane_has_no_side():
    plane = {"left_lps": [0.0, -1.0, 0.0], "midline_mm": 5.0}
    assert [side_of_plane(plane, (50, y, 0)) for y in (-30, -6, 30)] == ["left", None, "right"]
    assert [side_of_plane({"midline_x_lps_mm": 5.0}, (x, 9, 9)) for x in (30, 6, -30)] == ["left", None, "right"]
    assert side_of_plane({}, (1, 2, 3)) is None


class Patient:
    """A CT on voxels of about 2.5 mm, with its two lungs."""

    def __init__(self, volume: Volume) -> None:
        upright = canonical(volume)
        steps = [max(1, int(2.5 / spacing)) for spacing in upright.grid.spacing_mm]
        array = np.ascontiguousarray(upright.array[tuple(slice(None, None, step) for step in steps)])
        grid = Grid(array.shape, upright.grid.affine @ np.diag([*steps, 1]))
        self.volume = Volume(array, grid, volume.source)
        lungs, spine = find_chest(self.volume)
        points = np.argwhere(lungs)
        sides = Sides.of(lungs, grid, spine)
        of_each = np.array([side == "left" for side in map(sides.side, grid.index_to_lps(points[::997]))])
        self.spine = round(float(grid.lps_to_index(spine.point_lps_mm)[2]))
        self.points = dict(zip(SIDES, (points[::997][of_each], points[::997][~of_each]), strict=True))
        middle = grid.lps_to_index(np.array([sides.midline_mm, 0, 0]))[2]
        columns = np.indices(lungs.shape, sparse=True)[2]
        self.lungs = {"left": lungs & (columns > middle), "right": lungs & (columns <= middle)}

    def without(self, side: str, hu: float = 40) -> Volume:
        """The lung of a side full of fluid, or of air as outside."""
        array = self.volume.array.copy()
        array[self.lungs[side]] = hu
        return replace(self.volume, array=array)


def told(volume: Volume, indices: np.ndarray) -> set:
    """What is said of points."""
    lungs, spine = find_chest(volume)
    sides = Sides.of(lungs, volume.grid, spine)
    return {None} if sides is None else {sides.side(point) for point in volume.grid.index_to_lps(indices)}


def turned(patient: Patient, volume: Volume, side: str, quarters: int) -> tuple[Volume, np.ndarray]:
    """The patient turned about the long axis while the file says nothing of it, and the points of a lung."""
    array = np.ascontiguousarray(np.rot90(volume.array, quarters, (1, 2)))
    marked = np.zeros(volume.array.shape, bool)
    marked[tuple(patient.points[side].T)] = True
    points = np.argwhere(np.rot90(marked, quarters, (1, 2)))
    return Volume(array, Grid(array.shape, volume.grid.affine), volume.source), points


@pytest.fixture(scope="module")
def phantom() -> Patient:
    return Patient(make_phantom().volume)


@pytest.fixture(scope="module", params=["lidc-idri-0001", "lidc-idri-0003", "lidc-idri-0063"])
def real(request, data_dir) -> Patient:
    folder = data_dir / "ct" / request.param
    if (folder / "ct.nii.gz").exists():
        array, grid = from_sitk(sitk.ReadImage(str(folder / "ct.nii.gz")))
        return Patient(Volume(array, grid, Source(request.param)))
    return Patient(read_volume(folder / "dicom"))


def check_one_lung(patient: Patient) -> None:
    for gone, kept in (SIDES, SIDES[::-1]):
        assert told(patient.without(gone), patient.points[kept]) == {kept}, f"{gone} full of fluid"
        assert told(patient.without(gone, -1000), patient.points[kept]) <= {kept, None}, f"{gone} full of air"


def check_view_ends(patient: Patient) -> None:
    """The view ends in the spine, or 40 mm beyond it."""
    beyond = int(40 / patient.volume.grid.spacing_mm[2])
    for gone, kept in (SIDES, SIDES[::-1]):
        for further in (0, beyond):
            end = patient.spine + (further if gone == "left" else -further)
            part = slice(0, end) if gone == "left" else slice(end, None)
            array = np.ascontiguousarray(patient.volume.array[:, :, part])
            affine = patient.volume.grid.affine.copy()
            affine[:3, 3] = patient.volume.grid.index_to_lps([0, 0, part.start or 0])
            points = patient.points[kept] - [0, 0, part.start or 0]
            points = points[(points[:, 2] >= 0) & (points[:, 2] < array.shape[2])]
            assert told(Volume(array, Grid(array.shape, affine), Source("part")), points) <= {kept, None}


def check_turned(patient: Patient) -> None:
    for quarters, side in itertools.product((1, 3), SIDES):
        assert told(*turned(patient, patient.volume, side, quarters)) == {side}, f"{90 * quarters} degrees"
        other = SIDES[side == "left"]
        assert told(*turned(patient, patient.without(other), side, quarters)) == {side}, f"{other} full of fluid"


def test_the_phantoms_sides_are_right_with_one_lung_in_part_of_the_view_and_turned(phantom):
    check_one_lung(phantom)
    check_view_ends(phantom)
    check_turned(phantom)
    assert told(*turned(phantom, phantom.volume, "left", 2)) == {None}, "its heart does not tell it from a mirror image"


@pytest.mark.slow
def test_a_real_lung_alone_is_told_its_side(real):
    check_one_lung(real)
    check_view_ends(real)


@pytest.mark.slow
def test_a_real_patient_may_lie_on_any_side(real):
    check_turned(real)
    for side in SIDES:
        assert told(*turned(real, real.volume, side, 2)) == {side}, "prone"


def test_a_mirrored_patient_has_no_sides(phantom):
    mirrored = replace(phantom.volume, array=np.ascontiguousarray(phantom.volume.array[:, ::-1]))
    assert told(mirrored, phantom.points["left"]) == {None}


def test_every_nodule_of_the_phantom_is_told_the_side_of_its_lung(phantom):
    made = make_phantom()
    lungs, spine = find_chest(made.volume)
    sides = Sides.of(lungs, made.volume.grid, spine)
    middle = made.volume.grid.index_to_lps((np.array(made.volume.grid.shape) - 1) / 2)[0]
    for nodule in made.nodules:
        assert sides.side(nodule["center_lps_mm"]) == ("left" if nodule["center_lps_mm"][0] > middle else "right")
