"""Find and segment lung nodules on chest CT and show the signal inside them."""

import sys

import slicer
from LNHGSegmentationLib.Core.SegmentationLogic import SegmentationLogic
from LNHGSegmentationLib.Panel.Parameter import Parameter
from LNHGSegmentationLib.Panel.Widget import Widget
from LNHGSegmentationLib.Setup import SampleScans
from LNHGSegmentationLib.Setup.PackageInstall import PackageInstall
from LNHGSegmentationLib.Setup.SelfTest import SelfTest
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)


class LNHGSegmentation(ScriptedLoadableModule):
    """What Slicer shows about the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Lung Nodules (LNHG)")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = []
        parent.contributors = ["LNHG contributors"]
        parent.helpText = _(
            "Finds lung nodules on a chest CT, outlines each as a segment and shows the signal inside it as a colored "
            "map. For research use only, not for diagnosis."
        )
        parent.acknowledgementText = _(
            "Implements LNHG, a generative adversarial network for lung nodule heterogeneity combined with a region "
            "detector. Trained and tested on LIDC-IDRI and LUNA16 data."
        )
        slicer.app.connect("startupCompleted()", SampleScans.register)


class LNHGSegmentationWidget(ScriptedLoadableModuleWidget):
    """Shell around the panel."""

    def __init__(self, parent=None):
        self.panel = None
        ScriptedLoadableModuleWidget.__init__(self, parent)

    def setup(self):
        """Build the panel when the module is opened first."""
        ScriptedLoadableModuleWidget.setup(self)
        self.logic = LNHGSegmentationLogic()
        self.panel = Widget(self.logic.segmentation, PackageInstall(), self.logic.getParameterNode)
        self.layout.addWidget(self.panel.uiWidget)

    def onReload(self):
        """Reload the library along with this file."""
        for name in [name for name in sys.modules if name.partition(".")[0] == "LNHGSegmentationLib"]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def cleanup(self):
        """Stop a run when the module is unloaded or reloaded."""
        if self.panel is not None:
            self.panel.cleanup()
            self.panel = None


class LNHGSegmentationLogic(ScriptedLoadableModuleLogic):
    """Entry for other modules and scripts: ``segmentation`` does the work."""

    def __init__(self, segmentation=None):
        ScriptedLoadableModuleLogic.__init__(self)
        self.segmentation = segmentation or SegmentationLogic()

    def getParameterNode(self):
        """Return the scene's parameter node, wrapped."""
        return Parameter(super().getParameterNode())


class LNHGSegmentationTest(SelfTest, ScriptedLoadableModuleTest):
    """Self-test that Slicer can run."""

    def newPanel(self, logic):
        """Make the panel as the module does."""
        return Widget(logic, PackageInstall(), LNHGSegmentationLogic().getParameterNode)
