"""Enhanced multi-frame CT made of a classic series, as scanners write it and as archives convert it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid


def classic_slices(folder: Path) -> list[Dataset]:
    """The slices of a folder, each with its pixels unpacked."""
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


def write_enhanced(slices: Sequence[Dataset], path: Path, change: Callable[[Dataset], None] = lambda _: None) -> Path:
    """Write slices as one enhanced CT: geometry and rescale in functional groups, its frames in the given order.

    What all slices have in common is shared; `change` may alter the whole before it is written.
    """
    first, image = slices[0], Dataset()
    for name in (
        *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime"),
        *("AccessionNumber", "StudyID", "ReferringPhysicianName", "SeriesInstanceUID", "SeriesNumber", "Manufacturer"),
        *("FrameOfReferenceUID", "PositionReferenceIndicator", "Rows", "Columns", "SamplesPerPixel"),
        *("PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    ):
        if name in first:
            image[name] = first[name]
    image.SOPClassUID, image.SOPInstanceUID, image.Modality = EnhancedCTImageStorage, generate_uid(), "CT"
    image.ImageType, image.InstanceNumber = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], 1
    image.ContentDate, image.ContentTime, image.NumberOfFrames = "20200304", "101112", len(slices)
    measures, orientation, kind, per_frame = Dataset(), Dataset(), Dataset(), []
    measures.PixelSpacing, measures.SliceThickness = first.PixelSpacing, first.get("SliceThickness") or 2.0
    orientation.ImageOrientationPatient = first.ImageOrientationPatient
    kind.FrameType = image.ImageType
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    shared.CTImageFrameTypeSequence = [kind]
    for number, each in enumerate(slices, 1):
        groups, content, position, rescale = Dataset(), Dataset(), Dataset(), Dataset()
        content.StackID, content.InStackPositionNumber, content.DimensionIndexValues = "1", number, [number]
        content.FrameAcquisitionNumber = int(each.get("AcquisitionNumber") or 1)
        position.ImagePositionPatient = each.ImagePositionPatient
        rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = (
            each.RescaleSlope, each.RescaleIntercept, "HU",
        )  # fmt: skip
        groups.FrameContentSequence, groups.PlanePositionSequence = [content], [position]
        groups.PixelValueTransformationSequence = [rescale]
        per_frame.append(groups)
    image.SharedFunctionalGroupsSequence, image.PerFrameFunctionalGroupsSequence = [shared], per_frame
    image.PixelData = b"".join(np.ascontiguousarray(each.pixel_array).tobytes() for each in slices)
    image["PixelData"].VR = "OW"
    change(image)
    return _save(image, path)


def write_legacy(slices: Sequence[Dataset], path: Path) -> Path:
    """Write slices as legacy converted enhanced CT, as highdicom converts them."""
    image = hd.legacy.LegacyConvertedEnhancedCTImage(slices, slices[0].SeriesInstanceUID, 1, generate_uid(), 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path)
    return path


def _save(image: Dataset, path: Path) -> Path:
    if not hasattr(image, "file_meta"):
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path, enforce_file_format=True)
    return path
