import inspect

import pytest
from LNHGLib.measurement import size_rules
from LNHGLib.measurement.size_rules import FLEISCHNER, LUNG_RADS, RULES, fleischner, lung_rads


@pytest.mark.parametrize(
    ("long", "short", "attenuation", "mean", "band"),
    [
        (6.0, 4.9, "solid", 5, "solid below 6 mm"),  # 5.45
        (6.0, 5.0, "solid", 6, "solid 6 to 8 mm"),  # 5.5: a half is rounded up
        (9.0, 7.9, "solid", 8, "solid 6 to 8 mm"),  # 8.45
        (9.0, 8.0, "solid", 9, "solid above 8 mm"),  # 8.5
        (5.5, 5.49, "ground-glass", 5, "subsolid below 6 mm"),
        (8.0, 4.0, "ground-glass", 6, "subsolid 6 mm or more"),
        (12.0, 10.0, "part-solid", 11, "subsolid 6 mm or more"),
        (9.0, 8.0, "calcified", 9, "solid above 8 mm"),
    ],
)
def test_fleischner_rounds_the_mean_to_whole_millimeters(long, short, attenuation, mean, band):
    found = fleischner(long, short, attenuation)
    assert (found.mean_diameter_mm, found.band) == (mean, band)


@pytest.mark.parametrize(
    ("long", "short", "attenuation", "mean", "band"),
    [
        (6.04, 5.84, "solid", 5.9, "solid below 6 mm"),  # 6.0 and 5.8: 5.9, where the raw mean is 5.94
        (6.05, 5.85, "solid", 6.0, "solid 6 to below 8 mm"),  # 6.1 and 5.9
        (6.0, 5.9, "solid", 6.0, "solid 6 to below 8 mm"),  # 5.95: a half is rounded up
        (8.0, 7.8, "solid", 7.9, "solid 6 to below 8 mm"),
        (8.2, 7.8, "solid", 8.0, "solid 8 to below 15 mm"),
        (15.0, 15.0, "solid", 15.0, "solid 15 mm or more"),
        (7.0, 4.9, "part-solid", 6.0, "part-solid 6 mm or more"),
        (30.0, 29.8, "ground-glass", 29.9, "non-solid below 30 mm"),
        (30.0, 30.0, "ground-glass", 30.0, "non-solid 30 mm or more"),
        (7.0, 7.0, "calcified", 7.0, "solid 6 to below 8 mm"),
    ],
)
def test_lung_rads_rounds_both_axes_and_their_mean_to_a_tenth(long, short, attenuation, mean, band):
    found = lung_rads(long, short, attenuation)
    assert (found.mean_diameter_mm, found.band) == (mean, band)


@pytest.mark.parametrize("rule", RULES)
def test_every_category_names_its_rule_with_version_and_research_use(rule):
    text = str(RULES[rule](7.0, 6.0, "solid"))
    assert rule in text
    assert "research use" in text


def test_what_is_not_measured_is_said():
    assert "solid part not measured" in str(lung_rads(9, 8, "part-solid"))
    assert "bands of solid" in str(fleischner(9, 8, "calcified"))


def test_rules_and_sources_stand_in_the_documentation_and_nothing_advises():
    text = inspect.getdoc(size_rules)
    assert FLEISCHNER in text
    assert LUNG_RADS in text
    assert "Radiology 2017;284:228-243" in text
    for word in ("follow-up", "biopsy", "malignan", "category 4", "months"):
        assert word not in inspect.getsource(size_rules).lower()
