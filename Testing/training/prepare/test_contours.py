import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from LNHGTrainingLib.prepare.contours import Contour, Outlined, cluster, enclosed, fill

SQUARE = [(2, 1), (6, 1), (6, 5), (2, 5)]


def points(*corners):
    return np.array(corners)


def inside(outline):
    mask, (y0, x0) = enclosed(np.array(outline))
    return {(int(x + x0), int(y + y0)) for y, x in np.argwhere(mask)}


def test_the_outline_itself_is_outside_the_nodule():
    """Register R1; checked by hand: the corners of a 5 x 5 square leave the 3 x 3 pixels between them."""
    assert inside(SQUARE) == {(x, y) for x in (3, 4, 5) for y in (2, 3, 4)}


def test_a_diamond_keeps_the_pixels_between_its_edges():
    assert inside([(3, 0), (6, 3), (3, 6), (0, 3)]) == {
        (x, y) for x in range(7) for y in range(7) if abs(x - 3) + abs(y - 3) < 3
    }


@pytest.mark.parametrize("outline", [[(4, 4)], [(1, 1), (5, 1)], [(0, 0), (1, 0), (1, 1), (0, 1)]])
def test_a_point_a_line_and_four_neighbors_enclose_nothing(outline):
    assert inside(outline) == set()


def test_drawing_direction_start_and_repeated_first_point_do_not_matter():
    for outline in (SQUARE[::-1], SQUARE[2:] + SQUARE[:2], [*SQUARE, SQUARE[0]]):
        assert inside(outline) == inside(SQUARE)


def test_a_notch_stays_outside():
    outline = [(0, 0), (8, 0), (8, 6), (5, 6), (5, 3), (3, 3), (3, 6), (0, 6)]
    assert inside(outline) == {(x, y) for x in range(1, 8) for y in range(1, 6) if not (3 <= x <= 5 and y >= 3)}


