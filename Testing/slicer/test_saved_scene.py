"""A scene saved as .mrb and loaded again: the same overlay, legend, parameters and findings."""

import slicer_host

slicer_host.start()

import fakes
import numpy as np
import pytest
import slicer
from LNHGSegmentationLib import Cases

SETTINGS = {
    "overlayOpacity": 0.35,
    "colorMap": "jet",
    "scaleMode": "nodule",
    "rangeLow": 0.1,
    "rangeHigh": 0.8,
    "segmentStyle": "fill",
    "device": "cpu",
    "model": "paper",
}


@pytest.fixture
def view(scene):
    """What the red slice view shows; made anew after the scene is closed, as in Slicer."""

    def make():
        nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        if nodes:
            return nodes[0]
        node = slicer.vtkMRMLSliceCompositeNode()
        node.SetLayoutName("Red")
        return slicer.mrmlScene.AddNode(node)

    return make


def look(panel, view) -> dict:
    """Return all that makes the picture and the panel."""
    parameter = panel._parameter
    shown = parameter.segmentation.GetNodeReference(Cases.SHOWN_ROLE)
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(shown.GetDisplayNode())
    display, segments = shown.GetDisplayNode(), parameter.segmentation.GetDisplayNode()
    ct = parameter.inputVolume.GetDisplayNode()
    return {
        "settings": {name: getattr(parameter, name) for name in (*SETTINGS, "threshold", "overlayVisible")},
        "findings": Cases.rowsOf(parameter.segmentation),
        "run": Cases.runOf(parameter.segmentation),
        "status": panel.ui.statusLabel.text,
        "ct": parameter.inputVolume.GetName(),
        "window": (ct.GetWindow(), ct.GetLevel()),
        "colors": display.GetColorNode().GetName(),
        "range": (display.GetWindowLevelMin(), display.GetWindowLevelMax()),
        "legend": (
            legend.GetTitleText(),
            legend.GetLabelFormat(),
            legend.GetVisibility(),
            legend.GetColorNode().GetName(),
        ),
        "outline and fill": (segments.GetVisibility2DOutline(), segments.GetVisibility2DFill()),
        "opacity": view.GetForegroundOpacity(),
        "front": view.GetForegroundVolumeID() == shown.GetID(),
        "behind": view.GetBackgroundVolumeID() == parameter.inputVolume.GetID(),
        "shown": slicer.util.arrayFromVolume(shown).copy(),
        "signal": slicer.util.arrayFromVolume(parameter.heterogeneity).copy(),
    }


def add_ct() -> None:
    """Add a right-handed CT, as scanners make them: Slicer keeps the order of its voxels in a saved scene."""
    slicer.util.addVolumeFromArray(fakes.make_ct_array(), fakes.IJK_TO_RAS * [1, -1, 1, 1], "CT")


def test_saved_scene_comes_back_as_it_was(panel, view, run_events, tmp_path):
    view()
    add_ct()
    panel.ui.applyButton.click()
    run_events(lambda: not panel.logic.isRunning)
    for name, value in SETTINGS.items():
        setattr(panel._parameter, name, value)
    run_events(lambda: view().GetForegroundVolumeID())
    before = look(panel, view())
    assert slicer.mrmlScene.WriteToMRB(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    assert panel.ui.statusLabel.text == ""
    view()
    slicer.mrmlScene.ReadFromMRB(str(tmp_path / "scene.mrb"), True)
    run_events(lambda: view().GetForegroundVolumeID())
    after = look(panel, view())
    for name in ("shown", "signal"):
        np.testing.assert_allclose(after.pop(name), before.pop(name), atol=1e-5)
    assert after == before
    assert panel.ui.colorMapSelector.currentText.startswith("Jet")
    assert panel.ui.deviceSelector.itemData(panel.ui.deviceSelector.currentIndex) == "cpu"


def test_saved_scene_keeps_the_results_of_several_cts_apart(panel, run_events, tmp_path):
    fakes.make_ct_node("second")
    fakes.make_ct_node("first")
    for _ in range(2):
        panel.ui.applyButton.click()
        run_events(lambda: not panel.logic.isRunning)
        panel.ui.inputSelector.setCurrentNode(slicer.util.getNode("first"))
    assert slicer.mrmlScene.WriteToMRB(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    slicer.mrmlScene.ReadFromMRB(str(tmp_path / "scene.mrb"), True)
    volumes = {Cases.volumeOf(node).GetName() for node in Cases.results()}
    assert volumes == {"first", "second"}
    for name in volumes:
        panel._parameter.inputVolume = slicer.util.getNode(name)
        assert Cases.volumeOf(panel._parameter.segmentation).GetName() == name


def test_map_of_a_ct_that_slicer_turns_on_loading_has_no_leftovers(panel, run_events, tmp_path):
    fakes.make_ct_node()
    panel.ui.applyButton.click()
    run_events(
        lambda: panel._parameter.segmentation and panel._parameter.segmentation.GetNodeReference(Cases.SHOWN_ROLE)
    )
    slicer.mrmlScene.WriteToMRB(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    slicer.mrmlScene.ReadFromMRB(str(tmp_path / "scene.mrb"), True)
    segmentation = panel._parameter.segmentation
    shown = segmentation.GetNodeReference(Cases.SHOWN_ROLE)
    run_events(lambda: np.count_nonzero(slicer.util.arrayFromVolume(shown)) == np.count_nonzero(fakes.make_labels()))
    for each in segmentation.GetSegmentation().GetSegmentIDs():
        segmentation.GetDisplayNode().SetSegmentVisibility(each, False)
    run_events(lambda: not slicer.util.arrayFromVolume(shown).any())
