"""Readers' outlines in DICOM segmentations (SEG) of any maker, with what their structured reports (SR) say of them."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from LNHGLib.errors import InputError
from LNHGLib.files.atomic import temporary_folder
from LNHGLib.image import zip_scans
from LNHGLib.image.boxes import grow_box
from LNHGLib.image.volume import Grid, resample
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage, SegmentationStorage

REPORTS = (EnhancedSRStorage, ComprehensiveSRStorage, Comprehensive3DSRStorage)
MAX_READERS = 8
SAME_PLACE_MM = 10.0
"""Between the centers of a nodule that is stated and of the readers' outlines of it."""

TEXTURES = {"RID50153": 1, "RID50152": 3, "RID50151": 5}
"""RadLex codes of LIDC's texture: non-solid, part-solid, solid; what lies between is coded 002 and 004."""

Segment = tuple[str, int]
"""SOP instance UID of a SEG and number of the segment."""


@dataclass(frozen=True, eq=False)
class DicomOutlines:
    """Outlines on a CT's grid.

    Attributes:
        masks: uint16 (z, y, x) for each reader, the value is the nodule's number.
        stated: about each nodule, as in a case's meta data: `max_axial_diameter_mm`, `annotations` with `texture`.
    """

    masks: list[np.ndarray] = field(default_factory=list)
    stated: dict[int, dict] = field(default_factory=dict)


def find_outlines(folder: Path) -> Path | None:
    """Return where a case's folder holds DICOM segmentations: in an archive, or in the folder itself or below."""
    for path in (*sorted(folder.glob("*.zip")), folder):
        with suppress(InputError), ExitStack() as stack:
            if any(_kind(file) == SegmentationStorage for file in _files(path, stack)):
                return path
    return None


def read_outlines(
    path: Path, grid: Grid, series_uid: str | None = None, stated: Mapping[int, Mapping[str, Any]] | None = None
) -> DicomOutlines:
    """Read the outlines of all readers: segments of one tracking UID are one nodule, its j-th segment is reader j's.

    Args:
        path: a zip archive, a folder or a file with SEG, and SR beside them.
        grid: of the CT.
        series_uid: of the CT, where it is known.
        stated: nodules known from elsewhere; one whose `centroid_lps_mm` lies in the outlines gives them its number.

    Raises:
        InputError: there is no SEG, one is damaged or of another CT, or a nodule has too many readers.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist, expected DICOM segmentations; check the path.")
    with ExitStack() as stack:
        files = [(file, _kind(file)) for file in _files(path, stack)]
        segmentations = [_read(path, file) for file, kind in files if kind == SegmentationStorage]
        reports = [_read(path, file) for file, kind in files if kind in REPORTS]
    if not segmentations:
        raise InputError(f"{path} holds no DICOM segmentation (SEG), expected one for each reader; check the path.")
    segmentations.sort(key=lambda seg: (int(seg.get("SeriesNumber") or 0), str(seg.SOPInstanceUID)))
    met = {str(each.SeriesInstanceUID) for seg in segmentations for each in seg.get("ReferencedSeriesSequence") or ()}
    if len(met) > 1:
        raise InputError(f"{path} segments {len(met)} CT series, expected one; give those of one CT.")
    if series_uid and met and series_uid.split("#")[0] not in met:
        raise InputError(f"{path} segments another CT series than the one given; give the CT that it was drawn on.")
    about = _statements(path, reports)
    nodules: dict[str, list[tuple[np.ndarray, dict]]] = {}
    for seg in segmentations:
        for number in seg.segment_numbers:
            description, report = seg.get_segment_description(number), about.get((str(seg.SOPInstanceUID), number), {})
            nodule = description.get("TrackingUID") or report.get("tracking_uid") or description.SegmentLabel
            voxels = _on_grid(path, seg, number, grid)
            if len(voxels):
                nodules.setdefault(str(nodule), []).append((voxels, report))
    return _numbered(path, list(nodules.values()), grid, stated or {})


def _files(path: Path, stack: ExitStack) -> list[Path]:
    """List the files of an archive, unpacked until the stack closes, of a folder, or the file itself."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    if path.suffix.lower() != ".zip":
        return [path]
    folder = stack.enter_context(temporary_folder())
    with zip_scans.Opened(path) as archive:
        names = tuple(name for name in zip_scans.members(archive) if not zip_scans.is_volume(name))
    return zip_scans.unpack(path, names, folder)


def _kind(file: Path) -> str | None:
    """Return the SOP class of a DICOM file, None for anything else."""
    try:
        return str(pydicom.dcmread(file, specific_tags=["SOPClassUID"], stop_before_pixels=True).get("SOPClassUID"))
    except Exception:  # pydicom raises what it likes on what is no DICOM
        return None


