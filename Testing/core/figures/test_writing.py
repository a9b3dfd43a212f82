"""Text on figures is drawn as it is, whatever it holds."""

import pytest
from LNHGLib.figures import writing
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

NO_MARKUP = ("A$_$B", "$\\frac{1}{2", "100 % \\alpha", "$x$ and $y$", "_^{}", "<b>&amp;")


def drawn(text: str) -> int:
    """Draw a text and return how many pixels it has."""
    with writing.plain_text([text]):
        figure = Figure(figsize=(4, 1))
        canvas = FigureCanvasAgg(figure)
        figure.text(0.05, 0.5, writing.drawable(text))
        canvas.draw()
        pixels = canvas.buffer_rgba()
    return sum(value < 128 for value in bytes(pixels)[::4])


@pytest.mark.parametrize("text", NO_MARKUP)
def test_dollars_and_backslashes_are_no_formula(text):
    assert writing.drawable(text) == text
    assert drawn(text) > 20


@pytest.mark.parametrize("text", ["Wąsowski Łukasz", "Люксембург", "Διονυσιος", "قباني لنزار"])
def test_scripts_of_the_font_that_comes_along_are_drawn_as_they_are(text):
    assert writing.drawable(text) == text
    assert drawn(text) > 20


@pytest.mark.parametrize(
    ("text", "latin"),
    [
        ("홍길동", "HongGilDong"),
        ("やまだ", "yamada"),
        ("ヤマダ", "yamada"),
        ("王小東", "WangXiaoDong"),
        ("สมชาย", "smchay"),
        ("हिन्दी", "hindi"),
        ("A\x01B", "A B"),
        ("M\udcfcller", "M[DCFC]ller"),
    ],
)
def test_where_no_font_draws_a_script_it_stands_in_latin_letters(text, latin, monkeypatch):
    base = writing.font_manager.findfont(writing.BASE_FONT)
    monkeypatch.setattr(writing.font_manager.fontManager, "ttflist", [])
    monkeypatch.setattr(writing.font_manager, "findfont", lambda _: base)
    writing._fonts_for.cache_clear()
    try:
        assert writing.drawable(text) == latin
        assert set(writing.undrawable([text])) <= set(text)
    finally:
        writing._fonts_for.cache_clear()


def test_a_font_of_the_computer_is_taken_for_what_the_base_font_lacks(monkeypatch):
    base = writing.font_manager.findfont(writing.BASE_FONT)
    other = writing.font_manager.FontEntry(fname="other.ttf", name="Other", weight=400, style="normal")
    monkeypatch.setattr(writing.font_manager.fontManager, "ttflist", [other])
    monkeypatch.setattr(writing, "_drawn_by", lambda path: {ord("A")} if path == base else {ord("\u738b")})
    writing._fonts_for.cache_clear()
    try:
        assert writing._fonts_for(frozenset("A\u738b")) == (("Other",), frozenset())
        assert writing.drawable("A\u738b") == "A\u738b"
    finally:
        writing._fonts_for.cache_clear()
