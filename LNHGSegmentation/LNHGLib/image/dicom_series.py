"""DICOM CT series: finding, checking and stacking the slices of one series, whatever the files are called."""

import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813

from LNHGLib.errors import InputError

HEAD_BYTES = 132
MIN_SLICES = 10
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
LOCALIZER_TYPES = {"LOCALIZER", "SCOUT"}
CAPTURE_TYPES = {"SCREEN SAVE", "DOSE_INFO", "PASTED"}
OTHER_BODY_PARTS = {"HEAD", "BRAIN", "SKULL", "NECK", "ABDOMEN", "PELVIS", "KNEE", "HIP", "LSPINE", "CSPINE", "LEG"}
AXIAL_COSINE = 0.8  # a gantry tilts by at most 30 degrees
SAME_POSITION_MM = 0.01
SIDEWAYS_TOLERANCE_MM = 0.5  # positions and orientations are written with few decimals
SPACING_TOLERANCE = 0.01
POSITION_TOLERANCE_MM = 0.1  # scanners round positions to a tenth of a millimeter
TAGS = [
    "SOPClassUID", "ImageType", "Modality", "PatientID", "SeriesInstanceUID", "SeriesDescription", "BodyPartExamined",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "SamplesPerPixel",
    "NumberOfFrames",
]  # fmt: skip
ADVICE = {
    "multi-frame CT": "export it as one image a slice (classic CT Image Storage)",
    "CT without position": "export it again with ImagePositionPatient, ImageOrientationPatient and PixelSpacing",
    "color CT": "give the original CT, not a picture of it",
}


@dataclass(frozen=True, eq=False)
class Series:
    """One stacked series: `array` zyx in HU, `affine` (4, 4) from index (z, y, x, 1) to LPS mm."""

    array: np.ndarray
    affine: np.ndarray
    modality: str | None
    series_uid: str
    patient_id: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Header:
    """What one DICOM file says about itself; `layout` is row and column direction, pixel spacing and size."""

    path: Path
    kind: str
    series_uid: str
    patient_id: str | None
    description: str
    body_part: str
    position: np.ndarray | None
    layout: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Stack:
    """CT slices of one series with the same orientation, pixel spacing and size."""

    headers: list[Header]

    def fits(self, header: Header) -> bool:
        """Tell whether a slice is of this stack."""
        first = self.headers[0]
        same = header.series_uid == first.series_uid
        return same and np.allclose(first.layout, header.layout, rtol=0, atol=1e-3)

    @property
    def normal(self) -> np.ndarray:
        """Unit vector across the slices, LPS."""
        return np.cross(self.headers[0].layout[:3], self.headers[0].layout[3:6])

    @property
    def rank(self) -> tuple[bool, bool, int]:
        """Order of preference: axial, not marked as another body part, number of slice positions."""
        axial = bool(abs(self.normal[2]) >= AXIAL_COSINE)
        positions = {round(float(header.position @ self.normal), 2) for header in self.headers}
        return axial, self.headers[0].body_part not in OTHER_BODY_PARTS, len(positions)

    def __str__(self) -> str:
        first = self.headers[0]
        return f"{first.series_uid} ({first.description or 'no description'}, {len(self.headers)} slices)"


def is_dicom(path: Path) -> bool:
    """Tell whether the file starts as DICOM does, with or without the preamble."""
    with path.open("rb") as file:
        return starts_as_dicom(file.read(HEAD_BYTES))


def starts_as_dicom(head: bytes) -> bool:
    """Tell whether the first 132 bytes are those of a DICOM file."""
    return head[128:132] == b"DICM" or head[:2] in (b"\x08\x00", b"\x02\x00")


def read_series(path: Path, series_uid: str | None = None, files: Sequence[Path] = ()) -> Series:
    """Read one CT series from a folder with everything below it, or the series that a single file belongs to.

    Args:
        path: Folder or file. A file's series is looked for in its own folder.
        series_uid: The series to take; else the file's own, else the axial CT with most slices.
        files: Look at these only, where they are known.

    Returns:
        The slices sorted along their normal, with the geometry of ImagePositionPatient and ImageOrientationPatient.

    Raises:
        InputError: No CT series, an unknown UID, or slices that do not form one regular grid.
    """
    ordered, affine, notes = find_slices(path, series_uid, files)
    array = np.stack([read_pixels(header.path) for header in ordered])
    return Series(array, affine, "CT", ordered[0].series_uid, ordered[0].patient_id, tuple(notes))


