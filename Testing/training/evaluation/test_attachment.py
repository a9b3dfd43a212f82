"""What a nodule is attached to, on synthetic chests and on real nodules."""

import numpy as np
import pytest
from evaluation_data import ball
from LNHGTrainingLib.evaluation import crops as evaluate_crops
from LNHGTrainingLib.evaluation.attachment import Attachment, attachment
from LNHGTrainingLib.evaluation.crops import Selection

SHAPE = (50, 50, 50)
MM = (1.0, 1.0, 1.0)


def lung(nodule, *tissue):
    hu = np.random.default_rng(0).normal(-850, 30, nodule.shape)
    for part in (nodule, *tissue):
        hu[part] = 20
    return hu


def rod(radius, first, last, shape=SHAPE):
    """A vessel along x through the middle."""
    z, y, x = np.ogrid[tuple(slice(0, size) for size in shape)]
    return ((z - 25) ** 2 + (y - 25) ** 2 <= radius**2) & (x >= first) & (x < last)


def wall(first):
    return np.broadcast_to(np.arange(50)[:, None] >= first, SHAPE)


NODULE = ball((25, 25, 25), 5)


@pytest.mark.parametrize(
    ("tissue", "pleural", "vascular"),
    [
        ((), False, False),
        ((wall(31),), True, False),
        ((wall(40),), False, False),
        ((rod(2, 25, 50),), False, True),
        ((rod(2, 38, 50),), False, False),
        ((rod(2, 25, 33),), False, False),
        ((wall(31), rod(2, 0, 25)), True, True),
    ],
    ids=["in the lung", "at the wall", "off the wall", "at a vessel", "off a vessel", "with a spicule", "at both"],
)
def test_a_nodule_is_attached_to_what_touches_it(tissue, pleural, vascular):
    assert attachment(lung(NODULE, *tissue), NODULE, MM) == Attachment(pleural, vascular)


def test_padding_is_no_wall():
    padding = wall(31)
    hu = lung(NODULE, padding)
    assert attachment(hu, NODULE, MM).pleural
    assert not attachment(hu, NODULE, MM, valid=~padding).pleural


def test_thick_slices_change_nothing():
    tissue = rod(2, 25, 50)
    hu = lung(NODULE, tissue)
    thick = attachment(hu[::2], NODULE[::2], (2.0, 1.0, 1.0))
    assert thick == attachment(hu, NODULE, MM) == Attachment(False, True)


def test_real_nodules_are_of_every_kind(data_dir):
    rows = evaluate_crops.select_rows(data_dir / "crops" / "luna16_crops.csv", Selection(folds=(0,), limit=60))
    crops = evaluate_crops.read_crops(data_dir / "crops" / "luna16_crops.h5", rows)
    kinds = [attachment(crop.hu, crop.reference, MM, crop.valid) for crop in crops if crop.reference.any()]
    fractions = [np.mean([kind.pleural for kind in kinds]), np.mean([kind.vascular for kind in kinds])]
    assert 0.2 < fractions[0] < 0.5
    assert 0.25 < fractions[1] < 0.65
