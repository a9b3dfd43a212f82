"""Scans in zip archives: nothing leads out of the folder, nothing fills the disk."""

import zipfile

import pytest
from cohort_data import a_block, write_dicom, write_file, zip_folder
from LNHGLib.errors import InputError
from LNHGLib.image import zip_scans


@pytest.fixture(scope="module")
def block():
    return a_block()


def test_what_an_archive_holds_is_listed_by_kind(tmp_path, block):
    folder = write_dicom(tmp_path / "d", block, "1.2.1")
    count = len(list(folder.iterdir()))
    write_file(folder / "P1.mhd", block)
    (folder / "broken.dcm").write_bytes(bytes(128) + b"DICM" + bytes(range(256)))
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (folder / ".hidden").write_text("the computer's own")
    content = zip_scans.look_into(zip_folder(folder, tmp_path / "d.zip"))
    assert [name.rpartition("/")[2] for name in content.images] == ["P1.mhd"]
    assert {header.series_uid for header in content.headers} == {"1.2.1"}
    assert len(content.headers) == count
    assert [name.rpartition("/")[2] for name in content.unreadable] == ["broken.dcm"]
    assert [name.rpartition(".")[0] for name in content.with_voxels(content.images[0])] == [
        content.images[0].removesuffix(".mhd")
    ] * 2


def test_members_of_an_archive_stay_in_the_scratch_folder(tmp_path, block):
    volume = write_file(tmp_path / "ct.nii.gz", block)
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../../escaped.nii.gz", volume.read_bytes())
        archive.writestr("C:\\windows.nii.gz", volume.read_bytes())
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for image in zip_scans.look_into(tmp_path / "evil.zip").images:
        (file,) = zip_scans.unpack(tmp_path / "evil.zip", (image,), tmp_path / "deep" / "er")
        assert file.parent == tmp_path / "deep" / "er"
    assert sorted(path.name for path in (tmp_path / "deep" / "er").iterdir()) == ["escaped.nii.gz", "windows.nii.gz"]


def test_an_archive_larger_than_the_disk_is_refused(tmp_path, block, monkeypatch):
    archive = zip_folder(write_dicom(tmp_path / "d", block, "1.2.1"), tmp_path / "d.zip")
    header = zip_scans.look_into(archive).headers[0]
    monkeypatch.setattr(zip_scans, "SPARE_BYTES", 2**60)
    with pytest.raises(InputError, match="make room"):
        zip_scans.unpack(archive, (header.path.as_posix(),), tmp_path)
