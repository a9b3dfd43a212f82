# ruff: noqa: PT009, PT027 (unittest is what Slicer runs)
"""What Slicer's "Reload and Test" runs: a drawn chest through the panel and the core, and the plain refusals."""

import logging
import time
import unittest
from collections.abc import Callable

import numpy as np
import slicer

from LNHGSegmentationLib.Core.SegmentationLogic import SegmentationLogic
from LNHGSegmentationLib.Findings.Findings import Findings
from LNHGSegmentationLib.Scene import SceneResults
from LNHGSegmentationLib.Setup import SampleScans
from LNHGSegmentationLib.Setup.PackageInstall import PackageInstall

LIMIT_S = 900
PAUSE_S = 0.02
MARGIN_MM = 16.0  # above and below the nodule: a part of the chest is found as quickly as it is large
NEAR_MM = 5.0
NODE_CLASSES = ("vtkMRMLScalarVolumeNode", "vtkMRMLSegmentationNode", "vtkMRMLTableNode")


class SelfTest:
    """Test methods; a class of the module file joins them with Slicer's test base class.

    Attributes:
        newPanel: Makes the module's panel around a logic.
    """

    newPanel: Callable

    def setUp(self) -> None:
        """Start from an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Run all tests."""
        tests = [name for name in dir(self) if name.startswith("test_")]
        for name in tests:
            logging.info("LNHG self-test: %s", name)
            self.setUp()
            try:
                getattr(self, name)()
            except unittest.SkipTest as reason:
                logging.warning("LNHG self-test: %s skipped: %s", name, reason)
        slicer.mrmlScene.Clear()

    def test_panel_opens(self) -> None:
        """Open the panel in a scene without a CT: nothing can be started and the button says why."""
        panel = self.newPanel(SegmentationLogic())
        self.assertFalse(panel.ui.applyButton.enabled)
        self.assertIn("CT", panel.ui.applyButton.toolTip)
        panel.cleanup()

    def test_empty_volume_is_refused(self) -> None:
        """Refuse a volume without voxels before anything is started."""
        empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
        with self.assertRaisesRegex(ValueError, "empty"):
            SegmentationLogic().start(empty, print, print)

    def test_child_process_says_what_is_wrong(self) -> None:
        """Run the core on a volume that is no chest CT: its sentence arrives here, and the scene stays as it was."""
        self._needPackages()
        volume = slicer.util.addVolumeFromArray(np.zeros((12, 32, 32), np.int16), name="No CT")
        outcomes = []
        logic = SegmentationLogic()
        logic.start(volume, lambda *_: None, outcomes.append)
        self._wait(lambda: outcomes)
        logic.cleanup()
        self.assertEqual([outcome.state for outcome in outcomes], ["failed"])
        self.assertNotIn("Traceback", outcomes[0].message)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"), 0)

    def test_nodule_of_the_drawn_chest_is_found_listed_and_cleared(self) -> None:
        """Segment a part of the synthetic chest by a click, see its nodule in the table, and close the scene."""
        self._needPackages()
        volume, center = SampleScans.partOfPhantom(MARGIN_MM)
        logic = SegmentationLogic()
        panel = self.newPanel(logic)
        try:
            self.assertIs(panel.ui.inputSelector.currentNode(), volume)
            panel.ui.applyButton.click()
            self._wait(lambda: not logic.isRunning)
            segmentation = SceneResults.latestOf(volume)
            self.assertIsNotNone(segmentation, panel.ui.statusLabel.text)
            rows = [row for row in Findings(segmentation).shown() if row["measurement"]]
            self.assertTrue(rows, "nothing was outlined")
            centers = np.array([row["measurement"]["centroid_lps_mm"] for row in rows])
            distances = np.linalg.norm(centers - center, axis=1)
            self.assertLess(distances.min(), NEAR_MM)
            found = rows[int(distances.argmin())]
            self.assertIsNotNone(segmentation.GetSegmentation().GetSegment(found["segment_id"]))
            self.assertEqual(panel.ui.findingsTable.model().rowCount(), len(Findings(segmentation).shown()))
            slicer.mrmlScene.Clear()
            for name in NODE_CLASSES:
                self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass(name), 0, name)
            self.assertEqual(panel.ui.findingsTable.model().rowCount(), 0)
        finally:
            panel.cleanup()

    def _needPackages(self) -> None:
        missing = PackageInstall().missing()
        if missing:
            raise unittest.SkipTest(f"these packages are not installed yet: {', '.join(missing)}")

    def _wait(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            self.assertLess(time.monotonic(), deadline, "the run did not end in time")
            slicer.app.processEvents()
            time.sleep(PAUSE_S)
