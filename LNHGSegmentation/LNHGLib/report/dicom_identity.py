"""Patient and study as SEG and SR repeat them: in Unicode, and without what does not conform to DICOM."""

import math
import warnings
from collections.abc import Callable
from contextlib import suppress

import highdicom as hd
import pydicom
from pydicom.dataelem import DataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.valuerep import DSfloat, PersonName, validate_value

EMPTY_ALLOWED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("ReferringPhysicianName", "StudyID", "AccessionNumber"),
)
"""What SEG and SR must have, with a value where it is known (type 2)."""
DESCRIBING_GROUPS = (0x0008, 0x0010, 0x0012, 0x0032, 0x0040)
"""Groups of the elements that describe patient, trial and study; geometry and pixels stand in others."""
TEXT = ("LO", "LT", "PN", "SH", "ST", "UC", "UT")
CONTROL = {code: " " for code in (*range(32), 127) if chr(code) not in "\n\r\t\f"}
UNICODE = "ISO_IR 192"
UNDECODED = "\N{REPLACEMENT CHARACTER}"


def repeatable(dataset: pydicom.Dataset, thickness_mm: float) -> tuple[pydicom.Dataset, list[str]]:
    """Return a slice's header as SEG and SR can repeat it.

    Text is in Unicode, whatever character sets it was written in; what must be there and is not is empty.

    Args:
        dataset: Of the first slice.
        thickness_mm: Distance of the slices, which stands for their thickness where they do not say it.

    Returns:
        The header, and the names of what was left out or empty as it does not conform to DICOM, and of texts whose
        characters are not sure.
    """
    mended, faults = pydicom.Dataset(), []
    declared = [str(part) for part in _several(_value(dataset, "SpecificCharacterSet")) if part]
    known = bool(declared) and all(part in pydicom.charset.python_encoding for part in declared)
    for tag in dataset.keys():  # noqa: SIM118 - iterating over the data set itself converts, and may fail
        name = pydicom.datadict.keyword_for_tag(tag) or str(tag)
        if tag.group in DESCRIBING_GROUPS and not tag.is_private and name != "SpecificCharacterSet":
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    element, sure = _conforming(dataset, tag, known)
            except Exception:  # a damaged element can fail anywhere in the parser
                faults.append(name)
                continue
            mended.add(element)
            if not sure:
                faults.append(name)
        elif not tag.is_private:
            with suppress(Exception):
                mended.add(dataset[tag])
    for name in EMPTY_ALLOWED:
        if name not in mended:
            setattr(mended, name, "")
    stated = False
    with suppress(ValueError):
        stated = 0 < float(str(_value(mended, "SliceThickness"))) < math.inf
    if not stated:  # optional in CT, needed in SEG
        mended.SliceThickness = DSfloat(thickness_mm, auto_format=True)
    mended.SpecificCharacterSet = UNICODE
    return mended, faults


def text_of(dataset: pydicom.Dataset, name: str) -> str:
    """Return an element as text for people; empty where it is not there or cannot be read.

    Args:
        dataset: Of a slice.
        name: Keyword of the element.
    """
    return ", ".join(filter(None, (str(part).strip() for part in _several(_value(dataset, name)))))


def _value(dataset: pydicom.Dataset, name: str) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return dataset.get(name)
        except Exception:  # as above
            return None


def _several(value: object) -> list:
    return [] if value is None else list(value) if isinstance(value, pydicom.multival.MultiValue) else [value]


def _conforming(dataset: pydicom.Dataset, tag: pydicom.tag.BaseTag, known: bool) -> tuple[DataElement, bool]:
    """Return an element to be repeated, and whether its characters are sure.

    Raises:
        Exception: It does not conform to DICOM.
    """
    raw = dataset.get_item(tag)
    bytes_read = raw.value if isinstance(raw.value, bytes) else b""
    element = dataset[tag]
    value, sure = element.value, True
    if element.VR in TEXT:
        value, sure = _text(element, bytes_read, known)
    elif element.VR not in ("SQ", "UI"):  # an identifier is repeated as it is: it is what others know it by
        for part in _several(value):
            validate_value(element.VR, str(part), pydicom.config.RAISE)
    if element.keyword in STRICT and value:
        STRICT[element.keyword](value)
    conforming = DataElement(tag, element.VR, value)
    alone = pydicom.Dataset()
    alone.SpecificCharacterSet = UNICODE
    alone.add(conforming)
    for implicit in (True, False):  # it must be writable in either, as SR and SEG are
        file = DicomBytesIO()
        file.is_little_endian, file.is_implicit_VR = True, implicit
        write_dataset(file, alone)
    return conforming, sure


def _text(element: DataElement, bytes_read: bytes, known: bool) -> tuple[object, bool]:
    """Return a text in Unicode, and whether nothing about its characters was guessed."""
    parts = [str(part) for part in _several(element.value)]
    sure = UNDECODED not in "".join(parts)
    if not known and not bytes_read.isascii():  # no character set is named: Unicode if it can be, else Latin-1
        try:
            parts = bytes_read.decode("utf-8").rstrip(" \0").split("\\")
        except UnicodeDecodeError:
            sure = False
    parts = [part.translate(CONTROL).strip() for part in parts]
    if element.keyword in EMPTY_ALLOWED and len(parts) > 1:
        parts = [" ".join(filter(None, parts))]
    whole = [PersonName(part) for part in parts] if element.VR == "PN" else parts
    return (whole[0] if len(whole) == 1 else whole) if whole else "", sure


STRICT: dict[str, Callable[[object], object]] = {
    "PatientSex": hd.PatientSexValues,
    **dict.fromkeys(("PatientBirthDate", "StudyDate"), pydicom.valuerep.DA),
    "StudyTime": pydicom.valuerep.TM,
}
"""What highdicom asks more of than the standard asks of its kind of value."""
