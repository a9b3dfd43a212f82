"""What NIfTI, NRRD and MetaImage files say of their voxels, read without ITK, which fills in what is missing.

Each check makes sure that spacing and axes are there and sound, that all voxels are there, and that checksums of
compressed voxels fit.
"""

import bz2
import gzip
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from LNHGLib.errors import InputError, shown

CHUNK = 2**24
HEADER_BYTES = 2**20
NOT_NUMBERS = "values that are not numbers (NaN or infinite)"
NO_ORIENTATION_NUMBER = "{} has an orientation (sform, qform) that is no number, expected one; convert the CT again."
NOT_PERPENDICULAR = (
    "{} has axes that are not perpendicular to each other, expected a rectangular voxel grid; "
    "resample it or convert it again from the original DICOM."
)
SAME_PLACE_VOXELS = 0.5
"""How far apart two descriptions of the same grid may put a voxel, in voxels: they are rounded."""
NIFTI = {
    "dim": (40, "i2", 8), "datatype": (70, "i2"), "bitpix": (72, "i2"), "pixdim": (76, "f4", 8),
    "vox_offset": (108, "f4"), "scl_slope": (112, "f4"), "scl_inter": (116, "f4"), "qform_code": (252, "i2"),
    "sform_code": (254, "i2"), "quatern": (256, "f4", 3), "qoffset": (268, "f4", 3), "srow": (280, "f4", 12),
    "xyzt_units": (123, "u1"),
}  # fmt: skip
NIFTI_2 = {
    "dim": (16, "i8", 8), "datatype": (12, "i2"), "bitpix": (14, "i2"), "pixdim": (104, "f8", 8),
    "vox_offset": (168, "i8"), "scl_slope": (176, "f8"), "scl_inter": (184, "f8"), "qform_code": (344, "i4"),
    "sform_code": (348, "i4"), "quatern": (352, "f8", 3), "qoffset": (376, "f8", 3), "srow": (400, "f8", 12),
    "xyzt_units": (500, "i4"),
}  # fmt: skip
NIFTI_BYTES, NIFTI_2_BYTES = 348, 540
"""Length of a header, which is also its first number."""
NIFTI_FLOATS = {16: "f4", 64: "f8"}
NRRD_SPACES = ("left-posterior-superior", "left-anterior-superior", "right-anterior-superior", "lps", "las", "ras")
NRRD_BYTES = {"char": 1, "int8": 1, "short": 2, "int16": 2, "int": 4, "int32": 4, "long": 8, "int64": 8, "float": 4}
META_BYTES = {"char": 1, "short": 2, "int": 4, "long": 4, "float": 4, "double": 8}


class Damaged(Exception):  # noqa: N818
    """The file is damaged, truncated or not what its suffix says."""


