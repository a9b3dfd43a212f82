"""The display section on real MRML: map, scale, legend, outlines, side by side; driven by clicks and keys."""

import slicer_host

slicer_host.start()

import fakes
import numpy as np
import pytest
import qt
import slicer
from LNHGLib.figures import colors
from LNHGSegmentationLib.Panel.OverlaySection import OverlaySection
from LNHGSegmentationLib.Panel.Parameter import Parameter
from LNHGSegmentationLib.Scene import Layouts, SceneResults
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

NODULES = ("Nodule_1", "Nodule_2")


@pytest.fixture
def view(scene):
    """What the red slice view shows."""
    composite = slicer.vtkMRMLSliceCompositeNode()
    composite.SetLayoutName("Red")
    return slicer.mrmlScene.AddNode(composite)


@pytest.fixture
def parameter(scene):
    return Parameter(ScriptedLoadableModuleLogic().getParameterNode())


@pytest.fixture
def section(parameter):
    """The section in a scene without a result."""
    section = OverlaySection()
    section.setParameter(parameter)
    yield section
    section.setParameter(None)
    section.cleanup()


@pytest.fixture
def result(view, section, parameter, a_ct, tmp_path, run_events):
    """The result that the section shows."""
    result = fakes.make_result_nodes(a_ct, tmp_path)
    parameter.inputVolume = a_ct
    SceneResults.choose(parameter, result.segmentation)
    run_events(lambda: view.GetForegroundVolumeID())
    return result


def shown_map(result):
    return result.segmentation.GetNodeReference(SceneResults.SHOWN_ROLE)


def legend_of(result):
    return slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(shown_map(result).GetDisplayNode())


def values(result) -> np.ndarray:
    return slicer.util.arrayFromVolume(shown_map(result))


def choose(selector, value: str) -> None:
    """Choose by the arrow keys, as a user does."""
    selector.setCurrentIndex(0)
    for _ in range(selector.findData(value)):
        for kind in (qt.QEvent.KeyPress, qt.QEvent.KeyRelease):
            qt.QApplication.sendEvent(selector, qt.QKeyEvent(kind, qt.Qt.Key_Down, qt.Qt.NoModifier))


def test_map_lies_in_front_of_the_ct(result, view, a_ct):
    assert view.GetBackgroundVolumeID() == a_ct.GetID()
    assert view.GetForegroundVolumeID() == shown_map(result).GetID()
    assert view.GetForegroundOpacity() == pytest.approx(0.6)


def test_fixed_scale_shows_the_signal_itself_in_the_same_range_for_all(result):
    signal, inside = slicer.util.arrayFromVolume(result.heterogeneity), fakes.make_labels() > 0
    np.testing.assert_array_equal(values(result)[inside], signal[inside])
    assert not values(result)[~inside].any()
    display = shown_map(result).GetDisplayNode()
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == pytest.approx((0, 1.2))
    assert "relative signal" in legend_of(result).GetTitleText()


@pytest.mark.parametrize("mode", ["nodule", "slice"])
def test_own_scales_are_the_cores_in_percent(result, section, mode):
    choose(section.ui.scaleSelector, mode)
    signal, labels = slicer.util.arrayFromVolume(result.heterogeneity), fakes.make_labels()
    expected = 100 * colors.scale(signal, labels, mode)
    np.testing.assert_allclose(values(result), expected, atol=1e-4)
    assert (values(result)[labels > 0] > 0).all()
    display = shown_map(result).GetDisplayNode()
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0, 100)


@pytest.mark.parametrize(
    ("mode", "unit"), [("fixed", "relative signal"), ("nodule", "% of nodule range"), ("slice", "% of slice range")]
)
def test_legend_names_the_unit_of_the_scale(result, section, mode, unit):
    choose(section.ui.scaleSelector, "slice")
    choose(section.ui.scaleSelector, mode)
    assert unit in legend_of(result).GetTitleText()
    assert legend_of(result).GetLabelFormat() == ("%.2f" if mode == "fixed" else "%4.0f")


def test_signal_that_is_measured_stays_as_it_is(result, section):
    before = slicer.util.arrayFromVolume(result.heterogeneity).copy()
    choose(section.ui.scaleSelector, "nodule")
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(result.heterogeneity), before)


def test_hidden_nodule_vanishes_from_the_map_and_comes_back(result, run_events):
    display, second = result.segmentation.GetDisplayNode(), fakes.make_labels() == 2
    display.SetSegmentVisibility("Nodule_2", False)
    run_events(lambda: not values(result)[second].any())
    assert values(result)[fakes.make_labels() == 1].all()
    display.SetSegmentVisibility("Nodule_2", True)
    run_events(lambda: values(result)[second].all())


def test_map_follows_a_changed_signal(result, run_events):
    slicer.util.arrayFromVolume(result.heterogeneity)[fakes.make_labels() == 1] = 0.77
    slicer.util.arrayFromVolumeModified(result.heterogeneity)
    run_events(lambda: (values(result)[fakes.make_labels() == 1] == np.float32(0.77)).all())


