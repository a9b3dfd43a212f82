"""The tables of the paper and its supplement beside ours, recomputed where the register of contradictions says so."""

import tomllib
from collections.abc import Sequence

from LNHGLib.files.text import markdown_table

from LNHGTrainingLib.evaluation.compare import Evaluation
from LNHGTrainingLib.evaluation.markdown import interval, number
from LNHGTrainingLib.paths import RESOURCES

PAPER_TABLES = RESOURCES / "paper-tables.toml"
SETTING = {"crops": "location given", "scans": "whole scans"}
DICE = {"dice_found": "found only", "dice_all": "missed = 0", "human_loo_dice": "the readers themselves"}
"""Our metrics beside the paper's: its own rule (matched nodules alone), the strict one, and the human bar."""


def published() -> dict:
    """Return the paper's tables as printed."""
    return tomllib.loads(PAPER_TABLES.read_text(encoding="utf-8"))


def render(evaluations: Sequence[Evaluation], detected: dict | None = None) -> str:
    """Return the tables as Markdown.

    Args:
        evaluations: Of ours, on crops or on whole scans; none gives the paper's tables alone.
        detected: What `detectors.read` returned, for the supplement's detector.
    """
    paper = published()
    parts = {
        "table_1": _table_one(paper["table_1"], evaluations),
        "table_2": _table_two(paper["table_2"], evaluations),
        "table_s1": _table_s1(paper["table_s1"], [one for one in evaluations if one.summary["kind"] == "scans"]),
        "table_s2": _table_s2(paper["table_s2"], evaluations, detected),
    }
    sections = [
        f"## {paper[name]['title']}\n\n{text}\n{_notes(paper[name]['notes'])}"
        f"- Source: {paper['source'][paper[name]['source']]}.\n"
        for name, text in parts.items()
    ]
    ours = ""  # what ours were measured on, as the paper's own come from other data
    if evaluations:
        lines = [
            f"{_label(one)}: {one.summary['data']['name']}. {one.summary['split']} {one.summary['protocol']}"
            for one in evaluations
        ]
        seeds = sorted({one.summary["bootstrap"]["seed"] for one in evaluations})
        ours = (
            f"## Ours\n\n{_notes(lines)}\nIn brackets the 95 % confidence interval (patient-cluster bootstrap, seed "
            f"{' '.join(map(str, seeds))}). The data differ from the paper's: the tables show the methods side by "
            "side, they do not rank them.\n"
        )
    return "\n".join(["# The paper's tables beside ours\n", *sections, ours])


def methods(part: dict) -> dict[str, list[float]]:
    """Return the rows of a table of the paper: those that are lists of numbers."""
    return {name: row for name, row in part.items() if isinstance(row, list) and isinstance(row[0], int | float)}


def _percent(metric: dict) -> dict:
    return {key: None if value is None else 100 * value for key, value in metric.items()}


def _table_one(part: dict, evaluations: Sequence[Evaluation]) -> str:
    """Return Table I with ours, and what the register corrects: U7, U12."""
    rows = [[name, *(number(value, 2) for value in row), number(row[0] - row[1], 2)]
            for name, row in methods(part).items()]  # fmt: skip
    for one in evaluations:
        whole = one.summary["groups"]["all"]
        rows += [[f"{_label(one)}, {text}", "-", interval(_percent(whole[key]), 2), "-"] for key, text in DICE.items()]
    header = ["method", *part["columns"], "training minus test, recomputed"]
    printed, hybrid = methods(part), part["hybrid"]
    mean = sum(printed[name][1] for name in hybrid["of"]) / len(hybrid["of"])
    gaps = {name: row[0] - row[1] for name, row in printed.items()}
    largest = max(gaps, key=gaps.__getitem__)
    return (
        f"{markdown_table(header, rows)}\n"
        f"- Mean of {' and '.join(hybrid['of'])} on test: {mean:.3f} (printed {hybrid['printed_mean']}); gain of LNHG "
        f"over it {printed['LNHG'][1] - mean:.3f} (printed {hybrid['printed_gain']}; register U7).\n"
        f"- Largest gap between training and test: {largest}, {gaps[largest]:.2f}, which the paper calls the best "
        "generalizability (register U12).\n"
    )


