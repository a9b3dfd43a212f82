from pathlib import Path

import numpy as np
import pytest
from LNHGLib.figures import colors
from LNHGLib.measurement import signal as heterogeneity
from matplotlib import image as png
from scipy import ndimage

GOLDEN_FOLDER = Path(__file__).parents[1] / "data"
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


def ball(shape=(21, 21, 21), radius=8.0):
    grids = np.indices(shape) - (np.array(shape)[:, None, None, None] - 1) / 2
    return (grids**2).sum(0) <= radius**2


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


def test_composite_keeps_the_ct_outside_the_mask_and_blends_inside():
    grey = np.array([[10, 100]], np.uint8)
    color = np.array([[[255, 0, 0], [255, 0, 0]]], np.uint8)
    mask = np.array([[False, True]])
    np.testing.assert_array_equal(colors.composite(grey, color, mask), [[[10, 10, 10], [255, 0, 0]]])
    np.testing.assert_array_equal(colors.composite(grey, color, mask, 0.5)[0, 1], [178, 50, 50])


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


def test_statistics_of_a_constant_nodule_are_zero_and_its_ratio_one():
    mask = ball()
    with np.errstate(all="raise"):
        found = heterogeneity.statistics(np.full(mask.shape, 0.4), mask, (1, 1, 1))
    assert found["mean"] == pytest.approx(0.4)
    assert found["edge_to_core"] == pytest.approx(1)
    spread = [found[key] for key in ("sd", "entropy_bits", "p10_p90_range", "gradient_per_mm")]
    assert spread == pytest.approx([0, 0, 0, 0])


def test_statistics_of_a_single_voxel_are_defined():
    mask = np.zeros((3, 3, 3), bool)
    mask[1, 1, 1] = True
    with np.errstate(all="raise"):
        found = heterogeneity.statistics(np.random.default_rng(0).random(mask.shape), mask, (2.5, 0.7, 0.7))
    assert tuple(found) == heterogeneity.STATISTICS
    assert (found["sd"], found["entropy_bits"], found["gradient_per_mm"], found["edge_to_core"]) == (0, 0, 0, 1)


def test_edge_to_core_is_undefined_rather_than_infinite_over_a_dark_core():
    mask = ball()
    depth = ndimage.distance_transform_edt(mask)
    assert heterogeneity.statistics((depth < 2).astype(float), mask, (1, 1, 1))["edge_to_core"] is None


def test_statistics_refuse_an_empty_mask():
    with pytest.raises(ValueError, match="empty"):
        heterogeneity.statistics(np.zeros((2, 2, 2)), np.zeros((2, 2, 2), bool), (1, 1, 1))


def test_gradient_of_a_ramp_is_its_slope_per_millimeter_on_anisotropic_voxels():
    mask = ball()
    z, _, x = np.indices(mask.shape)
    found = heterogeneity.statistics(0.03 * z * 2.5 + 0.04 * x * 0.7, mask, (2.5, 0.7, 0.7))
    assert found["gradient_per_mm"] == pytest.approx(0.05, rel=2e-3)


def test_statistics_ignore_everything_outside_the_nodule():
    mask, rng = ball(), np.random.default_rng(1)
    inside = np.where(mask, rng.random(mask.shape), 0)
    outside = np.where(mask, inside, 1e6 * rng.random(mask.shape))
    spacing = (2.5, 0.7, 0.7)
    assert heterogeneity.statistics(inside, mask, spacing) == heterogeneity.statistics(outside, mask, spacing)


def test_entropy_counts_equally_filled_bins_in_bits():
    signal = (np.arange(64).reshape(4, 4, 4) % 8 + 0.5) * heterogeneity.ENTROPY_BIN_WIDTH
    found = heterogeneity.statistics(signal, np.ones(signal.shape, bool), (1, 1, 1))
    assert found["entropy_bits"] == pytest.approx(3)


def test_percentile_range_of_a_uniform_signal_spans_eight_tenths():
    signal = np.linspace(0, 1, 1000).reshape(10, 10, 10)
    found = heterogeneity.statistics(signal, np.ones(signal.shape, bool), (1, 1, 1))
    assert found["p10_p90_range"] == pytest.approx(0.8, abs=1e-3)


def test_edge_to_core_measures_depth_in_millimeters():
    shape, spacing = (9, 31, 31), (4.0, 1.0, 1.0)
    z, y, x = ((np.indices(shape) - np.array([4, 15, 15])[:, None, None, None]).T * spacing).T
    radius = np.sqrt(z**2 + y**2 + x**2)
    mask = radius <= 14
    bright_core = heterogeneity.statistics(np.where(radius < 10, 1.0, 0.5), mask, spacing)["edge_to_core"]
    bright_rim = heterogeneity.statistics(np.where(radius < 10, 0.5, 1.0), mask, spacing)["edge_to_core"]
    assert bright_core < 0.6
    assert bright_rim > 1.6


def _scene():
    """A made-up slice: noisy lung, a ribbon of tissue, and a nodule with a bright core."""
    y, x = np.mgrid[:96, :96]
    hu = -850 + 40 * np.sin(12.9 * x + 78.2 * y)
    hu[y > 78 + 4 * np.sin(x / 9)] = 40
    radius = np.hypot((y - 44) / 22, (x - 50) / 28) * (1 + 0.12 * np.sin(5 * np.arctan2(y - 44, x - 50)))
    hu = np.where(radius < 1, 60 - 420 * radius**2, hu)
    signal = np.where(radius < 1, np.clip((hu + 1000) / 1400, 0, 1), 0).astype(np.float32)
    return hu, signal, (radius < 1).astype(np.uint16)
