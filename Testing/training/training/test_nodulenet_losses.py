"""Losses of NoduleNet against values that were worked out by hand, and what its steps learn from."""

import math

import pytest
import torch
from LNHGLib.models.documents.boxes_3d import anchor_cubes
from LNHGTrainingLib.training.nodulenet_losses import (
    Nodules,
    balanced,
    box_loss,
    class_losses,
    proposal_losses,
    sample_anchors,
    sample_boxes,
    tversky_loss,
)

SIDE = 48
ANCHORS = anchor_cubes((12, 12, 12), 4, (5, 10, 20, 30, 50), torch.device("cpu"))


def a_mask(*corners: tuple[int, int, int], size: int = 6) -> torch.Tensor:
    """Cubes at these corners."""
    mask = torch.zeros(SIDE, SIDE, SIDE)
    for z, y, x in corners:
        mask[z : z + size, y : y + size, x : x + size] = 1
    return mask


def nodules(*corners: tuple[int, int, int], size: int = 6) -> Nodules:
    return Nodules.of(a_mask(*corners, size=size), torch.ones(SIDE, SIDE, SIDE))


def test_a_nodules_box_has_a_border_of_eight_voxels_in_all():
    found = nodules((10, 20, 30), (30, 4, 4))
    assert found.boxes.tolist() == [[6, 16, 26, 20, 30, 40], [26, 0, 0, 40, 14, 14]]
    assert found.numbers[12, 22, 32] == 1
    assert found.numbers[32, 5, 5] == 2
    assert (found.numbers > 0).sum() == 2 * 6**3


def test_a_part_of_a_few_voxels_is_unknown():
    mask = a_mask((10, 20, 30))
    mask[0, 0, 0:5] = 1
    found = Nodules.of(mask, torch.ones_like(mask))
    assert len(found.boxes) == 1
    assert (~found.known).nonzero().tolist() == [[0, 0, x] for x in range(5)]


def test_both_kinds_weigh_the_same_however_many_there_are():
    losses, positive = torch.tensor([4.0, 1.0, 2.0, 3.0]), torch.tensor([True, False, False, False])
    assert balanced(losses, positive) == pytest.approx(4 / 2 + 2 / 2)
    assert balanced(losses, ~positive) == pytest.approx(2 / 2 + 4 / 2)
    assert balanced(losses[1:], positive[1:]) == pytest.approx(2 / 2)  # one kind alone
    assert balanced(losses[:0], positive[:0]) == 0


def test_the_loss_of_boxes_is_smooth_l1_summed_over_six_means():
    """Below 1 it is half the square, beyond the distance less a half: 0.5 * 0.5^2 + (2 - 0.5), over two boxes."""
    offsets = torch.tensor([[0.5, 2.0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0.0]])
    assert box_loss(offsets, torch.zeros(2, 6)) == pytest.approx((0.125 + 1.5) / 2)
    assert box_loss(offsets[:0], torch.zeros(0, 6)) == 0


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.5), (0.3, 0.7)])
def test_tverskys_loss_weighs_false_and_missing_voxels(alpha, beta):
    """Probabilities 0.8 and 0.4 in the nodule, 0.6 and 0.2 beside: 1.2 in both, 0.8 false, 0.8 missing; the last voxel,
    which is not known, does not count."""
    probability = torch.tensor([0.8, 0.4, 0.6, 0.2, 0.9])
    mask, known = torch.tensor([1.0, 1, 0, 0, 1]), torch.tensor([1.0, 1, 1, 1, 0])
    loss = tversky_loss(torch.logit(probability), mask, known, alpha, beta)
    assert loss == pytest.approx(1 - 1.2 / (1.2 + alpha * 0.8 + beta * 0.8), abs=1e-6)


def test_anchors_are_one_positive_and_the_three_hardest_of_the_negatives():
    torch.manual_seed(0)
    found, logits = nodules((16, 16, 16)), torch.zeros(len(ANCHORS))
    hard = [5 * number for number in (11, 143, 1720, 1727)]  # cubes of 5 at corners, which overlap nothing
    logits[hard] = torch.tensor([1.0, 4.0, 3.0, 2.0])
    positives, negatives = sample_anchors(logits, ANCHORS, found)
    assert len(positives) == 1
    overlap, _ = found.match(ANCHORS)
    assert overlap[positives[0]] >= 0.5 or overlap[positives[0]] == overlap.max()
    assert len(negatives) == 3
    assert (overlap[negatives] < 0.02).all()
    many = {tuple(sorted(sample_anchors(logits, ANCHORS, found)[1].tolist())) for _ in range(40)}
    assert len(many) > 1  # 800 of some thousands are sampled before the hardest are taken


