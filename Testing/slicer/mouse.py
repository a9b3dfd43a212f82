"""A slice view with Slicer's own mouse and keyboard handling: events go in where the desktop's view gets them."""

import slicer
import views
import vtk

MANAGERS = (*views.SLICE_MANAGERS, "vtkMRMLCrosshairDisplayableManager", "vtkMRMLMarkupsDisplayableManager")
SIZE = (300, 300)


class MouseView(views.SliceView):
    """A slice view to click into; like all views it is made once a process."""

    def __init__(self, name: str = "Red", orientation: str = "Axial") -> None:
        """Make the view with the managers and the interactor style of the desktop."""
        super().__init__(name, orientation, SIZE, MANAGERS)
        self.style = slicer.vtkMRMLSliceViewInteractorStyle()
        self.style.SetDisplayableManagers(self.managers)
        self.style.SetSliceLogic(self.logic)
        self.interactor.SetInteractorStyle(vtk.vtkInteractorStyle3D())
        self.style.SetInteractor(self.interactor)

    def show(self, volume_node: slicer.vtkMRMLScalarVolumeNode, position_ras, field_of_view_mm: float = 60.0) -> None:
        """Show a volume around a point."""
        self.logic.GetSliceCompositeNode().SetBackgroundVolumeID(volume_node.GetID())
        self.look_at(position_ras, field_of_view_mm)
        self.render()

    def pixel(self, position_ras) -> tuple[int, int]:
        """Return the pixel, from the lower left corner, that shows a point."""
        to_pixel = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self.node.GetXYToRAS(), to_pixel)
        x, y, *_ = to_pixel.MultiplyPoint((*position_ras, 1.0))
        return round(x), round(y)

    def enter(self, x: int, y: int) -> None:
        """Bring the mouse into the view."""
        self._send("EnterEvent", x, y)
        self.move(x, y)

    def move(self, x: int, y: int) -> None:
        """Move the mouse there."""
        self._send("MouseMoveEvent", x, y)

    def click(self, x: int, y: int, button: str = "Left") -> None:
        """Move the mouse there, press a button and let it go."""
        self.move(x, y)
        self._send(f"{button}ButtonPressEvent", x, y)
        self._send(f"{button}ButtonReleaseEvent", x, y)

    def drag(self, start: tuple[int, int], end: tuple[int, int], button: str = "Left") -> None:
        """Press a button at one place and let it go at another."""
        self.move(*start)
        self._send(f"{button}ButtonPressEvent", *start)
        for step in range(1, 6):
            self.move(*(round(a + (b - a) * step / 5) for a, b in zip(start, end, strict=True)))
        self._send(f"{button}ButtonReleaseEvent", *end)

    def wheel(self, x: int, y: int) -> None:
        """Turn the mouse wheel by one notch: one slice on."""
        self.move(x, y)
        self._send("MouseWheelForwardEvent", x, y)

    def _send(self, event: str, x: int, y: int) -> None:
        self.interactor.SetEventInformation(x, y, 0, 0, chr(0), 0, None)
        self.interactor.InvokeEvent(event)
