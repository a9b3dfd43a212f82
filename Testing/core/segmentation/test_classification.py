"""The candidate classifier sees one small field around each candidate, cut in one way, and nothing else."""

import numpy as np
import pytest
import torch
from LNHGLib.errors import InputError
from LNHGLib.models.classifier import build_classifier
from LNHGLib.segmentation.classification import BALL, FIELD, RADIUS, candidate_field, classify

WINDOW = (-1000.0, 400.0)


def noisy(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, np.float32)


def test_resnet_48_has_the_documents_parameters() -> None:
    assert sum(each.numel() for each in build_classifier({"kind": "resnet-48"}).parameters()) == 2_078_306


def test_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="'forest', expected one of residual, resnet-48"):
        build_classifier({"kind": "forest"})


@pytest.mark.parametrize("kind", ["residual", "resnet-48"])
def test_voxels_outside_of_the_field_change_no_score(kind: str) -> None:
    torch.manual_seed(1)
    network = build_classifier({"kind": kind, "width": 4}).eval()
    ct_norm = noisy((60, 60, 60))
    center = np.array([29.6, 31.2, 30.0])
    distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(np.indices((60,) * 3), np.rint(center), strict=True)))
    changed = np.where(distance > RADIUS, 1 - ct_norm, ct_norm)
    before, after = (classify(network, [candidate_field(ct, center, WINDOW)]) for ct in (ct_norm, changed))
    assert before == after
    inside = ct_norm.copy()
    inside[tuple(np.rint(center).astype(int))] += 0.5
    assert classify(network, [candidate_field(inside, center, WINDOW)]) != before


def test_crop_and_scan_give_the_same_field() -> None:
    ct_norm = noisy((80, 90, 100))
    crop = np.s_[20:70, 30:80, 40:90]
    in_scan = candidate_field(ct_norm, (45.2, 54.9, 66.4), WINDOW)
    in_crop = candidate_field(ct_norm[crop], (25.2, 24.9, 26.4), WINDOW)
    np.testing.assert_array_equal(in_scan, in_crop)


def test_field_is_empty_beyond_the_ct_and_rounded_to_32_hu() -> None:
    ct_norm = np.full((20, 20, 20), 0.5003, np.float32)
    field = candidate_field(ct_norm, (0, 10, 10), WINDOW)
    assert field.shape == (FIELD, FIELD, FIELD)
    assert not field[: FIELD // 2].any()
    assert not field[~BALL].any()
    hu = WINDOW[0] + field[FIELD // 2, FIELD // 2, FIELD // 2] * (WINDOW[1] - WINDOW[0]) + 1000
    assert hu % 32 == pytest.approx(0, abs=1e-3) or hu % 32 == pytest.approx(32, abs=1e-3)


def test_scores_do_not_depend_on_the_batch_nor_on_flips_in_the_axial_plane() -> None:
    torch.manual_seed(2)
    network = build_classifier({"kind": "residual", "width": 4}).eval()
    fields = [candidate_field(noisy((40, 40, 40), seed), (20, 20, 20), WINDOW) for seed in range(19)]
    scores = classify(network, fields)
    assert scores.shape == (19,)
    np.testing.assert_allclose(scores[17:], classify(network, fields[17:]), atol=1e-6)
    mirrored = [np.ascontiguousarray(field[..., ::-1]) for field in fields]
    np.testing.assert_allclose(scores, classify(network, mirrored), atol=1e-6)
    assert classify(network, []).shape == (0,)
