"""The ensemble, with a generator that is blind to the right end of every bright row."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from LNHGLib.errors import Cancelled
from LNHGLib.image.boxes import box_shape, box_start, box_within
from LNHGLib.image.reader import read_volume
from LNHGLib.image.volume import Grid, canonical
from LNHGLib.models import folder
from LNHGLib.models.registry import build_generator
from LNHGLib.segmentation import components, ensemble, tiled_inference
from LNHGLib.segmentation.ensemble import Ensemble, Member
from LNHGLib.segmentation.fusion import Finding, FusionOptions, combine
from LNHGLib.segmentation.preprocessing import normalize, onto_grid
from LNHGLib.segmentation.progress import Monitor
from tiny_model import write_model
from torch import nn

SHAPE = (48, 64, 64)


class _Lopsided(nn.Module):
    """Shows what is bright, but misses the right end of every bright row: a rotation by 180 degrees puts it right."""

    halo, multiple = (0, 0, 0), 1

    def forward(self, x):
        left, _, right = nn.functional.pad(x > 0.5, (1, 1)).unfold(-1, x.shape[-1], 1).unbind(-2)
        return x * (x > 0.5) * ~(left & ~right)


class _Bright(nn.Module):
    """Shows what is brighter than 0.75."""

    halo, multiple = (0, 0, 0), 1

    def forward(self, x):
        return x * (x > 0.75)


first = Member(_Lopsided())
rotated = replace(first, rotated=True)
predict = first.predict


def ball(center, radius):
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    return (z - center[0]) ** 2 + (y - center[1]) ** 2 + (x - center[2]) ** 2 <= radius**2


def finding(*labels):
    return Finding("fused", 0.9, 0.9, 0.8, labels, (0, 0, 0, *SHAPE))


@pytest.fixture
def drawn():
    """CT, nodule image and components of two nodules, as the first member shows them."""
    ct = (0.8 * (ball((20, 20, 20), 5) | ball((24, 44, 44), 4))).astype(np.float32)
    generated = predict(ct)
    labels = np.zeros(SHAPE, np.int32)
    labels[(generated > 0) & (np.arange(64) < 32)] = 1
    labels[(generated > 0) & (np.arange(64) >= 32)] = 2
    return ct, generated, labels


def rescore(drawn, findings, others=(rotated,)):
    ct, _generated, labels = drawn
    return ensemble.rescore_with_ensemble(ct, labels, findings, Ensemble([first, *others]), FusionOptions())


def refine(drawn, findings):
    """Return the nodule image, the component numbers and the findings after refining."""
    _ct, generated, labels = drawn
    patches = rescore(drawn, findings)
    return ensemble.refine_outlines(generated, labels, list(patches), patches, 0.1)


def test_the_mean_with_the_rotated_ct_is_the_same_rotated_or_not():
    ct = np.random.default_rng(0).random((8, 16, 16), np.float32)
    mean = Ensemble([first, rotated]).predict_center
    np.testing.assert_allclose(mean(ct[:, ::-1, ::-1]), mean(ct)[:, ::-1, ::-1], rtol=1e-6)
    assert not np.allclose(predict(ct[:, ::-1, ::-1]), predict(ct)[:, ::-1, ::-1])


def test_an_outline_gets_what_a_single_member_missed(drawn):
    ct, _generated, labels = drawn
    before = labels == 1
    generated, labels, _findings = refine(drawn, [finding(1), finding(2)])
    assert before.sum() < (labels == 1).sum()
    np.testing.assert_array_equal(labels > 0, ct > 0.5)
    np.testing.assert_array_equal(labels == 2, ct * (labels == 2) > 0.5)
    assert generated[20, 20, 25] == pytest.approx(0.4)


def test_the_box_holds_the_new_outline_as_the_ct_is_drawn_from_it(drawn):
    outer = (10.0, 16.0, 16.0, 26.0, 25.0, 24.0)
    _image, _labels, refined = refine(drawn, [replace(finding(1), box=outer)])
    assert [one.box for one in refined] == [(10.0, 15.0, 15.0, 26.0, 26.0, 26.0)]


def test_findings_of_several_components_become_one(drawn):
    labels = drawn[2]
    labels[(labels == 1) & (np.arange(64) > 20)] = 3
    _image, labels, _findings = refine(drawn, [finding(1, 3)])
    assert set(np.unique(labels)) == {0, 1}
    assert (labels == 1).sum() == ball((20, 20, 20), 5).sum()


def test_a_neighbor_keeps_its_voxels(drawn):
    ct, generated, labels = drawn
    ct[ball((20, 20, 27), 2)] = generated[ball((20, 20, 27), 2)] = 0.8
    labels[:] = 0
    labels[ball((20, 20, 20), 5)] = 1
    labels[ball((20, 20, 27), 2)] = 2
    other = labels == 2
    _image, labels, _findings = refine(drawn, [finding(1), finding(2)])
    assert (labels == 2)[other].all()


def test_what_is_not_kept_is_left_out_and_the_input_stays(drawn):
    before = drawn[2].copy()
    _image, labels, _findings = refine(drawn, [finding(2)])
    np.testing.assert_array_equal(drawn[2], before)
    assert set(np.unique(labels)) == {0, 2}


def test_an_outline_that_grows_out_of_what_the_members_see_stays(drawn):
    """A cut by the border of their field would be a straight edge, as of a piece of the mediastinum."""
    ct, _, labels = drawn
    ct[:, 18:23, 24:] = 0.8  # what the first member did not show
    before = labels == 1
    _image, labels, _findings = refine(drawn, [finding(1)])
    np.testing.assert_array_equal(labels == 1, before)


def test_an_outline_that_the_mean_does_not_show_stays(drawn):
    ct, generated, labels = drawn
    ct[ball((20, 20, 20), 5)] = 0.0
    generated[ball((20, 20, 20), 5)] = 0.15
    image, refined, _findings = refine(drawn, [finding(1)])
    np.testing.assert_array_equal(refined, labels * (labels == 1))
    np.testing.assert_array_equal(image, generated)


def test_all_members_give_a_finding_its_score(drawn):
    """What the second generator does not see, although the first one did, loses; the best comes first."""
    ct, generated, labels = drawn
    ct[labels == 1] = generated[labels == 1] = 0.7
    best, other = rescore(drawn, [finding(1), finding(2)], [Member(_Bright())])
    assert (best.labels, other.labels) == ((2,), (1,))
    assert (best.segmenter_score, other.segmenter_score) == pytest.approx((1.0, 0.5))
    assert other.score == pytest.approx(combine(0.5, 0.8))
    assert other.detector_score == 0.8


def test_components_of_one_finding_count_by_their_voxels(drawn):
    ct, _generated, labels = drawn
    image = np.where(labels == 1, ct, 0)
    both = ensemble.rescore(finding(1, 2), labels, image, ct, FusionOptions(weight=0.0))
    fraction = (labels == 1).sum() / (labels > 0).sum()
    assert both.segmenter_score == pytest.approx(fraction)
    assert both.score == pytest.approx(fraction)


def test_without_further_members_scores_and_outlines_stay(drawn):
    _ct, generated, labels = drawn
    patches = rescore(drawn, [finding(1)], [])
    assert [one.segmenter_score for one in patches] == pytest.approx([1.0])
    alone = finding()
    _image, refined, findings = ensemble.refine_outlines(generated, labels, [*patches, alone], patches, 0.1)
    assert findings[1:] == [alone]
    np.testing.assert_array_equal(refined, labels * (labels == 1))


@pytest.mark.parametrize(("rotate", "second", "members"), [(False, False, 1), (True, False, 2), (True, True, 3)])
def test_a_card_asks_for_its_members(tmp_path, rotate, second, members):
    model = write_model(tmp_path / "model", second=second)
    model.card["generator"]["half_turn"] = rotate  # as older cards call it
    predictor = Ensemble.of(model.spec, model.generator(), model.second_generator())
    assert len(predictor.members) == members
    ct = np.random.default_rng(0).random((48, 48, 48), np.float32)
    images = [member.predict(ct) for member in predictor.members]
    np.testing.assert_allclose(predictor.predict(ct), images[0])
    np.testing.assert_allclose(predictor.predict_center(ct), np.mean(images, axis=0), atol=1e-6)


# The fixed field


def strided(seed=1, kind="strided"):
    """A network whose values depend on the phase of its strides, and reach farther than a field."""
    torch.manual_seed(seed)
    return build_generator({"kind": kind, "width": 2}).eval()


@pytest.fixture(scope="module")
def three():
    """A predictor of three members."""
    return Ensemble([Member(strided()), Member(strided(), rotated=True), Member(strided(2, "gated-unet"))])


@pytest.fixture(scope="module")
def scan():
    return np.random.default_rng(5).random((70, 83, 90), np.float32)


def place(center, side=6):
    return tuple(slice(c - side // 2, c - side // 2 + side) for c in center)


def at(predictor, ct, *boxes):
    return list(predictor.predict_at(ct, boxes))


@pytest.mark.parametrize("center", [(35, 41, 43), (30, 47, 52)])
def test_a_place_in_a_scan_and_the_cube_cut_out_there_give_the_same_image(three, scan, center):
    cube = scan[tuple(slice(c - 25, c + 25) for c in center)]
    (whole,), (part,) = at(three, scan, place(center)), at(three, cube, place((25, 25, 25)))
    assert box_start(whole.box) == [c - 24 for c in center]
    np.testing.assert_allclose(part.image, whole.image, atol=1e-5)
    assert np.ptp(whole.image) > 0.01


def test_a_nodule_in_a_real_scan_and_its_cube_give_the_same_image(data_dir):
    """By the bundled model, on a part of the scan at 1 mm."""
    volume = read_volume(data_dir / "ct" / "lidc-idri-0003" / "ct.nii.gz")
    middle = volume.grid.index_to_lps([75.5, 350.1, 367.3])
    grid = Grid.aligned((66, 84, 80), (1.0, 1.0, 1.0), np.rint(middle) - (42, 42, 35))
    model = folder.load()
    ct = normalize(onto_grid(canonical(volume), grid), model.spec.window_hu)
    center = np.rint(grid.lps_to_index(middle)).astype(int)
    cube = ct[tuple(slice(c - 25, c + 25) for c in center)]
    predictor = Ensemble.of(model.spec, model.generator(), model.second_generator())
    (whole,) = at(predictor, ct, place(center, 18))
    np.testing.assert_allclose(predictor.predict_center(cube)[1:49, 1:49, 1:49], whole.image, atol=1e-5)
    assert whole.image[24, 24, 24] > 0.3


def test_what_lies_outside_of_the_field_changes_nothing(three, scan):
    field = ensemble.field_around(place((35, 41, 43)))
    changed = np.random.default_rng(6).random(scan.shape, np.float32)
    changed[field] = scan[field]
    (before,), (after,) = at(three, scan, place((35, 41, 43))), at(three, changed, place((35, 41, 43)))
    np.testing.assert_array_equal(after.image, before.image)
    changed[field][0, 0, 0] += 0.5
    assert not np.array_equal(at(three, changed, place((35, 41, 43)))[0].image, before.image)


class _Slices(_Bright):
    """Notes of what is asked for, and gives nonsense elsewhere."""

    multiple, on_cpu, slab, asked = (1, 1, 1), True, None, ()

    def predict(self, block, check, wanted=None):
        self.asked = [*self.asked, wanted]
        image = np.full_like(block, 0.9)
        part = (slice(None), slice(None), *(wanted or [slice(None)] * 3))
        image[part] = (block * (block > 0.75))[part]
        return image

    def release(self):
        """Nothing is kept."""


@pytest.mark.parametrize(("reach", "times"), [(4, 1), (13, 2)])
def test_of_a_candidate_the_middle_is_predicted_and_more_where_its_outline_goes_on(reach, times):
    ct, box = np.zeros((70, 80, 90), np.float32), place((35, 40, 45))
    ct[32:38, 37:43, 42 : 48 + reach] = 0.8
    ct[30:40, 60:62, 30:60] = 0.8  # beyond the rim, or beside the outline, it asks for nothing
    network = _Slices()
    predictor = Ensemble([Member(network), Member(network, rotated=True)], threshold=0.05)
    (whole,), (patch,) = (list(predictor.predict_at(ct, [box], outlines_alone=alone)) for alone in (False, True))
    np.testing.assert_array_equal(patch.image, whole.image[box_within(patch.box, whole.box)])
    assert (patch.box == whole.box) == (times == 2)
    assert len(network.asked) == 2 + 2 * times
    assert box_shape(network.asked[2]) == [24, 24, 24]


def test_around_a_faint_finding_more_is_marked_by_the_square_of_its_signal():
    image = np.zeros((20, 20, 40), np.float32)
    image[8:12, 8:12, 8:12], image[10, 10, 12:16] = 0.25, [0.06, 0.03, 0.013, 0.012]  # its rim
    image[8:12, 8:12, 28:32], image[10, 10, 32:34] = 0.75, [0.06, 0.04]
    faint, bright = np.zeros((2, *image.shape), bool)
    faint[10, 10, 10] = bright[10, 10, 30] = True
    plain = components.mark_around(image, faint, 0.05)
    np.testing.assert_array_equal(plain, image > 0.05)
    np.testing.assert_array_equal(components.mark_around(image, bright, 0.05, 0.5), plain)
    lower = components.mark_around(image, faint, 0.05, 0.5)
    np.testing.assert_array_equal(lower, image > 0.05 * (0.25 / 0.5) ** 2)
    assert lower[10, 10, 12:16].tolist() == [True, True, True, False]
    np.testing.assert_array_equal(components.mark_around(image, np.s_[10:11, 10:11, 8:11], 0.05, 0.5), lower)
    nothing = np.zeros_like(faint)
    np.testing.assert_array_equal(components.mark_around(image, nothing, 0.05, 0.5), plain)


def test_what_reaches_the_rim_is_told_from_what_lies_there_by_itself():
    marked, box = np.zeros((30, 30, 30), bool), np.s_[12:18, 12:18, 12:18]
    marked[14, 14, 10:20] = marked[14, 24, 20:30] = True
    assert not ensemble.reaches_rim(marked, box)
    marked[14, 14, 10:27] = True
    assert ensemble.reaches_rim(marked, box)


def test_the_middle_of_fields_holds_every_box_and_is_all_of_them_where_little_would_be_left_out():
    assert (
        ensemble.middle_of_fields([place((9, 9, 9)), place((50, 9, 9), 8)], (48, 48, 48)) == np.s_[11:37, 11:37, 11:37]
    )
    assert ensemble.middle_of_fields([place((9, 9, 9), 26)], (48, 48, 48)) == np.s_[0:48, 0:48, 0:48]


@pytest.mark.parametrize("center", [(3, 41, 43), (35, 3, 87), (67, 80, 3)])
def test_at_the_border_the_outermost_values_go_on(three, scan, center):
    (patch,) = at(three, scan, place(center))
    assert all(part.start >= 0 and part.stop <= size for part, size in zip(patch.box, scan.shape, strict=True))
    assert patch.image.shape == tuple(box_shape(patch.box)) != (48, 48, 48)
    wide = np.pad(scan, 24, mode="edge")
    (inside,) = at(three, wide, place([c + 24 for c in center]))
    there = box_within(tuple(slice(part.start + 24, part.stop + 24) for part in patch.box), inside.box)
    np.testing.assert_allclose(patch.image, inside.image[there], atol=1e-6)


@pytest.mark.parametrize(
    ("sides", "shape"),
    [((1, 1, 1), (48, 48, 48)), ((32, 7, 20), (48, 48, 48)), ((33, 7, 60), (56, 48, 80)), ((50, 60, 41), (72, 80, 64))],
)
def test_the_field_of_a_mass_grows(sides, shape):
    box = tuple(slice(100, 100 + side) for side in sides)
    field = ensemble.field_around(box)
    assert tuple(box_shape(field)) == shape
    for part, own in zip(field, box, strict=True):
        assert own.start - part.start >= ensemble.ROOM
        assert part.stop - own.stop >= ensemble.ROOM
        assert abs((part.start + part.stop) - (own.start + own.stop)) <= 1


def test_a_mass_larger_than_the_field_keeps_its_outline():
    ct = np.zeros((90, 90, 90), np.float32)
    z, y, x = np.ogrid[:90, :90, :90]
    ct[(z - 45) ** 2 + (y - 45) ** 2 + (x - 45) ** 2 <= 29**2] = 0.8
    labels = (predict(ct) > 0).astype(np.int32)
    mass = replace(finding(1), box=(0, 0, 0, *ct.shape))
    patches = ensemble.rescore_with_ensemble(ct, labels, [mass], Ensemble([first, rotated]), FusionOptions())
    (patch,) = patches.values()
    assert patch.image.shape == (80, 80, 80)
    _image, labels, _findings = ensemble.refine_outlines(predict(ct), labels, list(patches), patches, 0.1)
    np.testing.assert_array_equal(labels > 0, ct > 0.5)


def test_fields_at_once_give_the_images_of_one_after_the_other(three, scan, monkeypatch):
    boxes = [place((35, 41, 43)), place((20, 60, 30)), place((35, 41, 43), 40), place((40, 50, 60)), place((60, 9, 9))]
    monkeypatch.setitem(tiled_inference.FIELDS_AT_ONCE, "cpu", 3)
    together = at(three, scan, *boxes)
    monkeypatch.setitem(tiled_inference.FIELDS_AT_ONCE, "cpu", 1)
    alone = at(three, scan, *boxes)
    assert [one.box for one in together] == [one.box for one in alone]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.image, other.image, atol=1e-6)


class _Counting(nn.Module):
    """Gives the CT itself, notes how many volumes it saw at once, and may run out of memory with more than one."""

    halo, multiple = (0, 0, 0), 1

    def __init__(self, most=9):
        super().__init__()
        self.seen, self.most = [], most
        self.inner = nn.Identity()

    def forward(self, x):
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.seen.append(tuple(x.shape))
        return self.inner(x)


def fields_seen(network):
    return [shape for shape in network.seen if shape[-1] >= 48]  # a trial run for the memory is smaller


def test_fields_of_one_shape_are_predicted_together(scan, monkeypatch):
    monkeypatch.setitem(tiled_inference.FIELDS_AT_ONCE, "cpu", 2)
    network = _Counting()
    boxes = [place((35, 41, 43)), place((20, 60, 30)), place((40, 50, 60)), place((35, 41, 43), 50)]
    at(Ensemble([Member(network)]), scan, *boxes)
    assert [shape[0] for shape in fields_seen(network)] == [2, 1, 1]


def test_too_little_memory_gives_the_same_images_and_a_warning(scan, monkeypatch):
    monkeypatch.setitem(tiled_inference.FIELDS_AT_ONCE, "cpu", 4)
    monitor, network = Monitor(), _Counting(most=1)
    boxes = [place((35, 41, 43)), place((20, 60, 30)), place((40, 50, 60))]
    patches = at(Ensemble([Member(network)], monitor), scan, *boxes)
    for patch in patches:
        np.testing.assert_array_equal(patch.image, scan[patch.box])
    assert "smaller pieces" in monitor.warnings[0]


def test_a_wish_to_stop_ends_the_work_within_a_batch(scan, monkeypatch):
    monkeypatch.setitem(tiled_inference.FIELDS_AT_ONCE, "cpu", 2)
    network = _Counting()
    monitor = Monitor(cancelled=lambda: bool(fields_seen(network)))
    with pytest.raises(Cancelled):
        at(Ensemble([Member(network), Member(network)], monitor), scan, place((35, 41, 43)), place((20, 60, 30)))
    assert len(fields_seen(network)) == 1, "it stops at the next layer, before the second member"
