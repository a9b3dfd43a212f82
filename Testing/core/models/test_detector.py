import copy

import pytest
import torch
from LNHGLib.models.detector import build_detector, giou_loss, on_ignored, unit_boxes
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import generalized_box_iou_loss

pytestmark = pytest.mark.slow


LIGHT = {"backbone": "light", "width": 4}


def nodule_target(*boxes):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.ones(len(boxes), dtype=torch.int64),
    }


@pytest.fixture(scope="module")
def light():
    torch.manual_seed(0)
    return build_detector(LIGHT)


def giou(a, b):
    return (
        1
        - generalized_box_iou_loss(
            torch.tensor([a], dtype=torch.float32), torch.tensor([b], dtype=torch.float32)
        ).item()
    )


@pytest.mark.parametrize(
    ("other", "expected"),
    [((0, 0, 1, 1), 1.0), ((1, 0, 2, 1), 0.0), ((2, 0, 3, 1), -1 / 3)],
    ids=["identical", "side by side", "a unit apart"],
)
def test_giou_takes_its_literal_values(other, expected):
    assert giou((0, 0, 1, 1), other) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)], ids=["rpn", "roi"])
def test_the_box_loss_is_the_giou_of_the_decoded_boxes_in_pixels(weights):
    generator = torch.Generator().manual_seed(3)
    anchors = torch.tensor([[10.0, 20.0, 26.0, 30.0], [0.0, 0.0, 8.0, 8.0], [100.0, 50.0, 120.0, 110.0]])
    references = torch.tensor([[12.0, 18.0, 30.0, 31.0], [1.0, 2.0, 6.0, 7.0], [90.0, 60.0, 130.0, 100.0]])
    deltas = torch.randn(3, 4, generator=generator) * 0.3
    coder = BoxCoder(weights)
    predicted = coder.decode(deltas, [anchors]).reshape(-1, 4)
    expected = generalized_box_iou_loss(predicted, references, reduction="sum")
    assert giou_loss(deltas, coder.encode([references], [anchors])[0], weights).item() == pytest.approx(
        expected.item(), rel=1e-4
    )


def test_a_perfect_prediction_costs_nothing_even_with_zero_offsets():
    """Register F1: the original gave NaN where an extent of the offsets was zero."""
    deltas = torch.zeros(2, 4, requires_grad=True)
    loss = giou_loss(deltas, torch.zeros(2, 4))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(deltas.grad).all()


def test_swapped_offsets_are_not_a_perfect_prediction():
    """Register F1: on raw offsets, (dx, dy, dw, dh) with dx<->dw and dy<->dh swapped cost 0."""
    target = torch.tensor([[0.5, 0.2, -0.3, 0.4]])
    assert giou_loss(target[:, [2, 3, 0, 1]], target).item() > 0.2


def test_extents_are_clamped_against_overflow():
    assert torch.isfinite(unit_boxes(torch.full((1, 4), 1e4), (1.0, 1.0, 1.0, 1.0))).all()


def test_no_positive_anchor_gives_a_loss_of_zero_with_a_gradient():
    deltas = torch.zeros(0, 4, requires_grad=True)
    giou_loss(deltas, torch.zeros(0, 4)).backward()


def test_images_without_nodules_train_the_classifiers(light):
    """Register F2: the original skipped nodule-free images."""
    light.train().zero_grad()
    losses = light([torch.rand(3, 64, 64)], [nodule_target()])
    sum(losses.values()).backward()
    assert losses["loss_objectness"] > 0
    assert losses["loss_classifier"] > 0
    assert losses["loss_box_reg"] == losses["loss_rpn_box_reg"] == 0
    assert light.rpn.head.cls_logits.weight.grad.abs().sum() > 0


def test_what_is_ignored_is_neither_nodule_nor_background(light):
    """Anchors and proposals with their middle on it take no part, those of a nodule beside it do."""
    ignored = torch.zeros(64, 64, dtype=torch.bool)
    ignored[:, :40] = True
    image, target = torch.rand(3, 64, 64), nodule_target((44, 20, 60, 36)) | {"ignored": ignored}
    anchors = light.rpn.anchor_generator(*light_features(light, image))
    (labels,), _ = light.rpn.assign_targets_to_anchors(anchors, [target])
    middle = (anchors[0][:, 0] + anchors[0][:, 2]) / 2
    assert (labels[(middle >= 0) & (middle < 40)] == -1).sum() > 0
    assert not (labels[(middle >= 0) & (middle < 40)] == 0).any()
    assert (labels[(middle >= 40) & (middle < 64)] == 0).any()
    assert (labels == 1).any()
    assert on_ignored(torch.tensor([[30.0, 10, 40, 20], [36, 10, 46, 20], [-9, 0, 1, 9]]), target).tolist() == [
        True,
        False,
        False,
    ]
    light.train().zero_grad()
    everything = nodule_target() | {"ignored": torch.ones(64, 64, dtype=torch.bool)}
    losses = light([image], [everything])
    sum(losses.values()).backward()
    assert losses["loss_classifier"] == 0


