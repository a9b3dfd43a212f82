"""DICOM files with elements that pydicom itself would not write: any bytes under any tag."""

import struct
from pathlib import Path

import pydicom
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

PADDING = {"UI": b"\0"}


def rewrite(path: Path, **values: bytes | None) -> None:
    """Give a file in Explicit VR Little Endian other values by keyword, byte for byte; None takes an element out."""
    dataset = pydicom.dcmread(path)
    whole = path.read_bytes()
    start = whole.index(struct.pack("<HH", 0x0008, dataset[next(iter(dataset.keys()))].tag.elem), 132)
    changed = {pydicom.tag.Tag(name): value for name, value in values.items()}
    parts = [whole[:start]]
    for tag in sorted(set(dataset.keys()) | set(changed)):
        if tag not in changed:
            one, file = pydicom.Dataset(), DicomBytesIO()
            one.add(dataset[tag])
            file.is_little_endian, file.is_implicit_VR = True, False
            write_dataset(file, one)
            parts.append(file.getvalue())
        elif changed[tag] is not None:
            representation = pydicom.datadict.dictionary_VR(tag)
            value = changed[tag] + PADDING.get(representation, b" ") * (len(changed[tag]) % 2)
            parts.append(struct.pack("<HH2sH", tag.group, tag.elem, representation.encode(), len(value)) + value)
    path.write_bytes(b"".join(parts))
