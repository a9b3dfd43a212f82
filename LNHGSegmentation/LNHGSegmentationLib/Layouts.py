"""The layout with the plain CT on the left and the same slice with map and outlines on the right, linked."""

import slicer

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


def enter() -> int:
    """Show the layout with linked views at the slice of the axial view.

    :return: the layout that was shown before.
    """
    register()
    node = layoutNode()
    before = node.GetViewArrangement()
    node.SetViewArrangement(SIDE_BY_SIDE)
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        if composite.GetLayoutName() in (PLAIN_VIEW, MAP_VIEW):
            composite.SetLinkedControl(True)
            composite.SetHotLinkedControl(True)
    _alignPlainView()
    return before


def leave(layout: int) -> None:
    """Show another layout."""
    layoutNode().SetViewArrangement(layout)


def keepOffPlainView(display: slicer.vtkMRMLDisplayNode) -> None:
    """Show a node in all views but that of the plain CT while this is shown, else in all."""
    views = slicer.util.getNodesByClass("vtkMRMLAbstractViewNode") if isSideBySide() else []
    wanted = [view.GetID() for view in views if view.GetLayoutName() != PLAIN_VIEW]
    if wanted != list(display.GetViewNodeIDs()):
        display.RemoveAllViewNodeIDs()
        for each in wanted:
            display.AddViewNodeID(each)


def _alignPlainView() -> None:
    nodes = {node.GetLayoutName(): node for node in slicer.util.getNodesByClass("vtkMRMLSliceNode")}
    plain, other = nodes.get(PLAIN_VIEW), nodes.get(MAP_VIEW)
    if plain is not None and other is not None:
        plain.SetOrientation(other.GetOrientation())
        plain.GetSliceToRAS().DeepCopy(other.GetSliceToRAS())
        plain.UpdateMatrices()
        plain.SetFieldOfView(*other.GetFieldOfView())
