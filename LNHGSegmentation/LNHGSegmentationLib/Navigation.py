"""Going to a finding in all views."""

import numpy as np
import slicer

from LNHGSegmentationLib.Geometry import RAS_TO_LPS

LEAST_FIELD_MM = 60.0
FIELD_PER_SIZE = 4.0  # the finding takes about a quarter of the view
CAMERA_DISTANCE = 3.0  # of the field


def positionOf(row: dict) -> np.ndarray:
    """Return the middle of a finding in world RAS mm."""
    low, high = np.array(row["box_lps_mm"], float)
    return RAS_TO_LPS[:3, :3] @ (low + high) / 2


def goTo(row: dict, zoom: bool) -> None:
    """Show a finding in the middle of all slice views and of the 3D views.

    :param row: a finding with a box.
    :param zoom: whether the views zoom to it.
    """
    position, size = positionOf(row), np.ptp(np.array(row["box_lps_mm"], float), axis=0).max()
    field = max(LEAST_FIELD_MM, FIELD_PER_SIZE * size)
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        if zoom:
            width, height, depth = node.GetFieldOfView()
            scale = field / min(width, height)
            node.SetFieldOfView(width * scale, height * scale, depth)
        node.JumpSliceByCentering(*position)
    for view in slicer.util.getNodesByClass("vtkMRMLViewNode"):
        camera = slicer.modules.cameras.logic().GetViewActiveCameraNode(view)
        if camera is not None:
            _look(camera, position, field if zoom else None)


def _look(camera: slicer.vtkMRMLCameraNode, position: np.ndarray, field: float | None) -> None:
    """Turn a camera's focus to a point, keeping its direction, and its distance where there is no field."""
    before, focus = np.array(camera.GetPosition()), np.array(camera.GetFocalPoint())
    away = before - focus
    distance = np.linalg.norm(away) or 1.0
    wanted = distance if field is None else CAMERA_DISTANCE * field
    camera.SetFocalPoint(*position)
    camera.SetPosition(*(position + away / distance * wanted))
    camera.ResetClippingRange()
