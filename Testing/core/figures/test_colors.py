from pathlib import Path

import numpy as np
import pytest
from LNHGLib.figures import colors
from matplotlib import image as png

GOLDEN_FOLDER = Path(__file__).parents[2] / "data"
GOLDEN_JET = {0: (0, 0, 128), 1: (0, 0, 132), 64: (0, 128, 255), 128: (130, 255, 126), 192: (255, 124, 0)}
GOLDEN_JET[255] = (128, 0, 0)


@pytest.fixture
def golden(regenerate_golden):
    """Compare an RGB image with the stored picture, or store it under --regenerate-golden."""

    def check(image, name):
        path = GOLDEN_FOLDER / name
        if regenerate_golden:
            png.imsave(path, image)
        expected = np.rint(255 * png.imread(path)[..., :3])
        difference = np.abs(image - expected)
        assert difference.mean() < 0.5
        assert (difference > 4).mean() < 0.001

    return check


@pytest.mark.parametrize(("index", "rgb"), GOLDEN_JET.items())
def test_jet_equals_the_known_colors_in_rgb_order(index, rgb):
    color = colors.jet(np.array([index / 255], np.float32))[0]
    assert np.abs(color.astype(int) - rgb).max() <= 1


def test_jet_truncates_to_eight_bits_as_the_paper_does():
    levels = np.arange(256) / 255
    exact, within = colors.jet(levels.astype(np.float32)), colors.jet(levels[:-1] + 0.9 / 255)
    assert len(np.unique(exact, axis=0)) == 256
    np.testing.assert_array_equal(within, exact[:-1])


def test_viridis_is_perceptually_uniform_in_lightness():
    rgb = colors.viridis(np.arange(256) / 255) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lightness = 116 * np.cbrt(linear @ (0.2126, 0.7152, 0.0722)) - 16
    steps = np.diff(lightness[::15])
    assert steps.min() > 0
    assert steps.max() / steps.min() < 2


def test_slice_scale_spreads_every_slice_on_its_own_and_leaves_a_constant_one_at_zero():
    signal = np.zeros((3, 4, 4), np.float32)
    signal[0, 1:3, 1:3] = [[0.2, 0.1], [0.05, 0.2]]
    signal[1, 1, 1] = 0.8
    signal[2] = 0.5
    scaled = colors.scale(signal, (signal > 0).astype(np.uint16), "slice")
    assert scaled[0].max() == scaled[1].max() == 1
    assert scaled[0, 1, 2] == pytest.approx(0.5)
    assert not scaled[2].any()


def test_nodule_scale_spreads_every_nodule_on_its_own():
    signal = np.array([[0.1, 0.3, 0.0, 0.6, 0.6]], np.float32)
    scaled = colors.scale(signal, np.array([[1, 1, 0, 4, 4]], np.uint16), "nodule")
    np.testing.assert_allclose(scaled, [[0, 1, 0, 0, 0]])


def test_fixed_scale_gives_equal_signals_equal_values_everywhere():
    signal = np.array([[0.1, 0.3, 0.3, 2.0, -1.0]], np.float32)
    scaled = colors.scale(signal, np.array([[1, 1, 2, 2, 3]]), "fixed", (0.1, 0.5))
    np.testing.assert_allclose(scaled, [[0, 0.5, 0.5, 1, 0]], atol=1e-6)
    assert scaled.dtype == np.float32


@pytest.mark.parametrize("mode", ["slice", "nodule", "fixed"])
def test_scales_stay_finite_without_any_nodule(mode):
    empty = np.zeros((2, 3, 3), np.float32)
    with np.errstate(all="raise"):
        assert not colors.scale(empty, empty.astype(np.uint16), mode).any()


def test_scale_refuses_an_unknown_mode_and_an_empty_fixed_range():
    values = np.zeros((2, 2), np.float32)
    with pytest.raises(ValueError, match="'volume'"):
        colors.scale(values, values.astype(int), "volume")
    with pytest.raises(ValueError, match="lower value first"):
        colors.scale(values, values.astype(int), "fixed", (1.0, 1.0))


@pytest.mark.parametrize(("low", "high", "ticks"), [(0, 1.2, 7), (0, 1, 6), (0.1, 0.6, 6)])
def test_a_legend_names_round_values_from_end_to_end(low, high, ticks):
    values = colors.legend_ticks(low, high)
    assert len(values) == ticks
    assert (values[0], values[-1]) == (low, high)
    np.testing.assert_allclose(values, values.round(1), atol=1e-9)


def test_composite_keeps_the_ct_outside_the_mask_and_blends_inside():
    gray = np.array([[10, 100]], np.uint8)
    color = np.array([[[255, 0, 0], [255, 0, 0]]], np.uint8)
    mask = np.array([[False, True]])
    np.testing.assert_array_equal(colors.composite(gray, color, mask), [[[10, 10, 10], [255, 0, 0]]])
    np.testing.assert_array_equal(colors.composite(gray, color, mask, 0.5)[0, 1], [178, 50, 50])


def test_lung_window_maps_its_ends_to_black_and_white():
    np.testing.assert_array_equal(colors.window(np.array([-3000, -1350, -600, 150, 3000])), [0, 0, 127, 255, 255])


def test_paper_rendering_of_a_slice_without_signal_is_plain_ct():
    hu = np.linspace(-1000, 400, 32).reshape(2, 4, 4)
    signal = np.zeros((2, 4, 4), np.float32)
    signal[1, 1, 1:3] = 0.5, 1.0
    image = colors.render_paper(hu, signal)
    assert (image[0] == image[0][..., :1]).all()
    np.testing.assert_array_equal(image[1, 1, 2], (128, 0, 0))
    assert image[0, 0, 0, 0] == image[1, 0, 0, 0] == 0


def test_paper_rendering_looks_like_the_golden_picture(golden):
    hu, signal, _ = _scene()
    golden(colors.render_paper(hu, signal), "heterogeneity_paper.png")


def test_viridis_overlay_looks_like_the_golden_picture(golden):
    hu, signal, labels = _scene()
    scaled = colors.scale(signal, labels, "nodule")
    image = colors.composite(colors.window(hu), colors.viridis(scaled), labels > 0, 0.6)
    golden(image, "heterogeneity_viridis.png")


def _scene():
    """A made-up slice: noisy lung, a ribbon of tissue, and a nodule with a bright core."""
    y, x = np.mgrid[:96, :96]
    hu = -850 + 40 * np.sin(12.9 * x + 78.2 * y)
    hu[y > 78 + 4 * np.sin(x / 9)] = 40
    radius = np.hypot((y - 44) / 22, (x - 50) / 28) * (1 + 0.12 * np.sin(5 * np.arctan2(y - 44, x - 50)))
    hu = np.where(radius < 1, 60 - 420 * radius**2, hu)
    signal = np.where(radius < 1, np.clip((hu + 1000) / 1400, 0, 1), 0).astype(np.float32)
    return hu, signal, (radius < 1).astype(np.uint16)