def light_features(light, image):
    images, _ = light.transform([image])
    return images, list(light.backbone(images.tensors).values())


def test_a_box_at_coordinate_zero_is_trained_on(light):
    """Register F2: the original skipped images whose boxes held an exact 0."""
    light.train().zero_grad()
    losses = light([torch.rand(3, 64, 64)], [nodule_target((0, 0, 9, 9))])
    assert losses["loss_rpn_box_reg"] > 0
    assert losses["loss_box_reg"] > 0


def test_there_is_one_foreground_class(light):
    """Register F5."""
    assert light.roi_heads.box_predictor.cls_score.out_features == 2


def test_anchors_suit_nodules_of_3_to_60_mm(light):
    """Register F3: the original's smallest anchor was 32 pixels."""
    sides = [size for level in light.rpn.anchor_generator.sizes for size in level]
    assert min(sides) <= 4
    assert max(sides) >= 60
    assert light.rpn.min_size == 2


def test_nine_anchors_a_cell_where_the_card_asks_for_the_papers():
    spec = {"backbone": "resnet50-c4", "anchors_px": [32, 64, 128]}
    generator = build_detector(spec).rpn.anchor_generator
    assert generator.num_anchors_per_location() == [9]
    areas = {
        round(float(a))
        for cell in generator.cell_anchors
        for a in ((cell[:, 2] - cell[:, 0]) * (cell[:, 3] - cell[:, 1])).tolist()
    }
    assert {min(areas, key=lambda v: abs(v - side**2)) for side in (32, 64, 128)} <= areas
    assert max(areas) == pytest.approx(128**2, rel=0.02)


@pytest.mark.parametrize("training", [True, False])
def test_slices_keep_their_size_in_training_and_evaluation(light, training):
    """Register F4: the original trained at 512 and ran at 600 pixels."""
    light.transform.train(training)
    images, _ = light.transform([torch.rand(3, 64, 96)])
    assert images.image_sizes == [(64, 96)]
    light.train()


def test_grey_levels_are_not_normalised_as_photographs(light):
    """Register F7."""
    assert light.transform.image_mean == [0.5] * 3
    assert light.transform.image_std == [0.25] * 3


def test_nothing_found_is_an_empty_list_of_boxes(light):
    """Register F6: the original returned the whole image."""
    light.eval()
    light.roi_heads.score_thresh, old = 1.1, light.roi_heads.score_thresh
    with torch.no_grad():
        (found,) = light([torch.rand(3, 64, 64)])
    light.roi_heads.score_thresh = old
    assert found["boxes"].shape == (0, 4)
    assert found["scores"].shape == (0,)


@pytest.mark.parametrize(
    ("backbone", "low", "high"), [("resnet50-fpn", 38e6, 45e6), ("resnet50-c4", 28e6, 36e6), ("light", 0.5e6, 3e6)]
)
def test_every_backbone_builds_and_trains(backbone, low, high):
    torch.manual_seed(0)
    detector = build_detector({"backbone": backbone})
    assert low < sum(p.numel() for p in detector.parameters()) < high
    losses = detector.train()([torch.rand(3, 64, 64)], [nodule_target((20, 20, 34, 36))])
    assert set(losses) == {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"}
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_a_nodule_is_learnt_from_one_image():
    torch.manual_seed(1)
    detector = build_detector(LIGHT | {"rpn_positive_iou": 0.5})
    image = torch.full((3, 64, 64), 0.1)
    image[:, 24:36, 30:42] = 0.8
    optimizer = torch.optim.Adam(detector.parameters(), 1e-3)
    for _ in range(60):
        loss = sum(
            detector.train()(
                [image, torch.full((3, 64, 64), 0.1)], [nodule_target((30, 24, 42, 36)), nodule_target()]
            ).values()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found = detector.eval()([image])[0]
    assert found["scores"][0] > 0.3
    assert giou(found["boxes"][0].tolist(), (30, 24, 42, 36)) > 0.5


def test_the_roi_predictor_starts_near_no_offset():
    """A wide start drives extents into the clamp, where the GIoU loss has no gradient."""
    fresh = build_detector({"backbone": "light"}).roi_heads.box_predictor
    assert fresh.bbox_pred.weight.std().item() == pytest.approx(0.001, rel=0.1)
    assert fresh.cls_score.weight.std().item() == pytest.approx(0.01, rel=0.2)


@pytest.mark.parametrize("backbone", ["light", "resnet50-fpn", "resnet50-c4"])
def test_a_small_first_image_changes_nothing_of_later_ones(backbone):
    torch.manual_seed(0)
    network = build_detector({"backbone": backbone, "width": 4, "min_score": 0.0}).eval()
    image = torch.rand(3, 96, 128)
    with torch.inference_mode():
        fresh = copy.deepcopy(network)([image])[0]["boxes"]
        network([torch.rand(3, 20, 22)])
        later = network([image])[0]["boxes"]
    assert len(fresh)
    torch.testing.assert_close(later, fresh)


def test_an_unknown_backbone_is_refused_by_name():
    with pytest.raises(ValueError, match="'vgg16' is unknown"):
        build_detector({"backbone": "vgg16"})
