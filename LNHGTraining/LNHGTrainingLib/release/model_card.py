"""The model card: measured results go into `model.json`, and the README beside it is rendered from there."""

import json
from pathlib import Path

from LNHGLib.files.atomic import atomic_file
from LNHGLib.files.text import markdown_table, write_json
from LNHGLib.models.card import SECOND

from LNHGTrainingLib.evaluation import markdown

PARTS = ("grid", "window_hu", "generator", SECOND, "detector", "fusion", "classifier", "probability", "threshold")
"""Keys of a card that say how the model works."""


def update(folder: Path, report: dict) -> None:
    """Put an evaluation into a model's card and write its README anew.

    Results that were measured with other weights than those the card lists now, or by another version's rules, are
    dropped.

    Args:
        folder: The model folder with `model.json`.
        report: The `summary.json` that the evaluation wrote.

    Raises:
        ValueError: The evaluation is of other weights than the card's.
    """
    card = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    if report["model"]["sha256"] != card["files"]:
        raise ValueError(f"The evaluation is of other weights than those of {folder}; evaluate the model again.")
    kept = {
        kind: old
        for kind, old in card.get("results", {}).items()
        if old.get("schema") == report["schema"] and old["model"]["sha256"] == card["files"]
    }
    card["results"] = kept | {report["kind"]: {key: value for key, value in report.items() if key != "nodules"}}
    write(folder, card)


def write(folder: Path, card: dict) -> None:
    """Replace `model.json` in one step and render the README beside it.

    Args:
        folder: The model folder.
        card: The new content of `model.json`.
    """
    with atomic_file(folder / "model.json") as part:
        write_json(part, card)
    write_readme(folder, card)


def write_readme(folder: Path, card: dict) -> None:
    """Write README.md of a model folder from its card.

    Args:
        folder: The model folder.
        card: The content of `model.json`.
    """
    model = markdown_table(["part", "value"], [[key, _text(card[key])] for key in PARTS if key in card])
    about = (
        f"# {card['name']}\n\n{card.get('description', '')}\n\n"
        "Written by `lnhg-train evaluate --write-card` from `model.json`.\n\n"
        f"Licence: {card.get('licence', 'not stated')}\n\n"
        f"## Model\n\n{model}\n"
    )
    if "calibration" in card:
        thresholds = markdown_table(["item", "value"], _flat(card["calibration"]))
        by = "validation crops and whole scans" if "probability" in card else "validation crops"
        about += f"## Thresholds, chosen on {by}\n\n{thresholds}\n"
    training = dict(card.get("training", {}))
    patients = len(training.pop("train_patients", []))
    steps = [*_flat(training), *([["patients", patients]] if patients else [])]
    if steps:
        about += f"## Training\n\n{markdown_table(['item', 'value'], steps)}"
    results = [markdown.render(report, level=2) for _, report in sorted(card.get("results", {}).items())]
    text = "\n".join([about, *(results or ["No results were measured yet.\n"])])
    (folder / "README.md").write_text(text, encoding="utf-8")


def _flat(value: dict, prefix: str = "") -> list[list[str]]:
    """Return the rows of a nested table, names joined by dots."""
    rows = []
    for key, item in value.items():
        rows += _flat(item, f"{prefix}{key}.") if isinstance(item, dict) else [[f"{prefix}{key}", _text(item)]]
    return rows


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value)
    return str(value)
