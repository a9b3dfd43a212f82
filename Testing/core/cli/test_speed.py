"""The program that measures growth, jobs and the paper's networks: what it makes of a CT, and its tables."""

import json

import numpy as np
import pytest
import speed
from LNHGLib.image.volume import Grid, Source, Volume, write_image
from tiny_model import tiny_chest, write_model


@pytest.fixture
def a_ramp():
    """Return a volume whose values are the heights of its voxels in mm."""
    grid = Grid.aligned((40, 3, 4), (2.5, 1.0, 1.0), (0.0, 0.0, 10.0))
    heights = 10 + 2.5 * np.arange(40)
    return Volume(np.broadcast_to(heights[:, None, None], grid.shape).astype(np.float32), grid, Source("ramp"))


@pytest.mark.parametrize("slices", [20, 40, 133, 300])
def test_more_slices_span_the_same_height_and_stay_in_place(a_ramp, slices):
    made = speed.with_slices(a_ramp, slices)
    assert made.grid.shape == (slices, 3, 4)
    assert slices * made.grid.spacing_mm[0] == pytest.approx(100)
    heights = made.grid.index_to_lps([[z, 0, 0] for z in range(slices)])[:, 2]
    assert heights[0] - made.grid.spacing_mm[0] / 2 == pytest.approx(10 - 1.25)
    np.testing.assert_allclose(made.array[:, 0, 0], heights.clip(10, 107.5), atol=0.51)


@pytest.mark.parametrize("height_mm", [60, 100, 150, 270])
def test_a_taller_chest_is_mirrored_at_slices_of_1_mm(a_ramp, height_mm):
    made = speed.made_tall(a_ramp, height_mm)
    assert made.grid.shape == (height_mm, 3, 4)
    assert made.grid.spacing_mm[0] == pytest.approx(1)
    rows = made.array[:, 0, 0].astype(int)
    assert np.abs(np.diff(rows)).max() <= 1
    beyond = rows[100:200]
    np.testing.assert_array_equal(beyond, rows[:100][::-1][: len(beyond)])


def test_jobs_are_compared_by_their_medians():
    lines = [{"jobs": 1, "seconds": 40.0, "cpu_s": 60.0}, {"jobs": 2, "seconds": 20.0, "cpu_s": 62.0}] * 3
    lines.append({"jobs": 2, "seconds": 900.0, "cpu_s": 900.0})
    table = speed.render({"kind": "jobs", "scans": 4, "lines": lines}).splitlines()
    assert table[2:] == ["| 1 | 40 | 360 | 15.0 |", "| 2 | 20 | 720 | 15.5 |"]


def test_networks_are_compared_by_both_clocks():
    both = {"torch": {"seconds": 5.0, "cpu_s": 6.0}, "openvino": {"seconds": 2.0, "cpu_s": 3.0}, "apart": 5.3e-6}
    lines = [{"network": "generator", **both}, {"network": "detector", "torch": both["torch"]}]
    table = speed.render({"kind": "networks", "lines": lines}).splitlines()
    assert table[2:] == [
        "| generator | 5.00 | 6.00 | 2.00 | 3.00 | 2.50 | 2.00 | 5e-06 |",
        "| detector | 5.00 | 6.00 | - | - | - | - | - |",
    ]


def test_published_networks_see_each_slab_and_each_slice():
    seconds = {"openvino": [{"lungs": 1.0, "generator": 9.0}], "openvino bf16": [{"lungs": 1.0, "generator": 4.0}]}
    line = {"ct": "a", "slices": 100, "published": {"slab": 2.0, "slice": 4.0}, "seconds": seconds}
    table = speed.render({"kind": "published", "lines": [line]}).splitlines()  # 34 slabs and 100 slices
    assert table[2:] == ["| a | 100 | 468 | 10.0 | 47 | 5.0 | 94 |"]


def test_calls_take_turns_and_the_first_round_does_not_count():
    called = []
    measured = speed.in_turn({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 2)
    assert called == ["a", "b"] * 3
    assert set(measured["a"]) == {"seconds", "cpu_s"}


@pytest.mark.slow
def test_a_chest_is_measured_in_processes_of_their_own(tmp_path):
    chest, model = tiny_chest(), write_model(tmp_path / "tiny").folder
    write_image(chest.array, chest.grid, tmp_path / "ct.nii.gz")
    words = [str(tmp_path / "ct.nii.gz"), "--model", str(model), "--out", str(tmp_path / "study.json")]
    speed.main(["growth", *words, "--slices", "60", "--heights", "200", "--plot", str(tmp_path / "plot.png")])
    lines = json.loads((tmp_path / "study.json").read_text())["lines"]
    assert [(line["kind"], line["slices"]) for line in lines] == [("slices", 60), ("height_mm", 200)]
    assert all(line["peak_gb"] > 0.1 and line["cpu_s"] > 0 and "generator" in line["stages"] for line in lines)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    speed.main(["jobs", *words, "--copies", "2", "--repeats", "1"])
    lines = json.loads((tmp_path / "study.json").read_text())["lines"]
    assert sorted(line["jobs"] for line in lines) == [1, 2]
    words = [str(tmp_path / "ct.nii.gz"), f"A system={model}", "--repeats", "1", "--out", str(tmp_path / "study.json")]
    speed.main(["systems", *words])
    first = json.loads((tmp_path / "study.json").read_text())["seconds"]
    (taken,) = first["A system"]
    assert taken > 0
    speed.main(["systems", *[word.replace("A system", "Another") for word in words]])
    assert json.loads((tmp_path / "study.json").read_text())["seconds"].keys() == {"A system", "Another"}
