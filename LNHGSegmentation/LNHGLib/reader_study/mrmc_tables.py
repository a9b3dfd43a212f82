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
"""What a row tells: the figure of a modality, the difference of two, the test that all modalities are the same."""


def means(reads: Reads, settings: Settings) -> list[Row]:
    """Mean score over readers and cases; its covariance over cases is that of means."""
    scores = reads.block().scores
    cases = scores.shape[2]
    if cases < 2:
        return []
    covariance = np.atleast_2d(np.cov(scores.reshape(-1, cases))) / cases
    return _over_readers(MEAN, scores.mean(axis=2), covariance, reads, settings)


def areas(reads: Reads, truth: Mapping[str, int], settings: Settings) -> list[Row]:
    """Area under the ROC curve of each reader and modality."""
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
    """Areas over readers and cases (Obuchowski and Rockette 1995; Hillis 2014)."""
    block = reads.block(truth)
    positive = np.array([truth[case] for case in block.cases], bool)
    if min(positive.sum(), (~positive).sum()) < 2:
        return []
    parts = roc.areas(block.scores.reshape(-1, len(positive)), positive)
    covariance = COVARIANCE[settings.covariance](parts)
    return _over_readers(AUC, parts.area.reshape(block.scores.shape[:2]), covariance, reads, settings)


def _over_readers(
    figure: str, figures: np.ndarray, covariance: np.ndarray, reads: Reads, settings: Settings
) -> list[Row]:
    """Rows of all analyses; later modalities come first, so that a difference is CT+map minus CT."""
    modalities, readers = figures.shape
    four = covariance.reshape(modalities, readers, modalities, readers)
    parts = mrmc.components(figures[::-1], four[::-1, :, ::-1])
    names = reads.modalities[::-1]
    rows = []
    for analysis in mrmc.analyse(parts, names, settings.level):
        rows += [_row(figure, analysis.kind, MODALITY, found) for found in analysis.means[::-1]]
        rows += [_row(figure, analysis.kind, DIFFERENCE, found) for found in analysis.differences]
        rows += _test(figure, analysis)
    for a, b in combinations(range(modalities), 2):
        for reader, found in zip(
            reads.readers, mrmc.by_reader(parts, reads.readers, (a, b), settings.level), strict=True
        ):
            row = _row(figure, mrmc.FIXED_READERS, DIFFERENCE, found)
            rows.append(row | {"reader": reader, "name": f"{names[a]} - {names[b]}"})
    return rows


def _row(figure: str, holds_for: str, what: str, found: mrmc.Estimate) -> Row:
    row = {"figure": figure, "holds_for": holds_for, "what": what, "name": found.name, "reader": ""}
    interval = bounds("value", Interval(found.value, found.low, found.high))
    return (
        row | interval | {"error": found.error, "statistic": None, "df_numerator": None, "df": found.df, "p": found.p}
    )


def _test(figure: str, analysis: mrmc.Analysis) -> list[Row]:
    if analysis.df is None:
        return []
    row = {"figure": figure, "holds_for": analysis.kind, "what": TEST, "name": "all modalities alike", "reader": ""}
    empty = {"value": None, "value_low": None, "value_high": None, "error": None}
    result = {"statistic": analysis.statistic, "df_numerator": analysis.df[0], "df": analysis.df[1], "p": analysis.p}
    return [row | empty | result]
