"""The panel's section for what is seen in the views: the heterogeneity map over the CT, outlines, layout."""

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from LNHGSegmentationLib.Panel.Parameter import Parameter
from LNHGSegmentationLib.Paths import RESOURCES
from LNHGSegmentationLib.Scene import DisplayedMap, Layouts, ModelOutput, Overlay, SceneResults

FOUR_UP = 3  # Slicer's layout to return to when there was no other before
MIN_SPAN = 0.01  # of the fixed range: what its boxes can tell apart
CHOICES = {  # parameter: its widget, and value, text and tooltip of each choice
    "scaleMode": (
        "scaleSelector",
        ("fixed", "The same for all nodules", "Colors can be compared between nodules, slices and patients."),
        (
            "nodule",
            "Each nodule's own",
            "Spreads each nodule's signal over all colors: shows its inner structure best.",
        ),
        ("slice", "Each slice's own (publication)", "As in the paper; colors cannot be compared between slices."),
    ),
    "colorMap": (
        "colorMapSelector",
        ("viridis", "Viridis (even steps)", "Equal steps of signal look equal, in gray and to color-blind eyes too."),
        ("jet", "Jet (publication)", "As in the paper; its bright yellow suggests edges that are not in the signal."),
    ),
    "segmentStyle": (
        "styleSelector",
        ("outline", "Outline", "Leaves the CT and the map inside the nodules free."),
        ("fill", "Fill", "Fills the nodules in the colors of their segments, half transparent."),
    ),
}


