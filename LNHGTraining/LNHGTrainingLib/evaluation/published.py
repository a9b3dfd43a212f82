"""The tables of the paper and its supplement beside ours, recomputed where the register of contradictions says so."""

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from LNHGLib.errors import InputError
from LNHGLib.files.text import markdown_table, read_json
from LNHGLib.models import folder as models
from LNHGLib.reader_study.report import ANALYSIS

from LNHGTrainingLib.baselines import methods as systems
from LNHGTrainingLib.baselines.detectors import read as read_detectors
from LNHGTrainingLib.evaluation.compare import Evaluation, read_evaluation
from LNHGTrainingLib.evaluation.markdown import in_steps, interval, number
from LNHGTrainingLib.paths import RESOURCES

PAPER_TABLES = RESOURCES / "paper-tables.toml"
PAPER = "003"
"""Number of the paper among the documents."""
SETTING = {"crops": "location given", "scans": "whole scans"}
DICE = {"dice_found": "found only", "dice_all": "missed = 0", "human_loo_dice": "the readers themselves"}
"""Our metrics beside the paper's: its own rule (matched nodules alone), the strict one, and the human bar."""


Beside = tuple[str, list[str]]
"""A table of the paper with ours in it, as Markdown, and sentences about it."""


@dataclass(frozen=True, eq=False)
class Ours:
    """What is set beside the paper's tables.

    Attributes:
        evaluations: on crops (Tables I and II) and on whole scans (external test and Table S1).
        beside: the paper's method in whose row an evaluation stands, by the evaluation's name; others follow.
        detectors: what `detectors.read` returned, for the supplement's detector.
        reader_study: what `lnhg reader-study analyse` wrote into its `analysis.json`.
    """

    evaluations: Sequence[Evaluation] = ()
    beside: Mapping[str, str] = field(default_factory=dict)
    detectors: dict | None = None
    reader_study: dict | None = None

    def of(self, kind: str) -> list[Evaluation]:
        """Return the evaluations on "crops" or on "scans"."""
        return [one for one in self.evaluations if one.summary["kind"] == kind]

    def by_method(self, kind: str, methods: Iterable[str]) -> dict[str, list[Evaluation]]:
        """Return those that stand beside each of the paper's methods, and the rest by a dash."""
        found: dict[str, list[Evaluation]] = {method: [] for method in (*methods, "-")}
        for one in self.of(kind):
            method = self.beside.get(one.name, "-")
            found[method if method in found else "-"].append(one)
        found["-"].sort(key=lambda one: one.name not in self.beside)
        return found


def published() -> dict:
    """Return the paper's tables as printed."""
    return tomllib.loads(PAPER_TABLES.read_text(encoding="utf-8"))


def of_studies(studies: Path) -> Ours:
    """Return what was measured of each system of the paper, its detectors, and what the bundled model's card has.

    Args:
        studies: the folder of the studies that Resources/methods.toml names.

    Raises:
        InputError: a study is not there.
    """
    evaluations, beside = [], {}
    for one in systems.systems():
        if PAPER not in one.document or not one.study or one.parts:  # parts of a model outline as the model does
            continue
        if one.model:
            results = models.load(one.model).card["results"]
            evaluations += [Evaluation(one.name, results[kind], {}) for kind in SETTING]
        else:
            name = ", ".join([one.name, *(in_steps(count) for count in one.steps[:1])])  # its segmenter's
            evaluations.append(Evaluation(name, read_evaluation(studies / one.study).summary, {}))
            beside |= {name: one.printed} if one.printed else {}
    return Ours(evaluations, beside, read_detectors(studies))


def read_reader_study(path: Path) -> dict:
    """Return what `lnhg reader-study analyse` wrote into a folder.

    Args:
        path: the folder.

    Raises:
        InputError: it holds no analysis with scores that can be read.
    """
    try:
        report = read_json(path / ANALYSIS)
        reader_table(published()["reader_study"], Ours(reader_study=report))
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise InputError(
            f"{path} holds no {ANALYSIS} that can be read; expected a folder that lnhg reader-study analyse wrote."
        ) from error
    return report


