"""The paper's recipe on whole slices of 256 x 256 pixels: what is sampled, and a step on slices of a real CT."""

import h5py
import numpy as np
import pytest
import SimpleITK as sitk
import small_data
from LNHGLib.image.reader import read_volume
from LNHGLib.image.volume import Grid, canonical, from_sitk, resample
from LNHGLib.models import folder as models
from LNHGLib.segmentation.preprocessing import find_lungs, onto_grid
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.config import Data, build
from LNHGTrainingLib.data.background import load_sources
from LNHGTrainingLib.data.crops import LabeledVolume
from small_data import RESOURCES, segmenter_patches

CASE = "ct/lidc-idri-0001"
READERS = 4


def test_slices_show_the_whole_field_of_view_half_of_them_with_a_nodule(tmp_path):
    small_data.write_crops(tmp_path)
    small_data.write_scans(tmp_path, {"patient-0": [4]})  # 60 slices of 64 x 68 mm; the nodule is in 9 of them
    data = build(Data, small_data.data_config(tmp_path) | {"scans": "scans/lidc_scans.h5"}, "data.")
    sources = load_sources(data, tmp_path)
    patches = segmenter_patches(sources.train, sources.backgrounds, {"sides": [[3, 34, 34]], "slice": 1.0, "zoom": 0.0})
    batch = patches.batch(0, 60)
    assert batch.image.shape == (60, 1, 3, 34, 34)
    area = batch.mask[:, 0, 1].sum((1, 2)).numpy()  # pixels of 2 mm
    assert area.max() == pytest.approx(np.pi * 25 / 4, rel=0.25)
    assert 0.4 < (area > 0).mean() < 0.8


def test_a_pixel_of_a_slice_is_the_mean_of_what_it_covers(tmp_path):
    """Register L10: every third pixel of 1 mm alone would keep the noise of the CT."""
    small_data.write_crops(tmp_path)
    hu = np.random.default_rng(0).normal(-600, 100, (24, 69, 69)).astype(np.int16)
    chest = LabeledVolume(hu, np.zeros(hu.shape, bool), np.ones(hu.shape, bool), "P", {})
    sampling = {"sides": [[1, 23, 23]], "slice": 1.0, "zoom": 0.0, "degrees": 0.0}
    patches = segmenter_patches(small_data.load(tmp_path), [(chest, np.argwhere(hu < 0))], sampling)
    noise = patches.batch(0, 20).image.flatten(1).std(1).median() * 1400
    assert noise < 75


@pytest.fixture
def real_slices(data_dir, tmp_path):
    """Return a data folder whose scan is a real CT over its whole field of view, at 1 mm."""
    ct = canonical(read_volume(data_dir / CASE / "ct.nii.gz"))
    high = ct.grid.index_to_lps(np.array(ct.grid.shape) - 1)
    low = ct.grid.index_to_lps(np.zeros(3))
    grid = Grid.aligned((high - low).astype(int)[::-1] + 1, (1.0, 1.0, 1.0), low)
    masks = [sitk.ReadImage(str(data_dir / CASE / f"mask_reader{n}.nii.gz")) for n in range(1, READERS + 1)]
    outlines = [from_sitk(mask) for mask in masks]
    seen = [resample((array == 1).astype(np.float32), own, grid, fill=0.0) > 0.5 for array, own in outlines]
    lungs = resample(find_lungs(ct).astype(np.float32), ct.grid, grid, fill=0.0) > 0.5
    small_data.write_crops(tmp_path)
    (tmp_path / "scans").mkdir()
    with h5py.File(tmp_path / "scans" / "lidc_scans.h5", "w") as file:
        group = file.create_group("scan")
        group["ct"], group["lungs"] = onto_grid(ct, grid).astype(np.int16), lungs.astype(np.uint8)
        group["reader_masks"] = sum((mask.astype(np.uint8) << n) for n, mask in enumerate(seen))
        group["nodule"] = np.any(seen, axis=0).astype(np.uint8)
        group.attrs.update(patient_id="patient-0", series_uid="1.2", affine_index_to_lps=grid.affine)
    return tmp_path


def test_a_step_on_slices_of_a_real_ct_makes_a_model_for_its_field_of_view(real_slices, tmp_path, capsys):
    words = ["train", "segmenter", "--config", RESOURCES / "segmenter-paper-slices.toml", "--data", real_slices]
    changes = ["steps=1", "batch=1", "validate_crops=1", "generator.width=2", "critic.width=2", "loss.critic_steps=1"]
    changes += ["loss.perceptual_network=random", "data.train_folds=[0]", "data.validation_folds=[1]"]
    for change in changes:
        words += ["--set", change]
    assert main([str(word) for word in [*words, tmp_path / "run"]]) == 0
    said = capsys.readouterr().err
    assert "perceptual" in said
    assert "adversarial" in said
    words = ["export", tmp_path / "run/last.pt", "none", "--config"]
    words += [RESOURCES / "paper-model-slices.toml", tmp_path / "model"]
    assert main([str(word) for word in words]) == 0
    spec = models.load(tmp_path / "model").spec
    assert (spec.grid.kind, spec.grid.size) == ("fov", 256)
