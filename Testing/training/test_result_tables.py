import json
import re

import pytest
import result_tables

TEXTS = {page: page.read_text() for page in result_tables.pages()}


def test_the_measured_results_are_those_of_the_bundled_model():
    card = json.loads(result_tables.CARD.read_text())
    assert {"crops", "scans"} <= card["results"].keys()
    for report in card["results"].values():
        assert report["model"]["sha256"] == card["files"]
    before = card["training"]["rounded_from"]  # the same weights in float32
    (fold,) = json.loads((result_tables.STUDIES / "parts-bundled.json").read_text())["folds"]
    assert fold["files"] == card["files"]
    assert fold["saw"] == []
    study = json.loads((result_tables.STUDIES / "leakage.json").read_text())
    for name in ("generator.safetensors", "second_generator.safetensors"):
        assert {card["files"][name], before[name]} & set(re.findall(r"[0-9a-f]{64}", study["sources"][card["name"]]))


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_a_page_shows_the_results_as_measured(page):
    assert result_tables.with_tables(page, TEXTS[page], result_tables.read_tables()) == TEXTS[page]


def test_every_table_stands_in_a_page():
    written = "".join(TEXTS.values())
    assert {f"<!-- {name}:" in written for name in result_tables.read_tables()} == {True}


def test_the_results_page_shows_the_plots_of_the_results():
    shown = re.findall(r"!\[[^]]+\]\((\S+)\)", TEXTS[result_tables.RESULTS])
    plots = {f"../Resources/Plots/{name}.png" for name in ("froc", "dice_vs_diameter", "bland_altman", "examples")}
    assert plots <= set(shown)
    for path in shown:
        assert (result_tables.RESULTS.parent / path).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "table"), [("summary", result_tables.summary_of_card), ("results", result_tables.tables_of_card)]
)
def test_a_changed_result_changes_its_page(name, table):
    card = json.loads(result_tables.CARD.read_text())
    card["results"]["crops"]["groups"]["all"]["dice_all"]["value"] = 0.123456
    page = result_tables.PAGES.get(name, result_tables.RESULTS)
    assert "0.123 (" not in TEXTS[page]
    assert "0.123 (" in result_tables.with_tables(page, TEXTS[page], {name: table(card)})


def test_a_place_that_is_missing_is_named():
    page = result_tables.RESULTS
    with pytest.raises(ValueError, match=r"results.md has the marks of 'speed' 0 times"):
        result_tables.with_tables(page, TEXTS[page], {"speed": "fast"})
