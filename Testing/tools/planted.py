"""A DICOM CT series with an identity in every place that can hold one, and a search that finds any of them."""

import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import pydicom
from cohort_data import write_dicom
from LNHGLib.image.volume import Volume
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset

WORD, UID_ROOT = "PLANT", "1.2.826.0.1.3680043.999."
DATE, TIME = "18470311", "235917.481516"
FOLDER, FILE = "PLANTFOLDER Doe^John 18470311", "PLANTFILE{:04d}.dcm"
SERIES_UID = f"{UID_ROOT}17"
NEEDED = {  # what makes a series a CT that can be read
    *("SpecificCharacterSet", "ImageType", "SOPClassUID", "Modality", "PhotometricInterpretation"),
    *("SeriesInstanceUID", "SOPInstanceUID", "BurnedInAnnotation", "LossyImageCompression"),
}
NEEDLES = [WORD, UID_ROOT, DATE, "1847-03-11", "11.03.1847", "03/11/1847", TIME, "23:59:17", "Doe^John", "777.125"]
MADE = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), lambda tag: f"{WORD}{tag:08X}"),
    "UR": lambda tag: f"http://example.invalid/{WORD}{tag:08X}",
    "UI": lambda tag: f"{UID_ROOT}{tag}",
    "DA": lambda _tag: DATE,
    "TM": lambda _tag: TIME,
    "DT": lambda _tag: DATE + TIME,
}


def write_series(folder: Path, volume: Volume) -> Path:
    """Write the volume as a series, with identities in its folder's and files' names and in the headers.

    Every attribute there is holds one in the last slice and in each fourth one, a part of them in all slices.
    """
    place = write_dicom(folder / FOLDER, volume, SERIES_UID, FILE)
    planted = _every_text()
    some = planted[0x00080000:0x00220000]
    files = sorted(place.iterdir())
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.update(planted if file == files[-1] or files.index(file) % 4 == 0 else some)
        dataset.PatientWeight = "777.125"
        _plant_private(dataset)
        dataset.file_meta.SourceApplicationEntityTitle = f"{WORD}META"
        dataset.file_meta.PrivateInformationCreatorUID = f"{UID_ROOT}1"
        dataset.file_meta.PrivateInformation = b"PLANTMETAPRIVATE"
        dataset.preamble = b"PLANTPREAMBLE".ljust(128, b"\0")
        dataset.save_as(file, enforce_file_format=True)
    return place


def _every_text() -> Dataset:
    """Every attribute of the dictionary that holds text, a date, a time or a UID, and sequences of such."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for tag, (kind, *_, keyword) in DicomDictionary.items():
        group = tag >> 16
        if keyword in NEEDED or not keyword or group < 8 or group in (0x5200, 0x7FE0, 0xFFFA, 0xFFFC):
            continue
        if kind in MADE:
            dataset.add_new(tag, kind, MADE[kind](tag))
        elif kind == "SQ" and group not in (0x0028, 0x0022):
            item = Dataset()
            item.PatientName, item.ReferencedSOPInstanceUID = f"{WORD}{tag:08X}", f"{UID_ROOT}{tag}"
            dataset.add_new(tag, kind, [item])
    return dataset


def _plant_private(dataset: Dataset) -> None:
    block = dataset.private_block(0x0009, f"{WORD} CREATOR", create=True)
    block.add_new(0x01, "LO", f"{WORD}PRIVATE")
    block.add_new(0x02, "UN", b"PLANTUNKNOWN")
    block.add_new(0x03, "PN", f"{WORD}^PRIVATE")
    block.add_new(0x04, "DA", DATE)
    block.add_new(0x05, "UI", f"{UID_ROOT}5")


def found_in(path: Path, more: tuple[str, ...] = ()) -> list[str]:
    """Search a file, or all files below a folder with their names, for every needle in every disguise.

    Returns:
        What was found where; text is searched as ASCII and UTF-16, as it is and in compressed parts of PNG files.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    found = [
        f"{needle} in the name {file.name}" for file in files for needle in (*NEEDLES, *more) if needle in file.name
    ]
    for file in (file for file in files if file.is_file()):
        for part, content in _contents(file.read_bytes()):
            found += [f"{needle} in {part} of {file.name}" for needle in search(content, more)]
    return found


def search(content: bytes, more: tuple[str, ...] = ()) -> list[str]:
    """Return the needles that are in the bytes, whatever their case."""
    low = content.lower()
    texts = [needle.lower() for needle in (*NEEDLES, *more)]
    return [text for text in texts if any(text.encode(code) in low for code in ("ascii", "utf-16-le", "utf-16-be"))]


def _contents(content: bytes) -> Iterator[tuple[str, bytes]]:
    yield "the bytes", content
    if content.startswith(b"\x89PNG"):
        chunks = list(_chunks(content))
        yield "the image data", zlib.decompress(b"".join(data for kind, data in chunks if kind == b"IDAT"))
        for kind, data in chunks:
            if kind in (b"zTXt", b"iTXt", b"iCCP", b"eXIf"):
                yield kind.decode(), data
                for start in (match.end() for match in re.finditer(b"\0", data)):
                    yield kind.decode(), _inflated(data[start:])


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompress(data)
    except zlib.error:
        return b""


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 8
    while place < len(content):
        size = int.from_bytes(content[place : place + 4], "big")
        yield content[place + 4 : place + 8], content[place + 8 : place + 8 + size]
        place += size + 12
