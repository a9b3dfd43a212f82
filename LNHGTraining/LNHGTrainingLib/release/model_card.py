"""The model card: measured results go into `model.json`, and the README beside it is rendered from there."""

import json
from pathlib import Path

from LNHGLib.files.atomic import atomic_file
from LNHGLib.models.folder import SECOND

from LNHGTrainingLib import output_files
from LNHGTrainingLib.evaluation import markdown

PARTS = ("grid", "window_hu", "generator", SECOND, "detector", "fusion", "threshold")


def update(folder: Path, report: dict) -> None:
    """Put an evaluation into a model's card and write its README anew.

    Results that were measured with other weights than those the card lists now, or by another version's rules, are
    dropped.

    Args:
        folder: The model folder with `model.json`.
        report: The `summary.json` that the evaluation wrote.

    Raises:
        ValueError: the evaluation is of other weights than the card's.
    """
    card = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    if report["model"]["sha256"] != card["files"]:
        raise ValueError(f"The evaluation is of other weights than those of {folder}; evaluate the model again.")
    kept = {kind: old for kind, old in card.get("results", {}).items() if _still_holds(old, report, card)}
    card["results"] = kept | {report["kind"]: {key: value for key, value in report.items() if key != "nodules"}}
    write(folder, card)


def _still_holds(old: dict, report: dict, card: dict) -> bool:
    return old.get("schema") == report["schema"] and old["model"]["sha256"] == card["files"]


def write(folder: Path, card: dict) -> None:
    """Replace `model.json` in one step and render the README beside it."""
    with atomic_file(folder / "model.json") as part:
        output_files.write_json(card, part)
    write_readme(folder, card)


def write_readme(folder: Path, card: dict) -> None:
    """Write README.md of a model folder from its card."""
    results = [markdown.render(report, level=2) for _, report in sorted(card.get("results", {}).items())]
    text = "\n".join([_about(card), *(results or ["No results were measured yet.\n"])])
    (folder / "README.md").write_text(text, encoding="utf-8")


def _about(card: dict) -> str:
    rows = [[key, _text(card[key])] for key in PARTS if key in card]
    training = {key: value for key, value in card.get("training", {}).items() if key != "train_patients"}
    patients = len(card.get("training", {}).get("train_patients", []))
    steps = [*_flat(training), *([["patients", patients]] if patients else [])]
    return (
        f"# {card['name']}\n\n{card.get('description', '')}\n\n"
        "Written by `lnhg-train evaluate --write-card` from `model.json`.\n\n"
        f"Licence: {card.get('licence', 'not stated')}\n\n"
        f"## Model\n\n{markdown.table(['part', 'value'], rows)}\n"
        + _calibration(card)
        + (f"## Training\n\n{markdown.table(['item', 'value'], steps)}" if steps else "")
    )


def _calibration(card: dict) -> str:
    if "calibration" not in card:
        return ""
    rows = _flat(card["calibration"])
    return f"## Thresholds, chosen on validation crops\n\n{markdown.table(['item', 'value'], rows)}\n"


def _flat(value: dict, prefix: str = "") -> list[list[str]]:
    """Rows of a nested table, names joined by dots."""
    rows = []
    for key, item in value.items():
        rows += _flat(item, f"{prefix}{key}.") if isinstance(item, dict) else [[f"{prefix}{key}", _text(item)]]
    return rows


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value)
    return str(value).replace("|", "\\|")
