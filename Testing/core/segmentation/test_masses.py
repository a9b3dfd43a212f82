"""The coarser look: a network that sees the inside of small things alone finds, outlines and sorts large ones, too."""

import json

import numpy as np
import pytest
from LNHGLib.errors import InputError
from LNHGLib.image.boxes import box_of_edges
from LNHGLib.image.volume import Grid, Source, Volume
from LNHGLib.models import folder as models
from LNHGLib.models.card import MassSpec
from LNHGLib.segmentation import pipeline
from LNHGLib.segmentation.classification import candidate_field, finding_fields
from LNHGLib.segmentation.ensemble import Ensemble, Member
from LNHGLib.segmentation.fusion import Finding
from LNHGLib.segmentation.point_prompt import segment_at
from LNHGLib.segmentation.preprocessing import coarser
from scipy import ndimage
from tiny_model import with_stand_ins, write_model
from torch import nn

MASSES = MassSpec(factor=3, threshold=0.1, min_diameter=20.0)
LARGE, SMALL = (((40, 45, 50), 36.0), ((80, 75, 20), 9.0))


class _NearSighted(nn.Module):
    """Shows what is bright where most of the cube of 15 voxels around it is not."""

    halo, multiple = (7, 7, 7), 1

    def forward(self, x):
        return x * (x > 0.5) * (nn.functional.avg_pool3d(x, 15, 1, 7) < 0.5)


def ball(shape, center, diameter):
    return sum((axis - c) ** 2 for axis, c in zip(np.indices(shape), center, strict=True)) <= (diameter / 2) ** 2


@pytest.fixture(scope="module")
def ct():
    shape = (100, 96, 98)
    return 0.1 + 0.8 * (ball(shape, *LARGE) | ball(shape, *SMALL)).astype(np.float32)


@pytest.fixture(scope="module")
def predictor():
    return Ensemble([Member(_NearSighted())], masses=MASSES)


def dice(mask, other):
    return 2 * (mask & other).sum() / (mask.sum() + other.sum())


def test_blocks_have_their_mean_and_the_last_ones_go_on():
    array = np.arange(4 * 3 * 3, dtype=np.int16).reshape(4, 3, 3)
    found = coarser(array, 3)
    assert found.shape == (2, 1, 1)
    assert found.dtype == np.float32
    assert found.ravel().tolist() == [array[:3].mean(), array[3].mean()]


def test_what_is_large_joins_the_nodule_image_whole_and_what_is_small_stays(ct, predictor):
    alone, both = Ensemble(predictor.members).predict(ct), predictor.predict(ct)
    large, small = ball(ct.shape, *LARGE), ball(ct.shape, *SMALL)
    assert alone[LARGE[0]] == 0
    assert both.shape == ct.shape
    numbers = ndimage.label(both > 0.1)[0]
    assert dice(numbers == numbers[LARGE[0]], large) > 0.85
    around = ndimage.binary_dilation(small, iterations=6)
    np.testing.assert_array_equal(both[around], alone[around])


def test_lungs_bound_the_coarser_look(ct, predictor):
    lungs = np.zeros(ct.shape, bool)
    lungs[60:] = True
    assert predictor.predict(ct, lungs)[LARGE[0]] == 0


def test_a_large_candidate_is_looked_at_from_afar_and_a_small_one_is_not(ct, predictor):
    boxes = [tuple(slice(round(c - d / 2), round(c + d / 2)) for c in middle) for middle, d in (LARGE, SMALL)]
    large, small = predictor.predict_at(ct, boxes)
    assert dice(large.image > 0.1, ball(ct.shape, *LARGE)[large.box]) > 0.85
    (alone,) = Ensemble(predictor.members).predict_at(ct, boxes[1:])
    np.testing.assert_array_equal(small.image, alone.image)


