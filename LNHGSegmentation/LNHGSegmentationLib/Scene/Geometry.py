"""Where voxels lie: volume nodes, the images of segments and the core's grids. The only place where RAS meets LPS."""

import numpy as np
import slicer
import vtk
from LNHGLib.image.boxes import Box, box_shape, box_start, whole_box
from vtk.util.numpy_support import vtk_to_numpy

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
ZYX_TO_IJK = np.eye(4)[[2, 1, 0, 3]]  # IJK_TO_ZYX as well
PERPENDICULAR = 1e-5  # largest cosine between two axes


def ijkToRAS(volumeNode: slicer.vtkMRMLVolumeNode) -> np.ndarray:
    """Return the matrix from voxel indices (x, y, z) to the volume's own RAS."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def shapeOf(volumeNode: slicer.vtkMRMLVolumeNode) -> tuple[int, int, int]:
    """Return the number of voxels (z, y, x)."""
    return tuple(volumeNode.GetImageData().GetDimensions()[::-1])


def wholeOf(volumeNode: slicer.vtkMRMLVolumeNode) -> Box:
    """Return the box of all voxels."""
    return whole_box(shapeOf(volumeNode))


def addVolume(array: np.ndarray, zyxToLPS: np.ndarray, name: str) -> slicer.vtkMRMLScalarVolumeNode:
    """Add a volume of the core to the scene.

    Args:
        array: Its voxels (z, y, x).
        zyxToLPS: The affine of its grid.
        name: Of the node.
    """
    return slicer.util.addVolumeFromArray(array, RAS_TO_LPS @ zyxToLPS @ ZYX_TO_IJK, name)


def gridOf(matrix: np.ndarray, shape: tuple[int, int, int]):
    """Return the core's grid of voxels.

    Args:
        matrix: From indices (x, y, z) to RAS.
        shape: Number of voxels (z, y, x).
    """
    from LNHGLib.image.volume import Grid  # here, as it would slow down Slicer's start

    return Grid(tuple(int(n) for n in shape), RAS_TO_LPS @ matrix @ ZYX_TO_IJK)


def gridAt(volumeNode: slicer.vtkMRMLVolumeNode, box: Box):
    """Return the core's grid of a part of the CT as it lies in the world, with all parent transforms applied.

    A transform that is not linear is taken as linear across the part: it fits at the box's corners.

    Args:
        volumeNode: The CT.
        box: Of its voxels.
    """
    parent = volumeNode.GetParentTransformNode()
    corner, size = np.array(box_start(box)[::-1], float), np.array(box_shape(box)[::-1], float)
    matrix = ijkToRAS(volumeNode)
    if isLinear(parent):
        matrix = linearToWorld(parent) @ matrix
        matrix[:3, 3] += matrix[:3, :3] @ corner
        return gridOf(matrix, size[::-1])
    points = np.vstack([corner, corner + np.diag(size)]) @ matrix[:3, :3].T + matrix[:3, 3]
    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(parent, None, transform)
    world = np.array([transform.TransformPoint(point) for point in points])
    tangent = np.eye(4)
    tangent[:3, :3] = ((world[1:] - world[0]) / size[:, None]).T
    tangent[:3, 3] = world[0]
    return gridOf(tangent, size[::-1])


def worldToIndex(volumeNode: slicer.vtkMRMLVolumeNode, positionRAS: np.ndarray) -> np.ndarray:
    """Return the index of a world position in a volume.

    Args:
        volumeNode: The volume.
        positionRAS: (x, y, z) in mm.

    Returns:
        (z, y, x), not rounded.
    """
    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(None, volumeNode.GetParentTransformNode(), transform)
    return (np.linalg.inv(ijkToRAS(volumeNode)) @ [*transform.TransformPoint(positionRAS), 1.0])[2::-1]


def isLinear(parent: slicer.vtkMRMLTransformNode | None) -> bool:
    """Return whether a node's parent transforms, if there are any, are linear up to the world."""
    return parent is None or bool(parent.IsTransformToWorldLinear())


def linearToWorld(parent: slicer.vtkMRMLTransformNode | None) -> np.ndarray:
    """Return the matrix of a linear transform to the world."""
    matrix = vtk.vtkMatrix4x4()
    if parent is not None:
        parent.GetMatrixTransformToWorld(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def hasPerpendicularAxes(matrix: np.ndarray) -> bool:
    """Return whether the axes of a matrix are perpendicular: no shear."""
    axes = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    return np.allclose(axes.T @ axes, np.eye(3), atol=PERPENDICULAR)


def imageToWorld(image: slicer.vtkOrientedImageData) -> np.ndarray:
    """Return the matrix from voxel indices (x, y, z) of an image to its RAS."""
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def imageArray(image: slicer.vtkOrientedImageData) -> np.ndarray:
    """Return the voxels of an image (z, y, x), not copied."""
    nx, ny, nz = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(nz, ny, nx)
