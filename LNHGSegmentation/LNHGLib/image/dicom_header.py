"""What DICOM images say about themselves: one header per slice, be it a file or a frame of an enhanced CT."""

import re
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pydicom

HEAD_BYTES = 132
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
"""Enhanced CT, and the enhanced CT that archives make of classic slices ("legacy converted")."""
CONE_BEAM = ("1.2.840.10008.5.1.4.1.1.13.1.1", "1.2.840.10008.5.1.4.1.1.13.1.2", "1.2.840.10008.5.1.4.1.1.13.1.3")
DIRECTORY = "1.2.840.10008.1.3.10"
LOCALIZER_TYPES = {"LOCALIZER", "SCOUT"}
CAPTURE_TYPES = {"SCREEN SAVE", "DOSE_INFO", "PASTED"}
PERFUSION_TYPES = {"PERFUSION", "CTP", "CBF", "CBV", "MTT", "TTP", "TMAX"}
MATERIAL_TYPES = {"MAT_SPECIFIC", "MAT_FRACTIONAL", "MAT_VALUE_BASED", "EFF_ATOMIC_NUM", "ELECTRON_DENSITY"}
MATERIAL_UNITS = {"MGML", "Z_EFF", "ED", "EDW", "PCT"}
"""Rescale types of dual-energy CT that are no HU."""
CONE_BEAM_WORDS = re.compile(r"\bCBCT\b|CONE[ -_]?BEAM", re.IGNORECASE)
PERFUSION_WORDS = re.compile(r"\bPERFUSION\b|\bCTP\b", re.IGNORECASE)
ADVICE = {
    "multi-frame CT": "export it as Enhanced CT or as one image a slice (classic CT Image Storage)",
    "CT without position": "export it again with ImagePositionPatient, ImageOrientationPatient and PixelSpacing",
    "color CT": "give the original CT, not a picture of it",
    "cone-beam CT": "its values are no HU, give a CT of a CT scanner",
    "perfusion CT": "its maps and time points are no chest CT, give the plain series",
    "dual-energy material map": "its values are no HU, give the mixed or monoenergetic series",
}
SUBJECT = {
    "PatientID": "patient",
    "PatientName": "patient",
    "PatientBirthDate": "patient",
    "StudyInstanceUID": "study",
    "FrameOfReferenceUID": "frame of reference",
}
"""Tags that all slices of a volume share where they have them, with what they stand for."""
PARTS = {
    "AcquisitionNumber": "acquisition",
    "TemporalPositionIdentifier": "time point",
    "TemporalPositionIndex": "time point",
    "TriggerTime": "time point",
    "NominalCardiacTriggerDelayTime": "time point",
    "NominalPercentageOfCardiacPhase": "time point",
    "NominalPercentageOfRespiratoryPhase": "time point",
    "KVP": "kV",
    "ConvolutionKernel": "kernel",
    "SliceThickness": "thickness",
    "ImageType": "type",
    "SeriesNumber": "series number",
    "SeriesDescription": "description",
    "AcquisitionTime": "time",
    "ContentTime": "time",
}
"""Tags that may tell the volumes of a series apart, the surest first, with what they stand for."""
GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
RENAMED = {
    "FrameType": "ImageType",
    "FrameAcquisitionNumber": "AcquisitionNumber",
    "FrameAcquisitionDateTime": "AcquisitionTime",
}
"""Enhanced CT's names for what classic CT says of a slice."""
TAGS = [
    *("SOPClassUID", "Modality", "SeriesInstanceUID", "BodyPartExamined", "ProtocolName", "ManufacturerModelName"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "SamplesPerPixel"),
    *("NumberOfFrames", "RescaleType"),
    *SUBJECT,
    *PARTS,
    *GROUPS,
]


@dataclass(frozen=True, eq=False)
class Header:
    """What one slice says about itself.

    Attributes:
        path: its file.
        kind: "CT", or what it is instead.
        series_uid: its series.
        patient_id: None where it names none.
        description: of the series.
        body_part: in capitals.
        position: of the first pixel, LPS mm.
        layout: row and column direction, pixel spacing and size.
        frame: its index in a multi-frame file; None where the file is one slice.
        subject: values of the tags of `SUBJECT`, in their order; empty where it has none.
        told: values of `PARTS`, those that it has.
    """

    path: Path
    kind: str
    series_uid: str
    patient_id: str | None
    description: str
    body_part: str
    position: np.ndarray | None
    layout: np.ndarray | None
    frame: int | None
    subject: tuple[str, ...]
    told: Mapping[str, str]


def is_dicom(path: Path) -> bool:
    """Tell whether the file starts as DICOM does, with or without the preamble."""
    with path.open("rb") as file:
        return starts_as_dicom(file.read(HEAD_BYTES))


def starts_as_dicom(head: bytes) -> bool:
    """Tell whether the first 132 bytes are those of a DICOM file."""
    return head[128:132] == b"DICM" or head[:2] in (b"\x08\x00", b"\x02\x00")


def is_directory(path: Path) -> bool:
    """Tell whether a DICOM file is the index of a medium (DICOMDIR), which holds no image."""
    try:
        meta = pydicom.filereader.read_file_meta_info(path)
    except Exception:  # a damaged header can fail anywhere in the parser
        return path.name.upper() == "DICOMDIR"
    return meta.get("MediaStorageSOPClassUID") == DIRECTORY or path.name.upper() == "DICOMDIR"


