"""Geometry and voxels of single files are sure, or the file is refused: nothing missing is made up."""

import bz2
import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from LNHGLib.errors import InputError
from LNHGLib.image.reader import NO_ORIENTATION, read_volume
from LNHGLib.image.volume import Grid, write_image

SHAPE = (12, 20, 22)
SPACING = (2.5, 0.7, 0.9)
QFORM, SFORM, PIXDIM = 252, 254, 76


def a_chest() -> np.ndarray:
    noise = np.random.default_rng(3).integers(-100, 100, SHAPE)
    return (np.where(np.arange(SHAPE[1])[:, None] < SHAPE[1] // 2, -850, 40) + noise).astype(np.int16)


def a_file(folder: Path, suffix: str, array: np.ndarray | None = None) -> Path:
    path = folder / f"ct{suffix}"
    write_image(a_chest() if array is None else array, Grid.aligned(SHAPE, SPACING, (-40, 25, -310)), path)
    return path


def nifti(folder: Path, array: np.ndarray | None = None, **changes) -> Path:
    """A NIfTI with bytes of its header changed: offset as `at_252`, value as struct format and numbers."""
    path = a_file(folder, ".nii", array)
    content = bytearray(path.read_bytes())
    for offset, (form, *values) in changes.items():
        struct.pack_into(form, content, int(offset.removeprefix("at_")), *values)
    path.write_bytes(content)
    return path


def rewrite(path: Path, old: str, new: str) -> Path:
    """Change a line of a text header."""
    head, mark, voxels = path.read_bytes().partition(b"\n\n" if path.suffix == ".nrrd" else b"ElementDataFile")
    text = head.decode()
    assert old in text
    path.write_bytes(text.replace(old, new).encode() + mark + voxels)
    return path


def the_error(path: Path, **options) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path, **options)
    sentence = str(caught.value)
    assert sentence.startswith(str(path))
    assert "expected" in sentence
    assert len(sentence.replace(str(path), "")) <= 200
    return sentence


@pytest.mark.parametrize("value", [0.0, -2.5, float("nan"), float("inf")])
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_a_nifti_without_spacing_is_refused_whatever_its_sform_says(value, axis, tmp_path):
    path = nifti(tmp_path, **{f"at_{PIXDIM + 4 * axis}": ("<f", value)})
    assert "voxel spacing" in the_error(path)


@pytest.mark.parametrize("scale", [-1, 1.5])
def test_an_sform_against_the_qform_or_the_spacing_is_refused(scale, tmp_path):
    row = np.frombuffer(a_file(tmp_path, ".nii").read_bytes()[280:296], "<f4") * np.float32(scale)
    both = {f"at_{QFORM}": ("<hh", 1, 1), "at_280": ("<4f", *row)}
    assert "sform that contradicts its qform" in the_error(nifti(tmp_path, **both))
    if scale > 0:
        alone = {f"at_{QFORM}": ("<hh", 0, 1), "at_280": ("<4f", *row)}
        assert "sform that contradicts" in the_error(nifti(tmp_path, **alone))


def test_an_sform_and_a_qform_that_differ_by_rounding_are_one_orientation(tmp_path):
    row = np.frombuffer(a_file(tmp_path, ".nii").read_bytes()[280:296], "<f4") + np.float32(0.0004)
    volume = read_volume(nifti(tmp_path, **{f"at_{QFORM}": ("<hh", 1, 2), "at_280": ("<4f", *row)}))
    assert volume.source.oriented
    assert volume.source.notes == ()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("offset", [256, 268, 280, 292, 112, 116])
def test_an_orientation_or_rescale_that_is_no_number_is_refused(value, offset, tmp_path):
    path = nifti(tmp_path, **{f"at_{QFORM}": ("<hh", 1, 1), f"at_{offset}": ("<f", value)})
    with pytest.raises(InputError, match=r"^\S+ct\.nii "):
        read_volume(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", [False, True])
def test_voxels_that_are_no_numbers_are_refused_never_taken_for_tissue(suffix, dtype, value, part, tmp_path):
    array = a_chest().astype(dtype)
    array[3, :2] = value
    assert "not numbers" in the_error(a_file(tmp_path, suffix, array), part=part)


def unoriented(folder: Path, suffix: str) -> Path:
    if suffix == ".nii":
        return nifti(folder, **{f"at_{QFORM}": ("<hh", 0, 0)})
    path = a_file(folder, suffix)
    if suffix == ".nrrd":
        rewrite(path, "space: left-posterior-superior", "space dimension: 3")
    else:
        matrix = next(line for line in path.read_bytes().decode("latin-1").splitlines() if "TransformMatrix" in line)
        rewrite(path, matrix + "\n", "")
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
def test_where_left_and_right_cannot_be_known_it_is_said(suffix, tmp_path):
    volume = read_volume(unoriented(tmp_path, suffix))
    assert not volume.source.oriented
    assert volume.source.notes == (NO_ORIENTATION,)
    np.testing.assert_array_equal(volume.array, a_chest())
    assert read_volume(a_file(tmp_path / "..", suffix)).source.oriented


@pytest.mark.parametrize(
    ("suffix", "old", "new"),
    [
        (".nrrd", "space directions: (0.90000000000000002,0,0)", "space directions: (0,0,0)"),
        (".nrrd", "space directions: (0.90000000000000002,0,0)", "space directions: (nan,0,0)"),
        (".nrrd", "space directions: ", "x-directions: "),
        (".mha", "ElementSpacing = 0.90000000000000002", "ElementSpacing = 0"),
        (".mha", "ElementSpacing = 0.90000000000000002", "ElementSpacing = nan"),
        (".mha", "ElementSpacing = ", "x = "),
    ],
)
def test_a_spacing_that_is_missing_or_none_is_refused_never_taken_for_1_mm(suffix, old, new, tmp_path):
    with pytest.raises(InputError):
        read_volume(rewrite(a_file(tmp_path, suffix), old, new))


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize("matrix", ["1 0 0 0 1 0 0 0.2 0.98", "1 0 0 0 1 0 0 1 0", "1 0 0 0 1 0 0 0 0"])
def test_sheared_and_degenerate_axes_are_refused(suffix, matrix, tmp_path):
    path = a_file(tmp_path, suffix)
    lines = path.read_bytes().decode("latin-1").splitlines()
    if suffix == ".mha":
        old = next(line for line in lines if "TransformMatrix" in line)
        rewrite(path, old, f"TransformMatrix = {matrix}")
    else:
        old = next(line for line in lines if "space directions" in line)
        values = matrix.split()
        vectors = " ".join(f"({','.join(values[i : i + 3])})" for i in (0, 3, 6))
        rewrite(path, old, f"space directions: {vectors}")
    sentence = the_error(path)
    assert "not perpendicular" in sentence or "voxel spacing" in sentence or "damaged" in sentence


def damage(path: Path, how: str) -> Path:
    content = bytearray(path.read_bytes())
    middle = len(content) * 2 // 3
    if how == "bytes changed":
        for i in range(middle, middle + 8):
            content[i] ^= 0x5A
    elif how == "checksum changed":
        content[-6 if path.name.endswith("gz") or path.suffix == ".nrrd" else -2] ^= 1
    else:
        del content[middle:]
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("how", ["bytes changed", "checksum changed", "cut"])
def test_damaged_compressed_voxels_are_refused(suffix, how, tmp_path):
    assert "is damaged" in the_error(damage(a_file(tmp_path, suffix), how))


@pytest.mark.parametrize("how", ["bytes changed", "checksum changed", "cut"])
def test_damaged_voxels_beside_their_header_are_refused(how, tmp_path):
    path = a_file(tmp_path, ".mhd")
    damage(tmp_path / "ct.zraw", how)
    assert "is damaged" in the_error(path)


def test_voxels_beside_their_header_that_are_gone_are_said_to_be(tmp_path):
    path = a_file(tmp_path, ".mhd")
    (tmp_path / "ct.zraw").unlink()
    assert "is damaged" in the_error(path)


@pytest.mark.parametrize("pack", [lambda raw: raw, gzip.compress, bz2.compress], ids=["raw", "gzip", "bzip2"])
def test_a_whole_nrrd_in_each_encoding_is_read_and_a_short_one_refused(pack, tmp_path):
    encoding = {b"\x1f\x8b": "gzip", b"BZ": "bzip2"}
    raw = a_chest().tobytes()
    packed = pack(raw)
    head = (
        "NRRD0004\n# made by a test\ntype: int16\ndimension: 3\nspace: LPS\nsizes: {2} {1} {0}\nendian: little\n"
        "space directions: (0.9,0,0) (0,0.7,0) (0,0,2.5)\nkinds: domain domain domain\nspace origin: (0,0,0)\n"
    ).format(*SHAPE) + f"encoding: {encoding.get(packed[:2], 'raw')}\n\n"
    path = tmp_path / "ct.nrrd"
    path.write_bytes(head.encode() + packed)
    if encoding.get(packed[:2]) != "bzip2":  # ITK is built without it
        np.testing.assert_array_equal(read_volume(path).array, a_chest())
    path.write_bytes(head.encode() + pack(raw[:-2]))
    assert "is damaged" in the_error(path)


def test_a_metaimage_with_too_few_voxels_packed_without_fault_is_refused(tmp_path):
    path = a_file(tmp_path, ".mha")
    head, _, _ = path.read_bytes().partition(b"ElementDataFile")
    head = b"\n".join(line for line in head.splitlines() if b"CompressedDataSize" not in line)
    path.write_bytes(head + b"\nElementDataFile = LOCAL\n" + zlib.compress(a_chest().tobytes()[:-200]))
    assert "is damaged" in the_error(path)


def test_a_gzip_file_in_two_members_is_whole(tmp_path):
    path = a_file(tmp_path, ".nii.gz")
    raw = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(raw[:5000]) + gzip.compress(raw[5000:]))
    np.testing.assert_array_equal(read_volume(path).array, a_chest())


def test_a_big_endian_nifti_is_read_and_checked_alike(tmp_path):
    path = a_file(tmp_path, ".nii")
    content = path.read_bytes()
    fields = "i10s18sihcB8h3f4h8f3fh2c4f2i80s24s2h6f12f16s4s"
    head = struct.pack(f">{fields}", *struct.unpack(f"<{fields}", content[:348]))
    path.write_bytes(head + content[348:352] + np.frombuffer(content[352:], "<i2").astype(">i2").tobytes())
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, a_chest())
    assert volume.source.oriented
    path.write_bytes(path.read_bytes()[:-100])
    assert "is damaged" in the_error(path)


