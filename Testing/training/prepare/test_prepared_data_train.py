"""Prepared data train: one step from a tiny LIDC tree, read when asked for, by each worker for itself."""

import multiprocessing
import pickle
import tomllib
from pathlib import Path

import numpy as np
import pytest
import scan_trees
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.data import crops
from LNHGTrainingLib.training import segmenter

RESOURCES = Path(__file__).parents[3] / "LNHGTraining" / "Resources"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Three patients, one of them with two scans; folds drawn by the command."""
    folder = tmp_path_factory.mktemp("prepared")
    for number, patient in enumerate(["P1", "P1", "P2", "P3"]):
        readers = scan_trees.four_readers((12, 28 + number, 30), 5.0)
        scan_trees.write_lidc_scan(folder / "in", patient, f"1.2.{number}", readers, seed=number)
    out = folder / "out"
    assert main(["prepare", "lidc", str(folder / "in"), str(out)]) == 0
    assert main(["folds", str(out / "manifest.csv"), str(out / "folds.csv"), "--folds", "2"]) == 0
    return out


def test_without_folds_nothing_can_be_trained_on(prepared):
    with pytest.raises(ValueError, match="no usable crop"):
        crops.load_crops(prepared / "volumes.h5", prepared / "manifest.csv", [0, 1])


def test_both_scans_of_a_patient_are_in_one_fold(prepared):
    folds = [crops.load_crops(prepared / "volumes.h5", prepared / "folds.csv", [fold]) for fold in (0, 1)]
    crops.assert_disjoint(*folds)
    assert sorted(len(fold) for fold in folds) == [2, 2]


def test_a_segmenter_trains_a_step(prepared, tmp_path):
    config = tomllib.loads((RESOURCES / "segmenter.toml").read_text())
    config |= {"steps": 1, "epoch_steps": 1, "batch": 2, "validate_crops": 1}
    config["data"] = {
        "folder": str(prepared), "crops": "volumes.h5", "table": "folds.csv", "train_folds": [0],
        "validation_folds": [1], "min_readers": 3, "background_folder": ".", "background": [],
    }  # fmt: skip
    config["generator"]["width"] = config["critic"]["width"] = 2
    config["sampling"]["sides"] = [[16, 16, 16]]
    best = segmenter.train(config, tmp_path / "run")
    assert best.is_file()


def look(cubes, number, results):
    cube = cubes[number]
    results.put((number, int(cube.mask.sum()), float(cube.hu.mean())))


def test_cubes_are_read_when_asked_for_and_no_more_are_kept_than_allowed(prepared, monkeypatch):
    monkeypatch.setattr(crops, "MAX_CROPS_IN_MEMORY", 1)
    read = []
    plain = crops.read_crop
    monkeypatch.setattr(crops, "read_crop", lambda file, row: read.append(row["row"]) or plain(file, row))
    cubes = crops.load_crops(prepared / "volumes.h5", prepared / "folds.csv", [0, 1])
    assert (len(cubes), len(crops.patients(cubes)), len(cubes[1:]), read) == (4, 3, 3, [])
    assert cubes[2] is cubes[2]
    assert cubes[3] is not cubes[3]
    assert read == [cubes.rows[number]["row"] for number in (2, 3, 3)]


def test_a_copy_for_a_worker_holds_no_open_file(prepared):
    cubes = crops.load_crops(prepared / "volumes.h5", prepared / "folds.csv", [0, 1])
    first = cubes[0]
    copy = pickle.loads(pickle.dumps(cubes))
    assert np.array_equal(copy[0].hu, first.hu)


def test_a_forked_worker_opens_the_file_itself(prepared, monkeypatch):
    """An HDF5 file that is open when a process forks must not be read by the child."""
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system does not fork")
    monkeypatch.setattr(crops, "MAX_CROPS_IN_MEMORY", 0)
    cubes = crops.load_crops(prepared / "volumes.h5", prepared / "folds.csv", [0, 1])
    own = [(number, int(cube.mask.sum()), float(cube.hu.mean())) for number, cube in enumerate(cubes)]
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=look, args=(cubes, number, results)) for number in range(len(cubes))]
    for worker in workers:
        worker.start()
    found = sorted(results.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
    assert found == own