def render(ours: Ours, pictures: Mapping[str, str] | None = None) -> str:
    """Return the tables as Markdown.

    Args:
        ours: what is set beside them; nothing gives the paper's tables alone.
        pictures: what is seen in those that lie beside the text, by their file.
    """
    paper = published()
    sections = []
    for name, set_beside in TABLES.items():
        table, notes = set_beside(paper[name], ours)
        sections.append(f"## {paper[name]['title']}\n\n{table}\n{_notes([*notes, *paper[name]['notes']])}")
    sections += [f"## {caption}\n\n![{caption}]({file})\n" for file, caption in (pictures or {}).items()]
    if ours.evaluations:  # what ours were measured on, as the paper's own come from other data
        lines = [
            f"**{one.name}**, {SETTING[one.summary['kind']]}: {one.summary['data']['name']}. {one.summary['split']}"
            for one in ours.evaluations
        ]
        seeds = sorted({one.summary["bootstrap"]["seed"] for one in ours.evaluations})
        sections.append(
            f"## What ours were measured on\n\n{_notes(lines)}\nEach `summary.json` has the protocol. In brackets the "
            f"95 % confidence interval (patient-cluster bootstrap, seed {' '.join(map(str, seeds))}). The data differ "
            "from the paper's: the tables show the methods side by side, they do not rank them.\n"
        )
    sources = "".join(f"- The {name}: {text}.\n" for name, text in paper["source"].items())
    return "\n".join(["# The paper's tables beside ours\n", sources, *sections])


def methods(part: dict) -> dict[str, list[float]]:
    """Return the rows of a table of the paper: those that are lists of numbers."""
    return {name: row for name, row in part.items() if isinstance(row, list) and isinstance(row[0], int | float)}


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


def table_one(part: dict, ours: Ours) -> Beside:
    """Return Table I with ours, and what the register corrects: U7, U12."""
    printed, hybrid = methods(part), part["hybrid"]
    gaps = {name: row[0] - row[1] for name, row in printed.items()}
    shown = {name: [*(number(value, 2) for value in (*row, gaps[name]))] for name, row in printed.items()}
    columns = [*(f"{column}, printed" for column in part["columns"]), "training minus test, recomputed"]
    mean = sum(printed[name][1] for name in hybrid["of"]) / len(hybrid["of"])
    largest = max(gaps, key=gaps.__getitem__)
    notes = [
        f"Mean of {' and '.join(hybrid['of'])} on test: {mean:.3f} (printed {hybrid['printed_mean']}); gain of LNHG "
        f"over it {printed['LNHG'][1] - mean:.3f} (printed {hybrid['printed_gain']}; register U7).",
        f"Largest gap between training and test: {largest}, {gaps[largest]:.2f}, which the paper calls the best "
        "generalizability (register U12).",
    ]
    return _beside(shown, columns, ours, "crops"), notes


def external_table(part: dict, ours: Ours) -> Beside:
    """Return the Dice of the external test with ours on whole scans."""
    printed = {name: [number(value, 2) for value in row] for name, row in methods(part).items()}
    return _beside(printed, [f"{column}, printed" for column in part["columns"]], ours, "scans"), []


def table_two(part: dict, ours: Ours) -> Beside:
    """Return Table II: below each method's printed row ours of the same method, then the others and the readers."""
    printed, rows, readers = methods(part), [], {}
    for method, evaluations in ours.by_method("crops", printed).items():
        if method in printed:
            rows.append([method, "printed", *(number(value, 2) for value in printed[method])])
        for one in evaluations:
            groups = [one.summary["groups"].get(name) for name in part["groups"]]
            cells = {key: [interval(_percent(each[key]), 2) if each else "-" for each in groups] for key in DICE}
            rows += [[f"**{one.name}**", DICE[key], *cells[key]] for key in ("dice_found", "dice_all")]
            readers[tuple(each["nodules"] if each else 0 for each in groups)] = cells["human_loo_dice"]
    for counts, dices in readers.items():
        rows += [[DICE["human_loo_dice"], "each against the others", *dices], ["their nodules", "number", *counts]]
    return markdown_table(["method", "Dice", *part["columns"]], rows), []


