"""Which result belongs to which CT: found from the scene by node references, so several CTs keep their own results."""

import json

import slicer

MAP_ROLE = "LNHG.Heterogeneity"  # from a segmentation to its heterogeneity map
SHOWN_ROLE = "LNHG.ShownMap"  # from a segmentation to the map as it is shown
NODULES_ATTRIBUTE = "LNHG.Nodules"
RUN_ATTRIBUTE = "LNHG.Run"
THRESHOLD_ATTRIBUTE = "LNHG.Threshold"  # lowest score of the findings that are shown of a result


def valueOf(node: slicer.vtkMRMLNode | None, attribute: str, kind: type | tuple[type, ...]) -> object | None:
    """Return a value that a node keeps as JSON; None where it keeps none, or a scene was damaged.

    Args:
        node: Of the scene.
        attribute: Its name.
        kind: What the value must be, such as `dict`.
    """
    text = node.GetAttribute(attribute) if node else None
    try:
        value = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, kind) else None


def volumeOf(segmentation: slicer.vtkMRMLSegmentationNode | None) -> slicer.vtkMRMLScalarVolumeNode | None:
    """Return the CT that a segmentation was made on, None if it is not in the scene."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    return segmentation.GetNodeReference(role) if segmentation else None


def heterogeneityOf(segmentation: slicer.vtkMRMLSegmentationNode | None) -> slicer.vtkMRMLScalarVolumeNode | None:
    """Return the heterogeneity map that came with a segmentation."""
    return segmentation.GetNodeReference(MAP_ROLE) if segmentation else None


def link(segmentation: slicer.vtkMRMLSegmentationNode, heterogeneity, run: dict) -> None:
    """Note which map came with a segmentation, and how both were made.

    Args:
        segmentation: The nodules.
        heterogeneity: The map.
        run: As `runOf` returns it.
    """
    segmentation.SetNodeReferenceID(MAP_ROLE, heterogeneity.GetID())
    segmentation.SetAttribute(RUN_ATTRIBUTE, json.dumps(run))


def runOf(segmentation: slicer.vtkMRMLSegmentationNode | None) -> dict:
    """Return how a result was made, empty for no result.

    Returns:
        ``model``, its own ``threshold``, the ``lowest`` score that was kept, the ``highest`` seen (None if
        there was none), the ``device`` and the ``runtime`` (None if the core did not say), ``warnings``, the
        ``score_scale`` (see `LNHGLib.measurement.score_scale`) and ``froc``, what the model's card says to expect by
        threshold (None if it says nothing). Scenes of older versions lack some.
    """
    return valueOf(segmentation, RUN_ATTRIBUTE, dict) or {}


def rowsOf(segmentation: slicer.vtkMRMLSegmentationNode | None) -> list[dict] | None:
    """Return the findings of a result, None for no result."""
    return valueOf(segmentation, NODULES_ATTRIBUTE, list)


def isMap(volumeNode: slicer.vtkMRMLScalarVolumeNode) -> bool:
    """Return whether a volume is one of LNHG's own maps."""
    return any(volumeNode is node.GetNodeReference(role) for node in results() for role in (MAP_ROLE, SHOWN_ROLE))


def firstVolume() -> slicer.vtkMRMLScalarVolumeNode | None:
    """Return the scene's first volume that may be a CT: none of LNHG's own, none that is hidden."""
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    return next((node for node in volumes if not node.GetHideFromEditors() and not isMap(node)), None)


def choose(parameter, segmentation: slicer.vtkMRMLSegmentationNode | None) -> None:
    """Make a result, or none, the one that the panel shows.

    Args:
        parameter: The panel's `Parameter`.
        segmentation: The result, None for none.
    """
    with slicer.util.NodeModify(parameter.parameterNode):
        parameter.segmentation = segmentation
        parameter.heterogeneity = heterogeneityOf(segmentation)
        if segmentation is not None:
            told = (valueOf(segmentation, THRESHOLD_ATTRIBUTE, (int, float)), runOf(segmentation).get("threshold"))
            scores = (float(each) for each in told if isinstance(each, int | float) and 0 <= each <= 1)
            parameter.threshold = next(scores, 0.0)


def results() -> list[slicer.vtkMRMLSegmentationNode]:
    """Return the scene's segmentations that LNHG made, the newest last."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return [node for node in nodes if "threshold" in runOf(node)]


def latestOf(volumeNode: slicer.vtkMRMLScalarVolumeNode | None) -> slicer.vtkMRMLSegmentationNode | None:
    """Return the newest result of a CT."""
    return next((node for node in reversed(results()) if volumeNode and volumeOf(node) is volumeNode), None)


def showOnly(segmentation: slicer.vtkMRMLSegmentationNode | None) -> None:
    """Show one result and hide those of other CTs and of earlier runs."""
    for node in results():
        if node.GetDisplayNode() and bool(node.GetDisplayVisibility()) != (node is segmentation):
            node.SetDisplayVisibility(node is segmentation)