def _read(path: Path, file: Path) -> Any:
    """Read a SEG or an SR with highdicom."""
    import highdicom as hd

    try:
        return hd.seg.segread(file) if _kind(file) == SegmentationStorage else hd.sr.srread(file)
    except Exception as error:  # highdicom raises what it likes on a damaged object
        where = file.name if path.is_dir() else path
        raise InputError(
            f"{where} is a damaged or non-conforming DICOM object ({type(error).__name__}), expected a SEG or SR; "
            "export it again."
        ) from error


def _statements(path: Path, reports: Sequence[Any]) -> dict[Segment, dict]:
    """Return what the reports say of each segment: tracking UID, diameter in mm and texture from 1 to 5."""
    about: dict[Segment, dict] = {}
    for report in reports:
        try:
            groups = report.content.get_volumetric_roi_measurement_groups()
        except AttributeError:  # a report by another template
            continue
        for group in groups:
            segment = next((item for item in group[0].ContentSequence if "ReferencedSOPSequence" in item), None)
            if segment is None or "ReferencedSegmentNumber" not in segment.ReferencedSOPSequence[0]:
                continue
            reference = segment.ReferencedSOPSequence[0]
            said: dict[str, Any] = {"tracking_uid": group.tracking_uid}
            for measurement in group.get_measurements():
                if measurement.name.meaning == "Diameter":
                    said["diameter_mm"] = float(measurement.value)
            for evaluation in group.get_qualitative_evaluations():
                code = evaluation.value.value
                if evaluation.name.meaning == "Texture" and (code in TEXTURES or code.isdigit()):
                    said["texture"] = TEXTURES.get(code) or int(code)
            about[str(reference.ReferencedSOPInstanceUID), int(np.ravel(reference.ReferencedSegmentNumber)[0])] = said
    return about


def _on_grid(path: Path, seg: Any, number: int, grid: Grid) -> np.ndarray:
    """Return the (n, 3) voxels of the CT that a segment covers."""
    try:
        volume = seg.get_volume(segment_numbers=[number], combine_segments=False)
    except (ValueError, RuntimeError, AttributeError, KeyError, IndexError) as error:
        raise InputError(
            f"{path} has a segment whose frames are no regular stack of slices, expected one; export it again."
        ) from error
    own = Grid(volume.spatial_shape, volume.affine)
    inside = np.asarray(volume.array)[..., 0] >= 0.5
    points = grid.lps_to_index(own.index_to_lps(np.argwhere(inside)))
    if not len(points):
        return np.empty((0, 3), int)
    low, high = np.floor(points.min(axis=0)).astype(int), np.ceil(points.max(axis=0)).astype(int) + 1
    if (high <= 0).any() or (low >= grid.shape).any():
        raise InputError(f"{path} has an outline outside the CT, expected both in one place; give its own CT.")
    first = np.maximum(low, 0)
    box = tuple(slice(int(a), int(b)) for a, b in zip(first, np.minimum(high, grid.shape), strict=True))
    box = grow_box(box, (1, 1, 1), grid.shape)
    moved = resample(inside.astype(np.uint8), own, grid.crop(box), linear=False, fill=0)
    return np.argwhere(moved) + [part.start for part in box]


def _numbered(
    path: Path, nodules: list[list[tuple[np.ndarray, dict]]], grid: Grid, stated: Mapping[int, Mapping[str, Any]]
) -> DicomOutlines:
    """Return the outlines with the numbers of the stated nodules where they lie, and the next free ones elsewhere."""
    readers = max(map(len, nodules), default=0)
    if readers > MAX_READERS:
        raise InputError(f"{path} has a nodule of {readers} readers, expected at most {MAX_READERS}; give fewer.")
    centers = {
        number: np.array(about["centroid_lps_mm"], float)
        for number, about in stated.items()
        if about.get("centroid_lps_mm") is not None
    }
    masks = [np.zeros(grid.shape, np.uint16) for _ in range(readers)]
    said: dict[int, dict] = {}
    for outlines in nodules:
        middle = grid.index_to_lps(np.mean([voxels.mean(axis=0) for voxels, _ in outlines], axis=0))
        away = {number: float(np.linalg.norm(center - middle)) for number, center in centers.items()}
        nearest = min(away, key=away.__getitem__, default=None)
        if nearest is None or nearest in said or away[nearest] > SAME_PLACE_MM:
            nearest = max([0, *said, *stated]) + 1
        diameters = [report["diameter_mm"] for _, report in outlines if "diameter_mm" in report]
        textures = [{"texture": report["texture"]} for _, report in outlines if "texture" in report]
        said[nearest] = {"annotations": textures}
        if diameters:
            said[nearest]["max_axial_diameter_mm"] = float(np.mean(diameters))
        for mask, (voxels, _) in zip(masks, outlines, strict=False):
            mask[tuple(voxels.T)] = nearest
    return DicomOutlines(masks, said)
