"""The statistics of a reader study: one table of rows per question."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from LNHGLib.errors import InputError
from LNHGLib.reader_study import agreement_tables, mrmc_tables, score_tables
from LNHGLib.reader_study.reads import Reads
from LNHGLib.reader_study.scores import Score
from LNHGLib.reader_study.settings import Row, Settings


@dataclass(frozen=True)
class Study:
    """An analyzed study.

    Attributes:
        design: counts of readers, cases, reads and repeats, and the names of readers and modalities.
        tables: rows by the table's name; a table without rows is left out.
        notes: sentences for the user.
        reads: what was analyzed.
        truth: 1 for the disease, by case; empty where it is unknown.
        settings: what was chosen.
    """

    design: Row
    tables: dict[str, list[Row]]
    notes: list[str]
    reads: Reads
    truth: dict[str, int]
    settings: Settings


def analyze(scores: Sequence[Score], truth: Mapping[str, int] | None = None, settings: Settings | None = None) -> Study:
    """Analyze a study.

    Args:
        scores: all reads.
        truth: 1 for the disease, 0 without, by case; without it there are no areas under the ROC curve.
        settings: what was chosen.

    Returns:
        All tables that the scores allow.

    Raises:
        InputError: the scores lack a first read, or the truth has no case of one kind.
    """
    settings, reads = settings or Settings(), Reads(scores)
    notes: list[str] = []
    total, complete = len(reads.cases), len(reads.block().cases)
    known = {case: value for case, value in (truth or {}).items() if case in set(reads.cases)}
    positive = sum(known.values())
    if truth is not None and min(positive, len(known) - positive) < 2:
        raise InputError(
            f"The truth has {positive} positive and {len(known) - positive} negative of the {total} cases "
            "that were read, expected at least 2 of each; give the truth of the cases by the caseIDs of the scores."
        )
    if truth is not None and len(known) < total:
        notes.append(f"The truth of {total - len(known)} cases is unknown; the AUC leaves them out.")
    if complete < total:
        notes.append(
            f"{total - complete} of {total} cases were not read by every reader in every modality; what is computed "
            "over all readers leaves them out."
        )
    tables = {
        "readers": score_tables.reader_scores(reads, settings),
        "means": mrmc_tables.means(reads, settings),
        "auc": mrmc_tables.areas(reads, known, settings),
        "mrmc": mrmc_tables.compared_areas(reads, known, settings),
        "paired": score_tables.paired_differences(reads, settings),
        "kappa": agreement_tables.kappas(reads, settings),
        "icc": agreement_tables.iccs(reads, settings),
        "repeats": agreement_tables.repeats(reads, settings),
    }
    design = {
        "readers": reads.readers,
        "modalities": reads.modalities,
        "cases": total,
        "complete_cases": complete,
        "positive_cases": positive if known else None,
        "negative_cases": len(known) - positive if known else None,
        "reads": len(scores),
        "repeats": sum(score.repeat for score in scores),
    }
    return Study(design, {name: rows for name, rows in tables.items() if rows}, notes, reads, known, settings)
