"""Agreement, repeatability and paired tests give the printed figures of published examples."""

import numpy as np
import pytest
from LNHGLib.stats import agreement, paired

SHROUT_FLEISS = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
"""Shrout and Fleiss (1979, Psychol Bull 86:420), table 2: six targets, four judges."""

SKIN = [[10, 4, 1, 0], [5, 10, 12, 2], [2, 4, 12, 5], [0, 2, 6, 13]]
"""SAS/STAT User's Guide, The FREQ Procedure, Agreement Study: two dermatologists, four grades of a skin condition."""

PEFR = [  # large meter twice, mini meter twice
    *[[494, 490, 512, 525], [395, 397, 430, 415], [516, 512, 520, 508], [434, 401, 428, 444], [476, 470, 500, 500]],
    *[[557, 611, 600, 625], [413, 415, 364, 460], [442, 431, 380, 390], [650, 638, 658, 642], [433, 429, 445, 432]],
    *[[417, 420, 432, 420], [656, 633, 626, 605], [267, 275, 260, 227], [478, 492, 477, 467], [178, 165, 259, 268]],
    *[[423, 372, 350, 370], [427, 421, 451, 443]],
]
"""Bland and Altman (1986, Lancet 327:307), table 1: peak expiratory flow, l/min, of 17 subjects."""

BEFORE = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
AFTER = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]
"""Hollander and Wolfe (1973), table 3.1: depression scale of 9 patients at two visits, as in the manual of R."""


def rounded(interval: agreement.Interval, digits: int) -> list[float]:
    return [round(value, digits) for value in interval]


def test_icc_of_shrout_and_fleiss_has_its_printed_digits():
    scores = np.array(SHROUT_FLEISS, float)
    assert [round(value, 2) for value in agreement.two_way_mean_squares(scores)] == [11.24, 32.49, 1.02]
    found = agreement.icc(scores)
    assert round(found.value, 2) == 0.29
    assert rounded(found, 3)[1:] == [0.019, 0.761]


def test_kappa_of_the_skin_condition_has_its_printed_digits():
    simple = agreement.weighted_kappa(np.array(SKIN), np.eye(4))
    assert rounded(simple, 4) == [0.3449, 0.2030, 0.4868]
    linear = agreement.weighted_kappa(np.array(SKIN), agreement.agreement_weights(4, agreement.LINEAR))
    assert rounded(linear, 4) == [0.5082, 0.3798, 0.6366]


def test_squared_weights_make_kappa_the_icc_of_many_cases():
    """Fleiss and Cohen (1973, Educ Psychol Meas 33:613)."""
    generator = np.random.default_rng(0)
    true = generator.integers(0, 5, 4000)
    first, second = (np.clip(true + generator.integers(-1, 2, 4000), 0, 4) for _ in range(2))
    kappa = agreement.weighted_kappa(agreement.crosstab(first, second, 5), agreement.agreement_weights(5))
    assert kappa.value == pytest.approx(agreement.icc(np.column_stack([first, second])).value, abs=5e-4)


def test_kappa_interval_holds_the_truth_in_most_samples():
    generator = np.random.default_rng(1)
    chances = np.array([[0.2, 0.08, 0.02], [0.05, 0.3, 0.05], [0.02, 0.08, 0.2]])
    weights = agreement.agreement_weights(3)
    truth = agreement.weighted_kappa(chances, weights).value
    samples = generator.multinomial(150, chances.ravel(), 400).reshape(400, 3, 3)
    found = [agreement.weighted_kappa(sample, weights) for sample in samples]
    assert 0.9 < np.mean([interval.low < truth < interval.high for interval in found]) < 0.99


def test_peak_flow_meters_repeat_as_bland_and_altman_print():
    flow = np.array(PEFR, float)
    between = agreement.repeatability(flow[:, 2], flow[:, 0])
    assert rounded(between.bias, 1) == [-2.1, -22.0, 17.8]
    assert round((between.limits[1].value - between.limits[0].value) / (2 * 1.959964), 1) == 38.8
    low = between.limits[0]
    assert round((low.high - low.low) / 2, 0) == 35  # printed: -79.7 +- 34.6 with a rounded standard error
    assert round(agreement.repeatability(flow[:, 0], flow[:, 1]).within_sd.value, 1) == 15.3
    assert round(agreement.repeatability(flow[:, 2], flow[:, 3]).within_sd.value, 1) == 19.9


def test_signed_ranks_of_the_depression_scale_have_their_printed_digits():
    found = paired.compare(np.array(BEFORE) - np.array(AFTER), paired.WILCOXON)
    assert round(found.p, 5) == 0.03906
    assert rounded(found.difference, 3) == [0.460, 0.010, 0.786]


def test_exact_signed_rank_distribution_is_that_of_all_signs():
    signs = np.array(np.meshgrid(*[[0, 1]] * 6)).reshape(6, -1)
    sums = np.bincount(np.arange(1, 7) @ signs, minlength=22) / 64
    assert paired.signed_rank_distribution(6) == pytest.approx(sums)


def test_interval_of_the_pseudomedian_holds_the_truth_in_most_samples():
    samples = np.random.default_rng(4).laplace(3, 2, (400, 20))
    found = [paired.pseudomedian(sample) for sample in samples]
    assert 0.92 < np.mean([interval.low < 3 < interval.high for interval in found]) < 0.98
    assert all(interval.low <= interval.value <= interval.high for interval in found)


def test_test_follows_the_rule_that_was_chosen():
    generator = np.random.default_rng(2)
    normal, skewed = generator.normal(1, 1, 60), generator.exponential(1, 60) ** 3
    assert paired.compare(normal, paired.BY_NORMALITY).test == paired.T
    assert paired.compare(skewed, paired.BY_NORMALITY).test == paired.WILCOXON
    assert paired.compare(skewed, paired.T).test == paired.T
    t_test = paired.compare(normal, paired.T)
    assert t_test.difference == paired.mean(normal)
    assert (t_test.p < 0.05) == (t_test.difference.low > 0)


def test_intervals_of_means_and_deviations_hold_the_truth():
    generator = np.random.default_rng(3)
    samples = generator.normal(70, 15, (600, 25))
    means = [paired.mean(sample) for sample in samples]
    spreads = [paired.deviation(sample) for sample in samples]
    assert 0.92 < np.mean([interval.low < 70 < interval.high for interval in means]) < 0.98
    assert 0.92 < np.mean([interval.low < 15 < interval.high for interval in spreads]) < 0.98


def test_holm_multiplies_by_the_tests_that_are_left():
    assert paired.holm([0.01, 0.04, np.nan, 0.03]) == pytest.approx([0.03, 0.06, np.nan, 0.06], nan_ok=True)


def test_without_variation_there_is_no_figure_instead_of_a_wrong_one():
    assert np.isnan(agreement.weighted_kappa(np.diag([0, 9.0]), agreement.agreement_weights(2)).value)
    assert np.isnan(agreement.icc(np.full((5, 3), 7.0)).value)
    assert paired.compare(np.zeros(5)).p == 1
    assert np.isnan(paired.compare(np.ones(5), paired.T).p)
    assert agreement.repeatability(np.ones(4), np.ones(4)).coefficient.value == 0
