import numpy as np
import pytest
from LNHGLib.measurement.signal import ENTROPY_BIN_WIDTH, STATISTICS, statistics
from scipy import ndimage


def ball(shape=(21, 21, 21), radius=8.0):
    grids = np.indices(shape) - (np.array(shape)[:, None, None, None] - 1) / 2
    return (grids**2).sum(0) <= radius**2


def test_statistics_of_a_constant_nodule_are_zero_and_its_ratio_one():
    mask = ball()
    with np.errstate(all="raise"):
        found = statistics(np.full(mask.shape, 0.4), mask, (1, 1, 1))
    assert found["mean"] == pytest.approx(0.4)
    assert found["edge_to_core"] == pytest.approx(1)
    spread = [found[key] for key in ("sd", "entropy_bits", "p10_p90_range", "gradient_per_mm")]
    assert spread == pytest.approx([0, 0, 0, 0])


def test_statistics_of_a_single_voxel_are_defined():
    mask = np.zeros((3, 3, 3), bool)
    mask[1, 1, 1] = True
    with np.errstate(all="raise"):
        found = statistics(np.random.default_rng(0).random(mask.shape), mask, (2.5, 0.7, 0.7))
    assert tuple(found) == STATISTICS
    assert (found["sd"], found["entropy_bits"], found["gradient_per_mm"], found["edge_to_core"]) == (0, 0, 0, 1)


def test_edge_to_core_is_undefined_rather_than_infinite_over_a_dark_core():
    mask = ball()
    depth = ndimage.distance_transform_edt(mask)
    assert statistics((depth < 2).astype(float), mask, (1, 1, 1))["edge_to_core"] is None


def test_statistics_refuse_an_empty_mask():
    with pytest.raises(ValueError, match="empty"):
        statistics(np.zeros((2, 2, 2)), np.zeros((2, 2, 2), bool), (1, 1, 1))


def test_gradient_of_a_ramp_is_its_slope_per_millimeter_on_anisotropic_voxels():
    mask = ball()
    z, _, x = np.indices(mask.shape)
    found = statistics(0.03 * z * 2.5 + 0.04 * x * 0.7, mask, (2.5, 0.7, 0.7))
    assert found["gradient_per_mm"] == pytest.approx(0.05, rel=2e-3)


def test_statistics_ignore_everything_outside_the_nodule():
    mask, rng = ball(), np.random.default_rng(1)
    inside = np.where(mask, rng.random(mask.shape), 0)
    outside = np.where(mask, inside, 1e6 * rng.random(mask.shape))
    spacing = (2.5, 0.7, 0.7)
    assert statistics(inside, mask, spacing) == statistics(outside, mask, spacing)


def test_entropy_counts_equally_filled_bins_in_bits():
    signal = (np.arange(64).reshape(4, 4, 4) % 8 + 0.5) * ENTROPY_BIN_WIDTH
    found = statistics(signal, np.ones(signal.shape, bool), (1, 1, 1))
    assert found["entropy_bits"] == pytest.approx(3)


def test_percentile_range_of_a_uniform_signal_spans_eight_tenths():
    signal = np.linspace(0, 1, 1000).reshape(10, 10, 10)
    found = statistics(signal, np.ones(signal.shape, bool), (1, 1, 1))
    assert found["p10_p90_range"] == pytest.approx(0.8, abs=1e-3)


def test_edge_to_core_measures_depth_in_millimeters():
    shape, spacing = (9, 31, 31), (4.0, 1.0, 1.0)
    z, y, x = ((np.indices(shape) - np.array([4, 15, 15])[:, None, None, None]).T * spacing).T
    radius = np.sqrt(z**2 + y**2 + x**2)
    mask = radius <= 14
    bright_core = statistics(np.where(radius < 10, 1.0, 0.5), mask, spacing)["edge_to_core"]
    bright_rim = statistics(np.where(radius < 10, 0.5, 1.0), mask, spacing)["edge_to_core"]
    assert bright_core < 0.6
    assert bright_rim > 1.6
