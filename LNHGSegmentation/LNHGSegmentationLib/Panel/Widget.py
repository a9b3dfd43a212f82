"""The panel: a frame that holds the sections and follows the scene."""

from collections.abc import Callable

import slicer
import vtk
from slicer.util import VTKObservationMixin

from LNHGSegmentationLib.Core.SegmentationLogic import SegmentationLogic
from LNHGSegmentationLib.Panel.FindingsSection import FindingsSection
from LNHGSegmentationLib.Panel.InstallSection import InstallSection
from LNHGSegmentationLib.Panel.OverlaySection import OverlaySection
from LNHGSegmentationLib.Panel.Parameter import Parameter
from LNHGSegmentationLib.Panel.ReportSection import ReportSection
from LNHGSegmentationLib.Panel.RunSection import RunSection
from LNHGSegmentationLib.Panel.StudySection import StudySection
from LNHGSegmentationLib.Paths import RESOURCES
from LNHGSegmentationLib.Scene import SceneResults
from LNHGSegmentationLib.Setup.PackageInstall import PackageInstall


class Widget(VTKObservationMixin):
    """Panel of the module; its Qt widget is ``uiWidget``, all named widgets of its sections are in ``ui``.

    A section has ``uiWidget``, ``setParameter(parameter | None)`` and ``cleanup()``.
    """

    def __init__(
        self,
        logic: SegmentationLogic,
        packageInstall: PackageInstall,
        getParameterNode: Callable[[], Parameter],
    ) -> None:
        """Build the panel.

        Args:
            logic: Runs the segmentation.
            packageInstall: Provides the Python packages before the first run.
            getParameterNode: Returns the scene's parameter node, making one where there is none.
        """
        super().__init__()
        self._getParameterNode = getParameterNode
        self._parameter: Parameter | None = None
        self._volume = None
        self.sections = [  # from top to bottom
            RunSection(logic, packageInstall),
            FindingsSection(logic),
            OverlaySection(),
            ReportSection(),
            StudySection(),
            InstallSection(packageInstall),
        ]
        self.uiWidget = slicer.util.loadUI(str(RESOURCES / "UI" / "LNHGSegmentation.ui"))
        frame = slicer.util.childWidgetVariables(self.uiWidget).sectionsFrame
        for section in self.sections:
            frame.layout().addWidget(section.uiWidget)
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self._disconnectParameterNode)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.connectParameterNode)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self._onSceneEndImport)
        self.connectParameterNode()

    def connectParameterNode(self, *_args) -> None:
        """Bind the panel to the scene's parameter node; choose the first CT where none is chosen."""
        self._disconnectParameterNode()
        self._parameter = self._getParameterNode()
        if self._parameter.inputVolume is None:
            self._parameter.inputVolume = SceneResults.firstVolume()
        self.addObserver(self._parameter.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParameterChanged)
        self._onParameterChanged()
        for section in self.sections:
            section.setParameter(self._parameter)

    def cleanup(self) -> None:
        """Stop a run and let go of the scene: the module is unloaded or reloaded."""
        self._disconnectParameterNode()
        for section in self.sections:
            section.cleanup()
        self.removeObservers()

    def _onParameterChanged(self, *_args) -> None:
        """Show the results of another CT when it is chosen."""
        parameter = self._parameter
        if parameter.inputVolume is self._volume:
            return
        self._volume = parameter.inputVolume
        if self._volume is None or SceneResults.volumeOf(parameter.segmentation) is self._volume:
            return
        SceneResults.choose(parameter, SceneResults.latestOf(self._volume))

    def _disconnectParameterNode(self, *_args) -> None:
        if self._parameter is None:
            return
        for section in self.sections:
            section.setParameter(None)
        self.removeObserver(self._parameter.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParameterChanged)
        self._parameter = self._volume = None

    def _onSceneEndImport(self, *_args) -> None:
        """Show what the loaded scene says; a run that is under way goes on."""
        if self._parameter is None or self._getParameterNode().parameterNode is not self._parameter.parameterNode:
            self.connectParameterNode()
            return
        if self._parameter.inputVolume is None:
            self._parameter.inputVolume = SceneResults.firstVolume()
        self._volume = None  # while the scene was loaded, its result may not have been there yet
        self._parameter.parameterNode.Modified()