def _table_two(part: dict, evaluations: Sequence[Evaluation]) -> str:
    rows = [[name, *(number(value, 2) for value in row)] for name, row in methods(part).items()]
    for one in evaluations:
        groups = [one.summary["groups"].get(name) for name in part["groups"]]
        rows += [
            [f"{_label(one)}, {text}", *(interval(_percent(group[key]), 2) if group else "-" for group in groups)]
            for key, text in DICE.items()
        ]
        rows.append([f"{_label(one)}, nodules", *(group["nodules"] if group else 0 for group in groups)])
    return markdown_table(["method", *part["columns"]], rows)


def rates(true: int, false: int, missed: int) -> tuple[float, float, float]:
    """Return precision, recall and F1 in percent.

    Args:
        true: True positives.
        false: False positives.
        missed: False negatives.
    """
    return 100 * true / (true + false), 100 * true / (true + missed), 200 * true / (2 * true + false + missed)


def corrected(part: dict) -> dict[str, list[float]]:
    """Return the rows of Table S1 with the counts that the register corrects."""
    rows = {name: list(row) for name, row in methods(part).items()}
    for one in part["corrections"]:
        rows[one["method"]][part["columns"].index(one["column"])] = one["value"]
    return rows


def _table_s1(part: dict, evaluations: Sequence[Evaluation]) -> str:
    rows = []
    for name, (true, false, missed, *printed) in corrected(part).items():
        own = (number(value, 2) for value in rates(true, false, missed))
        rows.append([name, true, false, missed, *own, *(number(value, 1) for value in printed)])
    for one in evaluations:
        point = one.summary["operating_point"]["consensus"]
        own = (interval(_percent(point[key]), 2) for key in ("precision", "sensitivity", "f1"))
        counts = (point["hits"], point["false"], point["nodules"] - point["hits"])
        rows.append([_label(one), *counts, *own, "-", "-", "-"])
    names = [*(f"{name}, recomputed" for name in part["printed"]), *(f"{name}, printed" for name in part["printed"])]
    reasons = _notes([f"{one['method']}: {one['why']}." for one in part["corrections"]])
    return f"{markdown_table(['method', *part['columns'], *names], rows)}\n{reasons.rstrip()}"


def _table_s2(part: dict, evaluations: Sequence[Evaluation], detected: dict | None) -> str:
    """Return what the supplement says of the detector alone and of the readers, with ours."""
    rows = [
        [name, *(number(value, 2) for value in row), number(2 * row[0] * row[1] / sum(row), 2)]
        for name, row in methods(part).items()
    ]
    if detected:
        rows += [
            [f"**{one['name']}** (crops of fold {detected['fold']})",
             *(interval(_percent(one[key]), 2) for key in ("precision", "recall", "f1"))]
            for one in detected["detectors"]
        ]  # fmt: skip
    printed = part["readers"]
    readers = [["printed", f"{printed['dice']:.1f} ({printed['low']} to {printed['high']})"]]
    readers += [
        [_label(one), interval(_percent(one.summary["groups"]["all"]["human_loo_dice"]), 2)] for one in evaluations
    ]
    return (
        f"{markdown_table(['detector', *part['columns'], 'F1, recomputed'], rows)}\n"
        f"{markdown_table(['readers of', 'Dice'], readers)}\n- The readers printed: {printed['why']}.\n"
    )


def _notes(sentences: Sequence[str]) -> str:
    return "".join(f"- {sentence}\n" for sentence in sentences)


def _label(evaluation: Evaluation) -> str:
    return f"**{evaluation.name}** ({SETTING[evaluation.summary['kind']]})"
