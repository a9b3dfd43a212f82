"""The panel with the real core, the bundled model and a real chest CT: slow, 90 s on two free CPU cores."""

import slicer_host

slicer_host.start()

import json
import sys

import numpy as np
import panel_host
import pytest
import slicer
from LNHGLib.image.reader import read_volume
from LNHGSegmentationLib.Core.SegmentationLogic import SegmentationLogic
from LNHGSegmentationLib.Panel.Widget import Widget
from LNHGSegmentationLib.Scene import SceneResults
from LNHGSegmentationLib.Scene.Geometry import addVolume

pytestmark = pytest.mark.slow


CASE = "lidc-idri-0003"
LIMIT_S = 1500.0  # computers of continuous integration share their cores
LEAST_COVERED = 0.5  # of the voxels that all readers outlined


@pytest.fixture
def panel(scene):
    logic = SegmentationLogic(python=sys.executable)
    panel = Widget(logic, panel_host.InstallNothing(), panel_host.LNHGSegmentationLogic().getParameterNode)
    yield panel
    panel.cleanup()


@pytest.mark.timeout(1600)
def test_click_finds_the_nodules_that_all_readers_outlined(panel, data_dir, run_events):
    folder = data_dir / "ct" / CASE
    if not folder.is_dir():
        pytest.skip(f"there is no {CASE} in the data folder")
    volume = read_volume(folder / "ct.nii.gz")
    ct = addVolume(volume.array, volume.grid.affine, CASE)
    fractions = []
    panel.ui.progressBar.valueChanged.connect(fractions.append)
    panel.ui.applyButton.click()
    run_events(lambda: not panel.sections[0]._logic.isRunning, limit_s=LIMIT_S)
    segmentation = panel._parameter.segmentation
    assert segmentation is not None, panel.ui.statusLabel.text
    assert len(set(fractions)) > 20
    run = SceneResults.runOf(segmentation)
    assert run["lowest"] == pytest.approx(min(0.05, run["threshold"]))
    assert panel._parameter.threshold == pytest.approx(run["threshold"])
    found = sum(
        slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, each, ct) > 0
        for each in segmentation.GetSegmentation().GetSegmentIDs()
    )
    readers = [read_mask(folder / f"mask_reader{number}.nii.gz") for number in range(1, 5)]
    agreed = np.logical_and.reduce(readers)
    assert (found > 0)[agreed].mean() > LEAST_COVERED
    assert "nodules with a probability of at least" in panel.ui.statusLabel.text
    assert json.loads(segmentation.GetAttribute(SceneResults.RUN_ATTRIBUTE))["model"] == "lnhg-1mm"


def read_mask(path) -> np.ndarray:
    import SimpleITK as sitk

    return sitk.GetArrayFromImage(sitk.ReadImage(str(path))) > 0
