"""Every error says in one sentence of at most 200 letters what was met and what to do."""

from pathlib import Path

import pytest
from error_sentences import MAX_LETTERS, Sentence, sentences

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
