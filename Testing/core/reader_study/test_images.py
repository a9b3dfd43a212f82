"""The pictures of a reader study: equal but for the map and its legend, at the right place, scale and gray."""

import io

import numpy as np
import pytest
from LNHGLib.errors import InputError
from LNHGLib.figures.axial_plane import OUTSIDE_HU
from LNHGLib.figures.colors import DEFAULT_STYLE, DisplayStyle, jet, window
from LNHGLib.image.volume import Grid, Source, Volume
from LNHGLib.reader_study import images
from LNHGLib.reader_study.images import GAP_PX, LEGEND_PX, NoduleVoxels, RenderStyle, png, render
from LNHGLib.reader_study.scores import CT, CT_MAP
from PIL import Image
from study_cases import a_nodule


def pair(nodule, **style):
    pictures = render(nodule, RenderStyle(**style))
    return pictures, pictures.frames[CT][pictures.start], pictures.frames[CT_MAP][pictures.start]


@pytest.mark.parametrize(("layout", "frames", "panels"), [("slice", 1, 1), ("strip", 1, 3), ("stack", 9, 1)])
def test_both_modalities_have_the_same_pictures_but_for_nodule_and_legend(layout, frames, panels):
    pictures, _, _ = pair(a_nodule(), layout=layout)
    size = images.PANEL_PX[layout]
    for plain, colored in zip(pictures.frames[CT], pictures.frames[CT_MAP], strict=True):
        assert plain.shape == colored.shape == (size, panels * (size + GAP_PX) + LEGEND_PX, 3)
        assert (plain[..., 0] == plain[..., 1]).all()
        legend = plain.shape[1] - LEGEND_PX
        other = (plain != colored).any(-1)
        assert other[:, legend:].any()
        assert other[:, :legend].mean() < 0.1
        assert not other[:, :legend][: size // 4].any()
    assert len(pictures.frames[CT]) == frames


def test_the_nodule_is_in_the_middle_and_a_millimeter_has_its_pixels():
    pictures, plain, colored = pair(a_nodule(radius_mm=7.0))
    rows, columns = np.nonzero((plain != colored).any(-1)[:, :640])
    assert pictures.pixel_mm == 60 / 640
    assert np.mean([rows.min(), rows.max()]) == pytest.approx(320, abs=5)
    assert np.mean([columns.min(), columns.max()]) == pytest.approx(320, abs=5)
    assert np.ptp(columns) * pictures.pixel_mm == pytest.approx(14, abs=1.2)


def test_grey_is_the_lung_window_and_color_is_the_signal_on_the_printed_scale():
    nodule = a_nodule()
    hu = np.where(nodule.mask, 100, -900).astype(np.int16)
    flat = NoduleVoxels(
        Volume(hu, nodule.volume.grid, nodule.volume.source), nodule.mask, nodule.mask * np.float32(0.6)
    )
    style = {"color_map": "jet", "signal_range": (0.0, 1.0)}
    _, plain, colored = pair(flat, **style)
    assert tuple(plain[320, 320]) == (int(window(np.array([100.0]))[0]),) * 3
    assert tuple(plain[100, 200]) == (int(window(np.array([-900.0]))[0]),) * 3
    assert tuple(colored[320, 320]) == tuple(jet(np.array([0.6]))[0])
    _, _, wide = pair(flat, color_map="jet")
    assert tuple(wide[320, 320]) == tuple(jet(np.array([0.5]))[0])
    _, _, faint = pair(flat, opacity=0.5, **style)
    middle = (jet(np.array([0.6]))[0].astype(float) + plain[320, 320]) / 2
    np.testing.assert_allclose(faint[320, 320], middle, atol=1)


def test_pictures_have_the_default_style_of_all_pictures():
    assert (RenderStyle().color_map, RenderStyle().signal_range) == (
        DEFAULT_STYLE.color_map,
        DEFAULT_STYLE.signal_range,
    )
    assert DisplayStyle("viridis", "fixed", (0.0, 1.2)) == DEFAULT_STYLE


def test_left_is_right_and_the_signal_does_not_fade_at_the_edge():
    _, _, colored = pair(a_nodule(), signal_range=(0.0, 1.0))
    middle = colored[320, :640].astype(int)
    inside = np.flatnonzero(np.ptp(middle, axis=-1) > 20)
    brightness = middle[inside].sum(-1)
    assert brightness[-1] > brightness[0] + 100  # the signal is higher at the patient's left
    assert abs(brightness[0] - brightness[5]) < 60


def test_flipped_tilted_and_sideways_volumes_give_the_same_picture():
    smooth = Grid.aligned((40, 60, 60), (1.0, 1.0, 1.0), (-30.0, -30.0, -20.0))
    _, reference, _ = pair(ball(smooth))
    flipped = smooth.affine.copy()
    flipped[:3, :3] *= -1
    flipped[:3, 3] = smooth.index_to_lps([39, 59, 59])
    sideways = smooth.affine.copy()[:, [2, 0, 1, 3]]
    for affine, shape in ((flipped, smooth.shape), (sideways, (60, 40, 60))):
        _, picture, _ = pair(ball(Grid(shape, affine)))
        difference = np.abs(picture.astype(int) - reference)[:, :640]
        assert np.quantile(difference, 0.99) <= 4
        assert difference.mean() < 0.5


def ball(grid):
    points = grid.index_to_lps(np.moveaxis(np.indices(grid.shape), 0, -1))
    distance = np.linalg.norm(points * (1, 0.8, 1) - (1, 2, 0), axis=-1)
    hu = (-850 + 890 * np.clip(7.5 - distance, 0, 1)).astype(np.float32)
    return NoduleVoxels(Volume(hu, grid, Source("ball")), distance < 7, (distance < 7) * np.float32(0.5))


def test_a_stack_goes_from_feet_to_head_and_starts_at_the_largest_area():
    pictures, _, _ = pair(a_nodule(), layout="stack")
    areas = [np.count_nonzero((a != b).any(-1)[:, :640]) for a, b in zip(*pictures.frames.values(), strict=True)]
    assert areas.index(max(areas)) == pictures.start
    assert areas[0] == areas[-1] == 0
    nodule = a_nodule()
    nodule.signal[:12][nodule.mask[:12]] = 0.1  # the half towards the feet
    below, above = (
        render(nodule, RenderStyle(layout="stack")).frames[CT_MAP][pictures.start + step] for step in (-2, 2)
    )
    assert below[320, 320, 1] < above[320, 320, 1]


def test_a_large_nodule_widens_the_field_and_a_nodule_at_the_edge_of_the_scan_is_padded_with_air():
    pictures, plain, colored = pair(a_nodule(radius_mm=25.0))
    assert pictures.pixel_mm * 640 == pytest.approx(75, abs=3)
    assert (colored[15:40, 100:200] == int(window(np.array([OUTSIDE_HU]))[0])).all()
    assert (plain != colored).any()


def test_png_is_lossless_and_says_nothing_else():
    _, plain, _ = pair(a_nodule())
    content = png(plain)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), plain)
    kinds, place = [], 8
    while place < len(content):
        size = int.from_bytes(content[place : place + 4], "big")
        kinds.append(content[place + 4 : place + 8])
        place += size + 12
    assert set(kinds) == {b"IHDR", b"IDAT", b"IEND"}


@pytest.mark.parametrize(
    ("style", "words"),
    [
        ({"layout": "cube"}, "layout is 'cube'"),
        ({"signal_range": (1.0, 0.0)}, "signal range is 1 to 0"),
        ({"color_map": "hot"}, "color map is 'hot'"),
        ({"opacity": 0.0}, "opacity is 0"),
        ({"field_mm": 5.0}, "field is 5 mm"),
    ],
)
def test_wrong_styles_are_refused(style, words):
    with pytest.raises(InputError, match=words):
        RenderStyle(**style)


def test_a_nodule_without_a_voxel_is_refused():
    nodule = a_nodule()
    with pytest.raises(InputError, match="no voxel"):
        render(NoduleVoxels(nodule.volume, np.zeros_like(nodule.mask), nodule.signal), RenderStyle())
