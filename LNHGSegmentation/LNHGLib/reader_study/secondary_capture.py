"""Pictures of a reader study as DICOM Secondary Capture, de-identified by the basic profile of PS3.15 annex E.

Nothing is copied from the input's header, so nothing has to be removed: every attribute is made here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from LNHGLib import __version__
from LNHGLib.reader_study.design import Secret

METHOD = "Made anew from voxels; no attribute of the input was kept"
MANUFACTURER, MODEL = "LNHG", "lnhg reader-study"
EMPTY = (
    *("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID"),
    *("PatientBirthDate", "PatientSex"),
)
"""Attributes of type 2: they must be there, without a value."""

DATES = ("ContentDate", "ContentTime", "InstanceCreationDate", "InstanceCreationTime", "DateOfSecondaryCapture")


@dataclass(frozen=True)
class Place:
    """Where the pictures of a read stand among all DICOM objects.

    Attributes:
        study: opaque name of the reader study.
        reader: name of the reader.
        session: its number.
        read: opaque name of the read.
        order: place of the read in its session.
    """

    study: str
    reader: str
    session: int
    read: str
    order: int


def captures(
    pictures: Sequence[np.ndarray], pixel_mm: float, place: Place, secret: Secret, clean: bool
) -> list[Dataset]:
    """Return the pictures of a read as a series of Secondary Capture objects.

    All reads of a session are one DICOM study of one made-up patient: a workstation lists them in their order, and no
    attribute tells which of them show the same case.

    Args:
        pictures: RGB uint8.
        pixel_mm: size of a pixel of the panels.
        place: where they stand.
        secret: what the UIDs are drawn from.
        clean: whether the input said nothing of burned-in annotation.
    """
    return [_capture(picture, number, pixel_mm, place, secret, clean) for number, picture in enumerate(pictures, 1)]


def _capture(picture: np.ndarray, number: int, pixel_mm: float, place: Place, secret: Secret, clean: bool) -> Dataset:
    from highdicom.sc import SCImage

    capture = SCImage(
        pixel_array=picture,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        study_instance_uid=secret.uid("study", place.reader, place.session),
        series_instance_uid=secret.uid("series", place.read),
        series_number=place.order,
        sop_instance_uid=secret.uid("image", place.read, number),
        instance_number=number,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL,
        software_versions=__version__,
        patient_id=f"{place.study}-{place.reader}-{place.session}",
        patient_name=f"{place.study}^{place.reader}-{place.session}",
        pixel_spacing=(round(pixel_mm, 6),) * 2,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    _deidentify(capture, clean)
    return capture


def _deidentify(capture: Dataset, clean: bool) -> None:
    """State the profile (PS3.15 E.1.1, code 113100), and leave out all times: even ours would tell when it was done."""
    for name in EMPTY:
        setattr(capture, name, "")
    for name in (*DATES, "TimeOfSecondaryCapture", "TimezoneOffsetFromUTC"):
        if name in capture:
            delattr(capture, name)
    for equipment in capture.get("ContributingEquipmentSequence", ()):
        equipment.pop("ContributionDateTime", None)
    capture.BodyPartExamined = "CHEST"
    capture.file_meta.ImplementationVersionName = MANUFACTURER
    capture.PatientIdentityRemoved = "YES"
    capture.DeidentificationMethod = METHOD
    code = codes.DCM.BasicApplicationConfidentialityProfile
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    capture.DeidentificationMethodCodeSequence = [item]
    capture.BurnedInAnnotation = "NO" if clean else "YES"
    capture.RecognizableVisualFeatures = "NO"
    capture.LongitudinalTemporalInformationModified = "REMOVED"
    capture.LossyImageCompression = "00"
