"""The scores of each reader of a study, and the differences between the modalities for each reader."""

from itertools import combinations

import numpy as np

from LNHGLib.reader_study.reads import Reads
from LNHGLib.reader_study.settings import Row, Settings, bounds
from LNHGLib.stats import paired

MEASURES = ("score", "confidence", "seconds")


def reader_scores(reads: Reads, settings: Settings) -> list[Row]:
    """Describe the scores of each reader in each modality: the table of the paper (register U17).

    Args:
        reads: all reads of the study.
        settings: the level of the intervals.

    Returns:
        One row per reader and modality that has reads.
    """
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


def paired_differences(reads: Reads, settings: Settings) -> list[Row]:
    """Compare each reader's modalities on the same cases.

    Args:
        reads: all reads of the study.
        settings: the paired test and the level of the intervals.

    Returns:
        One row per measure, pair of modalities and reader with two cases or more; `p_holm` is corrected over the
        readers.
    """
    rows = []
    for measure in MEASURES:
        for before, after in combinations(reads.modalities, 2):
            family = []
            for reader in reads.readers:
                first, second = reads.first[reader, before], reads.first[reader, after]
                values = [
                    (getattr(first[case], measure), getattr(second[case], measure))
                    for case in sorted(set(first) & set(second))
                ]
                differences = np.array([b - a for a, b in values if a is not None and b is not None], float)
                if len(differences) < 2:
                    continue
                found = paired.compare(differences, settings.test, settings.level)
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
