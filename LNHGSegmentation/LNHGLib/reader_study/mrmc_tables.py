"""A reader study over its readers and cases: areas under ROC curves and mean scores of the modalities."""

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from LNHGLib.reader_study.reads import Reads
from LNHGLib.reader_study.settings import DELONG, JACKKNIFE, Row, Settings, bounds
from LNHGLib.stats import mrmc, roc
from LNHGLib.stats.agreement import Interval

COVARIANCE = {DELONG: roc.delong_covariance, JACKKNIFE: roc.jackknife_covariance}
AUC, MEAN = "AUC", "mean score"
MODALITY, DIFFERENCE, TEST = "modality", "difference", "test"
"""What a row tells: the metric of a modality, the difference of two, the test that all modalities are the same."""

COLUMNS = (
    *("figure", "holds_for", "what", "name", "reader"),
    *("value", "value_low", "value_high", "error", "statistic", "df_numerator", "df", "p"),
)
EMPTY_ROW: Row = dict.fromkeys(COLUMNS) | {"reader": ""}


def means(reads: Reads, settings: Settings) -> list[Row]:
    """Compare the mean scores of the modalities over readers and cases.

    Args:
        reads: all reads of the study.
        settings: the level of the intervals.

    Returns:
        The rows of all analyses; none with fewer than two cases that every reader read in every modality.
    """
    scores = reads.block().scores
    cases = scores.shape[2]
    if cases < 2:
        return []
    covariance = np.atleast_2d(np.cov(scores.reshape(-1, cases))) / cases
    return _over_readers(MEAN, scores.mean(axis=2), covariance, reads, settings)


def areas(reads: Reads, truth: Mapping[str, int], settings: Settings) -> list[Row]:
    """Measure the area under the ROC curve of each reader in each modality.

    Args:
        reads: all reads of the study.
        truth: 1 for the disease, 0 without, by case.
        settings: the covariance over cases and the level of the intervals.

    Returns:
        One row per reader and modality with two cases or more of each kind.
    """
    rows = []
    for (reader, modality), group in reads.first.items():
        cases = [case for case in group if case in truth]
        positive = np.array([truth[case] for case in cases], bool)
        if min(positive.sum(), (~positive).sum()) < 2:
            continue
        parts = roc.areas(reads.scores(reader, modality, cases)[None], positive)
        variance = float(COVARIANCE[settings.covariance](parts)[0, 0])
        low, high = roc.interval(float(parts.area[0]), variance, settings.level)
        counts = {"positive": int(positive.sum()), "negative": int((~positive).sum())}
        interval = Interval(float(parts.area[0]), low, high)
        rows.append({"reader": reader, "modality": modality, **counts, **bounds("auc", interval)})
    return rows


def compared_areas(reads: Reads, truth: Mapping[str, int], settings: Settings) -> list[Row]:
    """Compare the areas of the modalities over readers and cases (Obuchowski and Rockette 1995; Hillis 2014).

    Args:
        reads: all reads of the study.
        truth: 1 for the disease, 0 without, by case.
        settings: the covariance over cases and the level of the intervals.

    Returns:
        The rows of all analyses; none with fewer than two cases of a kind.
    """
    block = reads.block(truth)
    positive = np.array([truth[case] for case in block.cases], bool)
    if min(positive.sum(), (~positive).sum()) < 2:
        return []
    parts = roc.areas(block.scores.reshape(-1, len(positive)), positive)
    covariance = COVARIANCE[settings.covariance](parts)
    return _over_readers(AUC, parts.area.reshape(block.scores.shape[:2]), covariance, reads, settings)


def _over_readers(
    metric: str, values: np.ndarray, covariance: np.ndarray, reads: Reads, settings: Settings
) -> list[Row]:
    """Return the rows of all analyses; later modalities come first, so that a difference is CT+map minus CT.

    Args:
        metric: `AUC` or `MEAN`.
        values: float (modalities, readers).
        covariance: float (modalities * readers, modalities * readers), over cases.
        reads: the names of modalities and readers.
        settings: the level of the intervals.
    """
    modalities, readers = values.shape
    four = covariance.reshape(modalities, readers, modalities, readers)
    parts = mrmc.components(values[::-1], four[::-1, :, ::-1])
    names = reads.modalities[::-1]
    rows = []
    for analysis in mrmc.analyze(parts, names, settings.level):
        rows += [_row(found, figure=metric, holds_for=analysis.kind, what=MODALITY) for found in analysis.means[::-1]]
        rows += [_row(found, figure=metric, holds_for=analysis.kind, what=DIFFERENCE) for found in analysis.differences]
        if analysis.df is not None:
            test = {"figure": metric, "holds_for": analysis.kind, "what": TEST, "name": "all modalities alike"}
            numbers = {"statistic": analysis.statistic, "df_numerator": analysis.df[0], "df": analysis.df[1]}
            rows.append(EMPTY_ROW | test | numbers | {"p": analysis.p})
    for a, b in combinations(range(modalities), 2):
        differences = mrmc.by_reader(parts, reads.readers, (a, b), settings.level)
        for reader, found in zip(reads.readers, differences, strict=True):
            row = _row(found, figure=metric, holds_for=mrmc.FIXED_READERS, what=DIFFERENCE)
            rows.append(row | {"reader": reader, "name": f"{names[a]} - {names[b]}"})
    return rows


def _row(found: mrmc.Estimate, **what: str) -> Row:
    value = bounds("value", Interval(found.value, found.low, found.high))
    return EMPTY_ROW | what | {"name": found.name} | value | {"error": found.error, "df": found.df, "p": found.p}
