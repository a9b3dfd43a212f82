from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from LNHGLib.figures import preview
from LNHGLib.measurement.nodule import Nodule
from made_up_result import make_result
from matplotlib import image as png
from matplotlib.text import Text

GOLDEN = Path(__file__).parents[2] / "data" / "preview.png"


def test_the_picture_says_that_there_is_no_nodule_and_at_which_threshold(texts):
    preview.write_preview(make_result(centers=(), box=False), texts.path)
    assert any("No nodule found at threshold 0.30" in text for text in texts())


def test_the_picture_shows_number_score_provenance_size_and_volume(texts):
    result = make_result()
    preview.write_preview(result, texts.path)
    shown, measured = "\n".join(texts()), result.nodules[1].measurement
    assert "Nodule 2" in shown
    assert "score 0.60  ·  both branches agree" in shown
    assert f"{measured.short_axis_mm:.1f} mm  ·  {measured.volume_mm3:.0f} mm³" in shown
    assert "box only, not segmented" in shown


def test_the_picture_names_no_side_where_the_ct_tells_none(texts):
    for oriented in (True, False):
        result = make_result()
        source = replace(result.volume.source, oriented=oriented)
        result.volume = replace(result.volume, source=source)
        preview.write_preview(result, texts.path)
        assert ("R" in texts()) == oriented
        assert any("patient's right on the left" in text for text in texts()) == oriented


def test_the_picture_calls_a_probability_so(texts):
    result = make_result()
    result.report["score_scale"] = "probability"
    preview.write_preview(result, texts.path)
    assert any(text.startswith("probability 0.60  ·") for text in texts())


def test_the_picture_shows_the_eight_highest_scores_and_says_how_many_more_there_are(texts):
    result = make_result()
    box = result.nodules[2]
    result.nodules += [Nodule(n, n / 100, *list(vars(box).values())[2:]) for n in range(4, 11)]
    shown = preview.write_preview(result, texts.path)
    assert shown["nodules"] == [1, 2, 3, 10, 9, 8, 7, 6]
    assert any("2 more" in text for text in texts())


@pytest.fixture
def texts(monkeypatch, tmp_path):
    """The words in the picture drawn last, and a path to write it to."""
    figures = []
    save = preview.Figure.savefig
    monkeypatch.setattr(preview.Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1])

    def read():
        return [artist.get_text() for artist in figures[-1].findobj(Text)]

    read.path = tmp_path / "preview.png"
    return read


def test_the_picture_looks_like_the_golden_one(regenerate_golden, tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "DOTS_PER_INCH", 50)
    path = GOLDEN if regenerate_golden else tmp_path / "preview.png"
    preview.write_preview(make_result(), path)
    difference = np.abs(png.imread(path)[..., :3] - png.imread(GOLDEN)[..., :3])
    assert difference.mean() < 0.004
    assert (difference.max(-1) > 0.2).mean() < 0.004
