"""Training the classifier: where candidates come from, what it never sees, and going on as if never stopped."""

import numpy as np
import pytest
import small_data
import torch
from LNHGLib.errors import InputError
from LNHGLib.models import folder as models
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.config import ClassifierConfig, build
from LNHGTrainingLib.data.candidates import SIDE, load_candidates
from LNHGTrainingLib.data.classifier_batches import CandidateFields
from LNHGTrainingLib.release.export import add_part
from LNHGTrainingLib.training import checkpoint, classifier
from tiny_model import gate_generator, write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Crops and scans, and a generator for each of two folds that held it out: an intensity gate."""
    path = tmp_path_factory.mktemp("data")
    small_data.write_crops(path)
    small_data.write_scans(path, {"patient-0": [4, 2], "patient-1": [3]})
    for fold in (0, 1):
        config = {"generator": {"kind": "paper", "width": 1}, "data": {"train_folds": [1 - fold]}}
        checkpoint.save(path / f"fold{fold}.pt", {"config": config, "ema": gate_generator().state_dict()})
    return path


@pytest.fixture
def config(folder):
    generators = [str(folder / f"fold{fold}.pt") for fold in (0, 1)]
    return small_data.training_config("classifier", folder) | {"generators": generators, "epoch_steps": 4}


def candidates(config, folds, cache, **changes):
    return load_candidates(build(ClassifierConfig, config | changes), folds, cache)


def test_candidates_are_cut_at_their_own_centroid_and_know_what_they_are(config, tmp_path):
    found = candidates(config, [0], tmp_path)
    of_scan = found.of(found.scan)
    assert of_scan.nodule.tolist().count(1) == 1  # four readers; two readers' ball is neither nodule nor none
    assert of_scan.nodule.tolist().count(0) == 1  # the rod
    assert set(found.patient) == {"patient-0", "patient-2", "patient-4"}
    assert found.nodule[~found.scan].all()
    middle = SIDE // 2
    for hu, image in zip(found.hu, found.image, strict=True):
        assert hu[middle, middle, middle] > -200
        marked = np.argwhere(image > 12)
        near = marked[np.linalg.norm(marked - middle, axis=1) < 9]
        assert np.abs(near.mean(0) - middle).max() < 1.5


def test_a_candidate_of_an_unseen_patient_alone(config, folder, tmp_path):
    swapped = [str(folder / f"fold{fold}.pt") for fold in (1, 0)]
    with pytest.raises(InputError, match=r"was trained on folds \[0\], expected one that left out fold 0"):
        candidates(config, [0], tmp_path, generators=swapped)


def test_candidates_are_kept(config, tmp_path, monkeypatch):
    first = candidates(config, [0], tmp_path)
    monkeypatch.setattr("LNHGTrainingLib.data.candidates.collect", None)
    again = candidates(config, [0], tmp_path)
    np.testing.assert_array_equal(first.hu, again.hu)


def test_batches_have_as_many_nodules_as_asked_and_are_empty_outside_the_ball(config, tmp_path):
    source = CandidateFields(candidates(config, [0, 1], tmp_path), build(ClassifierConfig, config))
    fields, nodules = source.batch(3, 10)
    assert nodules.tolist() == [1] * 4 + [0] * 6
    assert fields.shape == (10, 2, 32, 32, 32)
    assert not fields[:, :, 0, 0, 0].any()
    assert torch.equal(fields, source.batch(3, 10)[0])
    assert not torch.equal(fields, source.batch(4, 10)[0])


def test_nodules_of_crops_are_pasted_into_the_tissue_of_scans(config, tmp_path):
    found = candidates(config, [0], tmp_path)
    sampling = config["sampling"] | {"pasted": 1.0, "scans": 0.0}
    source = CandidateFields(found, build(ClassifierConfig, config | {"sampling": sampling}))
    source.candidates.hu[source.tissue] = -777
    number = source.of_crops[0]
    hu, image = source._cube(np.random.default_rng(0), number)
    assert hu[SIDE // 2, SIDE // 2, SIDE // 2] > -200
    assert hu[0, 0, 0] == pytest.approx(-777, abs=1)
    assert image.max() > 0.1


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
    model = write_model(tmp_path / "model", results={"old": 1})
    assert main(["part", "classifier", "--model", str(model.folder), str(best), str(out)]) == 0
    made = models.load(str(out))
    assert made.spec.classifier.kind == "residual"
    assert made.spec.fusion.keep == "all"
    assert "results" not in made.card
    assert made.card["training"]["classifier"]["generators"] == [f"{folder.name}/fold0.pt", f"{folder.name}/fold1.pt"]
    weights = checkpoint.load(best)["ema"]
    for name, value in made.classifier().state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=1e-3, atol=1e-3)
    with pytest.raises(InputError, match="holds no detector"):
        add_part(model, "detector", best, tmp_path / "no")