def table_s1(part: dict, ours: Ours) -> Beside:
    """Return Table S1 with its rates recomputed, and ours on whole scans."""
    rows = []
    for name, (true, false, missed, *printed) in corrected(part).items():
        own = (number(value, 2) for value in rates(true, false, missed))
        rows.append([name, true, false, missed, *own, *(number(value, 1) for value in printed)])
    for one in ours.of("scans"):
        point = one.summary["operating_point"]["consensus"]
        own = (interval(_percent(point[key]), 2) for key in ("precision", "sensitivity", "f1"))
        counts = (point["hits"], point["false"], point["nodules"] - point["hits"])
        rows.append([f"**{one.name}**", *counts, *own, "-", "-", "-"])
    names = [*(f"{name}, recomputed" for name in part["printed"]), *(f"{name}, printed" for name in part["printed"])]
    reasons = [f"{one['method']}: {one['why']}." for one in part["corrections"]]
    return markdown_table(["method", *part["columns"], *names], rows), reasons


def table_s2(part: dict, ours: Ours) -> Beside:
    """Return what the supplement says of the detector alone and of the readers, with ours."""
    rows = [
        [name, *(number(value, 2) for value in row), number(2 * row[0] * row[1] / sum(row), 2)]
        for name, row in methods(part).items()
    ]
    if ours.detectors:
        rows += [
            [f"**{one['name']}** (crops of fold {ours.detectors['fold']})",
             *(interval(_percent(one[key]), 2) for key in ("precision", "recall", "f1"))]
            for one in ours.detectors["detectors"]
        ]  # fmt: skip
    printed = part["readers"]
    readers = {"printed": f"{printed['dice']:.1f} ({printed['low']} to {printed['high']})"}
    for one in ours.evaluations:
        whole = one.summary["groups"]["all"]
        said = f"**ours**, {whole['nodules']} nodules of {whole['patients']} patients"
        readers[said] = interval(_percent(whole["human_loo_dice"]), 2)
    detected = markdown_table(["detector", *part["columns"], "F1, recomputed"], rows)
    read = markdown_table(["readers", "Dice"], list(readers.items()))
    return f"{detected}\n{read}", [f"The readers printed: {printed['why']}."]


def reader_table(part: dict, ours: Ours) -> Beside:
    """Return the scores of the paper's readers and of ours; a dash where no study of ours was read."""
    printed = methods(part)
    rows = [[name, "CT and map", f"{mean:.1f} ({spread:.2f})"] for name, (mean, spread) in printed.items()]
    mean = sum(row[0] for row in printed.values()) / len(printed)
    rows.append(["mean of readers, recomputed", "CT and map", f"{mean:.1f} (printed {part['printed_mean']})"])
    if ours.reader_study is None:
        return markdown_table(part["columns"], [*rows, ["**ours**", "-", "-"]]), [part["to_do"]]
    own = ours.reader_study["readers"]
    rows += [[f"**{one['reader']}**", one["modality"], f"{one['mean']:.1f} ({one['sd']:.2f})"] for one in own]
    return markdown_table(part["columns"], rows), []


TABLES: dict[str, Callable[[dict, Ours], Beside]] = {
    "table_1": table_one,
    "table_2": table_two,
    "external": external_table,
    "table_s1": table_s1,
    "table_s2": table_s2,
    "reader_study": reader_table,
}
"""What sets each table of Resources/paper-tables.toml beside ours, in the order of the text."""


def _beside(printed: Mapping[str, Sequence[str]], columns: Sequence[str], ours: Ours, kind: str) -> str:
    """Return a table with the mean Dice of ours beside the cells of the paper's method of the same name."""
    rows = []
    for method, evaluations in ours.by_method(kind, printed).items():
        cells = [method, *printed.get(method, ["-"] * len(columns))]
        for one in evaluations:
            whole = one.summary["groups"]["all"]
            dices = [interval(_percent(whole[key]), 2) for key in DICE]
            rows.append([*cells, f"**{one.name}**", whole["nodules"], *dices])
        if method in printed and not evaluations:
            rows.append([*cells, *["-"] * (2 + len(DICE))])
    return markdown_table(["method", *columns, f"ours, {SETTING[kind]}", "nodules", *DICE.values()], rows)


def _percent(metric: dict) -> dict:
    return {key: None if value is None else 100 * value for key, value in metric.items()}


def _notes(sentences: Sequence[str]) -> str:
    return "".join(f"- {sentence}\n" for sentence in sentences)
