"""Every error says in one sentence of at most 200 letters what was met and what to do."""

from pathlib import Path

import pytest
from error_sentences import MAX_LETTERS, Sentence, sentences
from LNHGLib.errors import listed, quoted, shown

ROOT = Path(__file__).parents[1]


def test_every_error_is_one_short_sentence_with_advice():
    found = list(sentences(ROOT))
    assert len(found) > 250
    assert [fault for sentence in found for fault in sentence.faults()] == []


PLANTED = {
    "at most 200": "raise InputError(f'{path} " + "far too long " * 15 + "; mend it.')",
    "period": "raise InputError(f'{path} is wrong; mend it')",
    "more than one": "raise InputError(f'{path} is wrong. Expected right; mend it.')",
    "what was met": "raise WorkError('It went wrong; try again.')",
    "quotes in full": "raise InputError(f'{path} holds {value!r}, expected right; mend it.')",
    "what to do": "raise InputError(f'{value} is wrong, expected right.')",
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found(tmp_path, fault):
    module = tmp_path / "LNHGSegmentation" / "LNHGLib" / "planted.py"
    module.parent.mkdir(parents=True)
    module.write_text(f"def go(path, value):\n    {PLANTED[fault]}\n")
    (sentence,) = sentences(tmp_path)
    (met,) = sentence.faults()
    assert fault in met
    assert "planted.py:2" in met


def test_sentences_are_followed_to_where_they_are_made(tmp_path):
    module = tmp_path / "LNHGSegmentation" / "LNHGLib" / "planted.py"
    module.parent.mkdir(parents=True)
    module.write_text(
        "NOTE = 'none is there; add it.'\n"
        "def said(x):\n    return f'{x:.2f} is odd; give another.'\n"
        "def go(path):\n    wrong = f'{path} is wrong; ' + 'mend it.'\n"
        "    if path:\n        raise InputError(wrong)\n    raise WorkError(said(2) if path else NOTE)\n"
    )
    templates = {sentence.template for sentence in sentences(tmp_path)}
    assert templates == {"{path} is wrong; mend it.", "{x:.2f} is odd; give another.", "none is there; add it."}
    assert Sentence("here", "{x} is odd; give another.", MAX_LETTERS).faults() == []


def test_text_that_the_source_does_not_tell_is_refused(tmp_path):
    module = tmp_path / "LNHGSegmentation" / "LNHGLib" / "planted.py"
    module.parent.mkdir(parents=True)
    module.write_text("def go(text):\n    raise InputError(text)\n")
    with pytest.raises(LookupError, match="line 2"):
        list(sentences(tmp_path))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "'a'"),
        ("a\x0cb\nc", r"'a\x0cb\nc'"),
        ("x" * 300, f"'{'x' * 17}...{'x' * 18}'"),
        (2**4000, f"{2**4000}"[:18] + "..." + f"{2**4000}"[-19:]),
        (None, "None"),
        ([1, [2, [3]]], "[1, [2, [...]]]"),
    ],
)
def test_what_is_quoted_is_short_and_on_one_line(value, text):
    assert quoted(value) == text
    assert len(quoted([[value] * 50] * 50)) <= 40


def test_names_are_shown_without_quotation_marks_the_first_few():
    assert shown("it's") == "it's"
    assert len(shown("y" * 300)) == 40
    assert len(shown("1." * 32, 68)) == 64
    assert listed(["a", "b"]) == "a, b"
    assert listed("abcdefg") == "a, b, c, d and 3 more"