def read_headers(path: Path, content: BinaryIO | None = None) -> list[Header]:
    """Return the headers of a file's slices without their pixels; none when the file is no DICOM image of a series.

    Args:
        path: The file.
        content: What is in it, at its beginning, where it lies in an archive.

    Raises:
        OSError: The file cannot be opened.
    """
    with nullcontext(content) if content else path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # real scanners break the standard in harmless ways
        if not starts_as_dicom(file.read(HEAD_BYTES)):
            return []
        try:
            file.seek(0)
            dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=TAGS, force=True)
            if not dataset.get("SeriesInstanceUID"):
                return []
            frames = dataset.get(GROUPS[1]) or []
            enhanced = dataset.get("SOPClassUID") in ENHANCED_CT
            if not (enhanced and 0 < len(frames) == int(dataset.get("NumberOfFrames") or 0)):
                return [_header(path, dataset, None)]
            return [_header(path, frame, index) for index, frame in enumerate(frames_of(dataset))]
        except Exception:  # a damaged header can fail anywhere in the parser
            return []


def frames_of(dataset: pydicom.Dataset) -> list[pydicom.Dataset]:
    """Return for each frame of an enhanced CT what a classic slice would say: its functional groups laid flat."""
    shared, per_frame = (dataset.get(name) or [] for name in GROUPS)
    common = pydicom.Dataset()
    common.update({element.tag: element for element in dataset if element.keyword not in GROUPS})
    for group in shared:
        _lay_flat(group, common)
    frames = []
    for groups in per_frame:
        frame = pydicom.Dataset()
        frame.update(common)
        _lay_flat(groups, frame)
        frames.append(frame)
    return frames


def _lay_flat(groups: pydicom.Dataset, into: pydicom.Dataset) -> None:
    for sequence in groups:
        for element in sequence.value[0] if sequence.VR == "SQ" and sequence.value else ():
            into[element.tag] = element
            if element.keyword in RENAMED:
                tag = pydicom.tag.Tag(RENAMED[element.keyword])
                into[tag] = pydicom.DataElement(tag, pydicom.datadict.dictionary_VR(tag), element.value)


def _header(path: Path, dataset: pydicom.Dataset, frame: int | None) -> Header:
    parts = []
    for tag, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        values = dataset.get(tag)
        numbers = np.array([] if values is None else values, float).ravel()
        parts.append(numbers if numbers.size == count and np.isfinite(numbers).all() else None)
    position, orientation, spacing = parts
    size = np.array([dataset.get("Rows", 0), dataset.get("Columns", 0)], float)
    whole = orientation is not None and spacing is not None and (spacing > 0).all() and (size > 0).all()
    return Header(
        path=path,
        kind=_image_kind(dataset, position is not None and whole, frame is not None),
        series_uid=str(dataset.SeriesInstanceUID),
        patient_id=str(dataset.get("PatientID") or "") or None,
        description=str(dataset.get("SeriesDescription") or ""),
        body_part=str(dataset.get("BodyPartExamined") or "").upper(),
        position=position,
        layout=np.concatenate([orientation, spacing, size]) if whole else None,
        frame=frame,
        subject=tuple(re.sub(r"[\s^=]+", " ", _text(dataset, tag)).strip().casefold() for tag in SUBJECT),
        told={tag: text for tag in PARTS if (text := _text(dataset, tag))},
    )


def _text(dataset: pydicom.Dataset, tag: str) -> str:
    value = dataset.get(tag)
    if value is None or isinstance(value, str):
        return (value or "").strip()
    return "\\".join(map(str, value)) if isinstance(value, list | pydicom.multival.MultiValue) else str(value).strip()


def _image_kind(dataset: pydicom.Dataset, placed: bool, enhanced: bool) -> str:
    """Name what the image is; only "CT" can be stacked."""
    sop_class = str(dataset.get("SOPClassUID", ""))
    types = {str(value).upper() for value in dataset.get("ImageType") or ()}
    modality = str(dataset.get("Modality") or "unknown")
    words = " ".join(_text(dataset, tag) for tag in ("SeriesDescription", "ProtocolName", "ManufacturerModelName"))
    units = _text(dataset, "RescaleType").upper()
    rules = (
        (sop_class.startswith(SECONDARY_CAPTURE) or bool(types & CAPTURE_TYPES), "secondary capture"),
        (sop_class in CONE_BEAM, "cone-beam CT"),
        (modality != "CT", modality),
        (bool(types & LOCALIZER_TYPES), "localizer"),
        (bool(CONE_BEAM_WORDS.search(f"{words} {types}")), "cone-beam CT"),
        (
            bool(types & PERFUSION_TYPES) or bool(PERFUSION_WORDS.search(_text(dataset, "SeriesDescription"))),
            "perfusion CT",
        ),
        (bool(types & MATERIAL_TYPES) or units in MATERIAL_UNITS, "dual-energy material map"),
        (not enhanced and int(dataset.get("NumberOfFrames") or 1) > 1, "multi-frame CT"),
        (not enhanced and sop_class in ENHANCED_CT, "multi-frame CT"),
        (int(dataset.get("SamplesPerPixel") or 1) > 1, "color CT"),
        (not placed, "CT without position"),
    )
    return next((name for holds, name in rules if holds), "CT")
