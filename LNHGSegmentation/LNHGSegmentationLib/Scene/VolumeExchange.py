"""A CT node handed to the core and the core's images brought back.

The core sees the CT as it lies in the world, with all parent transforms applied. A transform that keeps the voxel axes
perpendicular goes into the written geometry and no voxel changes; any other one (shear, B-spline, displacement field)
needs resampling on the way out and on the way back.
"""

from pathlib import Path

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from LNHGSegmentationLib.Scene.Geometry import (
    gridOf,
    hasPerpendicularAxes,
    imageArray,
    imageToWorld,
    isLinear,
    linearToWorld,
)

AIR_HU = -1000
LATTICE_POINTS = 9  # per axis, at which a non-linear transform is looked at for the extent of its result


class VolumeExchange:
    """The way between one volume node and the core."""

    def __init__(self, volumeNode: slicer.vtkMRMLScalarVolumeNode) -> None:
        """Look at the node's geometry; its voxels and transforms must not change before the results are back.

        Raises:
            ValueError: The node holds no voxels or is not a scalar volume of three dimensions.
        """
        image = volumeNode.GetImageData() if volumeNode else None
        if not image or not image.GetNumberOfPoints():
            raise ValueError("The selected volume is empty: load a chest CT and select it.")
        if image.GetNumberOfScalarComponents() != 1:
            raise ValueError(
                f"The selected volume has {image.GetNumberOfScalarComponents()} values a voxel, a CT has one: "
                "select the chest CT."
            )
        self._local = slicer.vtkOrientedImageData()
        self._local.ShallowCopy(image)
        matrix = vtk.vtkMatrix4x4()
        volumeNode.GetIJKToRASMatrix(matrix)
        self._local.SetImageToWorldMatrix(matrix)
        parent = volumeNode.GetParentTransformNode()
        self._toWorld = vtk.vtkGeneralTransform()
        slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(parent, None, self._toWorld)
        worldMatrix = linearToWorld(parent) @ imageToWorld(self._local) if isLinear(parent) else None
        self.resampled = worldMatrix is None or not hasPerpendicularAxes(worldMatrix)
        if self.resampled:
            background = max(AIR_HU, image.GetScalarRange()[0])
            reference = self._worldReference()
            self._world = _resampled(self._local, reference, self._toWorld, linear=True, background=background)
        else:
            self._world = slicer.vtkOrientedImageData()
            self._world.ShallowCopy(self._local)
            self._world.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(worldMatrix))

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size of the volume node (z, y, x) in mm, before any transform."""
        return self._local.GetSpacing()[::-1]

    def write(self, path: Path) -> None:
        """Write the CT as it lies in the world, uncompressed: it is read only once."""
        import SimpleITK as sitk  # here, as it would slow down Slicer's start
        from LNHGLib.image import volume

        sitk.WriteImage(volume.to_sitk(imageArray(self._world), self._grid()), str(path), useCompression=False)

    def read(self, path: Path) -> np.ndarray:
        """Read an image that the core made on the written grid.

        Returns:
            Array (z, y, x) on the volume node's own voxels.

        Raises:
            ValueError: The image lies on another grid.
        """
        import SimpleITK as sitk
        from LNHGLib.image import volume

        array, grid = volume.from_sitk(sitk.ReadImage(str(path)))
        expected = self._grid()
        if grid.shape != expected.shape or not np.allclose(grid.affine, expected.affine, atol=1e-3):
            raise ValueError(
                f"{path.name} has {grid.shape} voxels, the CT {expected.shape} (z, y, x), or lies elsewhere: run again."
            )
        if not self.resampled:
            return array
        image = slicer.vtkOrientedImageData()
        image.DeepCopy(self._world)
        image.GetPointData().SetScalars(numpy_to_vtk(array.ravel(), deep=True))
        return imageArray(_resampled(image, self._local, self._toWorld.GetInverse(), linear=False, background=0))

    def _grid(self):
        return gridOf(imageToWorld(self._world), self._world.GetDimensions()[::-1])

    def _worldReference(self) -> slicer.vtkOrientedImageData:
        """Return an empty image with the volume's axes and spacing that holds the whole transformed volume."""
        matrix, dimensions = imageToWorld(self._local), self._local.GetDimensions()
        lattice = np.stack(np.meshgrid(*[np.linspace(-0.5, n - 0.5, LATTICE_POINTS) for n in dimensions]), -1)
        points = lattice.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]
        world = np.array([self._toWorld.TransformPoint(point) for point in points])
        index = (world - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T
        low, high = np.floor(index.min(0)).astype(int), np.ceil(index.max(0)).astype(int)
        matrix[:3, 3] += matrix[:3, :3] @ low
        reference = slicer.vtkOrientedImageData()
        reference.SetExtent(*np.stack([np.zeros(3, int), high - low], -1).ravel().tolist())
        reference.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(matrix))
        return reference


def _resampled(image, reference, transform, *, linear: bool, background: float) -> slicer.vtkOrientedImageData:
    output = slicer.vtkOrientedImageData()
    resample = slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage
    if not resample(image, reference, output, linear, False, transform, background):
        raise ValueError("The volume's transform cannot be applied: harden it or remove it, then try again.")
    return output
