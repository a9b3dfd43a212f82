"""SEG and SR of enhanced multi-frame CT and of tilted gantries refer to the original frames and slices."""

import shutil
import subprocess
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import report_data
from enhanced_ct import classic_slices, write_enhanced, write_legacy
from LNHGLib.image.reader import read_volume
from LNHGLib.image.volume import Grid
from LNHGLib.report import write
from report_data import Scan, make_nodules, make_scan, write_dicom, write_result

VALIDATOR = "dciodvfy"


@pytest.fixture(scope="module")
def scan() -> Scan:
    return make_scan()


def report(result: Path, out: Path) -> tuple[hd.seg.Segmentation, hd.sr.Comprehensive3DSR]:
    notes = write.write_report(write.ReportOptions(result, out, parts=("dicom",)))
    assert notes == []
    if shutil.which(VALIDATOR):
        for name in (write.SEG, write.SR):
            said = subprocess.run([VALIDATOR, str(out / name)], capture_output=True, text=True, check=False)
            assert [line for line in said.stderr.splitlines() if line.startswith("Error")] == []
    return hd.seg.segread(out / write.SEG), hd.sr.srread(out / write.SR)


def lines(sr: hd.sr.Comprehensive3DSR):
    """Each axis that is drawn on an image: nodule, axis, ends (column, row), image and frame."""
    for group in sr.content.get_image_measurement_groups():
        for measured in group.get_measurements():
            for line in (line for line in measured.referenced_coordinates or () if "ContentSequence" in line):
                source = line.ContentSequence[0].ReferencedSOPSequence[0]
                frame = source.get("ReferencedFrameNumber")
                yield group.tracking_identifier, measured.name.meaning, line.value, source, frame


@pytest.mark.parametrize("kind", ["enhanced", "legacy"])
def test_enhanced_ct_is_reported_on_its_frames(kind, scan, tmp_path):
    slices = classic_slices(write_dicom(scan, tmp_path / "classic"))
    path = tmp_path / "ct" / "one.dcm"
    (write_enhanced if kind == "enhanced" else write_legacy)(slices, path)
    result = write_result(scan, tmp_path / "result", path.parent)
    seg, sr = report(result, tmp_path / "out")
    image = pydicom.dcmread(path)
    heights = [float(group.PlanePositionSequence[0].ImagePositionPatient[2]) for group in _per_frame(image)]
    slice_of = [int(np.rint(scan.grid.lps_to_index((*scan.grid.affine[:2, 3], height))[0])) for height in heights]
    assert slice_of != sorted(slice_of), "the frames do not stand in the order of space"
    drawn = np.zeros_like(scan.labels)
    for pixels, group in zip(seg.pixel_array, _per_frame(seg), strict=True):
        (source,) = group.DerivationImageSequence[0].SourceImageSequence
        assert source.ReferencedSOPInstanceUID == image.SOPInstanceUID
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        drawn[slice_of[source.ReferencedFrameNumber - 1]][pixels > 0] = number
    np.testing.assert_array_equal(drawn, scan.labels)
    found = list(lines(sr))
    assert len(found) == 4
    ends = {f"LNHG nodule {n.number}": n.measurement for n in make_nodules(scan)[:2]}
    for nodule, axis, columns_rows, source, frame in found:
        assert source.ReferencedSOPInstanceUID == image.SOPInstanceUID
        index = np.insert(columns_rows[:, ::-1] - 0.5, 0, slice_of[frame - 1], axis=1)
        m = ends[nodule]
        expected = m.long_axis_ends_lps_mm if axis == "Long axis" else m.short_axis_ends_lps_mm
        np.testing.assert_allclose(scan.grid.index_to_lps(index), expected, atol=0.01)


def _per_frame(image: pydicom.Dataset):
    return image.PerFrameFunctionalGroupsSequence


def tilted(scan: Scan, folder: Path, pixels_per_slice: float = 1.0) -> Path:
    """Write what a scanner sees whose table moves sideways: each slice shows rows that lie farther on."""
    write_dicom(scan, folder)
    rows = scan.hu.shape[1] - int(pixels_per_slice * len(scan.hu))
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        k = len(scan.hu) - dataset.InstanceNumber
        start = int(k * pixels_per_slice)
        dataset.PixelData = np.ascontiguousarray(dataset.pixel_array[start : start + rows]).tobytes()
        dataset.Rows = rows
        dataset.ImagePositionPatient = [f"{v:.6f}" for v in scan.grid.index_to_lps((k, start, 0))]
        dataset.save_as(path)
    return folder


def test_a_tilted_gantry_is_reported_on_its_slices(tmp_path):
    scan = make_scan(report_data.AXIAL * (1.25, 0.5, 1))
    ct = tilted(scan, tmp_path / "ct")
    volume = read_volume(ct)
    labels = scan.labels[:, : volume.grid.shape[1]]
    seen = volume.array > -1024
    np.testing.assert_array_equal(volume.array[seen], scan.hu[:, : volume.grid.shape[1]][seen])
    straight = Scan(Grid(labels.shape, volume.grid.affine), volume.array, np.where(seen, labels, 0))
    seg, sr = report(write_result(straight, tmp_path / "result", ct), tmp_path / "out")
    headers = sorted(
        (pydicom.dcmread(path) for path in ct.iterdir()), key=lambda header: header.ImagePositionPatient[2]
    )
    uids = [header.SOPInstanceUID for header in headers]
    found = seg.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True)
    expected = [layer[k : k + headers[0].Rows] for k, layer in enumerate(straight.labels)]
    np.testing.assert_array_equal(found, expected)
    ends = {f"LNHG nodule {n.number}": n.measurement for n in make_nodules(straight)[:2]}
    drawn = list(lines(sr))
    assert len(drawn) == 4
    for nodule, axis, columns_rows, source, _ in drawn:
        header = headers[uids.index(source.ReferencedSOPInstanceUID)]
        m = ends[nodule]
        expected = m.long_axis_ends_lps_mm if axis == "Long axis" else m.short_axis_ends_lps_mm
        in_space = hd.spatial.ImageToReferenceTransformer.for_image(header)(columns_rows)
        np.testing.assert_allclose(in_space, expected, atol=0.01)
