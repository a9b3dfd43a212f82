"""Sides told from anatomy, in every orientation of the CT: touching lungs, one lung, turned and mirrored patients."""

import itertools

import numpy as np
import pytest
import SimpleITK as sitk
from LNHGLib.image.reader import read_volume
from LNHGLib.image.volume import Grid, Source, Volume, canonical, from_sitk
from LNHGLib.measurement.sides import Sides, side_of_plane
from LNHGLib.measurement.spine import find_spine
from LNHGLib.phantom.chest import make_phantom
from LNHGLib.segmentation import lungs as lung_search
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
    """A chest on voxels of about 2.5 mm: HU, both lungs, the body, and points of each lung."""

    def __init__(self, volume: Volume) -> None:
        upright = canonical(volume)
        steps = [max(1, int(2.5 / spacing)) for spacing in upright.grid.spacing_mm]
        self.hu = np.ascontiguousarray(upright.array[tuple(slice(None, None, step) for step in steps)])
        self.grid = Grid(self.hu.shape, upright.grid.affine @ np.diag([*steps, 1]))
        air, airway, self.body = lung_search.lung_air(self.hu, self.grid.spacing_mm)
        self.lungs = lung_search.lung_region(air, airway, self.body, self.grid.spacing_mm)
        sides, spine = sides_of(self.hu, self.lungs, self.body, self.grid)
        self.spine = round(float(self.grid.lps_to_index(spine.point_lps_mm)[2]))
        middle = self.grid.lps_to_index(np.array([sides.midline_mm, 0, 0]))[2]
        columns = np.indices(self.hu.shape, sparse=True)[2]
        self.lung = {"left": self.lungs & (columns > middle), "right": self.lungs & (columns <= middle)}
        self.points = {}  # where a lung reaches over the midline, that of the lung counts, which no cut leaves
        for side, lung in self.lung.items():
            points = np.argwhere(lung)[::1999]
            said = [sides.side(point) == side for point in self.grid.index_to_lps(points)]
            self.points[side] = points[said]

    def full_of(self, side: str, hu: int) -> np.ndarray:
        """HU with the lung of a side full of something."""
        return np.where(self.lung[side], hu, self.hu).astype(np.int16)


def sides_of(hu: np.ndarray, lungs: np.ndarray, body: np.ndarray, grid: Grid):
    spine = find_spine(hu, body, grid)
    return Sides.of(lungs, grid, spine), spine


def told(sides: Sides | None, grid: Grid, indices: np.ndarray) -> set:
    """What is said of points."""
    return {None} if sides is None else {sides.side(point) for point in grid.index_to_lps(indices)}


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
        sides, _ = sides_of(patient.full_of(gone, 40), patient.lung[kept], patient.body, patient.grid)
        assert told(sides, patient.grid, patient.points[kept]) == {kept}, f"{gone} full of fluid"


def check_view_ends(patient: Patient) -> None:
    """The view ends in the spine or 40 mm beyond it, or what is beyond is blank."""
    beyond = int(40 / patient.grid.spacing_mm[2])
    for (gone, kept), further in itertools.product((SIDES, SIDES[::-1]), (0, beyond)):
        end = patient.spine + (further if gone == "left" else -further)
        part = np.s_[:, :, :end] if gone == "left" else np.s_[:, :, end:]
        start = part[2].start or 0
        affine = patient.grid.affine.copy()
        affine[:3, 3] = patient.grid.index_to_lps([0, 0, start])
        arrays = [np.ascontiguousarray(array[part]) for array in (patient.hu, patient.lungs, patient.body)]
        grid = Grid(arrays[0].shape, affine)
        points = patient.points[kept] - [0, 0, start]
        points = points[(points[:, 2] >= 0) & (points[:, 2] < grid.shape[2])]
        allowed = {kept, None} if further == 0 else {kept}
        assert told(sides_of(*arrays, grid)[0], grid, points) <= allowed, f"view ends {further} voxels beyond the spine"
        seen = np.zeros(patient.hu.shape, bool)
        seen[part] = True
        blank = np.where(seen, patient.hu, -1000).astype(np.int16), patient.lungs & seen, patient.body & seen
        met = told(sides_of(*blank, patient.grid)[0], patient.grid, points + np.array([0, 0, start]))
        assert met <= allowed, f"blank {further} voxels beyond the spine"


def check_turned(patient: Patient, quarters: int, one_lung: bool) -> None:
    """The patient turned about the long axis while the file says nothing of it, with both lungs or one."""
    for side, other in (SIDES, SIDES[::-1]):
        hu = patient.full_of(other, 40) if one_lung else patient.hu
        lungs = patient.lung[side] if one_lung else patient.lungs
        arrays = [np.ascontiguousarray(np.rot90(array, quarters, (1, 2))) for array in (hu, lungs, patient.body)]
        marked = np.zeros(patient.hu.shape, bool)
        marked[tuple(patient.points[side].T)] = True
        grid = Grid(arrays[0].shape, patient.grid.affine)
        points = np.argwhere(np.rot90(marked, quarters, (1, 2)))
        assert told(sides_of(*arrays, grid)[0], grid, points) == {side}, f"{90 * quarters} degrees"


def test_one_lung_of_the_phantom_is_told_its_side(phantom):
    check_one_lung(phantom)


def test_the_phantoms_sides_are_right_in_a_part_of_the_view(phantom):
    check_view_ends(phantom)


@pytest.mark.parametrize("one_lung", [False, True])
@pytest.mark.parametrize("quarters", [1, 3])
def test_the_phantoms_sides_are_right_where_it_is_turned(phantom, quarters, one_lung):
    check_turned(phantom, quarters, one_lung)


@pytest.mark.slow
def test_a_real_lung_alone_is_told_its_side(real):
    check_one_lung(real)
    check_view_ends(real)


@pytest.mark.slow
def test_a_real_patient_may_lie_on_any_side(real):
    for quarters in (1, 2, 3):
        check_turned(real, quarters, one_lung=False)
    check_turned(real, 1, one_lung=True)


@pytest.mark.slow
def test_a_real_lung_that_is_found_alone_is_told_its_side(real):
    for gone, kept in (SIDES, SIDES[::-1]):
        lungs, find = find_chest(Volume(real.full_of(gone, 40), real.grid, Source("one lung")))
        assert told(Sides.of(lungs, real.grid, find()), real.grid, real.points[kept]) == {kept}


def test_a_mirrored_patient_has_no_sides(phantom):
    arrays = [np.ascontiguousarray(array[:, ::-1]) for array in (phantom.hu, phantom.lungs, phantom.body)]
    assert sides_of(*arrays, phantom.grid)[0] is None


def test_every_nodule_of_the_phantom_is_told_the_side_of_its_lung(phantom):
    sides, _ = sides_of(phantom.hu, phantom.lungs, phantom.body, phantom.grid)
    middle = phantom.grid.index_to_lps((np.array(phantom.grid.shape) - 1) / 2)[0]
    for nodule in make_phantom().nodules:
        assert sides.side(nodule["center_lps_mm"]) == ("left" if nodule["center_lps_mm"][0] > middle else "right")
