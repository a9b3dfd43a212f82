"""The pixels of DICOM slices in HU: what the file says, or an error."""

import mmap
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import apply_modality_lut
from pydicom.uid import CTImageStorage, JPEG2000TransferSyntaxes, RLELossless, generate_uid
from scipy import ndimage

try:
    import openjpeg
except ImportError:  # of the extra `fast`
    openjpeg = None

from LNHGLib.errors import InputError
from LNHGLib.files.atomic import temporary_folder
from LNHGLib.image.captured_stderr import captured_stderr
from LNHGLib.image.dicom_header import Header, frames_of
from LNHGLib.image.volume import LOWEST_HU

HIGHEST_TISSUE_HU = 3071
DAMAGE = re.compile(r"Corrupt JPEG data|Premature end|Unsupported marker|Bogus|inconsistent", re.IGNORECASE)
FEW = 16
"""Slices that are worth a process of their own."""
MAX_PROCESSES = 8
SPARE_BYTES = re.compile(r"Corrupt JPEG data: [12] extraneous bytes.*")
"""What libjpeg says of the filling that some scanners leave before the end of an image."""


class PixelReader:
    """Reads slices; keeps the last file at hand, as the other frames of an enhanced CT come next.

    Attributes:
        padded: how many pixels were padding above the lowest HU, and are now air.
        compressed: whether the last slice was.
    """

    def __init__(self) -> None:
        self.padded, self.compressed = 0, False
        self._last: tuple[Path, pydicom.Dataset, list[pydicom.Dataset]] | None = None

    def read(self, header: Header) -> np.ndarray:
        """Return a slice (y, x) after its own rescale: int16 where that holds it, or else int32 or float32.

        Raises:
            InputError: the pixels are damaged, incomplete or stored in an unknown way.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if self._last is None or self._last[0] != header.path:
                    self._last = None
                    dataset = pydicom.dcmread(header.path, force=True)
                    self._last = header.path, dataset, [] if header.frame is None else frames_of(dataset)
                _, dataset, frames = self._last
                syntax = _syntax(dataset)
                self.compressed = syntax is not None and syntax.is_encapsulated
                words, stored = _stored(dataset, header.frame or 0, max(len(frames), 1))
                tags = dataset if header.frame is None else frames[header.frame]
                hu = _rescaled(stored, tags)
                padding = _padding(words, stored, hu, tags)
        except MemoryError:
            raise
        except Exception as error:  # damaged pixels can fail anywhere in parsers and decoders
            raise InputError(
                f"{header.path} has pixels that cannot be read (damaged, truncated or in an unknown compression), "
                "expected a complete CT slice; copy or export it again."
            ) from error
        if padding is not None:
            self.padded += np.count_nonzero(padding)
            hu[padding] = LOWEST_HU
        limits = np.iinfo(np.int16)
        if np.issubdtype(hu.dtype, np.integer) and limits.min <= hu.min() and hu.max() <= limits.max:
            return hu.astype(np.int16, copy=False)
        return hu

    def read_into(self, headers: Sequence[Header], layers: np.ndarray) -> bool:
        """Read slices into an array; tell whether it can hold all of them.

        Args:
            headers: of the slices.
            layers: (N, y, x).

        Raises:
            InputError: as `read`.
        """
        for header, layer in zip(headers, layers, strict=True):
            pixels = self.read(header)
            if (pixels.dtype, pixels.shape) != (layer.dtype, layer.shape):
                return False
            layer[:] = pixels
        return True


def read_slices(
    headers: Sequence[Header], meanwhile: Callable[[], object] = lambda: None
) -> tuple[np.ndarray | list[np.ndarray], int]:
    """Return slices as `PixelReader.read` does, and how many of their pixels were padding.

    On Linux processes of their own decode many compressed slices: decoders hold Python's lock. They share memory with
    this one and end by themselves. What they cannot read is read again here, where an error is told.

    Args:
        headers: of the slices, in their order.
        meanwhile: called once, while other processes decode where they do.

    Returns:
        (N, y, x), or where slices differ in type or shape, one after the other; and the number.

    Raises:
        InputError: as `PixelReader.read`.
    """
    reader, cores = PixelReader(), len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
    first = reader.read(headers[0])
    shared = mmap.mmap(-1, 8 * cores + len(headers) * first.nbytes)
    padded, layers = np.frombuffer(shared, np.int64, cores), np.frombuffer(shared, first.dtype, offset=8 * cores)
    layers = layers.reshape(-1, *first.shape)
    layers[0] = first
    helpers = min(cores, len(headers) // FEW, MAX_PROCESSES) if reader.compressed and cores > 1 else 0
    ends = np.linspace(1, len(headers), helpers + 1).astype(int)
    children: list[int] = []
    try:
        for number, (start, stop) in enumerate(pairwise(ends)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # a child touches no thread's lock but Python's own
                children.append(os.fork())
            if children[-1] == 0:
                with suppress(BaseException):
                    own = PixelReader()
                    if own.read_into(headers[start:stop], layers[start:stop]):
                        padded[number] = own.padded
                        os._exit(0)
                os._exit(1)
        meanwhile()
        if not children and reader.read_into(headers[1:], layers[1:]):
            return layers, reader.padded
        failed = not children
        while children:
            failed |= os.waitpid(children[-1], 0)[1] != 0
            children.pop()
        if not failed:
            return layers, reader.padded + int(padded.sum())
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    reader = PixelReader()
    return [reader.read(header) for header in headers], reader.padded


def _syntax(dataset: pydicom.Dataset) -> pydicom.uid.UID | None:
    """Return the transfer syntax; None where the file does not say it."""
    return getattr(dataset, "file_meta", {}).get("TransferSyntaxUID")


def _stored(dataset: pydicom.Dataset, index: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a frame (rows, columns): the words as they lie in the file, unsigned, and the stored values.

    Args:
        dataset: the whole file.
        index: of the frame.
        count: of frames.
    """
    rows, columns, bits = int(dataset.Rows), int(dataset.Columns), int(dataset.BitsAllocated)
    if int(dataset.get("SamplesPerPixel") or 1) != 1 or bits not in (8, 16, 32) or not rows or not columns:
        raise ValueError("no gray values of whole bytes")
    syntax = _syntax(dataset)
    if syntax is None or not syntax.is_encapsulated:
        order = "<" if dataset.original_encoding[1] is not False else ">"
        words = np.frombuffer(dataset.PixelData, f"{order}u{bits // 8}")
        if words.size < count * rows * columns:
            raise ValueError("too few pixels")
        words = words[index * rows * columns :][: rows * columns].reshape(rows, columns).astype(f"u{bits // 8}")
    else:
        offsets = None
        if "ExtendedOffsetTable" in dataset:
            offsets = dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths
        frame = get_frame(dataset.PixelData, index, number_of_frames=count, extended_offsets=offsets)
        if openjpeg and syntax in JPEG2000TransferSyntaxes:  # in half the time that GDCM takes, which has the last word
            with suppress(Exception), captured_stderr():
                stored = openjpeg.decode(frame)
                signed = bool(dataset.get("PixelRepresentation", 0))
                if stored.shape == (rows, columns) and (stored.dtype.kind == "i") == signed:
                    return stored, stored
        one = _single_frame(dataset, frame)
        if syntax != RLELossless:
            with temporary_folder() as folder:
                path = folder / "frame"
                one.save_as(path, enforce_file_format=True)
                with captured_stderr() as printed:
                    stored = sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="GDCMImageIO"))
                    complaint = SPARE_BYTES.sub("", printed())
            if DAMAGE.search(complaint) or stored.shape != (1, rows, columns):  # what decoders complain of is damage
                raise ValueError(complaint or "another size")
            return stored[0], stored[0]
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # pydicom only warns where a segment holds too much
            words = one.pixel_array.view(f"u{bits // 8}")
    used, high = int(dataset.BitsStored), int(dataset.get("HighBit", int(dataset.BitsStored) - 1))
    if not 0 < used <= high + 1 <= bits:
        raise ValueError("bits stored do not lie within those allocated")
    signed = bool(dataset.get("PixelRepresentation", 0))
    placed = (words << (bits - high - 1)).view(f"{'i' if signed else 'u'}{bits // 8}")
    return words, placed >> (bits - used)  # what lies in the bits around, as overlays did, falls out


