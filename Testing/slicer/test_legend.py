"""The legend of the map in real slice views: small, readable, in one view."""

import slicer_host

slicer_host.start()

from pathlib import Path

import fakes
import numpy as np
import pytest
import slicer
import views
from LNHGSegmentationLib.Scene import Layouts, SceneResults

OLD_SCENE = Path(__file__).parents[1] / "data" / "scene_of_b361d9c.mrb"
SIZES = ((400, 400), (800, 800), (1400, 900), (350, 300))
LEAST_LETTER = 9  # pixels from the top of a capital to the bottom of a descender
MARGIN = 4


@pytest.fixture(scope="module")
def windows():
    """Slice views by size."""
    return {size: views.SliceView(f"Legend{size[0]}", "Axial", size) for size in SIZES}


@pytest.fixture
def show(windows, panel, run_events, monkeypatch):
    """A function that shows a result with the legend in the view of a size."""

    def show(size: tuple[int, int], mode: str = "fixed") -> None:
        monkeypatch.setattr(Layouts, "MAP_VIEW", windows[size].node.GetLayoutName())
        fakes.make_ct_node()
        panel._parameter.scaleMode = mode
        panel.ui.applyButton.click()
        run_events(lambda: not panel.logic.isRunning)
        for window in windows.values():
            window.look_at(tuple(panel._parameter.segmentation.GetSegmentCenterRAS("Nodule_1")), 40.0)
        run_events(lambda: windows[size].logic.GetSliceCompositeNode().GetForegroundVolumeID())
        slicer.app.processEvents()

    return show


def legend_of(panel):
    shown = panel._parameter.segmentation.GetNodeReference(SceneResults.SHOWN_ROLE)
    return slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(shown.GetDisplayNode())


def drawn_legend(panel, window) -> tuple[np.ndarray, np.ndarray]:
    """Return which pixels of a view the legend changes, and which of them are its bar's."""
    picture = window.render().astype(int)
    legend_of(panel).SetVisibility(False)
    changed = (picture != window.render()).any(-1)
    legend_of(panel).SetVisibility(True)
    return changed, changed & (np.ptp(picture, axis=-1) > 40)


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return the first and last row and column of a mask."""
    rows, columns = np.nonzero(mask)
    return rows.min(), rows.max(), columns.min(), columns.max()


@pytest.mark.parametrize("mode", ["fixed", "nodule", "slice"])
@pytest.mark.parametrize("size", SIZES)
def test_legend_is_small_whole_and_readable_in_the_lower_right_corner(show, panel, windows, size, mode):
    show(size, mode)
    legend, bar = drawn_legend(panel, windows[size])
    width, height = size
    top, bottom, left, right = box(legend)
    assert (bottom - top) * (right - left) < 0.1 * width * height
    assert (top > height / 2, left > width / 2) == (True, True), "the middle of the view stays free"
    assert (bottom < height - MARGIN, right < width - MARGIN) == (True, True), "nothing is cut off"
    assert (box(bar)[0] - top) / 2 > LEAST_LETTER, "two lines of the title stand above the bar"
    assert box(bar)[1] - box(bar)[0] > 3 * LEAST_LETTER, "three numbers stand beside the bar"


def test_legend_is_in_one_view_only(show, panel, windows):
    show((400, 400))
    assert drawn_legend(panel, windows[400, 400])[0].any()
    assert not any(drawn_legend(panel, windows[size])[0].any() for size in SIZES[1:])


def test_legend_grows_less_than_its_view(show, panel, windows, run_events):
    show((400, 400))
    before = legend_of(panel).GetSize()
    windows[400, 400].logic.ResizeSliceNode(1600, 1600)
    run_events(lambda: legend_of(panel).GetSize() != before, limit_s=5)
    assert legend_of(panel).GetSize()[0] == pytest.approx(before[0] / 2)


def test_legend_goes_to_a_view_that_the_layout_shows(layout, show, panel, windows, run_events):
    show((400, 400))
    windows[400, 400].node.SetMappedInLayout(0)
    layout.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpYellowSliceView)
    run_events(lambda: legend_of(panel).GetViewNodeIDs() != (windows[400, 400].node.GetID(),), limit_s=5)
    (view,) = legend_of(panel).GetViewNodeIDs()
    assert slicer.mrmlScene.GetNodeByID(view).IsMappedInLayout()


def test_legend_stays_where_the_user_puts_it(show, panel, run_events, tmp_path):
    show((400, 400))
    legend_of(panel).SetPosition(0.1, 0.9)
    panel._parameter.scaleMode = "nodule"
    slicer.mrmlScene.WriteToMRB(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    slicer.mrmlScene.ReadFromMRB(str(tmp_path / "scene.mrb"), True)
    slicer.app.processEvents()
    panel._parameter.scaleMode = "slice"
    assert "slice" in legend_of(panel).GetTitleText()
    assert legend_of(panel).GetPosition() == (0.1, 0.9)


def test_legend_of_an_older_scene_becomes_small(panel, windows, run_events):
    slicer.mrmlScene.ReadFromMRB(str(OLD_SCENE), True)
    run_events(lambda: windows[400, 400].logic.GetSliceCompositeNode().GetForegroundVolumeID())
    (view_id,) = legend_of(panel).GetViewNodeIDs()
    width_px = slicer.mrmlScene.GetNodeByID(view_id).GetDimensions()[0]  # views of other tests may be there, too
    assert legend_of(panel).GetSize()[0] * width_px < 45  # Slicer's own legend has 60 in a view of 400
    assert legend_of(panel).GetTitleTextProperty().GetBold()
