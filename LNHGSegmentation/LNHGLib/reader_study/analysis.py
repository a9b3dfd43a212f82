"""The statistics of a reader study: tables of rows, one table a question."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from LNHGLib.errors import InputError
from LNHGLib.reader_study import agreement_tables, mrmc_tables
from LNHGLib.reader_study.reads import Reads
from LNHGLib.reader_study.scores import Score
from LNHGLib.reader_study.settings import Row, Settings, bounds
from LNHGLib.stats import paired

MEASURES = ("score", "confidence", "seconds")


@dataclass(frozen=True)
class Study:
    """An analysed study.

    Attributes:
        design: counts of readers, cases, reads and repeats, and the names of readers and modalities.
        tables: rows by the table's name; a table without rows is left out.
        notes: sentences for the user.
        reads: what was analysed.
        truth: 1 for the disease, by case; empty where it is unknown.
        settings: what was chosen.
    """

    design: Row
    tables: dict[str, list[Row]]
    notes: list[str]
    reads: Reads
    truth: dict[str, int]
    settings: Settings


def analyse(scores: Sequence[Score], truth: Mapping[str, int] | None = None, settings: Settings | None = None) -> Study:
    """Analyse a study.

    Args:
        scores: all reads.
        truth: 1 for the disease, 0 without, by case; without it there are no areas under the ROC curve.
        settings: what was chosen.

    Raises:
        InputError: the scores lack a first read, or the truth has no case of one kind.
    """
    settings, reads = settings or Settings(), Reads(scores)
    notes: list[str] = []
    cases = set(reads.cases)
    known = {case: value for case, value in (truth or {}).items() if case in cases}
    if truth is not None:
        _require_both_kinds(known, reads, notes)
    left_out = len(cases) - len(reads.block().cases)
    if left_out:
        notes.append(
            f"{left_out} of {len(cases)} cases were not read by every reader in every modality; what is computed over "
            "all readers leaves them out."
        )
    made = {
        "readers": _readers(reads, settings),
        "means": mrmc_tables.means(reads, settings),
        "auc": mrmc_tables.areas(reads, known, settings),
        "mrmc": mrmc_tables.compared_areas(reads, known, settings),
        "paired": _paired(reads, settings),
        "kappa": agreement_tables.kappas(reads, settings),
        "icc": agreement_tables.iccs(reads, settings),
        "repeats": agreement_tables.repeats(reads, settings),
    }
    design = _design(scores, reads, known)
    return Study(design, {name: rows for name, rows in made.items() if rows}, notes, reads, known, settings)


def _design(scores: Sequence[Score], reads: Reads, known: Mapping[str, int]) -> Row:
    return {
        "readers": reads.readers,
        "modalities": reads.modalities,
        "cases": len(reads.cases),
        "complete_cases": len(reads.block().cases),
        "positive_cases": sum(known.values()) if known else None,
        "negative_cases": len(known) - sum(known.values()) if known else None,
        "reads": len(scores),
        "repeats": sum(score.repeat for score in scores),
    }


def _require_both_kinds(known: Mapping[str, int], reads: Reads, notes: list[str]) -> None:
    positive = sum(known.values())
    if min(positive, len(known) - positive) < 2:
        raise InputError(
            f"The truth has {positive} positive and {len(known) - positive} negative of the {len(reads.cases)} cases "
            "that were read, expected at least 2 of each; give the truth of the cases by the caseIDs of the scores."
        )
    if len(known) < len(reads.cases):
        notes.append(f"The truth of {len(reads.cases) - len(known)} cases is unknown; the AUC leaves them out.")


def _readers(reads: Reads, settings: Settings) -> list[Row]:
    """Mean and standard deviation of each reader: the table of the paper (register U17)."""
    rows = []
    for (reader, modality), group in reads.first.items():
        if not group:
            continue
        values = np.array([score.score for score in group.values()], float)
        seconds = [score.seconds for score in group.values() if score.seconds is not None]
        rows.append(
            {
                "reader": reader,
                "modality": modality,
                "cases": len(values),
                **bounds("mean", paired.mean(values, settings.level)),
                **bounds("sd", paired.deviation(values, settings.level)),
                "median": float(np.median(values)),
                "lowest": float(values.min()),
                "highest": float(values.max()),
                "median_seconds": float(np.median(seconds)) if seconds else np.nan,
            }
        )
    return rows


def _paired(reads: Reads, settings: Settings) -> list[Row]:
    """Each reader's two modalities on the same cases; Holm's correction over readers for each measure and pair."""
    rows = []
    for measure in MEASURES:
        for before, after in combinations(reads.modalities, 2):
            family = []
            for reader in reads.readers:
                apart = _apart(reads, reader, before, after, measure)
                if len(apart) < 2:
                    continue
                found = paired.compare(apart, settings.test, settings.level)
                family.append(
                    {
                        "measure": measure,
                        "reader": reader,
                        "comparison": f"{after} - {before}",
                        "cases": found.pairs,
                        "test": found.test,
                        **bounds("difference", found.difference),
                        "p": found.p,
                        "normality_p": found.normality_p,
                    }
                )
            adjusted = paired.holm([row["p"] for row in family])
            rows += [row | {"p_holm": p} for row, p in zip(family, adjusted, strict=True)]
    return rows


def _apart(reads: Reads, reader: str, before: str, after: str, measure: str) -> np.ndarray:
    first, second = reads.first[reader, before], reads.first[reader, after]
    values = [
        (getattr(first[case], measure), getattr(second[case], measure)) for case in sorted(set(first) & set(second))
    ]
    return np.array([b - a for a, b in values if a is not None and b is not None], float)
