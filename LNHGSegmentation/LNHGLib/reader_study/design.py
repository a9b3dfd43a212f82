"""The design of a reader study: who reads what, when and in which order, randomized from one recorded seed.

Fully crossed and paired: every reader reads every case in both modalities, one of them in each of two sessions with a
wash-out between them. That is what the paper's reader study lacks (register U17).
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import count

from LNHGLib.errors import InputError, quoted
from LNHGLib.reader_study.scores import MODALITIES, SESSIONS

ALPHABET = "0123456789BCDFGHJKMNPQRSTVWXZ"  # no vowels: no words
NAME_LENGTH = 10
SEED_BITS = 128
MAX_REPEATS = 0.5
READER = re.compile(r"[A-Za-z0-9](?:[\w-]{0,30}[A-Za-z0-9])?", re.ASCII)


@dataclass(frozen=True)
class Secret:
    """All random choices of a study, from its seed alone: nothing of them depends on what the cases are.

    Each choice is an HMAC-SHA256 under the seed: no published name tells anything of another one or of the seed.
    """

    seed: int

    @classmethod
    def new(cls) -> "Secret":
        """Choose a seed that nobody can guess."""
        return cls(secrets.randbits(SEED_BITS))

    def number(self, *what: Hashable) -> int:
        """Return 256 random bits for a purpose, told by any values."""
        key = f"LNHG reader study {self.seed}".encode()
        return int.from_bytes(hmac.digest(key, repr(what).encode(), hashlib.sha256), "big")

    def names(self, number: int, *what: Hashable) -> list[str]:
        """Return different opaque names for a purpose.

        Args:
            number: how many.
            what: any values that tell the purpose.
        """
        names: dict[str, None] = {}
        for index in count():
            if len(names) == number:
                return list(names)
            bits = self.number("name", *what, index)
            letters = [ALPHABET[bits // len(ALPHABET) ** digit % len(ALPHABET)] for digit in range(NAME_LENGTH)]
            names["".join(letters)] = None
        raise AssertionError

    def uid(self, *what: Hashable) -> str:
        """Return a DICOM UID for a purpose, of the form made from a UUID (PS3.5 B.2)."""
        return f"2.25.{self.number('uid', *what) >> 128}"

    def shuffled(self, items: Sequence, *what: Hashable) -> list:
        """Return the items in a random order.

        Args:
            items: what to order.
            what: any values that tell the purpose.
        """
        order = sorted(range(len(items)), key=lambda index: self.number("order", *what, index))
        return [items[index] for index in order]


@dataclass(frozen=True)
class Read:
    """One picture, or stack of pictures, in front of one reader.

    Attributes:
        reader: name of the reader.
        case: index of the case.
        modality: of `MODALITIES`.
        session: of `SESSIONS`.
        order: position in the session, from 1.
        repeat: whether the reader has seen it earlier in the session.
        name: opaque, for the files; of this read alone.
    """

    reader: str
    case: int
    modality: str
    session: int
    order: int
    repeat: bool
    name: str


def parse_readers(text: str) -> list[str]:
    """Return the readers that a number (R1, R2, ...) or names separated by commas stand for.

    Raises:
        InputError: there are none, or a name does not suit as a folder's name or occurs twice.
    """
    names = [f"R{number}" for number in range(1, int(text) + 1)] if text.isdecimal() else text.split(",")
    names = [name.strip() for name in names]
    unfit = [name for name in names if not READER.fullmatch(name)]
    if not names or unfit or len({name.lower() for name in names}) < len(names):
        raise InputError(
            f"The readers are {quoted(text)}, expected a number from 1 or different names of letters, digits, - and _, "
            "separated by commas; change them."
        )
    return names


def plan(strata: Sequence[Hashable], readers: Sequence[str], repeats: float, secret: Secret) -> list[Read]:
    """Plan all reads.

    Args:
        strata: of each case what the modality order is to be balanced in: its truth, where that is known.
        readers: their names.
        repeats: fraction of the cases that each reader reads twice in each session, 0 to `MAX_REPEATS`.
        secret: source of all random choices.

    Returns:
        The reads by reader, session and order. Half of a reader's cases come first as CT alone, and half of the
        readers of a case see it first as CT alone, both to within one; no session shows a reader both modalities of a
        case; a third of the session or more lies between a read and its repeat.

    Raises:
        InputError: there is no case, or `repeats` is outside its range.
    """
    cases = range(len(strata))
    if not strata:
        raise InputError("There is no case to read, expected one or more; check the results and what is chosen.")
    if not 0 <= repeats <= MAX_REPEATS:
        raise InputError(f"The share of repeats is {repeats:g}, expected 0 to {MAX_REPEATS:g}; change it.")
    number = min(max(1, round(repeats * len(cases))), len(cases) // 2) if repeats else 0
    repeated = secret.shuffled(cases, "repeats")[:number]
    names = iter(secret.names(len(SESSIONS) * len(readers) * (len(cases) + number), "reads"))
    reads = []
    for index, reader in enumerate(readers):
        for session in SESSIONS:
            # Modalities alternate along a random order of the cases, the other way round for every second reader.
            shuffled = secret.shuffled(cases, "modalities", index // 2)
            shuffled.sort(key=lambda case: str(strata[case]))
            turn = index + SESSIONS.index(session)
            modalities = {case: MODALITIES[(position + turn) % 2] for position, case in enumerate(shuffled)}
            order = _reading_order(cases, repeated, (reader, session), secret)
            reads += [
                Read(reader, case, modalities[case], session, position, repeat, next(names))
                for position, (case, repeat) in enumerate(order, 1)
            ]
    return reads


def _reading_order(
    cases: Sequence[int], repeated: Sequence[int], who: tuple[str, int], secret: Secret
) -> list[tuple[int, bool]]:
    """Return the cases of a session in a random order: repeated ones stand in its first third and again in its last."""
    others = secret.shuffled([case for case in cases if case not in set(repeated)], "others", who)
    spare = max(0, (len(cases) + len(repeated)) // 3 - len(repeated))
    first = secret.shuffled([*repeated, *others[:spare]], "first", who)
    middle, last = others[spare : len(others) - spare], others[len(others) - spare :]
    again = [*((case, False) for case in last), *((case, True) for case in repeated)]
    return [*((case, False) for case in [*first, *middle]), *secret.shuffled(again, "last", who)]
