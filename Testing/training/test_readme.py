import json
import re

import pytest
import readme_results

TEXT = readme_results.README.read_text()


def test_the_readme_shows_the_results_of_the_bundled_model_as_measured():
    card = json.loads(readme_results.CARD.read_text())
    assert {"crops", "scans"} <= card["results"].keys()
    for report in card["results"].values():
        assert report["model"]["sha256"] == card["files"]
    study = json.loads((readme_results.STUDIES / "branches.json").read_text())
    assert study["files"] == card["files"]
    study = json.loads((readme_results.STUDIES / "leakage.json").read_text())
    for name in ("generator.safetensors", "second_generator.safetensors"):
        assert card["files"][name] in study["sources"][card["name"]]
    assert readme_results.with_blocks(TEXT, readme_results.read_blocks()) == TEXT


def test_the_readme_shows_the_plots_of_the_results():
    shown = re.findall(r"!\[[^]]+\]\((\S+)\)", TEXT)
    plots = {f"Resources/Plots/{name}.png" for name in ("froc", "dice_vs_diameter", "bland_altman", "examples")}
    assert plots <= set(shown)
    for path in shown:
        assert (readme_results.ROOT / path).read_bytes().startswith(b"\x89PNG")


def test_a_changed_figure_changes_the_readme():
    card = json.loads(readme_results.CARD.read_text())
    card["results"]["crops"]["groups"]["all"]["dice_all"]["value"] = 0.123456
    assert "0.123 (" not in TEXT
    assert "0.123 (" in readme_results.with_blocks(TEXT, {"results": readme_results.of_card(card)})


def test_a_results_place_that_is_missing_is_named():
    with pytest.raises(ValueError, match="'speed' 0 times"):
        readme_results.with_blocks(TEXT, {"speed": "fast"})
