"""What the 3D view shows of a result before any row is clicked."""

import slicer_host

slicer_host.start()

import fakes
import numpy as np
import pytest
import slicer
import views
from LNHGLib.figures.segment_style import segment_color
from LNHGSegmentationLib.Findings.Findings import Findings
from LNHGSegmentationLib.Scene import Navigation

FAR_MM = 900.0  # a CT may lie that far from the scene's origin, where the camera looks first


@pytest.fixture(scope="module")
def window():
    """A real 3D view."""
    return views.ThreeDView("First look", (400, 400), (0.0, 0.0, 0.0))


@pytest.fixture
def camera(window, scene):
    """The view's camera, as in a new scene."""
    camera = slicer.modules.cameras.logic().GetViewActiveCameraNode(window.node)
    camera.SetFocalPoint(0.0, 0.0, 0.0)
    camera.SetPosition(0.0, 500.0, 0.0)
    camera.SetViewUp(0.0, 0.0, 1.0)
    return camera


@pytest.fixture
def run(panel, run_events):
    """A function that segments the CT by a click and waits for the nodules' surfaces."""

    def run() -> None:
        panel.ui.applyButton.click()
        run_events(lambda: not panel.logic.isRunning)
        segmentation = panel._parameter.segmentation.GetSegmentation()
        run_events(lambda: all(surface(segmentation, each) for each in segmentation.GetSegmentIDs()))

    return run


def surface(segmentation, segment_id: str):
    return segmentation.GetSegment(segment_id).GetRepresentation("Closed surface")


def add_far_ct() -> None:
    matrix = fakes.IJK_TO_RAS.copy()
    matrix[2, 3] -= FAR_MM
    slicer.util.addVolumeFromArray(fakes.make_ct_array(), matrix, "CT")


def hues(picture: np.ndarray, number: int) -> np.ndarray:
    """Return which pixels have the hue of a nodule, however it is lit."""
    color = np.array(segment_color(number))
    brightest = picture.max(-1, keepdims=True)
    return (brightest[..., 0] > 60) & (np.abs(picture / np.maximum(brightest, 1) - color / color.max()).max(-1) < 0.15)


def test_3d_view_shows_all_nodules_after_the_first_run(window, camera, run):
    add_far_ct()
    run()
    picture = window.render()
    for number in (1, 2):
        rows, columns = np.nonzero(hues(picture, number))
        assert len(rows) > 200, f"nodule {number} is not seen"
        assert rows.min() > 0
        assert columns.min() > 0
        assert max(rows.max(), columns.max()) < 399
    assert np.subtract(camera.GetPosition(), camera.GetFocalPoint())[[0, 2]] == pytest.approx(0, abs=1e-6)


def test_3d_view_leaves_out_what_is_rejected(window, camera, run, panel):
    add_far_ct()
    run()
    findings = Findings(panel._parameter.segmentation)
    findings.reject(2)
    Navigation.frameFindings(panel._parameter.segmentation)
    center = panel._parameter.segmentation.GetSegmentCenterRAS("Nodule_1")
    assert camera.GetFocalPoint() == pytest.approx(center, abs=3.0)


def test_another_run_on_the_same_ct_keeps_the_camera(window, camera, run):
    add_far_ct()
    run()
    camera.SetPosition(700.0, 0.0, 0.0)
    run()
    assert camera.GetPosition() == (700.0, 0.0, 0.0)


def test_loaded_scene_keeps_its_own_camera(window, camera, run, tmp_path):
    add_far_ct()
    run()
    camera.SetPosition(700.0, 20.0, 0.0)
    camera.SetFocalPoint(1.0, 2.0, 3.0)
    slicer.mrmlScene.WriteToMRB(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    slicer.mrmlScene.ReadFromMRB(str(tmp_path / "scene.mrb"), True)
    for _ in range(20):
        slicer.app.processEvents()
    camera = slicer.modules.cameras.logic().GetViewActiveCameraNode(window.node)
    assert camera.GetPosition() == pytest.approx((700.0, 20.0, 0.0))
    assert camera.GetFocalPoint() == pytest.approx((1.0, 2.0, 3.0))


def test_result_without_findings_keeps_the_camera(window, camera, panel, run):
    panel.core.mode = "nothing"
    add_far_ct()
    run()
    assert camera.GetPosition() == (0.0, 500.0, 0.0)
