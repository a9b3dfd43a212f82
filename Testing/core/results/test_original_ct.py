"""A result takes only the CT that it was made of, wherever that lies and however it is stored."""

import json
from dataclasses import replace

import numpy as np
import pytest
from cohort_data import write_dicom, write_file, zip_folder
from LNHGLib.errors import InputError
from LNHGLib.image.fingerprint import voxels_sha256
from LNHGLib.image.volume import Grid, Volume
from LNHGLib.results.original_ct import OriginalCT, read_original
from study_cases import a_nodule

UID = "1.2.3.4"


@pytest.fixture(scope="module")
def volume():
    return a_nodule().volume


def result(folder, path, volume, series_uid=None, **stated):
    """What a result in `folder` tells of its CT."""
    folder.mkdir(parents=True, exist_ok=True)
    stated = {"path": str(path), "series_uid": series_uid, "voxels_sha256": voxels_sha256(volume), **stated}
    labels = a_nodule().mask.astype(np.uint16)
    mean = {1: float(volume.array[labels == 1].mean())}
    return OriginalCT.of(json.loads(json.dumps(stated)), volume.grid, labels, mean)


def other(volume):
    """Another CT of the same size at the same place, whose nodule has the same mean."""
    array = volume.array.copy()
    array[0, :5, :5] += 1
    return replace(volume, array=array)


def test_the_fingerprint_is_that_of_the_voxels_not_of_how_they_are_stored(volume):
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = volume.grid.shape[0] - 1
    turned = Volume(volume.array[::-1], Grid(volume.grid.shape, volume.grid.affine @ flip), volume.source)
    as_float = replace(volume, array=volume.array.astype(np.float32))
    assert {voxels_sha256(each) for each in (volume, turned, as_float)} == {voxels_sha256(volume)}
    assert voxels_sha256(other(volume)) != voxels_sha256(volume)


def test_another_ct_in_the_place_of_the_right_one_is_refused(volume, tmp_path):
    path = write_file(tmp_path / "ct.nii.gz", volume)
    stated = result(tmp_path / "out", path, volume)
    assert (read_original(stated, tmp_path / "out", "--ct").array == volume.array).all()
    write_file(path, other(volume))
    with pytest.raises(InputError, match="does not fit the result: its voxels are those of another CT"):
        read_original(stated, tmp_path / "out", "--ct")


@pytest.mark.parametrize("kind", ["file", "series", "zip"])
def test_a_ct_that_was_moved_with_its_result_is_found_again(volume, tmp_path, kind):
    home, uid = tmp_path / "patients" / "A", None if kind == "file" else UID
    if kind == "file":
        path = write_file(home / "ct.nii.gz", volume)
    else:
        path = write_dicom(home / "ct" / "series", volume, UID)
        path = zip_folder(home / "ct", home / "ct.zip") if kind == "zip" else path
    stated = result(home / "results" / "out", path, volume, uid)
    home.rename(tmp_path / "moved")
    found = read_original(stated, tmp_path / "moved" / "results" / "out", "--ct")
    assert (found.array == volume.array).all()


def test_a_ct_of_the_same_name_beside_a_moved_result_is_not_taken_for_it(volume, tmp_path):
    home = tmp_path / "A"
    stated = result(home / "out", write_file(home / "ct.nii.gz", volume), volume)
    home.rename(tmp_path / "B")
    write_file(tmp_path / "B" / "ct.nii.gz", other(volume))
    with pytest.raises(InputError, match="does not fit the result"):
        read_original(stated, tmp_path / "B" / "out", "--ct")


def test_a_result_of_an_older_version_knows_its_ct_by_grid_and_nodules(volume, tmp_path):
    path = write_file(tmp_path / "ct.nii.gz", volume)
    stated = result(tmp_path / "out", path, volume, voxels_sha256=None)
    read_original(stated, tmp_path / "out", "--ct")
    brighter = volume.array.copy()
    brighter[stated.labels == 1] += 20
    write_file(path, replace(volume, array=brighter))
    with pytest.raises(InputError, match=r"nodule 1 has \d+ HU in it, measured were \d+"):
        read_original(stated, tmp_path / "out", "--ct")


def test_a_relative_path_of_an_older_version_means_nothing_in_another_folder(volume, tmp_path, monkeypatch):
    (tmp_path / "B").mkdir()
    write_file(tmp_path / "B" / "ct.nii.gz", other(volume))
    monkeypatch.chdir(tmp_path / "B")
    stated = result(tmp_path / "A" / "out", "ct.nii.gz", volume, voxels_sha256=None)
    with pytest.raises(InputError, match="is not there"):
        read_original(stated, tmp_path / "A" / "out", "--ct")
    write_file(tmp_path / "A" / "ct.nii.gz", volume)
    assert (read_original(stated, tmp_path / "A" / "out", "--ct").array == volume.array).all()
