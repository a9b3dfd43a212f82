"""Readers' outlines in DICOM SEG and SR: another maker's of real scans, and our own of a made-up one."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
import report_data
import SimpleITK as sitk
from evaluation_data import read_csv
from LNHGLib.errors import InputError
from LNHGLib.image.volume import from_sitk
from LNHGLib.report.write import ReportOptions, write_report
from LNHGTrainingLib.data.dicom_outlines import find_outlines, read_outlines
from LNHGTrainingLib.evaluation.scans import find_cases, read_case
from LNHGTrainingLib.prepare.run import prepare
from LNHGTrainingLib.prepare.sources import PrepareOptions

CASES = ("lidc-idri-0001", "lidc-idri-0003")


def reader_masks(case: Path) -> list:
    return [from_sitk(sitk.ReadImage(str(path))) for path in sorted(case.glob("mask_reader*.nii.gz"))]


@pytest.mark.parametrize("name", [CASES[0], pytest.param(CASES[1], marks=pytest.mark.slow)])
def test_another_makers_files_give_the_readers_masks_again(data_dir, name):
    case = data_dir / "ct" / name
    masks = reader_masks(case)
    meta = json.loads((case / "meta.json").read_text())
    stated = {nodule["label"]: nodule for nodule in meta["nodules"]}
    outlines = read_outlines(case / "official_seg_sr.zip", masks[0][1], meta["series_uid"], stated)
    assert len(outlines.masks) == 4
    for mask, (expected, _) in zip(outlines.masks, masks, strict=True):
        np.testing.assert_array_equal(mask, expected)
    for number, about in outlines.stated.items():
        assert about["annotations"] == [{"texture": one["texture"]} for one in stated[number]["annotations"]]
        assert about["max_axial_diameter_mm"] == pytest.approx(stated[number]["max_axial_diameter_mm"], rel=0.07)


@pytest.mark.slow
def test_evaluation_and_preparation_take_them_as_readers(data_dir, tmp_path):
    origin, case = data_dir / "ct" / CASES[0], tmp_path / "cases" / "0001"
    case.mkdir(parents=True)
    (case / "ct.nii.gz").symlink_to(origin / "ct.nii.gz")
    with zipfile.ZipFile(origin / "official_seg_sr.zip") as archive:
        archive.extractall(case / "segmentations")
    expected, readers = reader_masks(origin)[0][0], 4
    assert find_cases(tmp_path / "cases") == [case]
    (nodule,) = read_case(case).nodules
    assert (len(nodule.readers), nodule.label, nodule.texture) == (readers, 1, 4.75)
    np.testing.assert_array_equal(nodule.readers[0], expected[nodule.box] == 1)

    prepare("pairs", tmp_path / "cases", tmp_path / "prepared", PrepareOptions())
    (row,) = read_csv(tmp_path / "prepared" / "manifest.csv")
    assert (int(row["readers"]), int(row["n_readers_usable"])) == (readers, readers)


@pytest.fixture(scope="module")
def reported(tmp_path_factory) -> Path:
    """A CT in DICOM, and the SEG and SR of a result beside it."""
    folder = tmp_path_factory.mktemp("reported")
    scan = report_data.make_scan()
    ct = report_data.write_dicom(scan, folder / "dicom")
    result = report_data.write_result(scan, folder / "result", ct)
    write_report(ReportOptions(result, folder / "out", parts=("dicom",)))
    return folder


def test_our_own_files_are_one_readers(reported):
    scan = report_data.make_scan()
    outlines = read_outlines(reported / "out", scan.grid, report_data.SERIES)
    (mask,) = outlines.masks
    np.testing.assert_array_equal(mask, scan.labels)


def test_files_of_another_ct_or_damaged_ones_are_refused(reported, tmp_path):
    grid = report_data.make_scan().grid
    with pytest.raises(InputError, match="another CT series"):
        read_outlines(reported / "out", grid, "1.2.3")
    with pytest.raises(InputError, match="no DICOM segmentation"):
        read_outlines(reported / "dicom", grid)
    with pytest.raises(InputError, match="does not exist"):
        read_outlines(tmp_path / "away", grid)
    assert find_outlines(reported / "dicom") is None
    (seg,) = [path for path in (reported / "out").rglob("*.dcm") if pydicom.dcmread(path).Modality == "SEG"]
    dataset = pydicom.dcmread(seg)
    del dataset.SegmentSequence
    dataset.save_as(tmp_path / "damaged.dcm")
    with pytest.raises(InputError, match="damaged or non-conforming"):
        read_outlines(tmp_path / "damaged.dcm", grid)
