"""Write the measured results into README.md and docs/: `python Testing/tools/result_tables.py`.

The tables of the bundled model come from its card, where `lnhg-train evaluate --write-card` wrote them. The tables of
the studies come from Resources/Studies. That folder holds the JSON files that `lnhg-train leakage`, `stability`,
`crossvalidate` (of models) and `compare` wrote, and folders of evaluations, which are compared here. docs/paper.md has
what `lnhg-train paper --studies Resources/Studies` prints. Each table stands between two marker lines of a page.
Testing/training/test_result_tables.py holds the pages equal to the results.
"""

import json
import re
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pasted_masses
import precision
import speed
from LNHGLib.files.text import markdown_table
from LNHGTrainingLib.baselines import detectors, lung_isolation, method_results, wand_study
from LNHGTrainingLib.evaluation import compare, detection, map_study, markdown, metrics, published
from LNHGTrainingLib.evaluation.summary import GROUPS
from LNHGTrainingLib.release import probability

ROOT = Path(__file__).parents[2]
CARD = ROOT / "LNHGSegmentation" / "Resources" / "Models" / "lnhg-1mm" / "model.json"
STUDIES = ROOT / "Resources" / "Studies"
SYSTEMS = "systems"
"""Name of the table of all systems, and of the folder with what only it shows."""
FAINT = "faint"
"""Name of the table of what cutting faint findings lower changes, and of the evaluation without it."""
PAGES = {"summary": ROOT / "README.md", "leakage": ROOT / "docs" / "heterogeneity.md"}
PAGES["seconds"], PAGES["stability"] = PAGES["summary"], PAGES["leakage"]
PAGES["paper"] = ROOT / "docs" / "paper.md"
PAGES |= dict.fromkeys([*set(speed.TABLES) - {SYSTEMS}, "precision"], ROOT / "docs" / "performance.md")
RESULTS = ROOT / "docs" / "results.md"
"""The page of every table that `PAGES` does not name."""
MARKS = "<!-- {}: written by Testing/tools/result_tables.py -->\n", "<!-- end of {} -->\n"
MAIN_GROUPS = ("all", "under 6 mm", "6 to 10 mm", "10 mm and over")
GROUPED_BY = ("diameter_mm", "texture", "juxta_pleural", "juxta_vascular", "readers")
MARGIN = 0.05
"""Of equivalence, in Dice."""
RENDERERS = {
    "trainings": compare.render_trainings,
    "detection": detection.render,
    "detectors": detectors.render,
    "lungs": lung_isolation.render,
    "wand": wand_study.render,
    "masses": pasted_masses.render,
    "precision": precision.render,
    "probability": probability.render,
}
"""Of studies, by their kind."""
PARTS = {"scans": 3, "crops": 4}
"""Blocks of a report that are shown: its title, its sentence and the first tables."""


def read_tables() -> dict[str, str]:
    """Return the text between the marks, by the name in the marks."""
    card = json.loads(CARD.read_text())
    tables = {"summary": summary_of_card(card), "results": tables_of_card(card)}
    tables["paper"] = published.render(published.of_studies(STUDIES)).split("\n\n", 1)[1].strip().replace("## ", "### ")
    for path in sorted(STUDIES.iterdir()):
        if path.name == SYSTEMS:
            tables[SYSTEMS] = method_results.render(STUDIES).strip()
            continue
        if path.name == FAINT:
            tables[FAINT] = table_by_type(path, STUDIES / SYSTEMS / "lnhg-1mm")
            continue
        if path.stem == "published":
            tables["seconds"] = speed.render_in_a_sentence(json.loads(path.read_text()))
        tables[path.stem] = tables_of_study(compared(path) if path.is_dir() else json.loads(path.read_text()))
    return tables


def compared(folder: Path) -> dict:
    """Return the comparison of the evaluations in a folder."""
    return compare.compare(compare.read_evaluations(sorted(folder.iterdir())), MARGIN)