@given(st.lists(st.tuples(st.integers(-12, 12), st.integers(-12, 12)), min_size=3, max_size=30))
def test_enclosed_pixels_agree_with_picks_theorem(corners):
    """Interior = area - boundary / 2 + 1 for any simple lattice polygon; here star-shaped ones around the origin."""
    by_direction = {}
    for x, y in corners:
        step = int(np.gcd(x, y))
        if step:
            by_direction[x // step, y // step] = (x, y)
    ordered = np.array(sorted(by_direction.values(), key=lambda point: np.arctan2(point[1], point[0]))).reshape(-1, 2)
    following = np.roll(ordered, -1, axis=0)
    cross = ordered[:, 0] * following[:, 1] - ordered[:, 1] * following[:, 0]
    if len(ordered) < 3 or (cross <= 0).any():  # the origin must lie inside
        return
    boundary = np.gcd(*np.abs(following - ordered).T).sum()
    assert 2 * enclosed(ordered)[0].sum() == cross.sum() - boundary + 2


def test_a_hole_is_left_out_and_its_outline_stays():
    big, hole = points((0, 0), (10, 0), (10, 10), (0, 10)), points((3, 3), (6, 3), (6, 6), (3, 6))
    box, mask = fill([Contour(4, hole, False), Contour(4, big)], (9, 20, 20))
    expected = np.ones((1, 9, 9), bool)
    expected[0, 3:5, 3:5] = False
    assert box == (slice(4, 5), slice(1, 10), slice(1, 10))
    assert np.array_equal(mask, expected)


def test_slices_are_stacked_where_they_belong():
    box, mask = fill([Contour(7, points(*SQUARE)), Contour(5, points(*SQUARE))], (9, 20, 20))
    assert box[0] == slice(5, 8)
    assert mask.any((1, 2)).tolist() == [True, False, True]


def test_what_leaves_the_volume_is_cut_off():
    box, mask = fill([Contour(0, points((-4, 0), (4, 0), (4, 8), (-4, 8)))], (3, 5, 5))
    assert box == (slice(0, 1), slice(1, 5), slice(0, 4))
    assert mask.all()


def test_outlines_without_a_voxel_give_nothing():
    assert fill([Contour(0, points((1, 1)))], (3, 9, 9)) is None


def cube(reader, corner, side=4):
    box = tuple(slice(start, start + side) for start in corner)
    return Outlined(reader, box, np.ones((side,) * 3, bool))


def groups(outlined, spacing_mm=(1.0, 1.0, 1.0)):
    return [each.members for each in cluster(outlined, spacing_mm)]


def test_outlines_of_several_readers_in_one_place_are_one_nodule():
    assert groups([cube(0, (5, 5, 5)), cube(1, (20, 5, 5)), cube(1, (6, 5, 5)), cube(2, (5, 7, 5))]) == [
        (0, 2, 3),
        (1,),
    ]


def test_a_slice_without_overlap_still_joins_and_two_do_not():
    assert groups([cube(0, (0, 0, 0)), cube(1, (4, 0, 0))]) == [(0, 1)]
    assert groups([cube(0, (0, 0, 0)), cube(1, (5, 0, 0))]) == [(0,), (1,)]


def test_spacing_is_what_counts():
    near = [cube(0, (0, 0, 0)), cube(1, (0, 0, 6))]
    assert groups(near, (1.0, 1.0, 1.0)) == [(0,), (1,)]
    assert groups(near, (3.0, 1.0, 1.0)) == [(0, 1)]


def test_a_small_outline_inside_a_large_one_joins_it():
    assert groups([cube(0, (0, 0, 0), 20), cube(1, (9, 9, 9), 2)]) == [(0, 1)]


def test_two_nodules_of_one_reader_side_by_side_are_told_apart():
    """Reader 1 outlines both as reader 0 does; at a slice's distance all four would be one."""
    found = cluster([cube(0, (0, 0, 0)), cube(0, (4, 0, 0)), cube(1, (0, 0, 0)), cube(1, (4, 0, 0))], (1.0, 1.0, 1.0))
    assert [each.members for each in found] == [(0, 2), (1, 3)]
    assert not any(each.ambiguous for each in found)


def test_two_nodules_that_another_reader_saw_as_one_are_ambiguous():
    found = cluster([cube(0, (0, 0, 0)), cube(0, (5, 0, 0)), cube(1, (0, 0, 0), 9)], (1.0, 1.0, 1.0))
    assert [(each.members, each.ambiguous) for each in found] == [((0, 1, 2), True)]


outlines = st.lists(
    st.builds(cube, st.integers(0, 3), st.tuples(*[st.integers(0, 14)] * 3), st.integers(1, 5)), max_size=9
)


@settings(deadline=None)
@given(outlines, st.randoms(use_true_random=False))
def test_clusters_are_a_partition_that_no_order_changes(outlined, random):
    found = cluster(outlined, (2.0, 1.0, 1.0))
    assert sorted(index for each in found for index in each.members) == list(range(len(outlined)))
    for each in found:
        readers = [outlined[index].reader for index in each.members]
        assert each.ambiguous == (len(set(readers)) < len(readers))
    order = list(range(len(outlined)))
    random.shuffle(order)
    again = cluster([outlined[index] for index in order], (2.0, 1.0, 1.0))
    assert {frozenset(each.members) for each in found} == {
        frozenset(order[index] for index in each.members) for each in again
    }


@settings(deadline=None)
@given(outlines)
def test_overlapping_outlines_are_never_told_apart(outlined):
    place = {index: number for number, each in enumerate(cluster(outlined, (2.0, 1.0, 1.0))) for index in each.members}
    for a, one in enumerate(outlined):
        for b, two in enumerate(outlined[:a]):
            if all(p.start < q.stop and q.start < p.stop for p, q in zip(one.box, two.box, strict=True)):
                assert place[a] == place[b]
