"""The reads of a study, arranged for its analysis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from LNHGLib.errors import InputError, shown
from LNHGLib.reader_study.scores import MODALITIES, Score


@dataclass(frozen=True, eq=False)
class Block:
    """Scores of the cases that every reader read in every modality.

    Attributes:
        scores: float (modalities, readers, cases).
        cases: their names, in order.
    """

    scores: np.ndarray
    cases: tuple[str, ...]


class Reads:
    """The reads of a study.

    Attributes:
        readers: their names, sorted.
        modalities: CT, CT+map, then others by name.
        first: the first read of each case, by reader and modality, then case.
        second: the repeated read of those cases that have one, likewise.
    """

    def __init__(self, scores: Sequence[Score]) -> None:
        """Arrange scores.

        Args:
            scores: all reads of the study.

        Raises:
            InputError: a repeated read has no first one.
        """
        self.readers = tuple(sorted({score.reader for score in scores}))
        names = {score.modality for score in scores}
        known = [name for name in MODALITIES if name in names]
        self.modalities = (*known, *sorted(names - set(known)))
        self.first: dict[tuple[str, str], dict[str, Score]] = {
            (reader, modality): {} for reader in self.readers for modality in self.modalities
        }
        self.second: dict[tuple[str, str], dict[str, Score]] = {key: {} for key in self.first}
        for score in sorted(scores, key=lambda score: (score.session, score.order)):
            group = (self.second if score.repeat else self.first)[score.reader, score.modality]
            group.setdefault(score.case, score)
        for key, repeats in self.second.items():
            for case in set(repeats) - set(self.first[key]):
                raise InputError(
                    f"Reader {shown(key[0])} reads case {shown(case)} in modality {shown(key[1])} only as a repeat, "
                    "expected a first read; give all tables of the study."
                )

    @property
    def cases(self) -> tuple[str, ...]:
        """All cases, sorted."""
        return tuple(sorted({case for group in self.first.values() for case in group}))

    def scores(self, reader: str, modality: str, cases: Sequence[str]) -> np.ndarray:
        """Return one reader's first scores of some cases.

        Args:
            reader: name.
            modality: name.
            cases: names of cases that the reader read in this modality.

        Returns:
            Float (cases,).
        """
        group = self.first[reader, modality]
        return np.array([group[case].score for case in cases], float)

    def block(self, among: Mapping[str, object] | None = None) -> Block:
        """Return what every reader read in every modality.

        Args:
            among: cases to take, the keys of a mapping; all by default.

        Returns:
            The scores of the cases that nobody left out.
        """
        cases = [case for case in self.cases if among is None or case in among]
        cases = tuple(case for case in cases if all(case in group for group in self.first.values()))
        scores = [[self.scores(reader, name, cases) for reader in self.readers] for name in self.modalities]
        return Block(np.array(scores, float).reshape(len(self.modalities), len(self.readers), len(cases)), cases)

    def pairs(self, reader: str, modality: str | None) -> tuple[np.ndarray, np.ndarray]:
        """Return a reader's first and repeated scores of the same cases.

        Args:
            reader: name.
            modality: name; None takes all.

        Returns:
            Both float (pairs,).
        """
        names = self.modalities if modality is None else (modality,)
        both = [
            (self.first[reader, name][case].score, repeat.score)
            for name in names
            for case, repeat in sorted(self.second[reader, name].items())
        ]
        first, second = np.array(both, float).reshape(-1, 2).T
        return first, second