def test_range_is_typed_or_fitted_and_shown_for_the_fixed_scale_only(result, section, parameter):
    section.uiWidget.show()
    display = shown_map(result).GetDisplayNode()
    section.ui.rangeLowBox.setValue(0.2)
    assert display.GetWindowLevelMin() == pytest.approx(0.2)
    section.ui.fitRangeButton.click()
    signal = slicer.util.arrayFromVolume(result.heterogeneity)
    low, high = np.percentile(signal[signal > 0], (1, 99))
    assert (parameter.rangeLow, parameter.rangeHigh) == pytest.approx((low, high), abs=0.006)
    choose(section.ui.scaleSelector, "nodule")
    assert not section.ui.rangeFrame.visible


def test_range_boxes_have_finite_limits_though_slicer_sets_them_anew(section):
    boxes = (section.ui.rangeLowBox, section.ui.rangeHighBox)
    assert [(box.minimum, box.maximum) for box in boxes] == [(0.0, 9.99), (0.01, 10.0)]
    assert [(box.decimals, box.singleStep) for box in boxes] == [(2, 0.05), (2, 0.05)]


def test_end_of_the_range_that_is_moved_past_the_other_pushes_it_along(result, section, parameter):
    boxes = (section.ui.rangeLowBox, section.ui.rangeHighBox)
    boxes[0].setValue(1.5)
    assert (parameter.rangeLow, parameter.rangeHigh) == (1.5, 1.51)
    boxes[1].setValue(0.4)
    assert (parameter.rangeLow, parameter.rangeHigh) == (0.39, 0.4)
    assert tuple(box.value for box in boxes) == (0.39, 0.4)


def test_range_of_a_loaded_scene_stands_in_the_boxes(section, parameter):
    with slicer.util.NodeModify(parameter.parameterNode):
        parameter.rangeLow, parameter.rangeHigh = 5.0, 8.0
    assert (section.ui.rangeLowBox.value, section.ui.rangeHighBox.value) == (5.0, 8.0)


def test_range_beyond_the_limits_is_refused(parameter):
    with pytest.raises(ValueError, match="within"):
        parameter.rangeLow = -1.0
    assert parameter.rangeLow == 0.0


def test_section_that_has_let_go_of_a_scene_writes_nothing_into_it(section, parameter):
    section.setParameter(None)
    section.ui.opacitySlider.setValue(0.25)
    assert parameter.overlayOpacity == 0.6


def test_check_box_hides_the_map_and_its_legend(result, section, view):
    section.ui.overlayCheckBox.click()
    assert view.GetForegroundOpacity() == 0
    assert not legend_of(result).GetVisibility()
    section.ui.overlayCheckBox.click()
    assert view.GetForegroundOpacity() == pytest.approx(0.6)
    assert legend_of(result).GetVisibility()


def test_slider_sets_the_opacity(result, section, view):
    section.ui.opacitySlider.setValue(0.25)
    assert view.GetForegroundOpacity() == pytest.approx(0.25)


def test_perceptually_uniform_colors_come_first_and_jet_on_choice(result, section):
    assert shown_map(result).GetDisplayNode().GetColorNode().GetName() == "LNHG viridis"
    choose(section.ui.colorMapSelector, "jet")
    assert shown_map(result).GetDisplayNode().GetColorNode().GetName() == "LNHG jet"
    assert legend_of(result).GetColorNode().GetName() == "LNHG jet"
    assert "publication" in section.ui.colorMapSelector.currentText
    assert "color-blind" in section.ui.colorMapSelector.toolTip


def test_nodules_are_outlined_or_filled(result, section):
    display = result.segmentation.GetDisplayNode()
    assert (display.GetVisibility2DOutline(), display.GetVisibility2DFill()) == (1, 0)
    choose(section.ui.styleSelector, "fill")
    assert display.GetVisibility2DFill()


def test_lung_window_comes_back_on_a_click(result, section, a_ct):
    a_ct.GetDisplayNode().SetWindowLevel(400, 40)
    section.ui.lungWindowButton.click()
    assert (a_ct.GetDisplayNode().GetWindow(), a_ct.GetDisplayNode().GetLevel()) == (1500, -600)


def test_controls_are_off_until_there_is_something_to_control(section, a_ct, parameter):
    names = ("overlayCheckBox", "opacitySlider", "scaleSelector", "colorMapSelector", "rangeFrame", "styleSelector")
    assert not any(getattr(section.ui, name).enabled for name in names)
    assert not section.ui.lungWindowButton.enabled
    parameter.inputVolume = a_ct
    assert section.ui.lungWindowButton.enabled


