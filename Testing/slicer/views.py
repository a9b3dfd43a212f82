"""Slicer's own slice and 3-D views, rendered off-screen."""

from pathlib import Path

import numpy as np
import slicer
import vtk
import vtkmodules.vtkInteractionStyle
import vtkmodules.vtkRenderingFreeType
import vtkmodules.vtkRenderingOpenGL2  # noqa: F401
from vtk.util.numpy_support import vtk_to_numpy

SLICE_MANAGERS = (
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLColorLegendDisplayableManager",
)
THREE_D_MANAGERS = (
    "vtkMRMLVolumeRenderingDisplayableManager",
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
)


class View:
    """A render window with the displayable managers of one kind of view."""

    def __init__(self, size: tuple[int, int], factory, managers: tuple[str, ...]) -> None:
        self.size = size
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetMultiSamples(0)
        self.window.SetSize(*size)
        self.renderer = vtk.vtkRenderer()
        self.window.AddRenderer(self.renderer)
        self.interactor = vtk.vtkRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)
        self.interactor.Initialize()
        factory.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        for name in managers:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        self.managers = slicer.vtkMRMLDisplayableManagerGroup()
        self.managers.SetRenderer(self.renderer)
        self.managers.Initialize(factory, self.renderer)

    def render(self) -> np.ndarray:
        """Return the picture as (height, width, 3) uint8 RGB."""
        self.window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self.window)
        grab.SetInputBufferTypeToRGB()
        grab.ReadFrontBufferOff()
        grab.Update()
        width, height, _ = grab.GetOutput().GetDimensions()
        return vtk_to_numpy(grab.GetOutput().GetPointData().GetScalars()).reshape(height, width, 3)[::-1].copy()


class SliceView(View):
    """A slice view. Its node outlives the scene's closing, as in Slicer: make a view once a process."""

    def __init__(
        self, name: str, orientation: str, size: tuple[int, int], managers: tuple[str, ...] = SLICE_MANAGERS
    ) -> None:
        super().__init__(size, slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance(), managers)
        self.renderer.GetActiveCamera().ParallelProjectionOn()
        self._add_overlay_renderer()
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        slicer.app.applicationLogic().GetSliceLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(slicer.mrmlScene)
        self.node, self._orientation = self.logic.AddSliceNode(name), orientation
        self.managers.SetMRMLDisplayableNode(self.node)
        self._show_image()

    def look_at(self, position_ras: tuple[float, float, float], field_of_view_mm: float) -> None:
        """Center on a point; the field of view is the picture's width."""
        width, height = self.size
        self.node.SetOrientation(self._orientation)
        self.node.SetMappedInLayout(1)
        self.logic.ResizeSliceNode(width, height)
        self.logic.FitSliceToBackground()
        depth = self.node.GetFieldOfView()[2]
        self.node.SetFieldOfView(field_of_view_mm, field_of_view_mm * height / width, depth)
        self.node.JumpSliceByCentering(*position_ras)

    def render(self) -> np.ndarray:
        self._mapper.SetInputConnection(self.logic.GetImageDataConnection())  # there only once a volume is shown
        return super().render()

    @property
    def directions(self) -> str:
        """Letters of the patient's sides at the picture's left, right, top and bottom edge."""
        axes = slicer.util.arrayFromVTKMatrix(self.node.GetSliceToRAS())
        return direction_letters(right=axes[:3, 0], up=axes[:3, 1])

    def _add_overlay_renderer(self) -> None:
        self._overlay = vtk.vtkRenderer()
        self._overlay.GetActiveCamera().ParallelProjectionOn()
        self._overlay.SetLayer(1)
        self.window.SetNumberOfLayers(2)
        self.window.SetAlphaBitPlanes(1)
        self.window.AddRenderer(self._overlay)

    def _show_image(self) -> None:
        self._mapper, self._actor = vtk.vtkImageMapper(), vtk.vtkActor2D()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        self._actor.SetMapper(self._mapper)
        self._actor.GetProperty().SetDisplayLocationToBackground()
        self.renderer.AddViewProp(self._actor)


class ThreeDView(View):
    """A 3-D view."""

    def __init__(self, name: str, size: tuple[int, int], background: tuple[float, float, float]) -> None:
        super().__init__(size, slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance(), THREE_D_MANAGERS)
        self.renderer.SetUseDepthPeeling(True)
        self.logic = slicer.vtkMRMLViewLogic()
        self.logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        slicer.app.applicationLogic().GetViewLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(slicer.mrmlScene)
        self.node = self.logic.AddViewNode(name)
        self.node.SetMappedInLayout(1)
        self.node.SetBackgroundColor(*background)
        self.node.SetBackgroundColor2(*background)
        self.node.SetBoxVisible(False)
        self.node.SetAxisLabelsVisible(False)
        self.managers.SetMRMLDisplayableNode(self.node)

    def look_from_front(self, zoom: float) -> None:
        """Look at everything from the front."""
        self.renderer.ResetCamera()
        camera = self.managers.GetDisplayableManagerByClassName("vtkMRMLCameraDisplayableManager").GetCameraNode()
        camera.RotateTo(slicer.vtkMRMLCameraNode.Anterior)
        self.renderer.GetActiveCamera().Zoom(zoom)
        self.renderer.ResetCameraClippingRange()

    @property
    def directions(self) -> str:
        """Letters of the patient's sides at the picture's left, right, top and bottom edge."""
        camera = self.renderer.GetActiveCamera()
        up = np.array(camera.GetViewUp())
        return direction_letters(right=np.cross(camera.GetDirectionOfProjection(), up), up=up)


def direction_letters(right: np.ndarray, up: np.ndarray) -> str:
    """Name the sides of the patient that lie left, right, up and down in a picture.

    Args:
        right: RAS direction that runs to the right in the picture.
        up: RAS direction that runs up.
    """

    def letter(direction: np.ndarray) -> str:
        axis = int(np.abs(direction).argmax())
        return ("RL", "AP", "SI")[axis][int(direction[axis] < 0)]

    return "".join(letter(each) for each in (-right, right, up, -up))


def shrunk(picture: np.ndarray, factor: int) -> np.ndarray:
    """Average blocks of pixels: a view rendered larger than needed has smooth lines and letters then."""
    height, width, channels = picture.shape
    blocks = picture.reshape(height // factor, factor, width // factor, factor, channels)
    return blocks.mean((1, 3)).round().astype(np.uint8)


def save_png(picture: np.ndarray, path: Path) -> None:
    """Write (height, width, 3) uint8 RGB."""
    import SimpleITK as sitk

    sitk.WriteImage(sitk.GetImageFromArray(picture, isVector=True), str(path), useCompression=True)


def read_png(path: Path) -> np.ndarray:
    """Read (height, width, 3) uint8 RGB."""
    import SimpleITK as sitk

    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
