"""Which result belongs to which CT: found from the scene by node references, so several CTs keep their own results."""

import slicer

MAP_ROLE = "LNHG.Heterogeneity"  # from a segmentation to its heterogeneity map
NODULES_ATTRIBUTE = "LNHG.Nodules"


def volumeOf(segmentation: slicer.vtkMRMLSegmentationNode | None) -> slicer.vtkMRMLScalarVolumeNode | None:
    """Return the CT that a segmentation was made on, None if it is not in the scene."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    return segmentation.GetNodeReference(role) if segmentation else None


def heterogeneityOf(segmentation: slicer.vtkMRMLSegmentationNode | None) -> slicer.vtkMRMLScalarVolumeNode | None:
    """Return the heterogeneity map that came with a segmentation."""
    return segmentation.GetNodeReference(MAP_ROLE) if segmentation else None


def link(segmentation: slicer.vtkMRMLSegmentationNode, heterogeneity: slicer.vtkMRMLScalarVolumeNode) -> None:
    """Note which map came with a segmentation."""
    segmentation.SetNodeReferenceID(MAP_ROLE, heterogeneity.GetID())


def results() -> list[slicer.vtkMRMLSegmentationNode]:
    """Return the scene's segmentations that LNHG made, the newest last."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return [node for node in nodes if node.GetAttribute(NODULES_ATTRIBUTE) is not None]


def latestOf(volumeNode: slicer.vtkMRMLScalarVolumeNode | None) -> slicer.vtkMRMLSegmentationNode | None:
    """Return the newest result of a CT."""
    return next((node for node in reversed(results()) if volumeNode and volumeOf(node) is volumeNode), None)


def showOnly(segmentation: slicer.vtkMRMLSegmentationNode | None) -> None:
    """Show one result and hide those of other CTs and of earlier runs."""
    for node in results():
        if node.GetDisplayNode() and bool(node.GetDisplayVisibility()) != (node is segmentation):
            node.SetDisplayVisibility(node is segmentation)
