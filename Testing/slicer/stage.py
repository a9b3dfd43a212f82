"""A scan and its result in the real Slicer views: what the pictures of the README show."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import close_up
import numpy as np
import slicer
import views
from composition import Panel
from LNHGLib.image.volume import Grid, Volume, resample, write_image
from LNHGLib.segmentation.preprocessing import find_lungs
from LNHGSegmentationLib.Scene import Overlay, ResultNodes
from LNHGSegmentationLib.Scene.Geometry import addVolume
from LNHGSegmentationLib.Scene.VolumeExchange import VolumeExchange

from LNHGSegmentation import LNHGSegmentationLogic

OVERSAMPLING = 2  # the views are rendered larger by this factor
OUTLINE_PIXELS = 1.5
OPACITY = 0.6  # the panel's own at the start
LUNGS_GRID_MM = 1.5
LUNGS_COLOR, LUNGS_OPACITY = (0.55, 0.75, 0.95), 0.18
DARK = (0.06, 0.07, 0.09)


class Stage:
    """Nodes and views of one scan. Make it once a process: views outlive the scene's closing."""

    def __init__(self, name: str, volume: Volume, result: Path, sizes: dict[str, tuple[int, int]]) -> None:
        """Load the scan and the result folder; make the views.

        Args:
            name: of the CT in the scene.
            volume: the CT.
            result: what `lnhg segment` wrote for it.
            sizes: width and height in pixels of each view, by name; names start with Axial, Coronal or Sagittal.
        """
        self.volume, self._views_of_lungs = volume, 0
        self._views = {name: _slice_view(name, size) for name, size in sizes.items()}
        self.ct = addVolume(volume.array, volume.grid.affine, name)
        self.exchange = VolumeExchange(self.ct)
        self.result = ResultNodes.load(result, self.ct, self.exchange)
        self.labels = self.exchange.read(result / "labelmap.nii.gz")
        self.signal = self.exchange.read(result / "heterogeneity.nii.gz")
        self._settings = LNHGSegmentationLogic().getParameterNode()
        self._color(self.result.heterogeneity)
        self.result.segmentation.GetDisplayNode().SetVisibility2D(False)
        Overlay.show(self.ct, self.result.heterogeneity, visible=False, opacity=0.0)
        Overlay.setUpCT(self.ct)

    def go_to(self, number: int, field_mm: float) -> None:
        """Show a finding in the middle of all slice views, smooth between the voxels; the field is a view's width."""
        self.center_lps_mm = self.volume.grid.index_to_lps(np.argwhere(self.labels == number).mean(0))
        self._field_mm = field_mm
        near = close_up.close_up(self.labels, self.signal, self.volume.grid, self.center_lps_mm, field_mm)
        self._near = _load_close_up(near, self.result.nodules)
        self._color(self._near.heterogeneity)
        self._near.segmentation.GetDisplayNode().SetSliceIntersectionThickness(round(OUTLINE_PIXELS * OVERSAMPLING))
        self._legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(self._near.heterogeneity.GetDisplayNode())

    def _color(self, heterogeneity: slicer.vtkMRMLScalarVolumeNode) -> None:
        """Color a map as the panel does for a user who has changed nothing."""
        p = self._settings
        Overlay.applyColorMap(heterogeneity, p.colorMap)
        Overlay.setScale(heterogeneity, p.scaleMode, (p.rangeLow, p.rangeHigh))

    def slice_panel(self, name: str, caption: str, overlay: bool = True, legend: bool = False) -> Panel:
        """Render a slice view; the legend stands where the panel puts it."""
        view = self._views[name]
        self._near.segmentation.SetDisplayVisibility(overlay)
        Overlay.show(self.ct, self._near.heterogeneity, overlay, OPACITY)
        view.look_at(self.center_lps_mm * [-1, -1, 1], self._field_mm)
        Overlay.placeLegend(self._near.heterogeneity, view.node)
        self._legend.SetSize(*(OVERSAMPLING**0.5 * side for side in self._legend.GetSize()))
        self._legend.SetVisibility(legend)
        picture = views.shrunk(view.render(), OVERSAMPLING)
        return Panel(picture, caption, view.directions, self._field_mm / picture.shape[1])

    def lungs_panel(self, size: tuple[int, int], caption: str, zoom: float = 1.6) -> Panel:
        """Render the lungs from the front, with all findings in them."""
        self._views_of_lungs += 1
        view = views.ThreeDView(str(self._views_of_lungs), tuple(OVERSAMPLING * n for n in size), DARK)
        if self._views_of_lungs == 1:
            _add_lungs(self.volume)
            self.result.segmentation.CreateClosedSurfaceRepresentation()
        view.look_from_front(zoom)
        return Panel(views.shrunk(view.render(), OVERSAMPLING), caption, view.directions)


def _slice_view(name: str, size: tuple[int, int]) -> views.SliceView:
    orientation = next(each for each in ("Axial", "Coronal", "Sagittal") if name.startswith(each))
    return views.SliceView(name, orientation, tuple(OVERSAMPLING * n for n in size))


def _load_close_up(near: close_up.CloseUp, nodules: Sequence[dict]) -> ResultNodes.ResultNodes:
    """Load a close-up the way a result is loaded: a volume on its grid stands for the CT."""
    node = addVolume(near.labels, near.grid.affine, "close-up")
    with tempfile.TemporaryDirectory() as folder:
        write_image(near.labels, near.grid, Path(folder) / "labelmap.nii.gz")
        write_image(near.signal, near.grid, Path(folder) / "heterogeneity.nii.gz")
        (Path(folder) / "report.json").write_text(json.dumps({"nodules": list(nodules)}))
        return ResultNodes.load(Path(folder), node, VolumeExchange(node))


def _add_lungs(volume: Volume) -> None:
    lungs, grid = find_lungs(volume), volume.grid
    shape = tuple(int(extent / LUNGS_GRID_MM) for extent in np.array(grid.shape) * grid.spacing_mm)
    corners = grid.index_to_lps(np.array(list(np.ndindex(2, 2, 2))) * (np.array(grid.shape) - 1))
    coarse = Grid.aligned(shape, (LUNGS_GRID_MM,) * 3, corners.min(0))
    inside = resample(lungs.astype(np.float32), grid, coarse, fill=0.0) > 0.5
    reference = addVolume(inside.astype(np.uint8), coarse.affine, "lungs")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Lungs")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(reference)
    segment = node.GetSegmentation().AddEmptySegment("lungs", "Lungs", LUNGS_COLOR)
    slicer.util.updateSegmentBinaryLabelmapFromArray(inside.astype(np.uint8), node, segment, reference)
    node.CreateClosedSurfaceRepresentation()
    node.GetDisplayNode().SetVisibility2D(False)
    node.GetDisplayNode().SetSegmentOpacity3D(segment, LUNGS_OPACITY)
