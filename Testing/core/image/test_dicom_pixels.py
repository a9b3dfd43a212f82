"""Pixels are what the file says, in every way of storing them, or the file is refused."""

import os
import sys

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_files import COLUMNS, ROWS, SLICES, a_chest, along_z, write_series, write_slice
from LNHGLib.errors import InputError
from LNHGLib.image import dicom_pixels
from LNHGLib.image.reader import read_volume
from openjpeg import decode
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
BY_ITK = ("JPEG", "JPEG2000")
FULL_SIZE = np.repeat(np.repeat(a_chest(), 8, axis=1), 8, axis=2) + np.random.default_rng(7).integers(
    -40, 40, (SLICES, 8 * ROWS, 8 * COLUMNS)
).astype(np.int16)
SYNTAXES = (*NATIVE, RLELossless, JPEGLSLossless, *BY_ITK)
NAMES = [str(getattr(syntax, "name", syntax)) for syntax in SYNTAXES]


def store(path, syntax) -> None:
    """Store a slice's pixels in another transfer syntax."""
    dataset = pydicom.dcmread(path)
    if syntax in BY_ITK:
        image = sitk.GetImageFromArray(dataset.pixel_array)
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.SetFileName(str(path.with_suffix(".tmp.dcm")))
        writer.SetUseCompression(True)
        writer.SetCompressor(syntax)
        writer.Execute(image)
        packed = pydicom.dcmread(path.with_suffix(".tmp.dcm"))
        path.with_suffix(".tmp.dcm").unlink()
        dataset.PixelData, dataset.file_meta.TransferSyntaxUID = packed.PixelData, packed.file_meta.TransferSyntaxUID
        dataset["PixelData"].VR = "OB"
    elif syntax in NATIVE:
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = dataset.pixel_array.astype(">i2").tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax
        little = syntax != ExplicitVRBigEndian
        dataset = pydicom.Dataset(dataset)
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(
            path, dataset, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=little, enforce_file_format=True
        )
        return
    else:
        dataset.compress(syntax)
    dataset.save_as(path)


def the_error(path) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path)
    return str(caught.value)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=NAMES)
def test_every_transfer_syntax_gives_the_same_hu(syntax, tmp_path):
    write_series(tmp_path, FULL_SIZE)
    for path in tmp_path.iterdir():
        store(path, syntax)
    np.testing.assert_array_equal(read_volume(tmp_path).array, FULL_SIZE)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=NAMES)
