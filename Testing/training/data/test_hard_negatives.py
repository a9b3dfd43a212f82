"""Hard negatives: what a generator marks where no reader did, written by `mine` and drawn in training."""

import csv
import json
import sys

import numpy as np
import pytest
import small_data
from crop_files import write_crop_files
from LNHGLib.errors import InputError
from LNHGLib.image.volume import write_image
from LNHGLib.segmentation.ensemble import EnsemblePatch
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.config import Data, build
from LNHGTrainingLib.data import hard_negatives
from LNHGTrainingLib.data.background import load_sources
from LNHGTrainingLib.data.crops import LabeledVolume
from small_data import segmenter_patches
from tiny_model import tiny_chest, write_model

FIRST, SECOND = (15.0, 25.0, 12.0), (35.0, 25.0, 38.0)


def sources_of(data, cache):
    return load_sources(build(Data, data, "data."), cache)


def ball(center, radius):
    z, y, x = np.ogrid[:50, :50, :50]
    return (z - center[0]) ** 2 + (y - center[1]) ** 2 + (x - center[2]) ** 2 <= radius**2


def test_what_is_marked_counts_where_readers_saw_nothing():
    mask, known = ball((25, 25, 25), 5), ~ball(SECOND, 6)
    lungs = np.ones(mask.shape, bool)
    lungs[:, :, 45:] = False
    marked = mask | ball(FIRST, 3) | ball(SECOND, 3) | ball((25, 10, 48), 2)
    marked[5, 5, 5] = True
    volume = LabeledVolume(np.zeros(mask.shape, np.int16), mask, known, "P", {})
    ((box, own),) = hard_negatives.false_positives(marked * 0.1, volume, lungs)
    np.testing.assert_array_equal(own, ball(FIRST, 3)[box])
    assert not list(hard_negatives.false_positives(marked * 0.02, volume, lungs))


def test_what_all_members_mark_too_counts():
    marked = ball(FIRST, 3)
    box = tuple(slice(int(c) - 3, int(c) + 4) for c in FIRST)
    there, own = tuple(slice(3, 45) for _ in FIRST), marked[box]
    beside = 5 * ball((15, 25, 15), 1)
    seen = EnsemblePatch(there, (marked * 0.1 + beside * ~marked)[there])
    assert hard_negatives.marked_center(seen, box, own) == pytest.approx(FIRST)
    half = np.where(np.arange(50) < 12, 0.1, 0.0) * marked
    z, y, x = hard_negatives.marked_center(EnsemblePatch(there, half[there]), box, own)
    assert (z, y, x < 11.5) == (FIRST[0], FIRST[1], True)
    assert hard_negatives.marked_center(EnsemblePatch(there, 0.02 * marked[there]), box, own) is None


@pytest.fixture
def folder(tmp_path):
    """Two nodule crops, of folds 0 and 1, each with another bright ball that no reader outlined, and a chest."""
    hu = np.full((2, 50, 50, 50), -850.0)
    hu[:, ball((25, 25, 25), 5)] = 40
    hu[0, ball(FIRST, 3)] = hu[1, ball(SECOND, 3)] = 40
    bits = np.zeros(hu.shape, np.uint8)
    bits[:, ball((25, 25, 25), 7)] = 0b111
    rows = [
        {"row": i, "patient_id": f"P{i}", "usable": 1, "fold": i, "n_readers_usable": 3, "scan_test": 0,
         "luna_diameter_exact_mm": 10.0}
        for i in (0, 1)
    ]  # fmt: skip
    (tmp_path / "crops").mkdir()
    write_crop_files(tmp_path / "crops" / "luna16_crops.h5", tmp_path / "crops" / "luna16_crops.csv", rows, hu, bits)
    (tmp_path / "background").mkdir()
    chest = tiny_chest()
    write_image(chest.array, chest.grid, tmp_path / "background" / "chest.nii.gz")
    return tmp_path


@pytest.fixture
def configuration(folder):
    """The shipped recipe on the tiny data."""
    config = folder / "hard.toml"
    data = small_data.data_config(folder)
    lines = [f"{key} = {json.dumps(value)}" for key, value in data.items() if key not in ("folder", "background")]
    chest = "[[data.background]]\nfile = 'chest.nii.gz'\n"
    config.write_text("\n".join([f"base = '{small_data.RESOURCES / 'lnhg-hard.toml'}'", "[data]", *lines, chest]))
    return config


def test_places_are_mined_in_training_crops_and_backgrounds(folder, configuration, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    model = write_model(folder / "model", grid={"kind": "spacing", "spacing_mm": [1.0, 1.0, 1.0]})
    out = folder / "runs" / "hard.csv"
    command = ["mine", "--model", str(model.folder), "--config", str(configuration), "--data", str(folder)]
    assert main([*command, "--device", "cpu", str(out)]) == 0
    with out.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    (in_crop,) = (row for row in rows if row["crop"])
    assert in_crop["crop"] == "0"
    assert [float(in_crop[axis]) for axis in "zyx"] == pytest.approx(FIRST, abs=0.2)
    assert len([row for row in rows if row["background"] == "chest.nii.gz"]) >= 3
    shown = capsys.readouterr()
    assert f"{len(rows)} places" in shown.out
    assert "2/2" in shown.err
    (folder / "background" / "chest.nii.gz").unlink()
    assert main([*command, str(out)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_mined_places_are_drawn_without_a_target(folder):
    table = folder / "hard.csv"
    places = [("0", "", *FIRST), ("1", "", *SECOND), ("", "chest.nii.gz", 60, 100, 100), ("", "gone.nii.gz", 1, 1, 1)]
    lines = [",".join(map(str, place)) for place in (hard_negatives.COLUMNS, *places)]
    table.write_text("\n".join(lines))
    config = small_data.data_config(folder) | {"background": [{"file": "chest.nii.gz"}], "hard_negatives": str(table)}
    sources = sources_of(config, folder / "cache")
    assert [[place.center for place in group] for group in sources.negatives] == [[FIRST], [(60.0, 100.0, 100.0)]]
    shares = {"sides": [[3, 12, 12]], "nodule": 0.0, "surround": 0.0, "background": 0.0, "pasted": 0.0, "negative": 1.0}
    drawn = segmenter_patches(sources.train, [], shares, 0, negatives=sources.negatives[:1]).batch(0, 8)
    assert not drawn.mask.any()
    assert (drawn.image.amax((1, 2, 3, 4)) > 0.5).all()


def test_a_file_that_mine_did_not_write_is_refused(folder):
    config = small_data.data_config(folder) | {"hard_negatives": str(folder / "crops" / "luna16_crops.csv")}
    with pytest.raises(InputError, match="expected a file that `lnhg-train mine` wrote"):
        sources_of(config, folder / "cache")
    with pytest.raises(InputError, match="nowhere"):
        sources_of(config | {"hard_negatives": "nowhere.csv"}, folder / "cache")


def test_a_model_of_another_grid_is_refused(folder):
    with pytest.raises(InputError, match="expected 1 mm"):
        hard_negatives.mine(write_model(folder / "model"), [], [], folder / "hard.csv")


def test_a_background_is_prepared_anew_when_more_of_it_is_unknown(folder):
    first, second = (
        sources_of(
            small_data.data_config(folder) | {"background": [{"file": "chest.nii.gz", "unknown": boxes}]},
            folder / "cache",
        ).backgrounds[0]
        for boxes in ([], [[0, 20, 0, 80, 0, 80]])
    )
    assert len(second[1]) < len(first[1])
    assert second[0].known.sum() < first[0].known.sum()