def _single_frame(dataset: pydicom.Dataset, frame: bytes) -> pydicom.Dataset:
    """Return a compressed frame as an image of its own that says nothing but how its pixels are stored."""
    one = pydicom.Dataset()
    one.SOPClassUID, one.SOPInstanceUID, one.Modality = CTImageStorage, generate_uid(), "CT"
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    for name in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"):
        setattr(one, name, dataset[name].value)
    one.PixelRepresentation = dataset.get("PixelRepresentation", 0)
    one.PixelData = encapsulate([frame])
    one["PixelData"].VR = "OB"
    one.file_meta = pydicom.dataset.FileMetaDataset()
    one.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    return one


def _rescaled(stored: np.ndarray, tags: pydicom.Dataset) -> np.ndarray:
    """Return HU, int32 or float32 where the rescale leaves fractions."""
    if tags.get("ModalityLUTSequence"):
        values = np.asarray(apply_modality_lut(stored, tags), np.float64)
    else:
        slope, intercept = (tags.get(name) for name in ("RescaleSlope", "RescaleIntercept"))
        slope, intercept = 1.0 if slope is None else float(slope), float(intercept or 0)
        if not slope or not np.isfinite([slope, intercept]).all():
            raise ValueError("no rescale")
        if slope == 1 and intercept.is_integer() and abs(intercept) < 2**30 and stored.dtype.itemsize <= 2:
            return stored + np.int32(intercept)
        values = stored * slope + intercept
    whole = np.rint(values)
    limits = np.iinfo(np.int32)
    if np.array_equal(whole, values) and limits.min <= whole.min() and whole.max() <= limits.max:
        return whole.astype(np.int32)
    return values.astype(np.float32)


def _padding(words: np.ndarray, stored: np.ndarray, hu: np.ndarray, tags: pydicom.Dataset) -> np.ndarray | None:
    """Return where the file marks pixels as none and their HU does not already say so, or None for nowhere.

    A padding value that tissue may have, as a careless 0, is one only where it reaches the rim of the picture.
    """
    value = tags.get("PixelPaddingValue")
    limit = tags.get("PixelPaddingRangeLimit", value)
    if not isinstance(value, int) or not isinstance(limit, int):
        return None
    size = 2 ** int(tags.BitsAllocated)
    signed = bool(tags.get("PixelRepresentation", 0))
    low, high = sorted((each % size) - (size if signed and each % size >= size // 2 else 0) for each in (value, limit))
    marked = ((stored >= low) & (stored <= high)) | (words == value % size)
    marked &= hu > LOWEST_HU
    plausible = marked & (hu < HIGHEST_TISSUE_HU)
    if plausible.any():
        parts, _ = ndimage.label(plausible)
        rim = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
        marked &= ~plausible | np.isin(parts, rim[rim > 0])
    return marked if marked.any() else None