def test_too_little_pixel_data_is_refused_whatever_its_length_says(syntax, tmp_path, capfd):
    write_series(tmp_path, FULL_SIZE)
    victim = tmp_path / "5.dcm"
    store(victim, syntax)
    dataset = pydicom.dcmread(victim)
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
        dataset.PixelData = encapsulate([frame[: len(frame) // 2]])
        dataset["PixelData"].VR = "OB"
    else:
        dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) // 2]
    dataset.save_as(victim)
    assert "5.dcm has pixels that cannot be read" in the_error(tmp_path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, "JPEG"], ids=["RLE", "JPEG-LS", "JPEG"])
def test_damaged_compressed_pixels_are_refused(syntax, tmp_path):
    write_series(tmp_path, FULL_SIZE)
    victim = tmp_path / "5.dcm"
    store(victim, syntax)
    content = bytearray(victim.read_bytes())
    start = content.rindex(b"\xfe\xff\x00\xe0") + len(content) // 4
    content[start : start + 400] = bytes(400)
    victim.write_bytes(content)
    assert "5.dcm has pixels that cannot be read" in the_error(tmp_path)


def test_a_file_without_pixels_is_refused(tmp_path):
    write_series(tmp_path)
    write_slice(tmp_path / "5.dcm", a_chest()[5], along_z([10.0])[0], PixelData=None)
    assert "5.dcm has pixels that cannot be read" in the_error(tmp_path)


def test_pixels_never_come_from_another_slice(tmp_path):
    """A short slice after a whole one must not take what is left in memory."""
    write_series(tmp_path, FULL_SIZE)
    write_slice(tmp_path / "5.dcm", FULL_SIZE[5], along_z([10.0])[0], Rows=8 * ROWS + 1)
    message = the_error(tmp_path)
    assert "another view or size" in message or "misses 1 slice" in message


@pytest.mark.parametrize(
    ("stored_type", "intercept", "slope", "padding", "said"),
    [
        ("<u2", -1024, 1, 63536, 63536),
        ("<u2", -1024, 1, 65535, 65535),
        ("<u2", 3000, -1, 0, 0),
        ("<i2", 0, 1, -2000, -2000),
        ("<i2", 0, 1, 32767, 32767),
        ("<i2", -1024, 1, -2000, 63536),
    ],
    ids=["unsigned", "unsigned, highest", "inverted", "signed", "signed, highest", "signed, said unsigned"],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_air_however_it_is_stored(stored_type, intercept, slope, padding, said, photometric, tmp_path):
    hu = a_chest()
    for i in range(SLICES):
        stored = (hu[i].astype(int) - intercept) // slope
        stored[:3, :4] = padding
        signed = stored_type == "<i2"
        write_slice(
            tmp_path / f"{i}.dcm", hu[i], along_z([2.0 * i])[0], PixelData=stored.astype(stored_type).tobytes(),
            PixelRepresentation=int(signed), RescaleIntercept=intercept, RescaleSlope=slope,
            PhotometricInterpretation=photometric,
        )  # fmt: skip
        dataset = pydicom.dcmread(tmp_path / f"{i}.dcm")
        kind = "SS" if signed and said < 32768 else "US"
        dataset[0x00280120] = pydicom.DataElement(0x00280120, kind, said)
        dataset.save_as(tmp_path / f"{i}.dcm")
    volume = read_volume(tmp_path)
    assert (volume.array[:, :3, :4] == -1024).all()
    np.testing.assert_array_equal(volume.array[:, 3:], hu[:, 3:])
    assert any("padding" in note and "8.6%" in note for note in volume.source.notes)


def test_a_range_of_padding_values_is_air(tmp_path):
    hu = a_chest()
    hu[:, 0, :5] = [4000, 4001, 4002, 4003, 4004]
    write_series(tmp_path, hu, PixelPaddingValue=5024, PixelPaddingRangeLimit=5028)
    volume = read_volume(tmp_path)
    assert (volume.array[:, 0, :5] == -1024).all()
    np.testing.assert_array_equal(volume.array[:, 1:], hu[:, 1:])


def test_a_careless_padding_value_takes_no_tissue_away(tmp_path):
    hu = a_chest()
    hu[:, 4:7, 9:12] = 0
    hu[:, 0] = 0
    write_series(tmp_path, hu, intercept=0.0, PixelPaddingValue=0)
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array[:, 1:], hu[:, 1:])
    assert (volume.array[:, 0] == -1024).all(), "what reaches the rim lies outside the scanner's circle"


def test_values_that_no_hu_can_have_are_counted_and_refused_not_clipped(tmp_path):
    hu = a_chest()
    stored = (hu.astype(int) + 1024).astype(np.uint16)
    stored[:, 0, :2] = 63536
    for i in range(SLICES):
        write_slice(
            tmp_path / f"{i}", hu[i], along_z([2.0 * i])[0], PixelData=stored[i].tobytes(), PixelRepresentation=0
        )
    message = the_error(tmp_path)
    assert "to 62512, 24 of them more than a CT number can be (32767)" in message
    assert "padding" in message


@pytest.mark.parametrize(("bits", "high"), [(12, 11), (12, 12), (10, 13)])
@pytest.mark.parametrize("signed", [False, True])
def test_only_the_bits_stored_count_what_lies_around_them_was_an_overlay(bits, high, signed, tmp_path):
    hu = (a_chest().astype(int) // 4 * 4).clip(-1000, 200)
    values = (hu + (300 if signed else 1024)) // 4
    mask = (1 << bits) - 1
    shift = high + 1 - bits
    around = np.random.default_rng(3).integers(0, 1 << 16, values.shape) & ~(mask << shift)
    words = (((values & mask) << shift) | around).astype("<u2")
    for i in range(SLICES):
        write_slice(
            tmp_path / f"{i}", hu[i], along_z([2.0 * i])[0], PixelData=words[i].tobytes(), BitsStored=bits,
            HighBit=high, PixelRepresentation=int(signed), RescaleSlope=4, RescaleIntercept=-300 if signed else -1024,
        )  # fmt: skip
    np.testing.assert_array_equal(read_volume(tmp_path).array, hu)


def test_a_modality_table_gives_the_hu(tmp_path):
    hu = a_chest()
    table = pydicom.Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [4096, 0, 16], "HU"
    table.LUTData = (np.arange(4096) // 2 + 30000).astype("<u2").tobytes()
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
    stored = (hu.astype(int) + 1200).astype("<u2")
    for i in range(SLICES):
        write_slice(
            tmp_path / f"{i}", hu[i], along_z([2.0 * i])[0], PixelData=stored[i].tobytes(), PixelRepresentation=0,
            RescaleSlope=None, RescaleIntercept=None, ModalityLUTSequence=[table],
        )  # fmt: skip
    assert "from 30" in the_error(tmp_path), "the table's values are looked at, not the stored ones"


@pytest.mark.parametrize("slope", [0.0, float("nan"), float("inf")])
def test_a_rescale_that_is_none_is_refused(slope, tmp_path):
    write_series(tmp_path)
    dataset = pydicom.dcmread(tmp_path / "5.dcm")
    dataset.RescaleSlope = slope
    dataset.save_as(tmp_path / "5.dcm")
    assert "5.dcm has pixels that cannot be read" in the_error(tmp_path)


@pytest.mark.parametrize("signed", [True, False])
def test_jpeg_2000_without_the_fast_decoder_gives_the_same_hu(signed, tmp_path, monkeypatch):
    """GDCM decodes where the extra is not installed, and what the fast decoder takes for another type."""
    write_series(tmp_path, FULL_SIZE)
    for path in tmp_path.iterdir():
        store(path, "JPEG2000")
        dataset = pydicom.dcmread(path)
        dataset.PixelRepresentation = int(signed)
        dataset.save_as(path)
    decoded = []
    monkeypatch.setattr(dicom_pixels.openjpeg, "decode", lambda frame: decoded.append(decode(frame)) or decoded[-1])
    fast = read_volume(tmp_path).array
    assert len(decoded) == SLICES
    monkeypatch.setattr(dicom_pixels, "openjpeg", None)
    np.testing.assert_array_equal(read_volume(tmp_path).array, fast)
    assert not signed or np.array_equal(fast, FULL_SIZE)


@pytest.fixture
def forks(monkeypatch):
    """Processes that were begun; a few slices are worth one."""
    begun, fork = [], dicom_pixels.os.fork
    monkeypatch.setattr(dicom_pixels, "FEW", 4)
    monkeypatch.setattr(dicom_pixels.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(dicom_pixels.os, "fork", lambda: begun.append(fork()) or begun[-1])
    return begun


def assert_none_is_left(forks) -> None:
    for child in forks:
        with pytest.raises(ChildProcessError):
            os.waitpid(child, 0)


def as_compressed(folder, **tags) -> None:
    write_series(folder, FULL_SIZE, **tags)
    for path in folder.iterdir():
        store(path, "JPEG2000")


@pytest.mark.skipif(sys.platform != "linux", reason="one process reads all elsewhere")
def test_two_processes_read_what_one_reads(forks, tmp_path, monkeypatch):
    as_compressed(tmp_path, PixelPaddingValue=int(FULL_SIZE.max()))
    both = read_volume(tmp_path)
    assert len(forks) == 2
    monkeypatch.setattr(dicom_pixels, "FEW", SLICES + 1)
    alone = read_volume(tmp_path)
    assert len(forks) == 2
    np.testing.assert_array_equal(both.array, alone.array)
    assert both.source.notes == alone.source.notes
    assert any("padding" in note for note in both.source.notes)


def test_one_process_reads_what_is_not_compressed(forks, tmp_path):
    write_series(tmp_path, FULL_SIZE)
    np.testing.assert_array_equal(read_volume(tmp_path).array, FULL_SIZE)
    assert not forks


@pytest.mark.skipif(sys.platform != "linux", reason="one process reads all elsewhere")
@pytest.mark.parametrize("number", [2, SLICES - 2])
def test_what_one_of_the_processes_cannot_read_is_named_and_no_process_is_left(forks, number, tmp_path):
    as_compressed(tmp_path)
    dataset = pydicom.dcmread(tmp_path / f"{number}.dcm")
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = encapsulate([frame[: len(frame) // 2]])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(tmp_path / f"{number}.dcm")
    assert f"{number}.dcm has pixels that cannot be read" in the_error(tmp_path)
    assert_none_is_left(forks)


@pytest.mark.skipif(sys.platform != "linux", reason="one process reads all elsewhere")
def test_what_fails_while_other_processes_read_is_told_and_no_process_is_left(forks, tmp_path):
    as_compressed(tmp_path)

    def fail() -> None:
        assert len(forks) == 2
        raise InputError("no such device")

    with pytest.raises(InputError, match="no such device"):
        read_volume(tmp_path, meanwhile=fail)
    assert_none_is_left(forks)


@pytest.mark.skipif(sys.platform != "linux", reason="one process reads all elsewhere")
def test_slices_that_do_not_fit_into_the_shared_memory_are_read_again(forks, tmp_path):
    as_compressed(tmp_path)
    dataset = pydicom.dcmread(tmp_path / f"{SLICES - 1}.dcm")
    dataset.RescaleSlope = 1.5
    dataset.save_as(tmp_path / f"{SLICES - 1}.dcm")
    array = read_volume(tmp_path).array
    assert len(forks) == 2
    np.testing.assert_allclose(array[:-1], FULL_SIZE[:-1])
    assert not np.array_equal(array[-1], FULL_SIZE[-1])
