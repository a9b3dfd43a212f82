import pytest
from evaluation_data import ball, row, write_crops
from LNHGTrainingLib.evaluation import run
from small_data import data_config
from small_data import write_crops as write_small_crops
from tiny_model import write_model


@pytest.fixture
def crops(tmp_path):
    """Six balls of 3 to 8 mm radius of three patients; four readers who agree."""
    return write_crops(tmp_path, [row(i) for i in range(6)], [15 * ball((25, 25, 25), 3 + i) for i in range(6)])


@pytest.fixture
def no_plots(monkeypatch):
    """Leave out the drawing where a test is about something else."""
    for name in ("dice_vs_diameter", "bland_altman", "gallery", "froc_plot"):
        monkeypatch.setattr(run.plots, name, lambda *_: None)


@pytest.fixture
def tiny(tmp_path):
    """A model whose card names validation folds, beside the data that hold them."""
    write_small_crops(tmp_path / "data")
    data = {key: value for key, value in data_config(tmp_path / "data").items() if key != "folder"}
    grid = {"kind": "spacing", "spacing_mm": [1.0, 1.0, 1.0]}
    return write_model(tmp_path / "tiny", grid=grid, training={"generator": {"data": data}}, results={"old": 1})
