"""The CT reaches the core as it lies in the world, and the core's images come back to the CT's own voxels."""

import slicer_host

slicer_host.start()

import fakes
import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import vtk
from LNHGLib.image import volume
from LNHGSegmentationLib.Scene.VolumeExchange import VolumeExchange

RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


def add_linear_transform(node, matrix: np.ndarray):
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    node.SetAndObserveTransformNodeID(transform.GetID())
    return transform


def add_warp(node):
    """Put the node under a thin-plate spline that moves its middle by 6 mm and keeps its corners."""
    bounds = np.zeros(6)
    node.GetRASBounds(bounds)
    corners = [(x, y, z) for x in bounds[:2] for y in bounds[2:4] for z in bounds[4:]]
    middle = bounds.reshape(3, 2).mean(1)
    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    for point in corners:
        source.InsertNextPoint(point)
        target.InsertNextPoint(point)
    source.InsertNextPoint(middle)
    target.InsertNextPoint(middle + np.array([6.0, 0.0, 0.0]))
    spline = vtk.vtkThinPlateSplineTransform()
    spline.SetBasisToR()
    spline.SetSourceLandmarks(source)
    spline.SetTargetLandmarks(target)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
    transform.SetAndObserveTransformToParent(spline)
    node.SetAndObserveTransformNodeID(transform.GetID())


def world_position(node, zyx) -> np.ndarray:
    """Return where Slicer shows a voxel, RAS mm."""
    matrix, to_world = vtk.vtkMatrix4x4(), vtk.vtkGeneralTransform()
    node.GetIJKToRASMatrix(matrix)
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(node.GetParentTransformNode(), None, to_world)
    return np.array(to_world.TransformPoint(matrix.MultiplyPoint([*zyx[::-1], 1.0])[:3]))


def written_nodule_positions(path) -> list[np.ndarray]:
    """Return the centroids of the bright nodules in the written file, RAS mm."""
    array, grid = volume.from_sitk(sitk.ReadImage(str(path)))
    labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray((array > -300).astype(np.uint8))))
    centers = [np.argwhere(labels == number).mean(0) for number in range(1, labels.max() + 1)]
    return [grid.index_to_lps(center) * RAS_TO_LPS for center in centers]


def assert_nodules_written_where_shown(node, path, atol_mm: float) -> None:
    shown = [world_position(node, center) for center, _radius in fakes.NODULES]
    np.testing.assert_allclose(written_nodule_positions(path), shown, atol=atol_mm)


def test_voxels_and_position_are_written_unchanged(a_ct, tmp_path):
    VolumeExchange(a_ct).write(tmp_path / "ct.nrrd")
    array, _ = volume.from_sitk(sitk.ReadImage(str(tmp_path / "ct.nrrd")))
    np.testing.assert_array_equal(array, slicer.util.arrayFromVolume(a_ct))
    assert_nodules_written_where_shown(a_ct, tmp_path / "ct.nrrd", atol_mm=0.2)


def test_linear_parent_transforms_go_into_the_geometry_and_no_voxel_changes(a_ct, tmp_path):
    rotation = np.eye(4)
    rotation[:3, :3] = [[0.0, -1.0, 0.0], [0.8, 0.0, -0.6], [0.6, 0.0, 0.8]]
    rotation[:3, 3] = [50.0, -20.0, 9.0]
    inner = add_linear_transform(a_ct, rotation)
    add_linear_transform(inner, np.diag([1.0, -1.0, 1.0, 1.0]))
    exchange = VolumeExchange(a_ct)
    exchange.write(tmp_path / "ct.nrrd")
    assert not exchange.resampled
    array, _ = volume.from_sitk(sitk.ReadImage(str(tmp_path / "ct.nrrd")))
    np.testing.assert_array_equal(array, slicer.util.arrayFromVolume(a_ct))
    assert_nodules_written_where_shown(a_ct, tmp_path / "ct.nrrd", atol_mm=0.2)


@pytest.mark.parametrize("kind", ["shear", "warp"])
def test_other_transforms_are_resampled_and_results_return_to_the_own_voxels(a_ct, tmp_path, kind):
    if kind == "warp":
        add_warp(a_ct)
    else:
        add_linear_transform(a_ct, np.array([[1, 0.3, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]))
    exchange = VolumeExchange(a_ct)
    exchange.write(tmp_path / "ct.nrrd")
    assert exchange.resampled
    assert_nodules_written_where_shown(a_ct, tmp_path / "ct.nrrd", atol_mm=0.8)
    array, grid = volume.from_sitk(sitk.ReadImage(str(tmp_path / "ct.nrrd")))
    volume.write_image((array > -300).astype(np.uint16), grid, tmp_path / "labels.nii.gz")
    back, truth = exchange.read(tmp_path / "labels.nii.gz") > 0, fakes.make_labels() > 0
    assert back.shape == fakes.SHAPE
    assert 2 * (back & truth).sum() / (back.sum() + truth.sum()) > 0.85


def test_warp_really_moves_the_written_ct(a_ct, tmp_path):
    VolumeExchange(a_ct).write(tmp_path / "plain.nrrd")
    add_warp(a_ct)
    VolumeExchange(a_ct).write(tmp_path / "warped.nrrd")
    moved = np.subtract(
        written_nodule_positions(tmp_path / "warped.nrrd"), written_nodule_positions(tmp_path / "plain.nrrd")
    )
    assert (moved[:, 0] > 2.0).all()


def test_ct_node_itself_is_left_alone(a_ct, tmp_path):
    add_warp(a_ct)
    before = slicer.util.arrayFromVolume(a_ct).copy()
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    VolumeExchange(a_ct).write(tmp_path / "ct.nrrd")
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(a_ct), before)
    assert a_ct.GetParentTransformNode() is not None
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes


def test_result_on_another_grid_is_refused(a_ct, tmp_path):
    exchange = VolumeExchange(a_ct)
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros(fakes.SHAPE, np.uint16)), str(tmp_path / "labels.nii.gz"))
    with pytest.raises(ValueError, match=r"labels\.nii\.gz"):
        exchange.read(tmp_path / "labels.nii.gz")


def test_volume_without_voxels_is_refused(scene):
    with pytest.raises(ValueError, match="empty"):
        VolumeExchange(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode"))


def test_color_volume_is_refused(scene):
    color = slicer.util.addVolumeFromArray(np.zeros((4, 5, 6, 3), np.uint8), nodeClassName="vtkMRMLVectorVolumeNode")
    with pytest.raises(ValueError, match="3 values a voxel"):
        VolumeExchange(color)
