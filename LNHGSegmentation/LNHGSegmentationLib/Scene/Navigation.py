"""Going to a finding in all views."""

import numpy as np
import slicer

from LNHGSegmentationLib.Findings.Findings import Findings
from LNHGSegmentationLib.Scene import Geometry
from LNHGSegmentationLib.Scene.Geometry import RAS_TO_LPS

MIN_FIELD_MM = 60.0
FIELD_PER_SIZE = 4.0  # the finding takes about a quarter of the view
CAMERA_DISTANCE = 3.0  # of the field
FRAME_MARGIN = 1.25  # a 3D view may be narrower than high


def positionOf(row: dict) -> np.ndarray:
    """Return the middle of a finding in world RAS mm."""
    low, high = np.array(row["box_lps_mm"], float)
    return RAS_TO_LPS[:3, :3] @ (low + high) / 2


def goTo(row: dict, zoom: bool) -> None:
    """Show a finding in the middle of all slice views and of the 3D views.

    Args:
        row: A finding with a box.
        zoom: Whether the views zoom to it.
    """
    position, size = positionOf(row), np.ptp(np.array(row["box_lps_mm"], float), axis=0).max()
    field = max(MIN_FIELD_MM, FIELD_PER_SIZE * size)
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        if zoom:
            width, height, depth = node.GetFieldOfView()
            scale = field / min(width, height)
            node.SetFieldOfView(width * scale, height * scale, depth)
        node.JumpSliceByCentering(*position)
    _lookAt(position, field if zoom else None)


def frameFindings(segmentation: slicer.vtkMRMLSegmentationNode) -> None:
    """Show all outlined findings that count in the 3D views, from where those look now."""
    findings = Findings(segmentation)
    crops = [crop for row in findings.reported() if (crop := findings.crop(row["number"])) is not None]
    if crops:
        corners = np.concatenate([_cornersOf(crop.box, findings.volumeNode) for crop in crops])
        low, high = corners.min(0), corners.max(0)
        _lookAt((low + high) / 2, max(MIN_FIELD_MM, FRAME_MARGIN * (high - low).max()))


def _cornersOf(box: Geometry.Box, volumeNode: slicer.vtkMRMLScalarVolumeNode) -> np.ndarray:
    """Return the corners of a box of a CT's voxels in world RAS mm."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * Geometry.sizeOf(box)
    return Geometry.gridAt(volumeNode, box).index_to_lps(corners) @ RAS_TO_LPS[:3, :3]


def _lookAt(position: np.ndarray, field: float | None) -> None:
    """Turn all cameras' focus to a point, keeping their directions, and their distances where there is no field."""
    for view in slicer.util.getNodesByClass("vtkMRMLViewNode"):
        camera = slicer.modules.cameras.logic().GetViewActiveCameraNode(view)
        if camera is None:
            continue
        away = np.subtract(camera.GetPosition(), camera.GetFocalPoint())
        distance = np.linalg.norm(away) or 1.0
        wanted = distance if field is None else CAMERA_DISTANCE * field
        camera.SetFocalPoint(*position)
        camera.SetPosition(*(position + away / distance * wanted))
        camera.ResetClippingRange()