def test_a_place_in_a_mass_has_its_box(ct, predictor):
    box = predictor.mass_at(ct, LARGE[0])
    for part, middle in zip(box, LARGE[0], strict=True):
        assert part.start == pytest.approx(middle - 18, abs=3)
        assert part.stop == pytest.approx(middle + 18, abs=3)
    assert predictor.mass_at(ct, SMALL[0]) is None
    assert predictor.mass_at(ct, (5, 5, 90)) is None
    assert Ensemble(predictor.members).mass_at(ct, LARGE[0]) is None


def test_the_classifier_sees_large_findings_from_afar(ct, tmp_path):
    spec = write_model(tmp_path / "model", classifier=True, masses=vars(MASSES)).spec
    labels = ball(ct.shape, *LARGE).astype(np.int32) + 2 * ball(ct.shape, *SMALL)
    findings = []
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        edges = tuple(float(part.start) for part in box) + tuple(float(part.stop) for part in box)
        assert box_of_edges(edges) == box
        findings.append(Finding("segmenter", 0.5, 0.5, None, (number,), edges))
    large, small = finding_fields(ct, labels, findings, spec)
    np.testing.assert_array_equal(small, candidate_field(ct, SMALL[0], spec.window_hu))
    middle = (np.array(LARGE[0]) + 0.5) / 3 - 0.5
    np.testing.assert_array_equal(large, candidate_field(coarser(ct, 3), middle, spec.window_hu))
    assert not large[16, 16, 26:].any() or large[16, 16, 26:].max() < 0.2  # beyond the ball of 12 coarse voxels


def test_a_click_in_a_mass_outlines_it_whole(ct, tmp_path):
    """With the same grid as the model's, so that the CT is what the network sees."""
    changes = {"grid": {"kind": "spacing", "spacing_mm": [1.0, 1.0, 1.0]}, "fusion": {"min_volume_mm3": 14.1}}
    volume = Volume((ct * 1400 - 1000).astype(np.int16), Grid.aligned(ct.shape, (1, 1, 1), (0, 0, 0)), Source("balls"))
    place = tuple(volume.grid.index_to_lps(np.add(LARGE[0], (0, 0, 8))))
    plain = with_stand_ins(write_model(tmp_path / "plain", **changes), generator=_NearSighted())
    far = with_stand_ins(write_model(tmp_path / "far", **changes, masses=vars(MASSES)), generator=_NearSighted())
    truth = ball(ct.shape, *LARGE)
    whole = segment_at(volume, far, place).labels > 0
    assert dice(whole, truth) > 0.85
    try:
        before = segment_at(volume, plain, place).labels > 0
    except InputError:
        before = np.zeros_like(truth)
    assert dice(before, truth) < 0.6


def test_unknown_key_of_the_coarser_look_is_refused(tmp_path):
    folder = write_model(tmp_path / "model", masses=vars(MASSES)).folder
    card = json.loads((folder / "model.json").read_text())
    card["masses"]["scale"] = 2
    (folder / "model.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match=r"'masses\.scale' is unknown"):
        models.read(folder)


@pytest.mark.slow
def test_a_mass_at_the_wall_of_the_phantom_is_found_in_one_piece():
    """By the bundled model; a ball of 45 mm, half a radius of it from the border of the lungs."""
    from LNHGLib.phantom.chest import make_phantom
    from LNHGLib.segmentation.preprocessing import find_lungs

    volume = make_phantom(seed=3).volume
    depth = ndimage.distance_transform_edt(find_lungs(volume), sampling=volume.grid.spacing_mm)
    center = np.argwhere((depth > 15) & (depth < 17))[4000]
    grid = np.stack(np.indices(depth.shape), -1) - center
    mass = (np.linalg.norm(grid * volume.grid.spacing_mm, axis=-1) < 22.5) & (depth > 0)
    rng = np.random.default_rng(0)
    volume.array[mass] = 30 + rng.normal(0, 20, int(mass.sum()))
    result = pipeline.segment(volume, models.load())
    met = [number for number in np.unique(result.labels[mass]) if number]
    scores = {number: dice(result.labels == number, mass) for number in met}
    assert max(scores.values()) > 0.8, scores
    assert len([number for number in met if (result.labels[mass] == number).mean() > 0.02]) == 1, scores
