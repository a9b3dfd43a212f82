"""A real, compressed LIDC-IDRI series against what its annotations say about it."""

import functools
import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from LNHGLib.image.reader import read_volume
from LNHGLib.image.volume import Grid, Volume, from_sitk

pytestmark = pytest.mark.slow


@functools.cache
def read_once(folder: Path) -> Volume:
    return read_volume(folder)


@pytest.fixture
def case(data_dir) -> Path:
    return data_dir / "ct" / "lidc-idri-0063"


@pytest.fixture
def meta(case) -> dict:
    return json.loads((case / "meta.json").read_text())


@pytest.fixture
def volume(case) -> Volume:
    return read_once(case / "dicom")


def test_a_real_compressed_series_is_read_whole(volume, meta):
    assert volume.array.shape == (133, 512, 512)
    assert volume.source.series_uid == meta["series_uid"]
    assert volume.source.patient_id == meta["patient_id"]
    assert (volume.array.min(), volume.array.max()) == (meta["hu_min"], meta["hu_max"])
    percentiles = {float(percent): hu for percent, hu in meta["hu_percentiles"].items()}  # of every fourth voxel
    thinned = volume.array[::4, ::4, ::4]
    np.testing.assert_allclose(np.percentile(thinned, list(percentiles)), list(percentiles.values()))


def test_real_nodules_lie_where_the_readers_saw_them(volume, case, meta):
    for nodule in meta["nodules"]:
        there = volume.grid.index_to_lps(nodule["centroid_index_zyx"])
        np.testing.assert_allclose(there, nodule["centroid_lps_mm"], atol=0.15)
    labels, grid = from_sitk(sitk.ReadImage(str(case / "mask_labels.nii.gz")))
    assert grid.matches(volume.grid)
    assert not grid.matches(Grid(grid.shape, grid.affine @ np.diag([1, 1, 1.01, 1])))
    for nodule in meta["nodules"]:
        mask = labels == nodule["label"]
        assert volume.array[mask].mean() == pytest.approx(nodule["mean_hu"], abs=1)
        assert mask.sum() * volume.grid.voxel_volume_mm3 == pytest.approx(nodule["volume_mm3"], rel=1e-3)


def test_real_files_shuffled_and_renamed_are_stacked_by_position(case, tmp_path):
    files = list((case / "dicom").iterdir())
    files.sort(key=lambda file: pydicom.dcmread(file, stop_before_pixels=True).ImagePositionPatient[2])
    for i, file in enumerate(files[60:72]):
        (tmp_path / f"{(i * 7) % 12}").symlink_to(file)
    part = read_volume(tmp_path)
    for i in (0, 4, 11):
        image = sitk.ReadImage(str(files[60 + i]))
        np.testing.assert_array_equal(part.array[i], np.maximum(sitk.GetArrayViewFromImage(image)[0], -1024))
        np.testing.assert_allclose(part.grid.index_to_lps((i, 0, 0)), image.GetOrigin())
