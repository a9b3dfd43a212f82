"""A result folder as nodes: names, colors, terminology, geometry, display."""

import slicer_host

slicer_host.start()

import json

import fake_core
import fakes
import numpy as np
import pytest
import slicer
import vtk
from LNHGLib.figures import colors
from LNHGLib.figures.segment_style import segment_color
from LNHGSegmentationLib.Findings.Findings import Findings
from LNHGSegmentationLib.Findings.FindingsDisplay import FindingsDisplay
from LNHGSegmentationLib.Scene import ModelOutput, Overlay, ResultNodes, SceneResults, SegmentVoxels
from LNHGSegmentationLib.Scene.SegmentVoxels import Crop
from LNHGSegmentationLib.Scene.VolumeExchange import VolumeExchange
from test_volume_exchange import add_linear_transform


@pytest.fixture
def result(a_ct, tmp_path):
    """Nodes of a result on a rotated CT."""
    add_linear_transform(a_ct, np.array([[0.0, -1, 0, 4], [1, 0, 0, 5], [0, 0, 1, 6], [0, 0, 0, 1]]))
    return fakes.make_result_nodes(a_ct, tmp_path)


def test_segments_are_named_and_coded_as_lung_nodules(result):
    segmentation = result.segmentation.GetSegmentation()
    assert list(segmentation.GetSegmentIDs()) == ["Nodule_1", "Nodule_2"]
    segment = segmentation.GetSegment("Nodule_2")
    assert segment.GetName() == "Nodule 2"
    assert segment.GetTerminology().split("~")[2] == "SCT^786838002^Lung nodule"
    assert segment.GetColor() == pytest.approx(segment_color(2))


def test_segments_say_what_found_them(result):
    tag = vtk.mutable("")
    result.segmentation.GetSegmentation().GetSegment("Nodule_2").GetTag("LNHG.Provenance", tag)
    assert tag == "fused"


def test_finding_without_voxels_has_no_segment_but_stays_in_the_list(a_ct, tmp_path):
    fakes.make_result_nodes(a_ct, tmp_path)
    report = json.loads((tmp_path / "result" / "report.json").read_text())
    report["nodules"].append({"number": 3, "score": 0.4, "provenance": "detector-box"})
    (tmp_path / "result" / "report.json").write_text(json.dumps(report))
    result = ResultNodes.load(tmp_path / "result", a_ct, VolumeExchange(a_ct))
    assert result.segmentation.GetSegmentation().GetNumberOfSegments() == 2
    assert [nodule["number"] for nodule in SceneResults.rowsOf(result.segmentation)] == [1, 2, 3]


def test_what_the_model_found_at_first_is_hidden_in_all_views(result):
    display = result.segmentation.GetNodeReference(ModelOutput.ROLE).GetDisplayNode()
    assert not display.GetVisibility()
    assert result.segmentation.GetDisplayVisibility()


@pytest.mark.parametrize("by_slicer", [True, False])
def test_a_nodule_of_one_slice_is_seen_in_3d_views(result, by_slicer):
    findings = Findings(result.segmentation)
    small = Crop((slice(5, 6), slice(5, 8), slice(5, 9)), np.ones((1, 3, 4), bool))
    SegmentVoxels.write(result.segmentation, "Nodule_1", small)
    if by_slicer:
        result.segmentation.CreateClosedSurfaceRepresentation()
    else:
        FindingsDisplay(findings).makeSurfaces()
    surface = result.segmentation.GetSegmentation().GetSegment("Nodule_1").GetRepresentation("Closed surface")
    properties = vtk.vtkMassProperties()
    properties.SetInputData(surface)
    voxel_mm3 = abs(np.linalg.det(fakes.IJK_TO_RAS[:3, :3]))
    assert properties.GetVolume() > 0.5 * small.array.sum() * voxel_mm3


def test_the_first_twenty_colors_differ_visibly():
    colors = np.array([segment_color(number) for number in range(1, 21)])
    distances = np.linalg.norm(colors[:, None] - colors[None], axis=-1)[np.triu_indices(20, 1)]
    assert distances.min() > 0.08
    neighbors = np.linalg.norm(np.diff(colors, axis=0), axis=1)
    assert neighbors.min() > 0.5


