"""Agreement between the readers of a study, and of each reader with themselves."""

from itertools import combinations

import numpy as np

from LNHGLib.reader_study.reads import Reads
from LNHGLib.reader_study.scores import HIGHEST_SCORE
from LNHGLib.reader_study.settings import Row, Settings, bounds
from LNHGLib.stats import agreement

ALL = "all"


def category(scores: np.ndarray, categories: int) -> np.ndarray:
    """Return the step 0, 1, ... of each score; 100 belongs to the last."""
    return np.minimum((np.asarray(scores, float) * categories / HIGHEST_SCORE).astype(int), categories - 1)


def _kappa_of(first: np.ndarray, second: np.ndarray, settings: Settings) -> agreement.Interval:
    steps = settings.categories
    table = agreement.crosstab(category(first, steps), category(second, steps), steps)
    return agreement.weighted_kappa(table, agreement.agreement_weights(steps), settings.level)


def kappas(reads: Reads, settings: Settings) -> list[Row]:
    """Weighted kappa of each two readers in each modality."""
    rows = []
    for modality in reads.modalities:
        for one, other in combinations(reads.readers, 2):
            cases = sorted(set(reads.first[one, modality]) & set(reads.first[other, modality]))
            if len(cases) < 2:
                continue
            found = _kappa_of(*(reads.scores(reader, modality, cases) for reader in (one, other)), settings)
            names = {"modality": modality, "reader": one, "other_reader": other, "cases": len(cases)}
            rows.append(names | bounds("kappa", found))
    return rows


def iccs(reads: Reads, settings: Settings) -> list[Row]:
    """ICC(2,1) among all readers in each modality."""
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
    """Repeated reads of each reader, over all modalities and in each."""
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
                    **bounds("kappa", _kappa_of(first, second, settings)),
                }
            )
    return rows
