"""Put measured results into README.md: `python Testing/tools/readme_results.py`.

The bundled model's main tables come from its card, where `lnhg-train evaluate --write-card` wrote them; the tables of
the studies from Resources/Studies, which holds the JSON files that `lnhg-train leakage`, `stability`, `branches` and
`compare` wrote, and folders of evaluations, which are compared here. Each stands between two marker lines.
Testing/training/test_readme.py compares.
"""

import json
import re
from pathlib import Path

from LNHGTrainingLib.evaluation import branch_ablation, compare, map_study, markdown

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
CARD = ROOT / "LNHGSegmentation" / "Resources" / "Models" / "lnhg-1mm" / "model.json"
STUDIES = ROOT / "Resources" / "Studies"
MARKS = "<!-- {}: written by Testing/tools/readme_results.py -->\n", "<!-- end of {} -->\n"
MAIN_GROUPS = ("all", "under 6 mm", "6 to 10 mm", "10 mm and over")
MARGIN = 0.05
"""Of equivalence, in Dice."""
PARTS = {"scans": 3, "crops": 4}
"""Blocks of a report that the README shows: its title, its sentence and the first tables."""


def read_blocks() -> dict[str, str]:
    """What stands between the marks, by the name in the marks."""
    blocks = {"results": of_card(json.loads(CARD.read_text()))}
    blocks |= {path.stem: of_study(json.loads(path.read_text())) for path in sorted(STUDIES.glob("*.json"))}
    return blocks | {folder.name: of_study(compared(folder)) for folder in sorted(STUDIES.iterdir()) if folder.is_dir()}


def compared(folder: Path) -> dict:
    """The comparison of the evaluations in a folder."""
    return compare.compare(compare.read_evaluations(sorted(folder.iterdir())), MARGIN)


def of_card(card: dict) -> str:
    """The main tables of a model's card."""
    return "\n\n".join(_main_part(card["results"][kind], blocks) for kind, blocks in PARTS.items())


def of_study(report: dict) -> str:
    """The tables of a study: of a comparison without its sources, of branches, or of maps over nodules of all sizes."""
    if "methods" in report:
        methods = [method | {"groups": _main_groups(method)} for method in report["methods"]]
        _, *blocks, _ = compare.render(report | {"methods": methods}).split("\n\n")
        return "\n\n".join(blocks)
    if report["kind"] == "branches":
        return "\n\n".join(branch_ablation.render(report).strip().split("\n\n")[1:])
    lines = [line for line in report["lines"] if line["size"] == "all"]
    _, _, table, note, data = map_study.render(report | {"lines": lines, "sources": {}}).strip().split("\n\n")
    return f"{table}\n\n{note} {data.removeprefix('- ')}."


def with_blocks(text: str, blocks: dict[str, str]) -> str:
    """The README's text with each block between its marks.

    Raises:
        ValueError: the text has not both marks of a block.
    """
    for name, body in blocks.items():
        start, end = (re.escape(mark.format(name)) for mark in MARKS)
        text, count = re.subn(f"(?<={start}).*?(?={end})", lambda _, body=body: f"\n{body}\n\n", text, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"README.md has the marks of {name!r} {count} times, expected once; mend it.")
    return text


def _main_part(report: dict, blocks: int) -> str:
    return "\n\n".join(markdown.render(report | {"groups": _main_groups(report)}, level=3).split("\n\n")[:blocks])


def _main_groups(report: dict) -> dict:
    return {name: group for name, group in report["groups"].items() if name in MAIN_GROUPS}


if __name__ == "__main__":
    README.write_text(with_blocks(README.read_text(), read_blocks()))