def require_sound(path: Path, suffix: str) -> bool:
    """Refuse a file whose spacing, axes or voxels are missing, contradictory or damaged.

    Args:
        path: the file.
        suffix: its format, such as ".nii.gz".

    Returns:
        Whether it says where the patient's left and right are.

    Raises:
        InputError: what it says of its geometry cannot be trusted, or voxels are no numbers.
        Damaged: it cannot be read, or voxels are missing.
    """
    check: Callable[[Path], bool] = _nifti if suffix.startswith(".nii") else _nrrd if suffix == ".nrrd" else _meta
    try:
        return check(path)
    except (ValueError, KeyError, IndexError, EOFError, OSError, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise Damaged(str(error)) from error


def _require_spacing(path: Path, spacing: np.ndarray) -> None:
    """Refuse a spacing that is none."""
    if len(spacing) < 3 or not np.isfinite(spacing).all() or (spacing <= 0).any():
        met = " x ".join(f"{value:g}" for value in spacing) or "none"
        raise InputError(
            f"{path} has a voxel spacing of {shown(met)} mm in its header, expected three lengths above 0; "
            "correct it or convert the CT again from the original DICOM."
        )


def require_perpendicular(path: Path, axes: np.ndarray) -> None:
    """Refuse axes that are no axes of a rectangular grid.

    Args:
        path: the file.
        axes: (3, 3), a column per axis.

    Raises:
        InputError: they are sheared or degenerate.
    """
    lengths = np.linalg.norm(axes, axis=0)
    unit = axes / np.where(lengths > 0, lengths, np.nan)
    if not np.allclose(unit.T @ unit, np.eye(3), atol=1e-3):
        raise InputError(NOT_PERPENDICULAR.format(path))


def is_nifti_2(path: Path) -> bool:
    """Return whether a file is NIfTI-2, which ITK does not read."""
    try:
        with _unpacked(path) as file:
            first = file.read(4)
    except (OSError, EOFError, zlib.error):
        return False
    return NIFTI_2_BYTES in (int.from_bytes(first, "little"), int.from_bytes(first, "big"))


def write_nifti_1(path: Path, file: Path) -> None:
    """Write a NIfTI-2 file as NIfTI-1, in the same order of bytes.

    Args:
        path: the file.
        file: to be written, not packed.

    Raises:
        Damaged: it cannot be read.
    """
    try:
        with _unpacked(path) as source, file.open("wb") as target:
            order, head = _nifti_header(source)
            written = np.zeros(NIFTI_BYTES + 4, "u1")
            fields = written[:NIFTI_BYTES].view(_nifti_fields(NIFTI, order, NIFTI_BYTES))[0]
            for name in NIFTI:
                fields[name] = head[name]
                if head[name].dtype.kind == "i" and name != "vox_offset" and (fields[name] != head[name]).any():
                    raise Damaged(f"{name} is too large")
            fields["vox_offset"] = len(written)
            written[:4].view(f"{order}i4")[0] = NIFTI_BYTES
            written[NIFTI_BYTES - 4 : NIFTI_BYTES] = np.frombuffer(b"n+1\0", "u1")
            target.write(written)
            source.seek(int(head["vox_offset"]))
            shutil.copyfileobj(source, target, CHUNK)
    except (ValueError, EOFError, OverflowError, gzip.BadGzipFile, zlib.error) as error:
        raise Damaged(str(error)) from error


def _unpacked(path: Path) -> BinaryIO:
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")


def _nifti_fields(places: dict[str, tuple], order: str, size: int) -> np.dtype:
    formats = [(f"{order}{kind}", tuple(shape)) for _, kind, *shape in places.values()]
    offsets = [field[0] for field in places.values()]
    return np.dtype({"names": list(places), "formats": formats, "offsets": offsets, "itemsize": size})


def _nifti_header(file: BinaryIO) -> tuple[str, np.void]:
    """Return the order of bytes and the fields of a header of either version."""
    start = file.read(NIFTI_BYTES)
    first = {order: int.from_bytes(start[:4], name) for order, name in (("<", "little"), (">", "big"))}
    order = "<" if first["<"] in (NIFTI_BYTES, NIFTI_2_BYTES) else ">"
    places, size = (NIFTI_2, NIFTI_2_BYTES) if first[order] == NIFTI_2_BYTES else (NIFTI, NIFTI_BYTES)
    return order, np.frombuffer(start + file.read(size - NIFTI_BYTES), _nifti_fields(places, order, size), 1)[0]


def _nifti(path: Path) -> bool:
    with _unpacked(path) as file:
        order, head = _nifti_header(file)
        oriented = _nifti_geometry(path, head)
        count = prod(int(length) for length in head["dim"][1 : 1 + int(head["dim"][0])] if length > 0)
        file.seek(int(head["vox_offset"]))
        numbers = NIFTI_FLOATS.get(int(head["datatype"]))
        if not np.isfinite([head["scl_slope"], head["scl_inter"]]).all():
            raise InputError(f"{path} has a rescale (scl_slope) that is no number, expected one; convert the CT again.")
        for chunk in _voxels(file, count * int(head["bitpix"]) // 8):
            if numbers and not np.isfinite(np.frombuffer(chunk, f"{order}{numbers}")).all():
                raise InputError(f"{path} holds {NOT_NUMBERS}, expected CT numbers in HU; export it again.")
    return oriented


def _nifti_geometry(path: Path, head: np.void) -> bool:
    """Check spacing and axes of a NIfTI header; return whether it has an orientation."""
    pixdim = head["pixdim"].astype(float)
    _require_spacing(path, pixdim[1:4])
    rows = np.vstack([head["srow"].astype(float).reshape(3, 4), [0, 0, 0, 1]])
    b, c, d = head["quatern"].astype(float)
    if not np.isfinite([b, c, d]).all():
        raise InputError(NO_ORIENTATION_NUMBER.format(path))
    a = np.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    turn = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    quaternion = np.eye(4)
    quaternion[:3, :3] = turn * pixdim[1:4] * [1, 1, -1 if pixdim[0] < 0 else 1]
    quaternion[:3, 3] = head["qoffset"]
    said = [form for form, code in ((rows, head["sform_code"]), (quaternion, head["qform_code"])) if code > 0]
    for form in said:
        if not np.isfinite(form).all():
            raise InputError(NO_ORIENTATION_NUMBER.format(path))
        require_perpendicular(path, form[:3, :3])
    if said:
        lengths = np.linalg.norm(said[0][:3, :3], axis=0)
        if not np.allclose(lengths, pixdim[1:4], rtol=0.01):
            said.append(np.diag([*pixdim[1:4], 1.0]))  # the sform scales otherwise than the spacing says
    corners = np.array(np.meshgrid(*((0, length - 1) for length in head["dim"][1:4].astype(int)))).reshape(3, -1)
    places = [form[:3, :3] @ corners + form[:3, 3:] for form in said]
    away = max((float(np.linalg.norm(place - places[0], axis=0).max()) for place in places), default=0.0)
    if away > SAME_PLACE_VOXELS * pixdim[1:4].min():
        raise InputError(
            f"{path} has an sform that contradicts its qform or spacing by up to {away:.3g} mm, expected one "
            "orientation; remove the wrong one or convert the CT again from the original DICOM."
        )
    return bool(said)


def _nrrd(path: Path) -> bool:
    with path.open("rb") as file:
        text = file.read(HEADER_BYTES)
        end = re.search(rb"\r?\n\r?\n", text)
        fields = _fields(text[: end.start()] if end else text, ":")
        if not text.startswith(b"NRRD"):
            raise Damaged("no NRRD")
        sizes = [int(size) for size in fields["sizes"].split()]
        vectors = re.findall(r"\(([^)]*)\)", fields.get("space directions", ""))
        if vectors:
            axes = np.array([[float(value) for value in vector.split(",")] for vector in vectors]).T
            _require_spacing(path, np.linalg.norm(axes, axis=0))
            if axes.shape[0] == axes.shape[1] == 3:
                require_perpendicular(path, axes)
        else:
            values = (float(value) for value in fields.get("spacings", "").split())
            _require_spacing(path, np.array([value for value, size in zip(values, sizes, strict=False) if size > 1]))
        kind = (
            fields["type"].lower().replace("unsigned ", "").replace("signed ", "").removesuffix("_t").removeprefix("u")
        )
        bytes_each = 8 if kind == "double" else NRRD_BYTES.get(kind.split()[0], 1)
        encoding = fields["encoding"].lower()
        elsewhere = {"data file", "datafile", "byte skip", "byteskip", "line skip", "lineskip"} & fields.keys()
        if not elsewhere and encoding in NRRD_READERS and end:
            file.seek(end.end())
            for _ in _voxels(NRRD_READERS[encoding](file), prod(sizes) * bytes_each):
                pass
    space = fields.get("space", "").lower().removesuffix("-time").removesuffix("t")
    return bool(vectors) and space in NRRD_SPACES


NRRD_READERS = {
    "raw": lambda file: file,
    **dict.fromkeys(("gzip", "gz"), lambda file: gzip.GzipFile(fileobj=file)),
    **dict.fromkeys(("bzip2", "bz2"), bz2.BZ2File),
}


def _meta(path: Path) -> bool:
    with path.open("rb") as file:
        text = file.read(HEADER_BYTES)
        end = re.search(rb"ElementDataFile\s*=[^\n]*\n?", text, re.IGNORECASE)
        fields = _fields(text[: end.end()], "=")
        sizes = [int(size) for size in fields["dimsize"].split()]
        spacing = fields.get("elementspacing", fields.get("elementsize", ""))
        _require_spacing(path, np.array([float(value) for value in spacing.split()]))
        turn = next((fields[name] for name in ("transformmatrix", "orientation", "rotation") if name in fields), "")
        if len(sizes) == 3 and turn:
            require_perpendicular(path, np.array([float(value) for value in turn.split()]).reshape(3, 3))
        kind = re.sub(r"^met_u?|_array$", "", fields["elementtype"].lower()).replace("long_long", "double")
        count = prod(sizes) * int(fields.get("elementnumberofchannels", 1)) * META_BYTES[kind]
        where = fields["elementdatafile"]
        if where.upper() == "LOCAL":
            file.seek(end.end())
            _require_meta_voxels(file, fields, count)
        elif where.upper().split()[0] != "LIST" and "%" not in where:
            with (path.parent / where).open("rb") as voxels:
                _require_meta_voxels(voxels, fields, count)
    return bool(turn)


def _require_meta_voxels(file: BinaryIO, fields: dict[str, str], count: int) -> None:
    if fields.get("compresseddata", "false").lower() == "true":
        unpack, got = zlib.decompressobj(wbits=47), 0
        while not unpack.eof:
            chunk = file.read(CHUNK)
            if not chunk:
                raise Damaged("the compressed voxels end too soon")
            got += len(unpack.decompress(chunk))
        if got < count:
            raise Damaged("voxels are missing")
    elif fields.get("binarydata", "true").lower() == "true":
        skip = int(fields.get("headersize", 0))
        file.seek(max(skip, 0), 1)
        for _ in _voxels(file, count):
            pass


def _fields(text: bytes, sign: str) -> dict[str, str]:
    """Return the lines of a text header that are a name, a sign and a value; names in small letters."""
    lines = (line.partition(sign) for line in text.decode("latin-1").splitlines() if not line.startswith("#"))
    return {name.strip().lower(): value.strip().lstrip("=").strip() for name, found, value in lines if found}


def _voxels(file: BinaryIO, count: int) -> Iterator[bytes]:
    """Yield `count` bytes in chunks, and read on to the end, where a compressed file has its checksum.

    Raises:
        Damaged: there are fewer.
    """
    left = count
    while left > 0:
        chunk = file.read(min(CHUNK, left))
        if not chunk:
            raise Damaged("voxels are missing")
        left -= len(chunk)
        yield chunk
    if isinstance(file, gzip.GzipFile | bz2.BZ2File):
        while file.read(CHUNK):
            pass