def test_a_series_is_asked_of_dicom_alone(tmp_path):
    with pytest.raises(InputError, match=r"has no series, but the series 1\.2\.3 was asked for"):
        read_volume(a_file(tmp_path, ".nii.gz"), "1.2.3")


def test_nothing_that_itk_writes_is_refused(tmp_path):
    image = sitk.GetImageFromArray(a_chest())
    image.SetSpacing(SPACING[::-1])
    for suffix in (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"):
        for packed in (False, True):
            path = tmp_path / f"{packed}{suffix}"
            sitk.WriteImage(image, str(path), packed)
            assert read_volume(path).source.oriented, path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("order", "<>")
def test_a_nifti_2_is_read_as_the_nifti_1_of_the_same_ct(order, suffix, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    first = nibabel.load(a_file(tmp_path, ".nii"))
    header = nibabel.Nifti2Header.from_header(first.header).as_byteswapped(order)
    turned = np.array([[0.6, 0.8, 0, 3], [-0.8, 0.6, 0, 5], [0, 0, 1, 7], [0, 0, 0, 1]]) @ first.affine
    (tmp_path / "two").mkdir()
    header.set_data_dtype(np.dtype("i2").newbyteorder(order))
    path = tmp_path / "two" / f"ct{suffix}"
    image = nibabel.Nifti2Image(np.asanyarray(first.dataobj), turned, header)
    image.set_sform(turned, 1)
    image.set_qform(turned, 1)
    image.to_filename(path)
    same = nibabel.Nifti1Image(np.asanyarray(first.dataobj), turned)
    same.set_sform(turned, 1)
    same.set_qform(turned, 1)
    same.to_filename(tmp_path / "one.nii")
    one, two = read_volume(tmp_path / "one.nii"), read_volume(path)
    assert np.array_equal(one.array, two.array)
    assert np.allclose(one.grid.affine, two.grid.affine, atol=1e-4)
    path.write_bytes(path.read_bytes()[:-200])
    assert "is damaged" in the_error(path)


def test_a_nifti_2_that_says_what_nifti_1_cannot_is_refused(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    first = nibabel.load(a_file(tmp_path, ".nii"))
    nibabel.Nifti2Image(np.asanyarray(first.dataobj), first.affine).to_filename(tmp_path / "two.nii")
    content = bytearray((tmp_path / "two.nii").read_bytes())
    struct.pack_into("<q", content, 24, 22 + 2**16)
    (tmp_path / "two.nii").write_bytes(content)
    assert "is damaged" in the_error(tmp_path / "two.nii")
    struct.pack_into("<q", content, 24, 22)
    struct.pack_into("<d", content, 112, 0.0)
    (tmp_path / "two.nii").write_bytes(content)
    assert "voxel spacing" in the_error(tmp_path / "two.nii")


@pytest.mark.parametrize(
    ("dimensions", "words"), [(1, "row of values"), (2, "single 22 x 20 picture")], ids=["1-D", "2-D"]
)
def test_an_image_of_fewer_dimensions_is_refused(dimensions, words, tmp_path):
    assert words in the_error(nifti(tmp_path, at_40=("<h", dimensions)))


def test_what_is_done_while_a_file_is_read_is_done_once_and_its_error_is_told(tmp_path):
    calls, path = [], a_file(tmp_path, ".nii.gz")
    read_volume(path, meanwhile=lambda: calls.append(1))
    assert calls == [1]

    def fail() -> None:
        raise InputError("no such device")

    with pytest.raises(InputError, match="no such device"):
        read_volume(path, meanwhile=fail)