class OverlaySection(VTKObservationMixin):
    """Shows the chosen CT's result the way the user wants it."""

    def __init__(self) -> None:
        """Build the section."""
        super().__init__()
        self._parameter: Parameter | None = None
        self._guiTag = self._shown = self._content = self._volume = None
        self._legendView = self._legendRoom = None
        self._layoutBefore = FOUR_UP
        self._sight: Layouts.Sight | None = None  # what the views of side by side are to look at once they are made
        self.uiWidget = slicer.util.loadUI(str(RESOURCES / "UI" / "Overlay.ui"))
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        self._later = qt.QTimer()
        self._later.setSingleShot(True)
        self._later.setInterval(0)
        self._later.timeout.connect(self._onLater)
        self._rangeHigh: float | None = None
        for name, (widgetName, *choices) in CHOICES.items():
            selector = getattr(self.ui, widgetName)
            for index, (value, text, toolTip) in enumerate(choices):
                selector.addItem(_(text), value)
                selector.setItemData(index, _(toolTip), qt.Qt.ToolTipRole)
            selector.setToolTip("\n".join(f"{_(text)}: {_(toolTip)}" for _value, text, toolTip in choices))
            selector.currentIndexChanged.connect(lambda *_args, name=name: self._onChosen(name))
        self.ui.fitRangeButton.clicked.connect(self.onFitRange)
        self.ui.lungWindowButton.clicked.connect(self.onLungWindow)
        self.ui.sideBySideButton.clicked.connect(self.onSideBySide)

    def setParameter(self, parameter: Parameter | None) -> None:
        """Follow a parameter node, or let go of the scene."""
        if self._parameter is not None:
            self._parameter.disconnectGui(self._guiTag)
        self.removeObservers()
        self._later.stop()
        self._parameter, self._shown, self._content, self._sight = parameter, None, None, None
        self._legendView = None
        if parameter is not None:
            self._volume = parameter.inputVolume
            self._guiTag = parameter.bind(self.ui)
            self.addObserver(parameter.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParameterChanged)
            self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self._onSceneLoaded)
            Layouts.register()
            if Layouts.layoutNode() is not None:
                self.addObserver(Layouts.layoutNode(), vtk.vtkCommand.ModifiedEvent, self._onLayoutChanged)
            self._onSceneLoaded()
        self._onParameterChanged()

    def cleanup(self) -> None:
        """Let go of the scene."""
        self._later.stop()
        self.removeObservers()

    def onFitRange(self, *_args) -> None:
        """Let the colors span the signal of the chosen CT."""
        signal = slicer.util.arrayFromVolume(self._parameter.heterogeneity)
        low, high = Overlay.spread(signal[signal > 0])
        low, high = round(low, 2), round(high, 2)
        with slicer.util.NodeModify(self._parameter.parameterNode):
            self._parameter.rangeLow, self._parameter.rangeHigh = low, max(high, low + MIN_SPAN)

    def onLungWindow(self, *_args) -> None:
        """Show the chosen CT in the lung window."""
        Overlay.setUpCT(self._parameter.inputVolume)

    def onSideBySide(self, *_args) -> None:
        """Show the plain CT beside the map, or return to the layout before."""
        if Layouts.isSideBySide():
            Layouts.leave(self._layoutBefore)
        else:
            self._sight = Layouts.sight()
            self._layoutBefore = Layouts.enter()
        self._later.start()

    def _onParameterChanged(self, *_args) -> None:
        self._pushRange()
        self._updateControls()
        p = self._parameter
        if p is not None:
            display = p.segmentation.GetDisplayNode() if p.segmentation else None
            self.removeObservers(self._onFindingsChanged)
            for node in filter(None, (p.heterogeneity, display)):  # a reader changes signal and visible segments
                self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._onFindingsChanged)
            if self._content is not None and self._content[0] is p.segmentation:
                self._redraw()
            else:  # another result: the other sections have work with it, too
                self._later.start()

    def _onLater(self) -> None:
        if self._sight is not None:
            Layouts.link(self._sight)
            self._sight = None
        self._redraw()

    def _pushRange(self) -> None:
        """Let an end of the fixed range that is moved past the other one push it along."""
        p = self._parameter
        if p is None:
            return
        moved, self._rangeHigh = p.rangeHigh != self._rangeHigh, p.rangeHigh
        if p.rangeHigh - p.rangeLow < MIN_SPAN / 2:
            if moved:
                p.rangeLow = round(p.rangeHigh - MIN_SPAN, 2)
            else:
                p.rangeHigh = round(p.rangeLow + MIN_SPAN, 2)

    def _redraw(self) -> None:
        """Bring the views up to date; does only what has changed."""
        p = self._parameter
        if p is None or (p.segmentation is None and p.inputVolume is self._volume and self._shown is None):
            return  # nothing to show: the views stay as the user left them
        displayedMap = self._updateMap() if p.segmentation is not None else None
        wanted = (
            p.inputVolume,
            p.segmentation,
            displayedMap,
            p.overlayVisible,
            p.overlayOpacity,
            Layouts.isSideBySide(),
        )
        if wanted != self._shown:
            SceneResults.showOnly(p.segmentation)
            Overlay.show(p.inputVolume, displayedMap, p.overlayVisible, p.overlayOpacity)
            if self._volume is not p.inputVolume:
                slicer.util.setSliceViewerLayers(fit=True)
            self._shown, self._volume = wanted, p.inputVolume

    def _updateMap(self) -> slicer.vtkMRMLScalarVolumeNode | None:
        """Bring the displayed map up to date and return it."""
        p = self._parameter
        content = (
            p.segmentation,
            p.scaleMode,
            DisplayedMap.visibleSegments(p.segmentation),
            DisplayedMap.stamp(p.heterogeneity),
        )
        if content != self._content:
            self._content = content
            DisplayedMap.refresh(p.segmentation, p.scaleMode)
        displayedMap = p.segmentation.GetNodeReference(SceneResults.SHOWN_ROLE)
        if displayedMap is not None:
            Overlay.applyColorMap(displayedMap, p.colorMap)
            Overlay.setScale(displayedMap, p.scaleMode, (p.rangeLow, p.rangeHigh))
            view = Layouts.legendView()
            if view is not self._legendView:  # it is placed again when that has another size
                self.removeObservers(self._onLegendViewChanged)
                if view is not None:
                    self.addObserver(view, vtk.vtkCommand.ModifiedEvent, self._onLegendViewChanged)
            self._legendView, self._legendRoom = view, view and view.GetDimensions()
            Overlay.placeLegend(displayedMap, view)
        Overlay.setStyle(p.segmentation, p.segmentStyle)
        return displayedMap

    def _onLegendViewChanged(self, *_args) -> None:
        if self._legendView.GetDimensions() != self._legendRoom:
            self._later.start()

    def _onFindingsChanged(self, *_args) -> None:
        self._later.start()

    def _onSceneLoaded(self, *_args) -> None:
        """Mend what Slicer shows of a scene that is loaded, or that was there before the panel."""
        ModelOutput.hide()
        if Layouts.isSideBySide():
            self._sight = Layouts.sight()
            self._later.start()

    def _onLayoutChanged(self, *_args) -> None:
        self.ui.sideBySideButton.setChecked(Layouts.isSideBySide())
        self._later.start()

    def _updateControls(self) -> None:
        p = self._parameter
        hasMap = p is not None and p.heterogeneity is not None
        for name in ("overlayCheckBox", "opacitySlider", "scaleSelector", "colorMapSelector", "rangeFrame"):
            getattr(self.ui, name).setEnabled(hasMap)
        self.ui.styleSelector.setEnabled(p is not None and p.segmentation is not None)
        self.ui.lungWindowButton.setEnabled(p is not None and p.inputVolume is not None)
        self.ui.sideBySideButton.setEnabled(Layouts.layoutNode() is not None)
        self.ui.sideBySideButton.setChecked(Layouts.isSideBySide())
        if p is None:
            return
        for name, (widgetName, *_choices) in CHOICES.items():
            selector = getattr(self.ui, widgetName)
            was = selector.blockSignals(True)
            selector.setCurrentIndex(selector.findData(getattr(p, name)))
            selector.blockSignals(was)
        for widget in (self.ui.rangeLabel, self.ui.rangeFrame):
            widget.setVisible(p.scaleMode == "fixed")

    def _onChosen(self, name: str) -> None:
        if self._parameter is not None:
            selector = getattr(self.ui, CHOICES[name][0])
            setattr(self._parameter, name, selector.itemData(selector.currentIndex))
