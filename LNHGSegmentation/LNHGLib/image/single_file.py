"""Single-file volumes (NIfTI, NRRD, MetaImage): checked before and while they are read."""

import gzip
import os
import shutil
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path

import SimpleITK as sitk  # noqa: N813

from LNHGLib.errors import InputError
from LNHGLib.files.atomic import temporary_folder

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")


def read_image(path: Path) -> sitk.Image:
    """Read a file that holds one scalar 3-D volume; float64 becomes float32.

    Raises:
        InputError: The file is damaged or truncated, or holds a color, vector, 2-D or 4-D image.
    """
    known = (suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix))
    suffix = max(known, key=len, default=path.suffix)
    damaged = (
        f"{path} is damaged, truncated or not what its suffix says, expected a complete {suffix} file; "
        "copy or export it again."
    )
    with ExitStack() as stack:
        stack.enter_context(_silent_stderr())
        file = path
        if suffix == ".nii.gz" and path.with_suffix("").exists():  # ITK takes x.nii when asked for x.nii.gz beside it
            file = Path(shutil.copy(path, stack.enter_context(temporary_folder())))
        try:
            reader = sitk.ImageFileReader()
            reader.SetFileName(str(file))
            reader.ReadImageInformation()
            _require_plain_volume(path, reader)
            if suffix.startswith(".nii") and not _is_complete_nifti(path, reader):
                raise InputError(damaged)
            if reader.GetDimension() > 3:
                reader.SetExtractSize((*reader.GetSize()[:3], *[0] * (reader.GetDimension() - 3)))
            if reader.GetPixelID() == sitk.sitkFloat64:
                reader.SetOutputPixelType(sitk.sitkFloat32)
            return reader.Execute()
        except RuntimeError as error:
            if "orthonormal" in str(error):
                raise InputError(
                    f"{path} has axes that are not perpendicular to each other, expected a rectangular voxel grid; "
                    "resample it or convert it again from the original DICOM."
                ) from error
            raise InputError(damaged) from error


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keep the C++ readers from printing on stderr what the error already says, or harmless warnings."""
    if sys.__stderr__ is None:  # a windowed program on Windows has no stderr to silence
        yield
        return
    saved = os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)


def _require_plain_volume(path: Path, reader: sitk.ImageFileReader) -> None:
    """Refuse by its header an image that is no scalar 3-D volume."""
    size, channels = reader.GetSize(), reader.GetNumberOfComponents()
    if channels > 1:
        raise InputError(
            f"{path} has {channels} values a voxel (color or vector image), expected one HU value; "
            "give the original CT, not a picture of it."
        )
    if any(length > 1 for length in size[3:]):
        raise InputError(
            f"{path} is {len(size)}-D (size {' x '.join(map(str, size))}), expected a single 3-D CT; "
            "export one time point as its own file."
        )
    if len(size) < 3:
        raise InputError(f"{path} is a single {size[0]} x {size[1]} picture, expected a 3-D CT; give the whole series.")


def _is_complete_nifti(path: Path, reader: sitk.ImageFileReader) -> bool:
    """Tell whether a NIfTI file has all its voxels: ITK would fill the missing ones silently."""
    voxel_bytes = int(reader.GetMetaData("bitpix")) // 8
    needed = int(float(reader.GetMetaData("vox_offset"))) + prod(reader.GetSize()) * voxel_bytes
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            file.seek(needed - 1)
            return len(file.read(1)) == 1
    except (EOFError, OSError, zlib.error):
        return False