def test_a_nodule_that_no_anchor_overlaps_by_half_has_the_best_one():
    found = nodules((1, 1, 1))  # its box is 14 wide, between anchors of 10 and 20
    overlap, _ = found.match(ANCHORS)
    assert overlap.max() < 0.5
    positives, _ = sample_anchors(torch.zeros(len(ANCHORS)), ANCHORS, found)
    assert positives.tolist() == [int(overlap.argmax())]


def test_what_is_not_known_is_no_negative():
    known = torch.zeros(SIDE, SIDE, SIDE)
    known[:, :, :8] = 1
    found = Nodules.of(a_mask(), known)
    for _ in range(5):
        _, negatives = sample_anchors(torch.rand(len(ANCHORS)), ANCHORS, found)
        assert len(negatives) == 3
        assert (ANCHORS[negatives, 5] + ANCHORS[negatives, 2] < 16).all()
    boxes, _ = sample_boxes(torch.tensor([[0.0, 0, 0, 4, 4, 4], [0, 0, 20, 4, 4, 24], [-9, 0, 0, -5, 4, 4]]), found)
    assert boxes.tolist() == [[0, 0, 0, 4, 4, 4]]


def test_the_loss_of_proposals_is_that_of_the_anchors_that_were_chosen():
    """A nodule as large as an anchor of 10: probability 0.9 there and 0.2 everywhere else."""
    found = nodules((20, 20, 20), size=4)  # box 16 to 28
    numbers = (torch.tensor([17.0, 17, 17, 27, 27, 27]) == ANCHORS).all(1).nonzero()[:, 0]
    overlap, _ = found.match(ANCHORS)
    positive = overlap >= 0.5
    assert positive[numbers].all()
    logits = torch.where(positive, math.log(9), math.log(0.25))[None]
    offsets = torch.zeros(1, len(ANCHORS), 6)
    score, box = proposal_losses(logits, offsets, ANCHORS, [found])
    assert score == pytest.approx(-(math.log(0.9) + math.log(0.8)) / 2, abs=1e-5)
    assert positive.sum() == 1
    assert box == pytest.approx(3 * math.log(1.2) ** 2 / 2, abs=1e-5)  # sides of 12 to an anchor of 10


def test_proposals_of_patches_without_nodules_have_no_boxes_to_learn():
    logits, offsets = torch.zeros(2, len(ANCHORS), requires_grad=True), torch.ones(2, len(ANCHORS), 6)
    score, box = proposal_losses(logits, offsets, ANCHORS, [nodules(), nodules()])
    assert (score.item(), box) == (pytest.approx(math.log(2) / 2), 0)
    score.backward()
    assert (logits.grad != 0).sum() == 6


def test_boxes_are_sorted_with_the_nodules_among_them():
    found = nodules((20, 20, 20), size=4)
    near, far, between = [17.0, 17, 17, 27, 27, 27], [0.0, 0, 0, 9, 9, 9], [22.0, 16, 16, 34, 28, 28]
    boxes, positive = sample_boxes(torch.tensor([near, far, between]), found)
    assert sorted(boxes[positive].tolist()) == [[16, 16, 16, 28, 28, 28], near]
    assert boxes[~positive].tolist() == [far]  # what overlaps by a third is neither
    many, positive = sample_boxes(torch.tensor(40 * [near] + 60 * [far]), found)
    assert (len(many), int(positive.sum())) == (64, 32)


def test_the_loss_of_classes_weighs_the_rarer_one_up():
    """Odds of 3 for a nodule: cross-entropy -ln(3/4) where there is one, -ln(1/4) for each of two others."""
    logits = torch.tensor([[0.0, math.log(3)]]).expand(3, 2)
    positive = torch.tensor([True, False, False])
    offsets = torch.zeros(3, 2, 6)
    offsets[0, 1, 0], offsets[0, 0], offsets[1] = 0.5, 9, 9  # of other classes and boxes: not asked
    score, box = class_losses(logits, offsets, positive, torch.zeros(1, 6))
    assert score == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2)
    assert box == pytest.approx(0.125)
