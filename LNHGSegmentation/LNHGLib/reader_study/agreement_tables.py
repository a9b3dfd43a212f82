"""Agreement between the readers of a study, and of each reader with themselves."""

from itertools import combinations

import numpy as np

from LNHGLib.reader_study.reads import Reads
from LNHGLib.reader_study.scores import MAX_SCORE
from LNHGLib.reader_study.settings import Row, Settings, bounds
from LNHGLib.stats import agreement

ALL = "all"


def _weighted_kappa(first: np.ndarray, second: np.ndarray, settings: Settings) -> agreement.Interval:
    """Return weighted kappa of scores put into equal steps 0, 1, ...; 100 belongs to the last one."""
    steps = settings.categories
    categories = [
        np.minimum((np.asarray(scores, float) * steps / MAX_SCORE).astype(int), steps - 1) for scores in (first, second)
    ]
    table = agreement.crosstab(*categories, steps)
    return agreement.weighted_kappa(table, agreement.agreement_weights(steps), settings.level)


def kappas(reads: Reads, settings: Settings) -> list[Row]:
    """Compute weighted kappa of each two readers in each modality.

    Args:
        reads: all reads of the study.
        settings: the number of categories and the level of the intervals.

    Returns:
        One row per modality and two readers with two cases or more in common.
    """
    rows = []
    for modality in reads.modalities:
        for one, other in combinations(reads.readers, 2):
            cases = sorted(set(reads.first[one, modality]) & set(reads.first[other, modality]))
            if len(cases) < 2:
                continue
            found = _weighted_kappa(*(reads.scores(reader, modality, cases) for reader in (one, other)), settings)
            names = {"modality": modality, "reader": one, "other_reader": other, "cases": len(cases)}
            rows.append(names | bounds("kappa", found))
    return rows


def iccs(reads: Reads, settings: Settings) -> list[Row]:
    """Compute ICC(2,1) among all readers in each modality.

    Args:
        reads: all reads of the study.
        settings: the level of the intervals.

    Returns:
        One row per modality with two cases or more that all readers read.
    """
    if len(reads.readers) < 2:
        return []
    rows = []
    for modality in reads.modalities:
        groups = [reads.first[reader, modality] for reader in reads.readers]
        cases = sorted(set.intersection(*map(set, groups)))
        if len(cases) > 1:
            table = np.column_stack([reads.scores(reader, modality, cases) for reader in reads.readers])
            names = {"modality": modality, "readers": len(reads.readers), "cases": len(cases)}
            rows.append(names | bounds("icc", agreement.icc(table, settings.level)))
    return rows


def repeats(reads: Reads, settings: Settings) -> list[Row]:
    """Compare the repeated reads of each reader with the first ones, over all modalities and in each.

    Args:
        reads: all reads of the study.
        settings: the number of categories and the level of the intervals.

    Returns:
        One row per reader and modality, or `ALL` of them, with two repeats or more.
    """
    rows = []
    for reader in reads.readers:
        for modality in (None, *reads.modalities) if len(reads.modalities) > 1 else (None,):
            first, second = reads.pairs(reader, modality)
            if len(first) < 2:
                continue
            found = agreement.repeatability(first, second, settings.level)
            both = np.column_stack([first, second])
            rows.append(
                {
                    "reader": reader,
                    "modality": modality or ALL,
                    "pairs": found.pairs,
                    **bounds("bias", found.bias),
                    **bounds("lower_limit", found.limits[0]),
                    **bounds("upper_limit", found.limits[1]),
                    **bounds("within_sd", found.within_sd),
                    **bounds("coefficient", found.coefficient),
                    **bounds("icc", agreement.icc(both, settings.level)),
                    **bounds("kappa", _weighted_kappa(first, second, settings)),
                }
            )
    return rows
