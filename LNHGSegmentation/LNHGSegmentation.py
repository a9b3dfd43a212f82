# ruff: noqa: PT009, PT027 (unittest is what Slicer runs)
"""Find and segment lung nodules on chest CT and show the signal inside them."""

import sys
import time

import numpy as np
import slicer
from LNHGSegmentationLib import SampleScans
from LNHGSegmentationLib.InstallLogic import InstallLogic
from LNHGSegmentationLib.Parameter import Parameter
from LNHGSegmentationLib.SegmentationLogic import SegmentationLogic
from LNHGSegmentationLib.Widget import Widget
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

SELF_TEST_LIMIT_S = 120


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
        self.panel = Widget(self.logic.segmentation, InstallLogic(), self.logic.getParameterNode)
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


class LNHGSegmentationTest(ScriptedLoadableModuleTest):
    """Smoke test that Slicer can run."""

    def setUp(self):
        """Start from an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self):
        """Run all tests."""
        for test in (
            self.test_panel_opens,
            self.test_empty_volume_is_refused,
            self.test_child_process_says_what_is_wrong,
        ):
            self.setUp()
            test()

    def test_panel_opens(self):
        """Open the panel in a scene without a CT: nothing can be started and the button says why."""
        panel = Widget(SegmentationLogic(), InstallLogic(), LNHGSegmentationLogic().getParameterNode)
        self.assertFalse(panel.ui.applyButton.enabled)
        self.assertIn("CT", panel.ui.applyButton.toolTip)
        panel.cleanup()

    def test_empty_volume_is_refused(self):
        """Refuse a volume without voxels before anything is started."""
        empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
        with self.assertRaisesRegex(ValueError, "empty"):
            SegmentationLogic().start(empty, print, print)

    def test_child_process_says_what_is_wrong(self):
        """Run the core on a volume that is no chest CT: its sentence arrives here, and the scene stays as it was."""
        volume = slicer.util.addVolumeFromArray(np.zeros((12, 32, 32), np.int16), name="No CT")
        outcomes = []
        logic = SegmentationLogic()
        logic.start(volume, lambda *_: None, outcomes.append)
        deadline = time.monotonic() + SELF_TEST_LIMIT_S
        while not outcomes and time.monotonic() < deadline:
            slicer.app.processEvents()
            time.sleep(0.05)
        logic.cleanup()
        self.assertEqual([outcome.state for outcome in outcomes], ["failed"])
        self.assertNotIn("Traceback", outcomes[0].message)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"), 0)
