"""Going to a finding in all views."""

import numpy as np
import slicer
from LNHGLib.image.boxes import corners

from LNHGSegmentationLib.Findings.Findings import Findings
from LNHGSegmentationLib.Scene import Geometry
from LNHGSegmentationLib.Scene.Geometry import RAS_TO_LPS

MIN_FIELD_MM = 60.0
FIELD_PER_SIZE = 4.0  # the finding takes about a quarter of the view
CAMERA_DISTANCE = 3.0  # of the field
FRAME_MARGIN = 1.25  # a 3D view may be narrower than high


def goTo(row: dict, zoom: bool) -> None:
    """Show a finding in the middle of all slice views and of the 3D views.

    Args:
        row: A finding with a box.
        zoom: Whether the views zoom to it.
    """
    low, high = np.array(row["box_lps_mm"], float)
    position = RAS_TO_LPS[:3, :3] @ (low + high) / 2
    field = max(MIN_FIELD_MM, FIELD_PER_SIZE * (high - low).max())
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
        grids = [Geometry.gridAt(findings.volumeNode, crop.box) for crop in crops]
        rims = [grid.index_to_lps(corners((0, 0, 0), grid.shape)) @ RAS_TO_LPS[:3, :3] for grid in grids]
        low, high = np.min(rims, axis=(0, 1)), np.max(rims, axis=(0, 1))
        _lookAt((low + high) / 2, max(MIN_FIELD_MM, FRAME_MARGIN * (high - low).max()))


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