def find_slices(
    path: Path, series_uid: str | None = None, files: Sequence[Path] = ()
) -> tuple[list[Header], np.ndarray, list[str]]:
    """Find the slices of a series as `read_series` does, without reading their pixels; each header is read once.

    Args:
        path: Folder or file, as in `read_series`.
        series_uid: As in `read_series`.
        files: As in `read_series`.

    Returns:
        Their headers, sorted along the normal; the affine from index (z, y, x, 1) to LPS mm; notes for the user.

    Raises:
        InputError: As `read_series`.
    """
    files = files or [file for file in (path.rglob("*") if path.is_dir() else path.parent.iterdir()) if file.is_file()]
    if not files:
        raise InputError(f"{path} is an empty folder, expected the DICOM files of a chest CT; check the path.")
    headers = {file: header for file in sorted(files) if (header := read_header(file)) is not None}
    if path.is_file() and series_uid is None:
        own = headers.get(path) if path in files else read_header(path)
        headers, series_uid = (headers, own.series_uid) if own else ({}, None)
    if not headers:
        raise InputError(
            f"{path} has no readable DICOM image among {len(files)} file(s), expected the slices of a chest CT; "
            "check the path or copy the files again."
        )
    chosen = [header for header in headers.values() if series_uid in (None, header.series_uid)]
    if not chosen:
        found = Counter((header.series_uid, header.kind) for header in headers.values())
        listed = "; ".join(f"{uid} ({count} {kind})" for (uid, kind), count in sorted(found.items()))
        raise InputError(f"{path} has no series {series_uid}, expected one of those found: {listed}; name one of them.")
    stack, notes = _choose_stack(path, chosen)
    ordered = _sort_slices(path, stack, notes)
    return ordered, _affine(path, ordered, stack.normal, notes), notes


def read_header(path: Path, content: BinaryIO | None = None) -> Header | None:
    """Return the file's header without its pixels, None when the file is no DICOM image of a series.

    Args:
        path: The file.
        content: What is in it, at its beginning, where it lies in an archive.

    Raises:
        OSError: The file cannot be opened.
    """
    with nullcontext(content) if content else path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # real scanners break the standard in harmless ways
        if not starts_as_dicom(file.read(HEAD_BYTES)):
            return None
        try:
            file.seek(0)
            dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=TAGS, force=True)
            if not dataset.get("SeriesInstanceUID"):
                return None
            parts = []
            for tag, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
                values = dataset.get(tag)
                numbers = np.array([] if values is None else values, float).ravel()
                parts.append(numbers if numbers.size == count and np.isfinite(numbers).all() else None)
            position, orientation, spacing = parts
            size = np.array([dataset.get("Rows", 0), dataset.get("Columns", 0)], float)
            whole = orientation is not None and spacing is not None
            layout = np.concatenate([orientation, spacing, size]) if whole else None
            return Header(
                path=path,
                kind=_image_kind(dataset, position is not None and layout is not None),
                series_uid=str(dataset.SeriesInstanceUID),
                patient_id=str(dataset.get("PatientID") or "") or None,
                description=str(dataset.get("SeriesDescription") or ""),
                body_part=str(dataset.get("BodyPartExamined") or "").upper(),
                position=position,
                layout=layout,
            )
        except Exception:  # a damaged header can fail anywhere in the parser
            return None


def _image_kind(dataset: pydicom.Dataset, placed: bool) -> str:
    """Name what the image is; only "CT" can be stacked."""
    sop_class = str(dataset.get("SOPClassUID", ""))
    types = {str(value).upper() for value in dataset.get("ImageType") or ()}
    modality = str(dataset.get("Modality") or "unknown")
    rules = (
        (sop_class.startswith(SECONDARY_CAPTURE) or bool(types & CAPTURE_TYPES), "secondary capture"),
        (modality != "CT", modality),
        (bool(types & LOCALIZER_TYPES), "localizer"),
        (sop_class in ENHANCED_CT or int(dataset.get("NumberOfFrames") or 1) > 1, "multi-frame CT"),
        (int(dataset.get("SamplesPerPixel") or 1) > 1, "color CT"),
        (not placed, "CT without position"),
    )
    return next((name for holds, name in rules if holds), "CT")


def _choose_stack(path: Path, headers: list[Header]) -> tuple[Stack, list[str]]:
    """Group CT slices into stacks, take the best one, and note what was left aside."""
    stacks: list[Stack] = []
    for header in headers:
        if header.kind == "CT":
            stack = next((stack for stack in stacks if stack.fits(header)), None)
            if stack is None:
                stacks.append(Stack([header]))
            else:
                stack.headers.append(header)
    if not stacks:
        found = Counter(header.kind for header in headers)
        listed = ", ".join(f"{count} {kind}" for kind, count in found.most_common())
        advice = ADVICE.get(found.most_common(1)[0][0], "choose the folder of the CT series")
        raise InputError(f"{path} holds no CT slices but other images ({listed}), expected a chest CT; {advice}.")
    best = max(sorted(stacks, key=str), key=lambda stack: stack.rank)
    notes: list[str] = []
    others = [stack for stack in stacks if stack.headers[0].series_uid != best.headers[0].series_uid]
    if others:
        listed = ", ".join(map(str, others[:5])) + (", ..." if len(others) > 5 else "")
        notes.append(f"{len(others) + 1} CT series found: took {best}, left {listed}.")
    same = [header for header in headers if header.series_uid == best.headers[0].series_uid]
    if len(same) > len(best.headers):
        notes.append(f"{len(same) - len(best.headers)} image(s) of the series with another view or size were left out.")
    if not best.rank[0]:
        notes.append("The series is not axial; thin axial slices give the best result.")
    return best, notes


