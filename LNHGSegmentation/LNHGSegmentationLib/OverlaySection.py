"""The panel's section for what is seen in the views: the heterogeneity map over the CT."""

from pathlib import Path

import slicer
import vtk
from slicer.util import VTKObservationMixin

from LNHGSegmentationLib import Cases, Overlay
from LNHGSegmentationLib.Parameter import Parameter

RESOURCES = Path(__file__).parents[1] / "Resources"


class OverlaySection(VTKObservationMixin):
    """Shows the chosen CT's result the way the user wants it."""

    def __init__(self) -> None:
        """Build the section."""
        super().__init__()
        self._parameter: Parameter | None = None
        self._guiTag = self._shown = None
        self.uiWidget = slicer.util.loadUI(str(RESOURCES / "UI" / "Overlay.ui"))
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)

    def setParameter(self, parameter: Parameter | None) -> None:
        """Follow a parameter node, or let go of the scene."""
        if self._parameter is not None:
            self.removeObserver(self._parameter.parameterNode, vtk.vtkCommand.ModifiedEvent, self._update)
            self._parameter.disconnectGui(self._guiTag)
        self._parameter, self._shown = parameter, None
        if parameter is not None:
            self._guiTag = parameter.connectGui(self.ui)
            self.addObserver(parameter.parameterNode, vtk.vtkCommand.ModifiedEvent, self._update)
        self._update()

    def cleanup(self) -> None:
        """Let go of the scene."""
        self.removeObservers()

    def _update(self, *_args) -> None:
        p = self._parameter
        for control in (self.ui.overlayCheckBox, self.ui.opacitySlider, self.ui.colorMapSelector):
            control.setEnabled(p is not None and p.heterogeneity is not None)
        if p is None:
            return
        wanted = (p.inputVolume, p.segmentation, p.heterogeneity, p.overlayVisible, p.overlayOpacity, p.colorMap)
        if wanted == self._shown:
            return
        self._shown = wanted
        Cases.showOnly(p.segmentation)
        if p.heterogeneity is not None:
            Overlay.applyColorMap(p.heterogeneity, p.colorMap)
        Overlay.show(p.inputVolume, p.heterogeneity, p.overlayVisible, p.overlayOpacity)
