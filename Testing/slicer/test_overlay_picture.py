"""The overlay in Slicer's own slice view: golden pictures and what must be seen in them."""

import slicer_host

slicer_host.start()

from pathlib import Path

import fakes
import numpy as np
import pytest
import views
from LNHGLib.figures.segment_style import segment_color
from LNHGSegmentationLib.Scene import Overlay

SIZE = (320, 260)
GOLDEN_FOLDER = Path(__file__).parents[1] / "data"
MEAN_TOLERANCE = 1.0  # gray levels; other versions of Mesa round a little differently
NODULE = 2


@pytest.fixture(scope="module")
def view():
    """The red slice view."""
    return views.SliceView("Red", "Axial", SIZE)


@pytest.fixture
def picture(scene, view, tmp_path):
    """A function that renders the axial slice through a nodule."""
    ct = fakes.make_ct_node()
    result = fakes.make_result_nodes(ct, tmp_path)
    Overlay.setUpCT(ct)

    def render(color_map: str = "jet", visible: bool = True, outline: bool = True) -> np.ndarray:
        Overlay.applyColorMap(result.heterogeneity, color_map)
        Overlay.show(ct, result.heterogeneity, visible, opacity=0.7)
        result.segmentation.SetDisplayVisibility(outline)
        center = fakes.NODULES[NODULE - 1][0]
        view.look_at((fakes.IJK_TO_RAS @ [*center[::-1], 1.0])[:3], field_of_view_mm=34.0)
        Overlay.placeLegend(result.heterogeneity, view.node)
        return view.render()

    render.left_to_right = lambda: view.node.GetSliceToRAS().GetElement(0, 0)
    return render


def colorfulness(picture: np.ndarray) -> np.ndarray:
    return picture.max(-1).astype(int) - picture.min(-1)


def without_legend(picture: np.ndarray) -> np.ndarray:
    return picture[:, :200]


@pytest.mark.parametrize("color_map", ["jet", "viridis"])
def test_picture_equals_the_golden_one(picture, color_map, request, tmp_path):
    path = GOLDEN_FOLDER / f"overlay_{color_map}.png"
    rendered = picture(color_map)
    if request.config.getoption("--regenerate-golden"):
        views.save_png(rendered, path)
    views.save_png(rendered, tmp_path / path.name)
    difference = np.abs(rendered.astype(int) - views.read_png(path)).mean()
    assert difference < MEAN_TOLERANCE, f"see {tmp_path / path.name}"


def test_only_the_nodule_and_the_legend_are_colored(picture):
    plain = picture(visible=False, outline=False)
    assert colorfulness(plain).max() == 0
    colored = colorfulness(picture(outline=False)) > 40
    height, width = colored.shape
    legend = colored[:, 3 * width // 4 :].sum()
    assert legend > 300
    near_nodule = colored[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4].sum()
    assert near_nodule > 2000
    assert colored.sum() == pytest.approx(legend + near_nodule, rel=0.05)


def test_no_dark_ring_surrounds_the_map(picture):
    plain, colored = without_legend(picture(visible=False, outline=False)), without_legend(picture(outline=False))
    changed = (colored != plain).any(-1)
    assert changed.sum() > 2000
    assert colored.max(-1)[changed].min() > 120


def test_outline_has_the_segments_color(picture):
    color = 255 * np.array(segment_color(NODULE))
    distance = np.abs(picture(visible=False) - color).max(-1)
    assert (distance < 30).sum() > 100


def test_signal_grows_along_the_map_as_the_colors_say(picture):
    """The fake signal grows along the voxels' x axis, and viridis is the brighter the higher the signal."""
    colored = without_legend(picture("viridis", outline=False)).astype(int)
    _rows, columns = np.nonzero(colorfulness(colored) > 40)
    middle = round(columns.mean())
    brightness = [
        colored[:, side][colorfulness(colored[:, side]) > 40].mean() for side in (np.s_[:middle], np.s_[middle:])
    ]
    assert np.sign(brightness[1] - brightness[0]) == np.sign(picture.left_to_right() * fakes.IJK_TO_RAS[0, 0])