def test_results_follow_the_cts_transform(result, a_ct):
    assert result.segmentation.GetTransformNodeID() == a_ct.GetTransformNodeID()
    assert result.heterogeneity.GetTransformNodeID() == a_ct.GetTransformNodeID()
    bounds, expected = np.zeros(6), np.zeros(6)
    result.heterogeneity.GetRASBounds(bounds)
    a_ct.GetRASBounds(expected)
    np.testing.assert_allclose(bounds, expected)


def test_segmentation_refers_to_the_ct_and_its_grid(result, a_ct):
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    assert result.segmentation.GetNodeReference(role) is a_ct
    labelmap = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    labelmap.SetAndObserveTransformNodeID(a_ct.GetTransformNodeID())
    slicer.modules.segmentations.logic().ExportAllSegmentsToLabelmapNode(
        result.segmentation, labelmap, slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY
    )
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(labelmap), fakes.make_labels())


def test_nodules_are_outlined_not_filled(result):
    assert not result.segmentation.GetDisplayNode().GetVisibility2DFill()
    assert result.segmentation.GetDisplayNode().GetVisibility2DOutline()


def test_map_is_zero_outside_nodules_and_hidden_there(result):
    signal = slicer.util.arrayFromVolume(result.heterogeneity)
    assert (signal[fakes.make_labels() == 0] == 0).all()
    assert (signal[fakes.make_labels() > 0] > 0).all()
    display = result.heterogeneity.GetDisplayNode()
    assert display.GetApplyThreshold()
    assert 0 < display.GetLowerThreshold() < signal[signal > 0].min()
    assert not display.GetInterpolate()


def test_map_has_the_default_style_of_all_pictures(result):
    display = result.heterogeneity.GetDisplayNode()
    shown = display.GetWindowLevelMin(), display.GetWindowLevelMax()
    assert shown == pytest.approx(colors.DEFAULT_STYLE.signal_range)
    assert display.GetColorNode().GetName() == f"LNHG {colors.DEFAULT_STYLE.color_map}"


@pytest.mark.parametrize("name", ["jet", "viridis"])
def test_color_tables_are_the_cores_own(scene, name):
    table = Overlay.colorTable(name)
    rgba = np.zeros(4)
    for index in (0, 31, 128, 200, 255):
        table.GetColor(index, rgba)
        np.testing.assert_allclose(rgba[:3], colors.COLOR_MAPS[name](np.array(index / 255)) / 255, atol=1e-6)


def test_color_table_is_made_once_a_scene_and_again_after_the_scene_was_closed(scene):
    assert Overlay.colorTable("jet") is Overlay.colorTable("jet")
    scene.Clear()
    assert Overlay.colorTable("jet").GetNumberOfColors() == 256
    assert sum(node.GetName() == "LNHG jet" for node in slicer.util.getNodesByClass("vtkMRMLColorTableNode")) == 1


def test_legend_names_the_quantity_and_its_unit(result):
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(result.heterogeneity.GetDisplayNode())
    assert "Heterogeneity" in legend.GetTitleText()
    assert "relative signal" in legend.GetTitleText()
    assert legend.GetColorNode().GetName() == "LNHG viridis"


def test_a_scene_that_closes_takes_a_half_inserted_result_along_by_itself(a_ct, tmp_path):
    """Its observers remove nothing from it (CONTRIBUTING, what an observer may do)."""
    exchange = VolumeExchange(a_ct)
    exchange.write(tmp_path / "ct.nrrd")
    fake_core.segment(tmp_path / "ct.nrrd", tmp_path / "result", empty=False, incomplete=False)
    steps, counts = ResultNodes.inserting(ResultNodes.read(tmp_path / "result", exchange), a_ct), []

    def close(*_args):
        before = slicer.mrmlScene.GetNumberOfNodes()
        steps.close()
        counts.append(slicer.mrmlScene.GetNumberOfNodes() - before)

    next(steps)
    tag = slicer.mrmlScene.AddObserver(slicer.mrmlScene.StartCloseEvent, close)
    slicer.mrmlScene.Clear(0)
    slicer.mrmlScene.RemoveObserver(tag)
    assert counts == [0]
    assert not slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