def table_by_type(before: Path, after: Path) -> str:
    """Return one table of two evaluations: the Dice by size and type of nodule and the paired difference."""
    old, new = map(compare.read_evaluation, (before, after))
    rows = []
    for group, values in old.summary["groups"].items():
        numbers = [
            key
            for key, row in old.rows.items()
            if GROUPS[group](SimpleNamespace(**{name: float(row[name] or "nan") for name in GROUPED_BY}))
        ]
        apart = np.array([float(new.rows[key]["dice"]) - float(old.rows[key]["dice"]) for key in numbers])
        difference = asdict(metrics.mean_interval(apart, [key[0] for key in numbers]))
        cells = (values["human_loo_dice"], values["dice_all"], new.summary["groups"][group]["dice_all"], difference)
        rows.append([group, len(numbers), *map(markdown.interval, cells)])
    return markdown_table(
        ["nodules", "n", "readers' Dice", "one threshold", "lower for faint ones", "difference"], rows
    ).strip()


def summary_of_card(card: dict) -> str:
    """Return one table of a model's card: what it finds on whole scans, and how well it outlines at a given place."""
    scans, crops = (card["results"][kind] for kind in ("scans", "crops"))
    point, cubes = scans["operating_point"]["consensus"], crops["groups"]["all"]
    where = {
        f"whole scans, fully automatic ({point['scans']} scans)": (
            scans,
            markdown.interval(point["false_per_scan"], 2),
        ),
        f"place given ({cubes['nodules']} nodules of {cubes['patients']} patients)": (crops, "-"),
    }
    rows = []
    for data, (report, false) in where.items():
        group = report["groups"]["all"]
        dices = [markdown.interval(group[key]) for key in ("dice_all", "human_loo_dice")]
        rows.append([data, f"{group['found']} of {group['nodules']}", *dices, false])
    header = ["data", "nodules found", "mean Dice, missed = 0", "the readers' own Dice", "false findings per scan"]
    return markdown_table(header, rows)


def tables_of_card(card: dict) -> str:
    """Return the main tables of a model's card."""
    return "\n\n".join(
        "\n\n".join(markdown.render(_with_main_groups(card["results"][kind]), level=3).split("\n\n")[:blocks])
        for kind, blocks in PARTS.items()
    )


def tables_of_study(report: dict) -> str:
    """Return the tables of a comparison without its sources, or of another study; of maps over nodules of all sizes."""
    if report["kind"] in RENDERERS:
        blocks = RENDERERS[report["kind"]](report).strip().split("\n\n")
        return "\n\n".join(blocks[blocks[0].startswith("# ") :])  # a page of its own has a title
    if "methods" in report:
        methods = [_with_main_groups(method) for method in report["methods"]]
        _, *blocks, _ = compare.render(report | {"methods": methods}).split("\n\n")
        return "\n\n".join(blocks)
    if report["kind"] in speed.TABLES:
        return speed.render(report).strip()
    lines = [line for line in report["lines"] if line["size"] == "all"]
    _, _, *blocks, note, data = map_study.render(report | {"lines": lines, "sources": {}}).strip().split("\n\n")
    return "\n\n".join([*blocks, f"{note} {data.removeprefix('- ')}."])


def with_tables(page: Path, text: str, tables: dict[str, str]) -> str:
    """Return a page's text with each of its tables between its marks.

    Args:
        page: the page, which decides which tables belong there.
        text: its text.
        tables: by name.

    Raises:
        ValueError: the text does not have both marks of a table once.
    """
    for name, body in tables.items():
        if PAGES.get(name, RESULTS) != page:
            continue
        start, end = (re.escape(mark.format(name)) for mark in MARKS)
        text, count = re.subn(f"(?<={start}).*?(?={end})", lambda _, body=body: f"\n{body}\n\n", text, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"{page.name} has the marks of {name!r} {count} times, expected once; mend it.")
    return text


def pages() -> list[Path]:
    """Return all pages that have tables."""
    return list(dict.fromkeys([*PAGES.values(), RESULTS]))


def _with_main_groups(report: dict) -> dict:
    return report | {"groups": {name: group for name, group in report["groups"].items() if name in MAIN_GROUPS}}


if __name__ == "__main__":
    written = read_tables()
    for page in pages():
        page.write_text(with_tables(page, page.read_text(), written))