def test_views_stay_as_the_user_left_them_where_there_is_no_result(view, section, parameter, a_ct, run_events):
    other = fakes.make_ct_node("other")
    view.SetBackgroundVolumeID(other.GetID())
    parameter.colorMap = "jet"
    slicer.app.processEvents()
    assert view.GetBackgroundVolumeID() == other.GetID()
    parameter.inputVolume = a_ct
    run_events(lambda: view.GetBackgroundVolumeID() == a_ct.GetID())
    assert view.GetForegroundVolumeID() is None


def test_map_of_a_large_ct_takes_memory_for_its_nodules_only(result, section):
    import psutil
    from LNHGSegmentationLib.Scene import ResultNodes

    before = psutil.Process().memory_info().rss
    node = ResultNodes.addVolume("large", np.zeros((600, 512, 512), np.float32), result.heterogeneity)
    slicer.util.arrayFromVolume(node)[300, 200:220, 200:220] = 1
    assert psutil.Process().memory_info().rss - before < 30e6
    assert slicer.util.arrayFromVolume(node).sum() == 400


def composite(name: str):
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return next((node for node in nodes if node.GetLayoutName() == name), None)


def add_composite(name: str):
    node = slicer.vtkMRMLSliceCompositeNode()
    node.SetLayoutName(name)
    return slicer.mrmlScene.AddNode(node)


def test_side_by_side_shows_the_plain_ct_beside_the_map(layout, view, section, parameter, a_ct, tmp_path, run_events):
    add_composite(Layouts.PLAIN_VIEW)
    result = fakes.make_result_nodes(a_ct, tmp_path)
    parameter.inputVolume = a_ct
    SceneResults.choose(parameter, result.segmentation)
    section.setParameter(parameter)
    run_events(lambda: view.GetForegroundVolumeID())
    section.ui.sideBySideButton.click()
    assert layout.GetViewArrangement() == Layouts.SIDE_BY_SIDE
    plain = composite(Layouts.PLAIN_VIEW)
    run_events(lambda: plain.GetLinkedControl())
    assert (plain.GetBackgroundVolumeID(), plain.GetForegroundVolumeID()) == (a_ct.GetID(), None)
    assert view.GetForegroundVolumeID() == shown_map(result).GetID()
    assert view.GetLinkedControl()
    ids = result.segmentation.GetDisplayNode().GetViewNodeIDs()
    names = {slicer.mrmlScene.GetNodeByID(each).GetLayoutName() for each in ids}
    assert "Red" in names
    assert Layouts.PLAIN_VIEW not in names
    section.ui.sideBySideButton.click()
    assert layout.GetViewArrangement() == slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
    run_events(lambda: not result.segmentation.GetDisplayNode().GetNumberOfViewNodeIDs())
    assert list(result.segmentation.GetDisplayNode().GetViewNodeIDs()) == []


def test_button_follows_a_layout_that_is_chosen_elsewhere(layout, section, parameter, run_events):
    section.setParameter(parameter)
    Layouts.enter()
    run_events(lambda: section.ui.sideBySideButton.checked)
    layout.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
    run_events(lambda: not section.ui.sideBySideButton.checked)


@pytest.fixture
def own_views(scene, monkeypatch):
    """Slicer's own slice views for map and plain CT, by names that no other test uses."""
    import views

    monkeypatch.setattr(
        Layouts, "DESCRIPTION", Layouts.DESCRIPTION.replace('"Red"', '"Map"').replace("LNHGPlain", "Plain")
    )
    monkeypatch.setattr(Layouts, "MAP_VIEW", "Map")
    monkeypatch.setattr(Layouts, "PLAIN_VIEW", "Plain")
    return [views.SliceView(name, "Axial", (200, 160)) for name in ("Map", "Plain")]


def test_plain_ct_and_map_move_together_and_show_what_they_should(
    own_views, links, layout, section, parameter, a_ct, tmp_path, run_events
):
    with_map, plain = own_views
    result = fakes.make_result_nodes(a_ct, tmp_path)
    parameter.inputVolume = a_ct
    SceneResults.choose(parameter, result.segmentation)
    section.setParameter(parameter)
    run_events(lambda: with_map.logic.GetSliceCompositeNode().GetForegroundVolumeID())
    section.ui.sideBySideButton.click()
    run_events(lambda: plain.logic.GetSliceCompositeNode().GetLinkedControl())
    section.ui.lungWindowButton.click()
    center = (fakes.IJK_TO_RAS @ [*fakes.NODULES[1][0][::-1], 1.0])[:3]
    for view in own_views:
        view.look_at(center, 34.0)
    assert (np.ptp(with_map.render().astype(int), axis=-1) > 40).sum() > 1000
    assert np.ptp(plain.render().astype(int), axis=-1).max() == 0
    with_map.logic.StartSliceNodeInteraction(slicer.vtkMRMLSliceNode.SliceToRASFlag)
    with_map.logic.SetSliceOffset(with_map.logic.GetSliceOffset() + 5)
    with_map.logic.EndSliceNodeInteraction()
    assert plain.node.GetSliceOffset() == pytest.approx(with_map.node.GetSliceOffset())
