"""Several readers, cases and modalities: the analysis of Obuchowski and Rockette with the corrections of Hillis.

Sources: Obuchowski and Rockette (1995, Commun Stat Simul Comput 24:285) for the model; Hillis (2007, Stat Med 26:596)
for the degrees of freedom; Hillis (2014, Stat Med 33:330) for all three analyses below and the intervals of single
modalities. The figure of merit may be any (an area under the ROC curve, a mean score); all that is needed is its value
for each modality and reader and the covariance of these values over cases.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.stats import chi2, f, t

RANDOM, FIXED_READERS, FIXED_CASES = "random readers and cases", "fixed readers", "fixed cases"
"""To whom a result applies: other readers and cases; these readers with other cases; other readers with these cases."""


@dataclass(frozen=True)
class Estimate:
    """A value with what is known of it; `p` tests that it is 0 and is None for values that are not differences."""

    name: str
    value: float
    error: float
    df: float
    low: float
    high: float
    p: float | None = None


@dataclass(frozen=True)
class Analysis:
    """One of the three analyses.

    Attributes:
        kind: `RANDOM`, `FIXED_READERS` or `FIXED_CASES`.
        statistic: F, or chi square with fixed readers; None with a single modality.
        df: of its numerator and its denominator, the second infinite for chi square.
        p: that all modalities are the same.
        means: the reader-averaged figure of merit of each modality.
        differences: of two modalities each, the first minus the second.
    """

    kind: str
    statistic: float | None
    df: tuple[float, float] | None
    p: float | None
    means: tuple[Estimate, ...]
    differences: tuple[Estimate, ...]


@dataclass(frozen=True, eq=False)
class Components:
    """Mean squares and covariances of the model.

    Attributes:
        fom: figures of merit, float (modalities, readers).
        ms_modality: mean square of modalities; None with one modality.
        ms_reader: mean square of readers; None with one reader.
        ms_interaction: mean square of modalities by readers; None with one of either.
        variance: mean error variance over modalities and readers.
        cov1: mean covariance of one reader in two modalities.
        cov2: mean covariance of two readers in one modality.
        cov3: mean covariance of two readers in two modalities.
        ms_reader_each: float (modalities,), mean square of readers in each modality.
        variance_each: float (modalities,), mean error variance of each modality.
        cov2_each: float (modalities,), mean covariance of two readers in each modality.
        reader_variance: float (readers,), mean error variance of each reader.
        reader_cov1: float (readers,), mean covariance of each reader in two modalities.
    """

    fom: np.ndarray
    ms_modality: float | None
    ms_reader: float | None
    ms_interaction: float | None
    variance: float
    cov1: float
    cov2: float
    cov3: float
    ms_reader_each: np.ndarray
    variance_each: np.ndarray
    cov2_each: np.ndarray
    reader_variance: np.ndarray
    reader_cov1: np.ndarray


def components(fom: np.ndarray, covariance: np.ndarray) -> Components:
    """Split figures of merit and their covariance into the parts of the model.

    Args:
        fom: figures of merit, float (modalities, readers).
        covariance: float (modalities, readers, modalities, readers), over cases.
    """
    modalities, readers = fom.shape
    one_modality, one_reader = np.eye(modalities, dtype=bool), np.eye(readers, dtype=bool)
    both = covariance.transpose(0, 2, 1, 3)  # modality, modality, reader, reader

    def mean(same_modality: bool, same_reader: bool) -> float:
        chosen = both[one_modality == same_modality][:, one_reader == same_reader]
        return float(chosen.mean()) if chosen.size else 0.0

    by_modality, by_reader = fom.mean(axis=1), fom.mean(axis=0)
    rest = fom - by_modality[:, None] - by_reader[None, :] + fom.mean()
    of_reader = both[:, :, one_reader]  # modality, modality, reader
    of_modality = both[one_modality]  # modality, reader, reader
    pairs = of_modality[:, ~one_reader]
    return Components(
        fom,
        float(readers * by_modality.var(ddof=1)) if modalities > 1 else None,
        float(modalities * by_reader.var(ddof=1)) if readers > 1 else None,
        float((rest**2).sum() / ((modalities - 1) * (readers - 1))) if min(modalities, readers) > 1 else None,
        mean(True, True),
        mean(False, True),
        mean(True, False),
        mean(False, False),
        fom.var(axis=1, ddof=1) if readers > 1 else np.full(modalities, np.nan),
        of_modality[:, one_reader].mean(axis=1),
        pairs.mean(axis=1) if readers > 1 else np.zeros(modalities),
        of_reader[one_modality].mean(axis=0),
        of_reader[~one_modality].mean(axis=0) if modalities > 1 else np.zeros(readers),
    )


def analyze(parts: Components, names: tuple[str, ...], level: float = 0.95) -> list[Analysis]:
    """Do the analyses that the numbers of readers and modalities allow; one reader can only be a fixed one.

    Args:
        parts: components of the figures of merit.
        names: of the modalities.
        level: of the confidence intervals.

    Returns:
        One analysis per kind: `RANDOM`, `FIXED_READERS`, `FIXED_CASES`, or the second alone.
    """
    modalities, readers = parts.fom.shape
    averages = parts.fom.mean(axis=1)
    analyses = []
    for term in _error_terms(parts):
        means = tuple(
            estimate(*values, level) for values in zip(names, averages, term.errors, term.df_each, strict=True)
        )
        if term.denominator is None:
            analyses.append(Analysis(term.kind, None, None, None, means, ()))
            continue
        error = np.sqrt(2 * term.denominator / readers)
        differences = tuple(
            difference(f"{names[a]} - {names[b]}", averages[a] - averages[b], error, term.df, level)
            for a, b in combinations(range(modalities), 2)
        )
        statistic = parts.ms_modality / term.denominator if term.denominator > 0 else np.nan
        if np.isfinite(term.df):
            p = f.sf(statistic, modalities - 1, term.df)
        else:
            statistic *= modalities - 1
            p = chi2.sf(statistic, modalities - 1)
        df = (modalities - 1.0, float(term.df))
        analyses.append(Analysis(term.kind, float(statistic), df, float(p), means, differences))
    return analyses


class ErrorTerm(NamedTuple):
    """What one of the three analyses compares modalities with.

    Attributes:
        kind: `RANDOM`, `FIXED_READERS` or `FIXED_CASES`.
        errors: float (modalities,), standard error of each modality's mean over the readers.
        df_each: degrees of freedom of each of these errors.
        denominator: of the F statistic of all modalities; None with a single one.
        df: its degrees of freedom.
    """

    kind: str
    errors: np.ndarray
    df_each: list[float]
    denominator: float | None
    df: float


def _error_terms(parts: Components) -> list[ErrorTerm]:
    """Return the error terms of all analyses that the number of readers allows (Hillis 2014, section 3)."""
    modalities, readers = parts.fom.shape

    # Readers fixed: all variation comes from cases, whose number is large, hence no degrees of freedom.
    errors = np.sqrt((parts.variance_each + (readers - 1) * np.maximum(parts.cov2_each, 0)) / readers)
    denominator = None
    if modalities > 1:
        denominator = parts.variance - parts.cov1 + (readers - 1) * max(parts.cov2 - parts.cov3, 0.0)
    fixed_readers = ErrorTerm(FIXED_READERS, errors, [np.inf] * modalities, denominator, np.inf)
    if readers == 1:
        return [fixed_readers]

    # Cases fixed: an analysis of variance of readers by modalities, as no covariance comes from cases that stay.
    errors, df = np.sqrt(parts.ms_reader_each / readers), (modalities - 1.0) * (readers - 1.0)
    fixed_cases = ErrorTerm(FIXED_CASES, errors, [readers - 1.0] * modalities, parts.ms_interaction, df)

    # Both random: the denominator and its degrees of freedom of Hillis 2007.
    each = parts.ms_reader_each + readers * np.maximum(parts.cov2_each, 0)
    df_each = [
        _satterthwaite(total, square, readers - 1) for total, square in zip(each, parts.ms_reader_each, strict=True)
    ]
    denominator, df = None, np.nan
    if parts.ms_interaction is not None:
        denominator = parts.ms_interaction + readers * max(parts.cov2 - parts.cov3, 0.0)
        df = _satterthwaite(denominator, parts.ms_interaction, (modalities - 1) * (readers - 1))
    random = ErrorTerm(RANDOM, np.sqrt(each / readers), df_each, denominator, df)
    return [random, fixed_readers, fixed_cases]


def by_reader(
    parts: Components, readers: tuple[str, ...], pair: tuple[int, int], level: float = 0.95
) -> list[Estimate]:
    """Return each reader's difference of two modalities, for these readers and other cases (Hillis 2014, section 3).

    Args:
        parts: components of the figures of merit.
        readers: their names.
        pair: the two modalities by index; the first minus the second.
        level: of the confidence intervals.

    Returns:
        One estimate per reader.
    """
    differences = parts.fom[pair[0]] - parts.fom[pair[1]]
    errors = np.sqrt(np.maximum(2 * (parts.reader_variance - parts.reader_cov1), 0))
    return [difference(*values, np.inf, level) for values in zip(readers, differences, errors, strict=True)]


def _satterthwaite(total: float, square: float, df: float) -> float:
    return float(total**2 / square**2 * df) if square > 0 else np.inf


def estimate(name: str, value: float, error: float, df: float, level: float = 0.95) -> Estimate:
    """Return a value with its t interval.

    Args:
        name: of the value.
        value: the value.
        error: its standard error.
        df: degrees of freedom of the error; infinite for a normal interval.
        level: of the confidence interval.
    """
    value, reach = float(value), float(t.ppf((1 + level) / 2, df) * error)
    return Estimate(name, value, float(error), float(df), value - reach, value + reach)


def difference(name: str, value: float, error: float, df: float, level: float = 0.95) -> Estimate:
    """Return a difference with its interval and the p value of the test that it is 0, NaN without any variation.

    Args:
        name: of the value.
        value: the value.
        error: its standard error.
        df: degrees of freedom of the error; infinite for a normal interval.
        level: of the confidence interval.
    """
    plain = estimate(name, value, error, df, level)
    p = float(2 * t.sf(abs(value) / error, df)) if error > 0 else np.nan
    return Estimate(plain.name, plain.value, plain.error, plain.df, plain.low, plain.high, p)