def _sort_slices(path: Path, stack: Stack, notes: list[str]) -> list[Header]:
    """Sort the slices along their normal, dropping exact duplicates."""
    ordered: list[Header] = []
    dropped = 0
    for header in sorted(stack.headers, key=lambda header: float(header.position @ stack.normal)):
        gap = abs((header.position - ordered[-1].position) @ stack.normal) if ordered else np.inf
        if gap > SAME_POSITION_MM:
            ordered.append(header)
        elif np.array_equal(read_pixels(header.path), read_pixels(ordered[-1].path)):
            dropped += 1
        else:
            raise InputError(
                f"{path} has different images at the same position ({header.position[2]:g} mm: "
                f"{ordered[-1].path.name} and {header.path.name}), expected one image a position; "
                "export a single time point and reconstruction as its own series."
            )
    if dropped:
        notes.append(f"{dropped} exact duplicate slice(s) were dropped.")
    if len(ordered) < MIN_SLICES:
        raise InputError(
            f"{path} has {len(ordered)} CT slice(s), expected at least {MIN_SLICES}; give the whole chest CT series."
        )
    return ordered


def _affine(path: Path, ordered: Sequence[Header], normal: np.ndarray, notes: list[str]) -> np.ndarray:
    """Return the index (z, y, x, 1) to LPS affine once the slices are known to form a rectangular, regular grid.

    Slices that are shifted sideways against each other are refused: a tilted gantry or a mixture of scans.
    """
    row, column, pixel_mm = np.split(ordered[0].layout[:8], (3, 6))
    if not np.allclose([row @ row, column @ column, row @ column], [1, 1, 0], atol=1e-3):
        raise InputError(
            f"{path} has an ImageOrientationPatient of {ordered[0].layout[:6].tolist()}, expected two perpendicular "
            "unit vectors; export the series again."
        )
    positions = np.array([header.position for header in ordered])
    steps = positions - positions[0]
    sideways = np.linalg.norm(steps - np.outer(steps @ normal, normal), axis=1).max()
    if sideways > SIDEWAYS_TOLERANCE_MM:
        line = steps[-1] / np.linalg.norm(steps[-1])
        if np.linalg.norm(steps - np.outer(steps @ line, line), axis=1).max() <= SIDEWAYS_TOLERANCE_MM:
            angle = np.degrees(np.arccos(np.clip(line @ normal, -1, 1)))
            raise InputError(
                f"{path} was scanned with a gantry tilt of {angle:.1f} degrees, expected slices stacked straight along "
                "their normal; correct the tilt first (in 3D Slicer: load it with acquisition geometry regularization)."
            )
        raise InputError(
            f"{path} has slices shifted sideways by up to {sideways:.1f} mm against each other, expected one straight "
            "stack; export the series again."
        )
    affine = np.eye(4)
    spacing = _slice_spacing(path, positions @ normal, notes)
    affine[:3] = np.column_stack([normal * spacing, column * pixel_mm[0], row * pixel_mm[1], positions[0]])
    return affine


def _slice_spacing(path: Path, distances: np.ndarray, notes: list[str]) -> float:
    """Return the slice spacing in mm from the sorted distances along the normal."""
    gaps = np.diff(distances)
    typical, spacing = float(np.median(gaps)), float(distances[-1] - distances[0]) / (len(distances) - 1)
    uneven = float(np.abs(gaps / spacing - 1).max())
    off = float(np.abs(distances - distances[0] - spacing * np.arange(len(distances))).max())
    if uneven > SPACING_TOLERANCE and off > POSITION_TOLERANCE_MM:
        multiples = gaps / typical
        whole = np.abs(multiples - np.round(multiples)) < 0.05
        missing = int((np.round(multiples) - 1).sum())
        worst = int(np.abs(multiples - 1).argmax())
        where = f"{gaps[worst]:.4g} mm between {distances[worst]:.5g} and {distances[worst + 1]:.5g} mm"
        if whole.all() and missing > 0:
            raise InputError(
                f"{path} misses {missing} slice(s): a gap of {where}, expected {typical:.4g} mm everywhere; "
                "copy or export the whole series again."
            )
        raise InputError(
            f"{path} has an uneven slice spacing from {gaps.min():.4g} to {gaps.max():.4g} mm ({where}), expected the "
            "same spacing throughout; export one reconstruction with even spacing."
        )
    if uneven > 1e-3:
        notes.append(f"The slice spacing varies by up to {uneven:.1%}; {spacing:.4g} mm was taken throughout.")
    return spacing


def read_pixels(path: Path) -> np.ndarray:
    """Return one slice (y, x) after its own rescale: int16, or float32 where the rescale leaves fractions."""
    try:
        image = sitk.ReadImage(str(path), imageIO="GDCMImageIO")
    except RuntimeError as error:
        raise InputError(
            f"{path} has pixels that cannot be read (damaged, truncated or in an unknown compression), "
            "expected a complete CT slice; copy or export it again."
        ) from error
    values = sitk.GetArrayViewFromImage(image)[0]
    whole = np.rint(values)
    if not np.array_equal(whole, values):
        return values.astype(np.float32)
    return np.clip(whole, -32768, 32767).astype(np.int16)
