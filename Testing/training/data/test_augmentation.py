"""What augmentation does to masks; each test names the fault of other programs that it would find."""

import numpy as np
import pytest
from LNHGTrainingLib.data.augmentation import Geometry, sample_augmentation, sample_patch
from LNHGTrainingLib.data.crops import CUBE, LabeledVolume
from small_data import segmenter_patches


def crop_of_ball(radius: float) -> LabeledVolume:
    z, y, x = np.indices((CUBE,) * 3) - CUBE / 2
    mask = z**2 + y**2 + x**2 < radius**2
    return LabeledVolume(np.where(mask, 40, -850).astype(np.int16), mask, np.ones(mask.shape, bool), "P", {})


def test_a_small_nodule_that_is_turned_keeps_its_size():
    """Register T5: cut down to whole numbers, all of its rim becomes background."""
    crop, rng = crop_of_ball(3), np.random.default_rng(0)
    volumes = []
    for _ in range(30):
        augmentation = sample_augmentation(rng, np.full(3, CUBE / 2) + rng.random(3), Geometry(zoom=0.0))
        volumes.append(sample_patch(crop, augmentation, (16, 16, 16))[1].sum())
    assert np.mean(volumes) == pytest.approx(crop.mask.sum(), rel=0.07)


def test_intensities_vary_in_the_ct_alone_and_geometry_from_patch_to_patch():
    """Register M2: one crop, seen twelve times by other scanners; its mask is turned and stays a mask."""
    crop = crop_of_ball(8)
    crop.mask[:, :, 25:] = False
    batch = segmenter_patches([crop], [], {"sides": [[24, 24, 24]], "nodule": 1.0}).batch(0, 12)
    assert set(batch.mask.unique().tolist()) == {0.0, 1.0}
    lung = [float(image[image < 0.4].mean()) for image in batch.image]
    assert np.ptp(lung) > 0.02
    assert len({mask.numpy().tobytes() for mask in batch.mask}) == 12


def test_a_patch_may_be_larger_than_its_crop_and_knows_nothing_beyond_it():
    """Register N2: the original fails where a part reaches beyond its cube."""
    patches = segmenter_patches([crop_of_ball(8)], [], {"sides": [[56, 56, 56]], "nodule": 1.0, "zoom": 0.0})
    batch = patches.batch(0, 2)
    assert batch.known.shape == (2, 1, 56, 56, 56)
    assert 0.1 < batch.known.mean() < (CUBE / 56) ** 3
    assert (batch.known[batch.mask > 0] == 1).all()
