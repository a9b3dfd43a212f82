"""What the panel remembers: saved with the scene, restored when it is loaded."""

from typing import Annotated

from LNHGLib.figures.colors import DEFAULT_STYLE
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper


@parameterNodeWrapper
class Parameter:
    """State of the panel.

    Attributes:
        inputVolume: The CT to segment.
        model: Name or folder of the model; empty stands for the default one.
        device: Where the networks run: "auto", "cpu" or "cuda:N".
        runtime: What computes them: "auto", "openvino" or "torch".
        threshold: Lowest score of the findings shown; a new result sets it to its model's own.
        overlayVisible: Whether the heterogeneity map lies over the CT in the slice views.
        overlayOpacity: Opacity of the map, 0 to 1.
        colorMap: Color map of the heterogeneity map.
        scaleMode: What the colors span: a range that is the same for all, each nodule's own signal, or each slice's.
        rangeLow: Signal shown in the first color when the range is fixed.
        rangeHigh: Signal shown in the last color when the range is fixed.
        segmentStyle: How the nodules' segments are drawn in the slice views.
        zoomToFinding: Whether going to a finding zooms the views.
        segmentation: Nodules of the chosen CT.
        heterogeneity: The generator's signal inside them.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    model: str = ""
    device: str = "auto"
    runtime: str = "auto"
    threshold: Annotated[float, WithinRange(0.0, 1.0)] = 0.5
    overlayVisible: bool = True
    overlayOpacity: Annotated[float, WithinRange(0.0, 1.0)] = 0.6
    colorMap: Annotated[str, Choice(["viridis", "jet"])] = DEFAULT_STYLE.color_map
    scaleMode: Annotated[str, Choice(["fixed", "nodule", "slice"])] = DEFAULT_STYLE.scale
    rangeLow: Annotated[float, WithinRange(0.0, 9.99)] = DEFAULT_STYLE.signal_range[0]
    rangeHigh: Annotated[float, WithinRange(0.01, 10.0)] = DEFAULT_STYLE.signal_range[1]
    segmentStyle: Annotated[str, Choice(["outline", "fill"])] = "outline"
    zoomToFinding: bool = True
    segmentation: vtkMRMLSegmentationNode
    heterogeneity: vtkMRMLScalarVolumeNode

    def bind(self, ui) -> int:
        """Bind the widgets that carry the property ``SlicerParameterName``, both ways.

        ``connectGui`` does this too, but Slicer 5.12 may return nothing by which it could be undone.

        Args:
            ui: Has the widgets.

        Returns:
            The tag for ``disconnectGui``.
        """
        names = {widget.property("SlicerParameterName"): widget for widget in vars(ui).values()}
        return self.connectParametersToGui({name: widget for name, widget in names.items() if name})
