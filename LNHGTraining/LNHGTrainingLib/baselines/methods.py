"""The list of all systems of the documents: their networks, how they are trained here, and how long they were."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from LNHGLib.errors import InputError
from LNHGLib.files.text import markdown_table
from LNHGLib.models import folder as models
from LNHGLib.models.card import SECOND
from LNHGLib.models.classifier import build_classifier
from LNHGLib.models.detector import build_detector
from LNHGLib.models.gan import Critic
from LNHGLib.models.registry import build_generator

from LNHGTrainingLib import config as settings
from LNHGTrainingLib.baselines.ct_gan import Discriminator, Injector
from LNHGTrainingLib.evaluation.markdown import in_steps
from LNHGTrainingLib.paths import RESOURCES

BUILDERS = {
    "generator": build_generator,
    SECOND: build_generator,
    "detector": build_detector,
    "classifier": build_classifier,
    "injector": lambda table: Injector(table["width"]),
    "discriminator": lambda table: Discriminator(table["width"]),
}


@dataclass(frozen=True, kw_only=True)
class System:
    """A system of a document.

    Attributes:
        name: as tables call it.
        document: numbers of the documents that describe it.
        recipes: configurations of its trainings.
        settings: what is changed in them, as for `--set`.
        trained_with: what was changed besides in the training that was scored, so that a CPU could do it.
        model: name of the model that holds it, in place of recipes.
        parts: those parts of the model alone; all, when empty.
        command: what trains or scores it, where that is no recipe.
        missing: said in the place of its parameters, where there is no network to count.
        steps: of the training by each recipe; none: not trained.
        budget: letter that it shares with systems of another loss or network that had the same data, steps and batches.
        folds: how many such trainings there were.
        study: where they were scored, in Resources/Studies: at least on fold 0.
        by_slice: where they were scored as the document does it, with hits by slice.
        five_folds: where they were scored over five folds, if elsewhere.
        row: the method's name there, in a file of several.
        detection: where it was measured how well it finds nodules, in Resources/Studies.
        found_by: its name there.
        timed_as: the system of the same networks whose seconds a scan stand for its own.
        printed: what its document says that it reaches; of the LNHG paper, the row of its Table I.
    """

    name: str
    document: str
    recipes: list[str] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)
    trained_with: list[str] = field(default_factory=list)
    model: str = ""
    parts: list[str] = field(default_factory=list)
    command: str = ""
    missing: str = ""
    steps: list[int] = field(default_factory=list)
    budget: str = ""
    folds: int = 0
    study: str = ""
    by_slice: str = ""
    five_folds: str = ""
    row: str = ""
    detection: str = ""
    found_by: str = ""
    timed_as: str = ""
    printed: str = ""


def systems() -> list[System]:
    """Return all systems, in the order of Resources/methods.toml."""
    table = tomllib.loads((RESOURCES / "methods.toml").read_text(encoding="utf-8"))
    return [settings.build(System, each, "system.") for each in table["system"]]


def render() -> str:
    """Return the list as a Markdown table."""
    columns = ["system", "document", "parameters", "trained by", "trained"]
    rows = []
    for one in systems():
        by = one.command or f"model {one.model}"
        if not one.command and not one.model:
            by = ", ".join(one.recipes) + "".join(f" --set {change}" for change in one.settings) or "-"
        rows.append([one.name, one.document, parameters(one), by, trained(one)])
    return markdown_table(columns, rows)


def trained(system: System) -> str:
    """Return how long a system was trained, in words.

    Args:
        system: of the list.
    """
    if system.model:
        training = models.load(system.model).card.get("training", {})
        steps = {part: training[part]["checkpoint_step"] for part in system.parts or BUILDERS if part in training}
        return ", ".join(f"{part} {in_steps(count)}" for part, count in steps.items()).replace("_", " ")
    if not system.steps:
        return "not trained"
    lengths = [in_steps(count) for count in system.steps]
    if len(lengths) > 1:
        parts = [next(part for part in BUILDERS if part in settings.read(RESOURCES / each)) for each in system.recipes]
        lengths = [f"{part} {length}" for part, length in zip(parts, lengths, strict=True)]
    budget = f", budget {system.budget}" if system.budget else ""
    return f"{', '.join(lengths)}, {system.folds} {'folds' if system.folds > 1 else 'fold'}{budget}"


def count_parameters(config: Mapping[str, Any]) -> dict[str, int]:
    """Return how many trainable parameters each network of a recipe or a card has, by its part.

    Args:
        config: nested tables.
    """
    with torch.device("meta"):
        networks = {part: build(config[part]) for part, build in BUILDERS.items() if part in config}
        if config.get("loss", {}).get("adversarial"):
            critic = config["critic"]
            networks["critic"] = Critic(critic["width"], critic.get("slab"), critic["stride"])
    return {part: sum(p.numel() for p in network.parameters()) for part, network in networks.items()}


def parameters(system: System, as_trained: bool = False) -> str:
    """Return how many trainable parameters a system's networks have, by their parts.

    Args:
        system: of the list.
        as_trained: count what was trained in place of what its document has.
    """
    if system.missing:
        return system.missing
    tables = [settings.read(RESOURCES / name) for name in system.recipes]
    if system.model:
        card = models.load(system.model).card
        tables = [{part: card[part] for part in system.parts or BUILDERS if part in card}]
    changes = [*system.settings, *(system.trained_with if as_trained else ())]
    try:
        counts = [
            count_parameters(settings.override(table, [one for one in changes if one.partition(".")[0] in table]))
            for table in tables
        ]
    except InputError:  # a package is missing
        return "needs the extra baselines"
    return ", ".join(f"{part} {count:,}" for each in counts for part, count in each.items()).replace("_", " ")
