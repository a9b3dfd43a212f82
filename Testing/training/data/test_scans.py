"""Whole scans to train on: what counts, what is not known, whose fold they have, and what is cut from them."""

import h5py
import numpy as np
import pytest
import small_data
from LNHGLib.errors import InputError
from LNHGTrainingLib.config import Data, build
from LNHGTrainingLib.data import augmentation
from LNHGTrainingLib.data.background import load_sources
from LNHGTrainingLib.data.scans import read_scans
from small_data import segmenter_patches


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    small_data.write_crops(path)
    small_data.write_scans(path, {"patient-0": [4, 2], "patient-1": [3]})
    return path


def read(folder, folds):
    return list(read_scans(folder / "scans/lidc_scans.h5", folder / "crops/luna16_crops.csv", folds))


def test_scan_has_the_fold_of_its_patient(folder):
    assert [scan.patient for scan in read(folder, [0])] == ["patient-0"]
    assert [scan.patient for scan in read(folder, [1])] == ["patient-1"]
    assert not read(folder, [2])


def test_nodules_of_enough_readers_count_and_others_are_not_known(folder):
    (scan,) = read(folder, [0])
    assert [nodule.readers for nodule in scan.nodules] == [4, 2]
    volume = scan.labeled(3)
    assert volume.mask[30, 40, 20]
    assert volume.known[30, 40, 20]
    assert not volume.mask[30, 40, 34]
    assert not volume.known[30, 40, 34]
    assert volume.known[30, 20, 20]  # what no reader outlined is a true negative
    assert not volume.mask[30, 20, 20]
    assert not volume.known[0, 0, 0]  # emptied far from the lungs
    assert scan.labeled(2).mask[30, 40, 34]


def test_held_out_scans_do_not_come_into_training(folder, tmp_path):
    data = small_data.data_config(folder) | {"scans": "scans/lidc_scans.h5"}
    sources = load_sources(build(Data, data, "data."), tmp_path)
    assert [volume.patient for volume, _ in sources.backgrounds] == ["patient-0"]
    volume, lung = sources.backgrounds[0]
    assert lung.min(0).tolist() == [12, 12, 12]
    assert volume.mask.any()


def test_scan_without_a_fold_or_a_data_set_is_refused(folder, tmp_path):
    small_data.write_crops(tmp_path)
    small_data.write_scans(tmp_path, {"stranger": [4]})
    with pytest.raises(InputError, match="stranger has no fold"):
        read(tmp_path, [0])
    small_data.write_scans(tmp_path, {"patient-0": [4]})
    with h5py.File(tmp_path / "scans/lidc_scans.h5", "a") as file:
        del file["scan-0/lungs"]
    with pytest.raises(InputError, match="scan scan-0 lacks lungs"):
        read(tmp_path, [0])
    (tmp_path / "scans/lidc_scans.h5").write_text("no HDF5")
    with pytest.raises(InputError, match="cannot be read as HDF5"):
        read(tmp_path, [0])


def patches(folder, tmp_path, **sampling):
    data = small_data.data_config(folder) | {"scans": "scans/lidc_scans.h5"}
    sources = load_sources(build(Data, data, "data."), tmp_path)
    return segmenter_patches(sources.train, sources.backgrounds, {"sides": [[24, 24, 24]], **sampling})


def test_background_patches_hold_the_scans_own_nodules(folder, tmp_path):
    batch = patches(folder, tmp_path, background=1.0).batch(0, 40)
    assert batch.mask.any()
    assert (batch.known == 0).any()
    nodule = batch.image[(batch.mask > 0) & (batch.known > 0)]
    assert nodule.mean() > 0.6  # of the window: soft tissue


def test_masses_are_as_large_at_half_the_resolution_as_promised(folder, tmp_path):
    source = patches(folder, tmp_path, mass=1.0)
    volumes = source.batch(0, 24).mask.sum((1, 2, 3, 4)).numpy() * 8  # mm3: voxels of 2 mm
    diameters = np.cbrt(6 / np.pi * volumes[volumes > 0])
    assert len(diameters) > 12
    assert diameters.min() > 18
    assert diameters.max() < 75
    assert np.median(diameters) > 25


def test_weights_make_faint_and_large_nodules_frequent(folder, tmp_path):
    data = small_data.data_config(folder)
    sources = load_sources(build(Data, data, "data."), tmp_path)
    crops = [sources.train[n] for n in range(len(sources.train))]  # diameters 10, 14 and 18
    crops[0].row["att_texture"] = "2.0"
    even = segmenter_patches(crops, [], {"sides": [[16, 16, 16]], "nodule": 1.0})
    assert even.weights is None
    weighted = {"sides": [[16, 16, 16]], "nodule": 1.0, "faint_weight": 2.0, "large_weight": 3.0}
    np.testing.assert_allclose(segmenter_patches(crops, [], weighted).weights, [2 / 8, 3 / 8, 3 / 8])


def test_ground_glass_keeps_the_lung_and_lowers_the_nodule():
    hu = np.full((30, 30, 30), -850.0, np.float32)
    mask = np.zeros(hu.shape, bool)
    mask[10:20, 10:20, 10:20] = True
    hu[mask], hu[2:5] = 50, 40
    faint = augmentation.simulate_ground_glass(hu, mask, 0.4)
    assert faint[15, 15, 15] == pytest.approx(-490, abs=5)
    assert faint[3, 3, 3] == pytest.approx(40)
    assert faint[25, 25, 25] == pytest.approx(-850)
    rng = np.random.default_rng(0)
    assert augmentation.sample_ground_glass(rng, 0.0, hu, mask) is hu
    assert augmentation.sample_ground_glass(rng, 1.0, hu, mask)[15, 15, 15] < -300
