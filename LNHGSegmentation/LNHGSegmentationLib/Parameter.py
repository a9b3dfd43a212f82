"""What the panel remembers: saved with the scene, restored when it is loaded."""

from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper


@parameterNodeWrapper
class Parameter:
    """State of the panel.

    :ivar inputVolume: the CT to segment.
    :ivar model: name or folder of the model; empty stands for the default one.
    :ivar overlayVisible: whether the heterogeneity map lies over the CT in the slice views.
    :ivar overlayOpacity: opacity of the map, 0 to 1.
    :ivar colorMap: color map of the heterogeneity map.
    :ivar segmentation: nodules of the last run.
    :ivar heterogeneity: heterogeneity map of the last run.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    model: str = ""
    overlayVisible: bool = True
    overlayOpacity: Annotated[float, WithinRange(0.0, 1.0)] = 0.6
    colorMap: Annotated[str, Choice(["jet", "viridis"])] = "jet"
    segmentation: vtkMRMLSegmentationNode
    heterogeneity: vtkMRMLScalarVolumeNode
