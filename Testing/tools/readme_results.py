"""Put the bundled model's main results into README.md: `python Testing/tools/readme_results.py`.

The tables stand between two marker lines and come from the model's card, where `lnhg-train evaluate --write-card` wrote
them; the model's own README has all of them. Testing/training/test_readme.py compares.
"""

import json
import re
from pathlib import Path

from LNHGTrainingLib import tables

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
CARD = ROOT / "LNHGSegmentation" / "Resources" / "Models" / "lnhg-1mm" / "model.json"
MARKS = "<!-- results: written by Testing/tools/readme_results.py -->\n", "<!-- end of results -->\n"
MAIN_GROUPS = ("all", "under 6 mm", "6 to 10 mm", "10 mm and over")
PARTS = {"scans": 3, "crops": 4}
"""Blocks of a report that the README shows: its title, its sentence and the first tables."""


def with_results(text: str, card: dict) -> str:
    """The README's text with the main tables of the card between the marks."""
    body = "\n\n".join(_main_part(card["results"][kind], blocks) for kind, blocks in PARTS.items())
    between = re.compile(f"(?<={re.escape(MARKS[0])}).*?(?={re.escape(MARKS[1])})", re.DOTALL)
    return between.sub(lambda _: f"\n{body}\n\n", text)


def _main_part(report: dict, blocks: int) -> str:
    groups = {name: group for name, group in report["groups"].items() if name in MAIN_GROUPS}
    return "\n\n".join(tables.render(report | {"groups": groups}, level=3).split("\n\n")[:blocks])


if __name__ == "__main__":
    README.write_text(with_results(README.read_text(), json.loads(CARD.read_text())))
