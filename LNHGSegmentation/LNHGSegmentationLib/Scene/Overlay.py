"""How a result looks in the views: lung window, heterogeneity map with its color table, legend, outlines."""

import numpy as np
import slicer
from LNHGLib.figures import colors

from LNHGSegmentationLib.Scene import Layouts

LUNG_WINDOW_HU = 1500.0
LUNG_LEVEL_HU = -600.0
SMALLEST_SIGNAL, HIGHEST_SIGNAL = 1e-6, 1e6  # everything above zero is shown
SHOWN_PERCENTILES = (1, 99)  # a few outliers must not flatten the colors of all nodules
TABLE_ATTRIBUTE = "LNHG.ColorMap"
COLOR_TITLES = {"jet": "LNHG jet", "viridis": "LNHG viridis"}
LEGENDS = {  # title and label format of each scale mode; Slicer fits the letters of all to the width of the labels
    "fixed": ("Heterogeneity\n(relative signal)", "%.2f"),
    "nodule": ("Heterogeneity\n(% of nodule range)", "%4.0f"),
    "slice": ("Heterogeneity\n(% of slice range)", "%4.0f"),
}
LEGEND_ATTRIBUTE = "LNHG.Legend"
LEGEND_PLACE = (0.97, 0.03)  # a finding lies in the middle of the view, Slicer's own texts in the other corners
LEGEND_VIEW, LEGEND_PIXELS = 400.0, (34.0, 100.0)  # its size in a view of that shorter side; the title is wider
FILL_OPACITY = 0.4
OUTLINE_PIXELS = 2


def colorTable(name: str) -> slicer.vtkMRMLColorTableNode:
    """Return the scene's color table of that name ("jet", the paper's, or "viridis"), made on first use."""
    tables = slicer.util.getNodesByClass("vtkMRMLColorTableNode")
    made = [table for table in tables if table.GetAttribute(TABLE_ATTRIBUTE) == name]
    if made:
        return made[0]
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode", COLOR_TITLES[name])
    table.SetAttribute(TABLE_ATTRIBUTE, name)
    table.SetTypeToUser()
    table.SetNumberOfColors(256)
    for index, rgb in enumerate(colors.COLOR_MAPS[name](np.arange(256) / 255) / 255):
        table.SetColor(index, f"{index / 255:.2f}", *rgb.tolist(), 1.0)
    return table


def applyColorMap(heterogeneity: slicer.vtkMRMLScalarVolumeNode, name: str) -> None:
    """Color the map by a table; its legend follows.

    Args:
        heterogeneity: The map.
        name: "jet" or "viridis".
    """
    tableID = colorTable(name).GetID()
    heterogeneity.GetDisplayNode().SetAndObserveColorNodeID(tableID)
    _legend(heterogeneity).SetAndObserveColorNodeID(tableID)


def setUpDisplay(heterogeneity: slicer.vtkMRMLScalarVolumeNode, colorMap: str, shownRange: tuple[float, float]) -> None:
    """Give the map its range, threshold at zero, sharp voxels, colors and legend.

    Args:
        heterogeneity: The map.
        colorMap: "jet" or "viridis".
        shownRange: Signal of the first and the last color.
    """
    heterogeneity.CreateDefaultDisplayNodes()
    display = heterogeneity.GetDisplayNode()
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(*shownRange)
    display.SetThreshold(SMALLEST_SIGNAL, HIGHEST_SIGNAL)
    display.ApplyThresholdOn()
    display.SetInterpolate(0)  # interpolation with the zero around a nodule makes a dark ring
    applyColorMap(heterogeneity, colorMap)


def setScale(heterogeneity: slicer.vtkMRMLScalarVolumeNode, mode: str, fixedRange: tuple[float, float]) -> None:
    """Say what the colors span; the legend follows with its unit.

    Args:
        heterogeneity: The map.
        mode: "fixed" for the signal itself, "nodule" and "slice" for percentages.
        fixedRange: Signal of the first and the last color in mode "fixed".
    """
    heterogeneity.GetDisplayNode().SetWindowLevelMinMax(*(fixedRange if mode == "fixed" else (0.0, 100.0)))
    title, labels = LEGENDS[mode]
    legend = _legend(heterogeneity)
    legend.SetTitleText(title)
    legend.SetLabelFormat(labels)


