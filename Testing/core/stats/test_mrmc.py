"""The analysis of several readers and cases gives the printed figures of a published example and keeps its level."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from LNHGLib.stats import mrmc, roc

# Van Dyke et al. (1993, RSNA), the standard example of the field: 5 readers rate 69 sound and 45 sick cases in 2
# modalities. Inputs and results as Chakraborty prints them (The RJafroc Book, chapter "Obuchowski Rockette
# Applications", dataset02); they equal those of OR-DBM MRMC 2.51 of the University of Iowa. The ratings are not ours to
# copy, but with 69 x 45 pairs every area is a multiple of 1/6210, so that four printed digits tell it exactly.
STEPS = 2 * 69 * 45
PRINTED_AREAS = [[0.9196, 0.8588, 0.9039, 0.9731, 0.8298], [0.9478, 0.9053, 0.9217, 0.9994, 0.9300]]
COVARIANCES = {"variance": 8.0228827e-4, "cov1": 3.4661371e-4, "cov2": 3.4407483e-4, "cov3": 2.3902837e-4}
EACH = {
    "variance_each": [0.0010141, 0.0005905],
    "cov2_each": [2 * COVARIANCES["cov2"] - 0.0002042, 0.0002042],  # printed 0.0004840, 0.0002042; Cov2 is their mean
    "reader_variance": [0.0006989, 0.0011061, 0.0008423, 0.0001506, 0.0012136],
    "reader_cov1": [3.735e-04, 7.602e-04, 3.553e-04, 1.083e-06, 2.430e-04],
}


@pytest.fixture(scope="module")
def van_dyke():
    areas = np.round(np.array(PRINTED_AREAS) * STEPS) / STEPS
    assert np.array_equal(areas.round(4), PRINTED_AREAS)
    parts = mrmc.components(areas, np.zeros((2, 5, 2, 5)))
    return replace(parts, **COVARIANCES, **{name: np.array(values) for name, values in EACH.items()})


@pytest.fixture(scope="module")
def analyses(van_dyke):
    return {analysis.kind: analysis for analysis in mrmc.analyze(van_dyke, ("0", "1"))}


def shown(value: float, printed: str) -> str:
    """Write a value as it is printed: with as many decimals."""
    mantissa, _, exponent = printed.partition("e")
    decimals = len(mantissa.partition(".")[2])
    return f"{value:.{decimals}e}" if exponent else f"{value:.{decimals}f}"


def assert_prints(estimate: mrmc.Estimate, printed: str) -> None:
    values = [estimate.value, estimate.error, estimate.df, estimate.p, estimate.low, estimate.high]
    for value, text in zip(values, printed.split(), strict=True):
        assert text == "-" or shown(value, text) == text


def test_mean_squares_are_those_printed_for_van_dyke(van_dyke):
    printed = ["0.0047962", "0.003836", "5.5103062e-04"]
    values = [van_dyke.ms_modality, van_dyke.ms_reader, van_dyke.ms_interaction]
    assert [shown(value, text) for value, text in zip(values, printed, strict=True)] == printed
    assert [shown(value, "0.000000") for value in van_dyke.ms_reader_each] == ["0.003083", "0.001305"]


@pytest.mark.parametrize(
    ("kind", "statistic", "df", "p"),
    [
        (mrmc.RANDOM, "4.456", "15.26", "0.05167"),
        (mrmc.FIXED_READERS, "5.47595", "inf", "0.01928"),
        (mrmc.FIXED_CASES, "8.704", "4", "0.04196"),
    ],
)
def test_van_dyke_gives_the_printed_tests(analyses, kind, statistic, df, p):
    analysis = analyses[kind]
    assert shown(analysis.statistic, statistic) == statistic
    assert analysis.df[0] == 1
    assert shown(analysis.df[1], df) == df
    assert shown(analysis.p, p) == p


@pytest.mark.parametrize(
    ("kind", "printed"),
    [  # difference, standard error, degrees of freedom, p, interval
        (mrmc.RANDOM, "-0.0438 0.0207 15.26 0.05167 -0.0879595 0.0003589"),
        (mrmc.FIXED_READERS, "-0.043800322 0.01872 inf 0.01928 -0.08049 -0.007115"),
        (mrmc.FIXED_CASES, "-0.0438 0.01485 4 0.04196 -0.08502 -0.00258"),
    ],
)
def test_van_dyke_gives_the_printed_differences(analyses, kind, printed):
    assert_prints(analyses[kind].differences[0], printed)


@pytest.mark.parametrize(
    ("kind", "printed"),
    [
        (mrmc.RANDOM, ["0.8970 0.03317 12.74 - 0.8252 0.9689", "0.9408 0.02157 12.71 - 0.8941 0.9875"]),
        (mrmc.FIXED_READERS, ["0.8970 0.02429 inf - 0.8494 0.9446", "0.9408 0.01678 inf - 0.9080 0.9737"]),
        (mrmc.FIXED_CASES, ["0.8970 0.02483 4 - 0.8281 0.9660", "0.9408 0.01615 4 - 0.8960 0.9857"]),
    ],
)
def test_van_dyke_gives_the_printed_areas_of_each_modality(analyses, kind, printed):
    for mean, text in zip(analyses[kind].means, printed, strict=True):
        assert_prints(mean, text)


def test_van_dyke_gives_the_printed_difference_of_each_reader(van_dyke):
    printed = [
        "-0.0282 0.0255 inf 0.2693 -0.0782 0.0218",
        "-0.0465 0.0263 inf 0.0768 -0.0981 0.0050",
        "-0.0179 0.0312 inf 0.5668 -0.0790 0.0433",
        "-0.0262 0.0173 inf 0.1290 -0.0601 0.0076",
        "-0.1002 0.0441 inf 0.0230 -0.1865 -0.0138",
    ]
    for estimate, text in zip(mrmc.by_reader(van_dyke, tuple("01234"), (0, 1)), printed, strict=True):
        assert_prints(estimate, text)


def test_the_area_of_hanley_and_mcneil_has_its_printed_digits():
    """Hanley and McNeil (1982, Radiology 143:29), table I: ratings of 58 normal and 51 abnormal CTs, area 0.893."""
    normal, abnormal = [33, 6, 6, 11, 2], [3, 2, 2, 11, 33]
    scores = np.concatenate([np.repeat(range(5), normal), np.repeat(range(5), abnormal)])
    truth = np.repeat([False, True], [58, 51])
    parts = roc.areas(scores[None], truth)
    assert parts.area[0].round(3) == 0.893
    false, true = roc.curve(scores, truth)
    assert np.trapezoid(true, false) == pytest.approx(parts.area[0], abs=1e-12)


def simulated(generator, *, readers=4, sick=25, sound=35, gap=0.0, size=None) -> tuple[np.ndarray, np.ndarray]:
    """Scores (modality, reader, case) of the model of Roe and Metz (1997, Acad Radiol 4:298), and the truth."""
    shape = () if size is None else (size,)
    cases = sick + sound
    truth = np.arange(cases) >= sound

    def normal(variance: float, *extent: int) -> np.ndarray:
        return np.sqrt(variance) * generator.standard_normal((*shape, *extent))

    scores = (
        normal(0.011, 1, readers, 1) * truth
        + normal(0.011, 2, readers, 1) * truth
        + normal(0.3, 1, 1, cases)
        + normal(0.3, 2, 1, cases)
        + normal(0.2, 1, readers, cases)
        + normal(0.2, 2, readers, cases)
    )
    return scores + truth * (1.5 + gap * np.array([0.0, 1.0])[:, None, None]), truth


def test_covariances_are_those_of_leaving_cases_out_and_of_delongs_definition():
    scores, truth = simulated(np.random.default_rng(0), readers=3, sick=7, sound=9)
    sets = scores.reshape(6, -1).round(0)

    def pairs(a, b):
        return (np.sign(a[:, :, None] - b[:, None, :]) + 1) / 2

    def area(keep):
        return pairs(sets[:, keep & truth], sets[:, keep & ~truth]).mean(axis=(1, 2))

    every = np.ones(16, bool)
    parts = roc.areas(sets, truth)
    assert parts.area == pytest.approx(area(every))
    left_out = np.array([area(every & (np.arange(16) != case)) for case in range(16)])
    jackknife = 15 / 16 * sum(np.outer(row, row) for row in left_out - left_out.mean(axis=0))
    assert roc.jackknife_covariance(parts) == pytest.approx(jackknife)
    above = pairs(sets[:, truth], sets[:, ~truth])
    delong = np.cov(above.mean(axis=2)) / 7 + np.cov(above.mean(axis=1)) / 9
    assert roc.delong_covariance(parts) == pytest.approx(delong)


def test_components_are_means_over_their_pairs():
    generator = np.random.default_rng(1)
    fom, factor = generator.normal(size=(3, 4)), generator.normal(size=(12, 40))
    covariance = (factor @ factor.T).reshape(3, 4, 3, 4)
    parts = mrmc.components(fom, covariance)
    pairs = list(product(range(3), range(4), range(3), range(4)))

    def mean(same_modality, same_reader):
        return np.mean(
            [covariance[k] for k in pairs if (k[0] == k[2]) == same_modality and (k[1] == k[3]) == same_reader]
        )

    found = (parts.variance, parts.cov1, parts.cov2, parts.cov3)
    assert found == pytest.approx((mean(True, True), mean(False, True), mean(True, False), mean(False, False)))
    assert parts.cov2_each.mean() == pytest.approx(parts.cov2)
    assert parts.reader_cov1.mean() == pytest.approx(parts.cov1)
    assert parts.variance_each.mean() == pytest.approx(parts.reader_variance.mean())


def p_of(scores: np.ndarray, truth: np.ndarray, kind: str) -> float:
    modalities, readers, cases = scores.shape
    parts = roc.areas(scores.reshape(-1, cases), truth)
    covariance = roc.delong_covariance(parts).reshape(modalities, readers, modalities, readers)
    found = mrmc.analyze(mrmc.components(parts.area.reshape(modalities, readers), covariance), ("CT", "CT+map"))
    return next(analysis.p for analysis in found if analysis.kind == kind)


def test_equal_modalities_are_called_different_in_about_five_of_hundred_studies():
    many, truth = simulated(np.random.default_rng(2), size=400)
    rejected = np.mean([p_of(scores, truth, mrmc.RANDOM) < 0.05 for scores in many])
    print(f"type I error {rejected:.3f} in {len(many)} studies without a difference")
    assert 0.015 < rejected < 0.075


def test_a_real_difference_is_found_in_most_studies():
    many, truth = simulated(np.random.default_rng(3), size=100, sick=60, sound=60, gap=1.0)
    assert np.mean([p_of(scores, truth, mrmc.RANDOM) < 0.05 for scores in many]) > 0.8


def test_what_one_reader_one_modality_and_scores_without_variation_allow():
    scores, truth = simulated(np.random.default_rng(4))
    one_reader = mrmc.components(np.array([[0.8], [0.9]]), np.eye(2).reshape(2, 1, 2, 1) * 0.001)
    assert [analysis.kind for analysis in mrmc.analyze(one_reader, ("a", "b"))] == [mrmc.FIXED_READERS]
    parts = roc.areas(scores[0], truth)
    one_modality = mrmc.components(parts.area[None], roc.delong_covariance(parts)[None, :, None, :])
    for analysis in mrmc.analyze(one_modality, ("a",)):
        assert analysis.p is None
        assert analysis.differences == ()
        assert analysis.means[0].low < parts.area.mean() < analysis.means[0].high
    same = mrmc.analyze(mrmc.components(np.full((2, 3), 0.9), np.zeros((2, 3, 2, 3))), ("a", "b"))
    assert all(np.isnan(analysis.p) and np.isnan(analysis.differences[0].p) for analysis in same)
