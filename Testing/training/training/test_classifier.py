"""Training the classifier: where candidates come from, what tells nothing, and going on as if never stopped."""

import numpy as np
import pytest
import small_data
import torch
from LNHGLib.errors import InputError
from LNHGLib.models import folder as models
from LNHGLib.segmentation.classification import BALL
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.config import ClassifierConfig, build
from LNHGTrainingLib.data.candidates import SIDE, Candidates, bright_places, load_candidates, seen_field
from LNHGTrainingLib.data.classifier_batches import CandidateFields
from LNHGTrainingLib.data.crops import LabeledVolume
from LNHGTrainingLib.release.export import add_part
from LNHGTrainingLib.training import checkpoint, classifier
from tiny_model import write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Crops and scans, and a model whose generator is an intensity gate."""
    path = tmp_path_factory.mktemp("data")
    small_data.write_crops(path)
    small_data.write_scans(path, {"patient-0": [4, 2], "patient-1": [3]})
    write_model(path / "gate")
    return path


@pytest.fixture
def config(folder):
    return small_data.training_config("classifier", folder) | {"models": [str(folder / "gate")], "epoch_steps": 4}


def candidates(config, folds, cache, **changes):
    return load_candidates(build(ClassifierConfig, config | changes), folds, cache)


def test_candidates_are_cut_at_their_own_centroid_and_know_what_they_are(config, tmp_path):
    found = candidates(config, [0], tmp_path)
    of_scan = found.of(found.scan & found.marked)
    assert of_scan.nodule.tolist().count(1) == 1  # four readers; two readers' ball is neither nodule nor none
    assert of_scan.nodule.tolist().count(0) == 1  # the rod
    assert set(found.patient) == {"patient-0", "patient-2", "patient-4"}
    assert found.nodule[~found.scan & found.marked].all()
    middle = SIDE // 2
    for hu in found.of(found.marked).hu:
        near = np.argwhere(hu > -200)
        near = near[np.linalg.norm(near - middle, axis=1) < 9]
        assert np.abs(near.mean(0) - middle).max() < 1.5


def test_further_models_mark_candidates_but_give_no_bright_places(config, tmp_path):
    one = candidates(config, [0, 1], tmp_path)
    both = candidates(config, [0, 1], tmp_path, models=config["models"] * 2)
    assert 0 < both.marked.sum() == 2 * one.marked.sum()
    assert (~both.marked).sum() == (~one.marked).sum()


def test_bright_places_are_far_from_what_any_reader_outlined():
    hu = np.random.default_rng(1).normal(-900, 5, (60, 60, 60))
    balls = [
        np.sum((np.indices(hu.shape).T - center).T ** 2, 0) < 9 for center in ((20, 20, 20), (40, 40, 40), (20, 40, 40))
    ]
    for ball in balls:
        hu[ball] = 0
    volume = LabeledVolume(hu.astype(np.int16), balls[0], ~balls[1], "patient", {})
    found = bright_places(volume, np.ones(hu.shape, bool), 9)
    assert len(found) > 0
    assert np.abs(found - [20, 40, 40]).max() <= 2


def test_what_a_crop_does_not_show_is_empty_in_the_field():
    ct_norm, reach = np.full((SIDE,) * 3, 0.5, np.float32), np.array([20, 6, 20, 20, 20, 9])
    field = seen_field(ct_norm, reach, (SIDE / 2,) * 3, [-1000, 400])
    assert not field[:, :10].any()
    assert field[16, 10:, 16].any()
    assert not field[:, :, 26:].any()
    assert field[16, 16, 25] > 0


def test_candidates_are_kept(config, tmp_path, monkeypatch):
    first = candidates(config, [0], tmp_path)
    monkeypatch.setattr("LNHGTrainingLib.data.candidates.collect", None)
    again = candidates(config, [0], tmp_path)
    np.testing.assert_array_equal(first.hu, again.hu)


def test_batches_have_as_many_nodules_as_asked_and_are_empty_outside_the_ball(config, tmp_path):
    """Register M8."""
    source = CandidateFields(candidates(config, [0, 1], tmp_path), build(ClassifierConfig, config))
    fields, nodules = source.batch(3, 10)
    assert nodules.tolist() == [1] * 4 + [0] * 6
    assert fields.shape == (10, 1, 32, 32, 32)
    assert not fields[:, :, 0, 0, 0].any()
    assert torch.equal(fields, source.batch(3, 10)[0])
    assert not torch.equal(fields, source.batch(4, 10)[0])


def test_a_cut_field_does_not_tell_nodules_from_others(config):
    """Others of crops are all cut, nodules and scans never: in batches both classes are cut as often, and alike."""
    count = 40
    reach = np.full((3 * count, 6), SIDE // 2, np.int8)
    reach[:count, 4] = np.arange(count) % 10 + 5
    found = Candidates(
        hu=np.full((3 * count, SIDE, SIDE, SIDE), 100, np.int16),
        reach=reach,
        nodule=np.repeat([0, 0, 1], count).astype(np.uint8),
        marked=np.ones(3 * count, bool),
        patient=np.array(["patient-0"] * (3 * count)),
        scan=np.repeat([False, True, False], count),
    )
    source = CandidateFields(found, build(ClassifierConfig, config))
    cut = {True: [], False: []}
    for step in range(60):
        fields, nodules = source.batch(step, 20)
        empty = (fields[:, 0] == 0).sum((1, 2, 3)) > (~BALL).sum() + 60  # beside what lies outside of the ball
        for nodule in (True, False):
            cut[nodule] += empty[nodules == nodule].tolist()
    shares = {nodule: np.mean(each) for nodule, each in cut.items()}
    assert 0.2 < shares[False] < 0.5
    assert shares[True] == pytest.approx(shares[False], abs=0.06)


@pytest.mark.slow
def test_resume_equals_uninterrupted(config, tmp_path):
    config = config | {"epoch_steps": 2}
    classifier.train(config, tmp_path / "whole")

    class Killed(Exception):
        pass

    def kill(self, out):
        self.save(out / "last.pt")
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier.ClassifierRun, "save_if_best", lambda self, score, out: kill(self, out))
        with pytest.raises(Killed):
            classifier.train(config, tmp_path / "halves")
    state = checkpoint.load(tmp_path / "halves/last.pt")
    assert state["step"] == 2
    classifier.train(config, tmp_path / "halves", resume=True)
    whole, halves = (checkpoint.load(tmp_path / name / "last.pt")["ema"] for name in ("whole", "halves"))
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


@pytest.mark.slow
def test_patients_that_are_left_out_change_the_training(config, tmp_path):
    runs = [classifier.train(config | {"without": names}, tmp_path / str(len(names))) for names in ([], ["patient-4"])]
    one, other = (checkpoint.load(path)["ema"] for path in runs)
    assert not all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_command_trains_and_part_puts_it_into_a_model(config, folder, tmp_path):
    best = classifier.train(config, tmp_path / "run")
    out = tmp_path / "with"
    model = write_model(tmp_path / "model", results={"old": 1}, bfloat16=True)
    assert main(["part", "classifier", "--model", str(model.folder), str(best), str(out)]) == 0
    made = models.load(str(out))
    assert made.spec.classifier.kind == "residual"
    assert made.spec.fusion.keep == "all"
    assert not {"results", "bfloat16"} & made.card.keys()  # which were measured with other networks
    assert made.card["training"]["classifier"]["models"] == ["gate"]
    weights = checkpoint.load(best)["ema"]
    for name, value in made.classifier().state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=1e-3, atol=1e-3)
    with pytest.raises(InputError, match="holds no detector"):
        add_part(model, "detector", best, tmp_path / "no")
