"""Pictures of a reader study as DICOM Secondary Capture, de-identified by the basic profile of PS3.15 annex E.

Nothing is copied from the input's header, so nothing has to be removed: every attribute is made here.
"""

from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from LNHGLib import __version__
from LNHGLib.reader_study.design import Read, Secret

METHOD = "Made anew from voxels; no attribute of the input was kept"
MANUFACTURER, MODEL = "LNHG", "lnhg reader-study"
EMPTY = (
    *("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID"),
    *("PatientBirthDate", "PatientSex"),
)
"""Attributes of type 2: they must be there, without a value."""

DATES = ("ContentDate", "ContentTime", "InstanceCreationDate", "InstanceCreationTime", "DateOfSecondaryCapture")


def captures(
    pictures: Sequence[np.ndarray], pixel_mm: float, study: str, read: Read, secret: Secret, clean: bool
) -> list[Dataset]:
    """Return the pictures of a read as a series of Secondary Capture objects.

    All reads of a session are one DICOM study of one made-up patient: a workstation lists them in their order, and no
    attribute tells which of them show the same case.

    Args:
        pictures: RGB uint8 (rows, columns, 3).
        pixel_mm: size of a pixel of the panels.
        study: opaque name of the reader study.
        read: whose pictures they are.
        secret: source of the UIDs.
        clean: whether the input said nothing of burned-in annotation.
    """
    from highdicom.sc import SCImage

    patient = f"{read.reader}-{read.session}"
    series = []
    for number, picture in enumerate(pictures, 1):
        capture = SCImage(
            pixel_array=picture,
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=("L", "P"),
            study_instance_uid=secret.uid("study", read.reader, read.session),
            series_instance_uid=secret.uid("series", read.name),
            series_number=read.order,
            sop_instance_uid=secret.uid("image", read.name, number),
            instance_number=number,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MODEL,
            software_versions=__version__,
            patient_id=f"{study}-{patient}",
            patient_name=f"{study}^{patient}",
            pixel_spacing=(round(pixel_mm, 6),) * 2,
            transfer_syntax_uid=ExplicitVRLittleEndian,
        )
        _deidentify(capture, clean)
        series.append(capture)
    return series


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