def placeLegend(heterogeneity: slicer.vtkMRMLScalarVolumeNode, view: slicer.vtkMRMLSliceNode | None) -> None:
    """Show the map's legend in one slice view only: readable in a small one, and small in a large one.

    Args:
        heterogeneity: The map.
        view: The view, None where there is none.
    """
    if view is None:
        return
    legend = _legend(heterogeneity)
    width, height = (max(side, 1) for side in view.GetDimensions()[:2])  # a hidden view may have none
    scale = (min(width, height) / LEGEND_VIEW) ** 0.5
    legend.SetSize(scale * LEGEND_PIXELS[0] / width, scale * LEGEND_PIXELS[1] / height)
    legend.SetViewNodeIDs([view.GetID()])


def setUpCT(volumeNode: slicer.vtkMRMLScalarVolumeNode) -> None:
    """Show the CT in the lung window."""
    volumeNode.CreateDefaultDisplayNodes()
    volumeNode.GetDisplayNode().AutoWindowLevelOff()
    volumeNode.GetDisplayNode().SetWindowLevel(LUNG_WINDOW_HU, LUNG_LEVEL_HU)


def spread(signal: np.ndarray) -> tuple[float, float]:
    """Return from which to which value the colors run for the signal of some voxels."""
    signal = signal[signal > 0]
    if not signal.size:
        return 0.0, 1.0
    low, high = np.percentile(signal, SHOWN_PERCENTILES)
    return float(low), float(high) if high > low else float(low) + 1.0


def computeColors() -> None:
    """Compute the color tables, which loads packages; call it in a thread so that the first use does not wait."""
    for color in colors.COLOR_MAPS.values():
        color(np.zeros(1))


def show(volumeNode, heterogeneity, visible: bool, opacity: float) -> None:
    """Put the CT behind and the map in front in all slice views but the one for the plain CT.

    An invisible map takes its legend along.

    Args:
        volumeNode: The CT, None to leave what is behind.
        heterogeneity: The map, None where there is none.
        visible: Whether the map is shown.
        opacity: Of the map, 0 to 1.
    """
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        plain = composite.GetLayoutName() == Layouts.PLAIN_VIEW
        if volumeNode is not None:
            composite.SetBackgroundVolumeID(volumeNode.GetID())
        composite.SetForegroundVolumeID(None if plain or heterogeneity is None else heterogeneity.GetID())
        composite.SetForegroundOpacity(opacity if visible else 0.0)
    if heterogeneity is not None:
        legend = _legend(heterogeneity)
        legend.SetVisibility(visible)
        legend.Modified()  # a slice view looks for the legend's volume among its layers only when the legend changes


def setStyle(segmentation: slicer.vtkMRMLSegmentationNode, style: str) -> None:
    """Show the nodules as outlines or filled; never in the view of the plain CT.

    Args:
        segmentation: The nodules.
        style: "outline" or "fill".
    """
    display = segmentation.GetDisplayNode()
    if display is None:
        return
    with slicer.util.NodeModify(display):
        display.SetVisibility2DOutline(True)
        display.SetVisibility2DFill(style == "fill")
        display.SetOpacity2DFill(FILL_OPACITY)
        display.SetSliceIntersectionThickness(OUTLINE_PIXELS)
        Layouts.keepOffPlainView(display)


def _legend(heterogeneity) -> slicer.vtkMRMLColorLegendDisplayNode:
    display, logic = heterogeneity.GetDisplayNode(), slicer.vtkSlicerColorLogic
    legend = logic.GetColorLegendDisplayNode(display) or logic.AddDefaultColorLegendDisplayNode(display)
    if legend.GetAttribute(LEGEND_ATTRIBUTE) is not None:
        return legend
    with slicer.util.NodeModify(legend):  # it is new, or of an older scene
        legend.SetAttribute(LEGEND_ATTRIBUTE, "small")
        legend.SetTitleText(LEGENDS["fixed"][0])
        legend.SetLabelFormat(LEGENDS["fixed"][1])
        legend.SetNumberOfLabels(3)
        legend.SetPosition(*LEGEND_PLACE)
        for text in (legend.GetTitleTextProperty(), legend.GetLabelTextProperty()):
            text.SetFontSize(10)
            text.SetBold(True)
            text.SetShadow(False)
            text.SetBackgroundColor(0.0, 0.0, 0.0)
            text.SetBackgroundOpacity(0.6)
    return legend
