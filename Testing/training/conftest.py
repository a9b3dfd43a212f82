import pytest
from evaluation_data import ball, row, write_crops
from LNHGTrainingLib import evaluate


@pytest.fixture
def crops(tmp_path):
    """Six balls of 3 to 8 mm radius of three patients; four readers who agree."""
    return write_crops(tmp_path, [row(i) for i in range(6)], [15 * ball((25, 25, 25), 3 + i) for i in range(6)])


@pytest.fixture
def no_plots(monkeypatch):
    """Leave out the drawing where a test is about something else."""
    for name in ("dice_vs_diameter", "bland_altman", "gallery", "froc_plot"):
        monkeypatch.setattr(evaluate.plots, name, lambda *_: None)
