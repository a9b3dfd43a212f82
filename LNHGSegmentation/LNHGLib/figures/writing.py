"""Text on figures: as it is, never read as markup, in fonts of this computer that can draw its script."""

import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache

import matplotlib
from anyascii import anyascii
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

BASE_FONT = "DejaVu Sans"
"""Comes with matplotlib: Latin, Greek, Cyrillic, Arabic and more."""
PLACEHOLDERS = "Last Resort"
"""Begins the name of a font that has a box for every character there is."""
REGULAR = 400


@contextmanager
def plain_text(texts: Iterable[str] = ()) -> Iterator[None]:
    """Write what is written in the block as it is: dollar signs make no formula, and each script gets a font.

    Args:
        texts: What comes from outside the program, such as names.
    """
    families, _ = _fonts_for(frozenset("".join(texts)))
    with (
        warnings.catch_warnings(),
        matplotlib.rc_context({"text.parse_math": False, "font.family": [BASE_FONT, *families]}),
    ):
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def drawable(text: str) -> str:
    """Return a text in characters that a font here can draw: those of other scripts in Latin letters.

    Ideographs are read as in Mandarin; what is no letter of any script becomes its number in Unicode.
    """
    _, missing = _fonts_for(frozenset(text))
    drawn = []
    for char in text:
        if char not in missing:
            drawn.append(char)
        elif latin := anyascii(char):
            drawn.append(latin if latin.isprintable() else " ")
        elif unicodedata.category(char) in ("Cs", "Co", "Cn"):
            drawn.append(f"[{ord(char):X}]")
    return "".join(drawn)


def undrawable(texts: Iterable[str]) -> str:
    """Return the characters that no font here can draw."""
    _, missing = _fonts_for(frozenset("".join(texts)))
    return "".join(sorted(missing))


@cache
def _fonts_for(chars: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the fonts that draw characters beside the base font, and what none draws."""
    base = font_manager.findfont(BASE_FONT)
    missing = {char for char in chars if ord(char) not in _drawn_by(base)}
    families: list[str] = []
    fonts = font_manager.fontManager.ttflist if missing else []
    for font in sorted(fonts, key=lambda font: (font.weight != REGULAR, font.style != "normal", font.name)):
        if font.name.startswith(PLACEHOLDERS) or font.name in families:
            continue
        found = {char for char in missing if ord(char) in _drawn_by(font.fname)}
        if found:
            families.append(font.name)
            missing -= found
        if not missing:
            break
    return tuple(families), frozenset(missing)


@cache
def _drawn_by(path: str) -> frozenset[int]:
    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # a font that went, or that is damaged
        return frozenset()
