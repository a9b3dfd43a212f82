"""Single-file volumes (NIfTI, NRRD, MetaImage): checked before and while they are read."""

import shutil
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from LNHGLib.errors import InputError, shown
from LNHGLib.files.atomic import temporary_folder
from LNHGLib.image import file_headers
from LNHGLib.image.captured_stderr import captured_stderr

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")


def read_image(path: Path) -> sitk.Image:
    """Read a file that holds one scalar 3-D volume; float64 becomes float32.

    Raises:
        InputError: The file is damaged or truncated, its geometry cannot be trusted, or it holds a color, vector, 2-D
            or 4-D image.
    """
    return read_oriented(path)[0]


def read_oriented(path: Path) -> tuple[sitk.Image, bool]:
    """Read a file as `read_image` does, and tell whether it says where the patient's left and right are."""
    known = (suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix))
    suffix = max(known, key=len, default=path.suffix)
    damaged = (
        f"{path} is damaged, truncated or not what its suffix says, expected a complete {suffix} file; "
        "copy or export it again."
    )
    with ExitStack() as stack:
        stack.enter_context(captured_stderr())
        try:
            reader = sitk.ImageFileReader()
            reader.SetFileName(str(_file_for_itk(path, suffix, stack)))
            reader.ReadImageInformation()
            _require_plain_volume(path, reader)
            oriented = file_headers.require_sound(path, suffix)
            if reader.GetDimension() > 3:
                reader.SetExtractSize((*reader.GetSize()[:3], *[0] * (reader.GetDimension() - 3)))
            if reader.GetPixelID() == sitk.sitkFloat64:
                reader.SetOutputPixelType(sitk.sitkFloat32)
            image = reader.Execute()
        except file_headers.Damaged as error:
            raise InputError(damaged) from error
        except RuntimeError as error:
            if "orthonormal" in str(error):
                raise InputError(file_headers.NOT_PERPENDICULAR.format(path)) from error
            raise InputError(damaged) from error
    file_headers.require_perpendicular(path, np.reshape(image.GetDirection(), (3, 3)))
    return image, oriented


def _file_for_itk(path: Path, suffix: str, stack: ExitStack) -> Path:
    """Return a file that ITK reads as it is: the one given, or one that stands for it until the stack is closed."""
    if suffix.startswith(".nii") and file_headers.is_nifti_2(path):
        file = stack.enter_context(temporary_folder()) / "scan.nii"
        file_headers.write_nifti_1(path, file)
        return file
    if suffix == ".nii.gz" and path.with_suffix("").exists():  # ITK takes x.nii when asked for x.nii.gz beside it
        return Path(shutil.copy(path, stack.enter_context(temporary_folder()) / f"scan{suffix}"))
    if str(path).isprintable():
        return path
    folder = stack.enter_context(temporary_folder())  # ITK ends the process over a name whose bytes are none of a text
    for other in path.parent.iterdir():
        if other != path and other.name.startswith(path.stem):  # .mhd names the file of its voxels
            (folder / other.name).symlink_to(other.absolute())
    file = folder / f"scan{suffix}"
    file.symlink_to(path.absolute())
    return file


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
            f"{path} is {len(size)}-D (size {shown(' x '.join(map(str, size)))}), expected a single 3-D CT; "
            "export one time point as its own file."
        )
    if len(size) < 3:
        met = f"single {' x '.join(map(str, size))} picture" if len(size) == 2 else "row of values"
        raise InputError(f"{path} is a {met}, expected a 3-D CT; give the whole series.")
