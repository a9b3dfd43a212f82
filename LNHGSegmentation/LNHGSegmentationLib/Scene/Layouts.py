"""The layout with the plain CT on the left and the same slice with map and outlines on the right, linked."""

from dataclasses import dataclass

import slicer
import vtk

SIDE_BY_SIDE = 7219  # of our own; Slicer's are below 1000
PLAIN_VIEW, MAP_VIEW = "LNHGPlain", "Red"
DESCRIPTION = f"""
<layout type="horizontal" split="true">
 <item>
  <view class="vtkMRMLSliceNode" singletontag="{PLAIN_VIEW}">
   <property name="orientation" action="default">Axial</property>
   <property name="viewlabel" action="default">CT</property>
   <property name="viewcolor" action="default">#8C8C8C</property>
  </view>
 </item>
 <item>
  <view class="vtkMRMLSliceNode" singletontag="{MAP_VIEW}">
   <property name="orientation" action="default">Axial</property>
   <property name="viewlabel" action="default">R</property>
   <property name="viewcolor" action="default">#F34A33</property>
  </view>
 </item>
</layout>
"""


def layoutNode() -> slicer.vtkMRMLLayoutNode | None:
    """Return what says which views are shown; None where there are no views."""
    return slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")


def register() -> None:
    """Make the layout known: a scene that was saved in it can be loaded then."""
    node = layoutNode()
    if node is not None and not node.IsLayoutDescription(SIDE_BY_SIDE):
        node.AddLayoutDescription(SIDE_BY_SIDE, DESCRIPTION)


def isSideBySide() -> bool:
    """Return whether the layout is shown."""
    node = layoutNode()
    return node is not None and node.GetViewArrangement() == SIDE_BY_SIDE


@dataclass(frozen=True)
class Sight:
    """What a slice view looks at.

    Attributes:
        sliceToRAS: Position and directions of the slice.
        origin: How far the view is panned.
        field: The shorter side of the view, in mm.
    """

    sliceToRAS: vtk.vtkMatrix4x4
    origin: tuple[float, float, float]
    field: float


def sight() -> Sight | None:
    """Return what the map's view looks at, None where there is no such view."""
    node = _sliceNode(MAP_VIEW)
    if node is None:
        return None
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(node.GetSliceToRAS())
    return Sight(matrix, tuple(node.GetXYZOrigin()), min(node.GetFieldOfView()[:2]))


def enter() -> int:
    """Show the layout.

    Slicer sets a view that is shown for the first time to its own start only when events run: `link` has to wait.

    Returns:
        The layout that was shown before.
    """
    register()
    node = layoutNode()
    before = node.GetViewArrangement()
    node.SetViewArrangement(SIDE_BY_SIDE)
    return before


def link(sight: Sight) -> None:
    """Let both views look at one thing and move together; does nothing where the layout is no longer shown."""
    nodes = [node for name in (PLAIN_VIEW, MAP_VIEW) if (node := _sliceNode(name))]
    if not isSideBySide() or len(nodes) < 2:
        return
    for node in nodes:
        width, height, depth = node.GetFieldOfView()
        scale = sight.field / min(width, height)
        node.GetSliceToRAS().DeepCopy(sight.sliceToRAS)
        node.UpdateMatrices()
        node.SetFieldOfView(width * scale, height * scale, depth)
        node.SetXYZOrigin(*sight.origin)
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        if composite.GetLayoutName() in (PLAIN_VIEW, MAP_VIEW):
            composite.SetLinkedControl(True)
            composite.SetHotLinkedControl(True)


def leave(layout: int) -> None:
    """Show another layout."""
    layoutNode().SetViewArrangement(layout)


def keepOffPlainView(display: slicer.vtkMRMLDisplayNode) -> None:
    """Show a node in all views but that of the plain CT while this is shown, else in all."""
    views = slicer.util.getNodesByClass("vtkMRMLAbstractViewNode") if isSideBySide() else []
    display.SetViewNodeIDs([view.GetID() for view in views if view.GetLayoutName() != PLAIN_VIEW])


def legendView() -> slicer.vtkMRMLSliceNode | None:
    """Return the slice view that shows the map's legend: the map's own, or the first one where the layout lacks it."""
    nodes = [node for node in slicer.util.getNodesByClass("vtkMRMLSliceNode") if node.GetLayoutName() != PLAIN_VIEW]
    shown = [node for node in nodes if node.IsMappedInLayout()]
    return min(shown or nodes, key=lambda node: node.GetLayoutName() != MAP_VIEW, default=None)


def _sliceNode(name: str) -> slicer.vtkMRMLSliceNode | None:
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceNode")
    return next((node for node in nodes if node.GetLayoutName() == name), None)
