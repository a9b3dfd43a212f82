import json

import readme_results


def test_the_readme_shows_the_results_of_the_bundled_model_as_measured():
    text = readme_results.README.read_text()
    card = json.loads(readme_results.CARD.read_text())
    assert {"crops", "scans"} <= card["results"].keys()
    assert text == readme_results.with_results(text, card)
    for report in card["results"].values():
        assert report["model"]["sha256"] == card["files"]


def test_a_changed_figure_changes_the_readme():
    text = readme_results.README.read_text()
    card = json.loads(readme_results.CARD.read_text())
    card["results"]["crops"]["groups"]["all"]["dice_all"]["value"] = 0.123456
    assert "0.123 (" in readme_results.with_results(text, card)
